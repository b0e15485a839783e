"""``hpcspin label``: exact fields of given spins, shared out over ranks, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcspin.config import Config
from hpcspin.electrons import SOLVERS
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.storage import LabelWriter, read_spins, require_output, sha256
from hpcspin.workflows.system import build_solver, build_system


def label_file(
    config: Config, spins_path: Path, output: Path, world: World, origin: Mapping[str, Any] | None = None
) -> None:
    """Label every snapshot of a spins file.

    The ranks form as many teams as there are snapshots left, at most one a
    rank, or fewer where one rank cannot hold the lattice; each team solves one
    snapshot at a time, its ranks sharing the energies or the columns of sites.
    Rank 0 writes. A killed job resumes at the first snapshot without a label.

    Parameters
    ----------
    config
        Must hold ``electrons``.
    spins_path
        HDF5 file with ``/spins`` of shape (n, Lx, Ly, 3).
    output
        Label file to write.
    world
        The ranks.
    origin
        JSON values for the file's attributes: where the spins come from.

    Raises
    ------
    HpcspinError
        If the spins are invalid, the output cannot be written, or a label misses its tolerance.
    """
    system, electrons = build_system(config), config.electrons
    assert electrons is not None
    spins, writer = None, None
    if world.rank == 0:
        spins = read_spins(spins_path, config.lattice.size)
        require_output(output, spins_path)
        attributes = {
            "config": config.model_dump(mode="json"),
            "precision": electrons.precision,
            "spins_sha256": sha256(spins_path),
            **({"origin": dict(origin)} if origin else {}),
        }
        names = [reservoir.name for reservoir in system.reservoirs]
        writer = LabelWriter(output, config.lattice.size, names, attributes, len(spins))
    spins, done = world.broadcast((spins, writer.done) if writer else None)
    needed = SOLVERS[electrons.solver].ranks_needed(system, world, pick_device(world, config.device))
    teams = max(1, min(world.size // needed, len(spins) - done))
    number, team = world.split(teams)
    solver = build_solver(config, system, team)
    with progress(world, "label", len(spins), done) as bar:
        for first in range(done, len(spins), teams):
            mine = first + number
            # Without the memory of the snapshots before, a label does not depend on who made it.
            solver.reset()
            state = solver.solve(spins[mine : mine + 1]) if mine < len(spins) else None
            states = world.gather(state if team.rank == 0 else None)
            if writer is None or states is None:
                continue
            for offset, solved in enumerate(found for found in states if found is not None):
                snapshot = spins[first + offset : first + offset + 1]
                writer.append(snapshot, solved.field, solved.density, solved.current, solved.error)
                bar.advance(note=f"error {solved.error.max():.1e}")
    if writer is not None:
        writer.finish()
        world.say(f"label: {len(spins)} snapshots in {output}")
