"""``hpcspin label``: exact fields of given spins, shared out over ranks, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.config import Config
from hpcspin.electrons import DrivenLattice, label_snapshots
from hpcspin.parallel.world import World
from hpcspin.storage import LabelWriter, read_spins, require_output, sha256
from hpcspin.workflows.sole_writer import sole_writer
from hpcspin.workflows.system import build_system


def label_file(
    config: Config, spins_path: Path, output: Path, world: World, origin: Mapping[str, Any] | None = None
) -> None:
    """Label every snapshot of a spins file.

    The ranks share the work as `label_snapshots` says; rank 0 writes. A killed job resumes at the first snapshot
    without a label.

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
    system, spins, attributes = build_system(config), None, None
    if world.rank == 0:
        spins = read_spins(spins_path, config.lattice.size)
        require_output(output, spins_path)
        attributes = {
            "config": config.model_dump(mode="json"),
            "spins_sha256": sha256(spins_path),
            **({"origin": dict(origin)} if origin else {}),
        }
    spins, attributes = world.broadcast((spins, attributes))
    write_label_file(system, spins, output, attributes, world, config.device)


def write_label_file(
    system: DrivenLattice,
    spins: NDArray[np.float64],
    output: Path,
    attributes: Mapping[str, Any],
    world: World,
    device: str = "auto",
) -> None:
    """Label spins of shape (n, Lx, Ly, 3), the same on all ranks; rank 0 writes, and goes on where a file stands."""
    with sole_writer(output, world, directory=False):
        _write(system, spins, output, attributes, world, device)


def _write(
    system: DrivenLattice,
    spins: NDArray[np.float64],
    output: Path,
    attributes: Mapping[str, Any],
    world: World,
    device: str,
) -> None:
    writer = None
    if world.rank == 0:
        names = [reservoir.name for reservoir in system.reservoirs]
        given = {**attributes, "precision": system.precision}
        writer = LabelWriter(output, system.lattice.size, names, given, len(spins))
    done = world.broadcast(writer.done if writer else None)

    def frame(number: int) -> NDArray[np.float64]:
        return spins[number : number + 1]

    for snapshot, state in label_snapshots(system, frame, len(spins), world, device, done):
        assert writer is not None
        writer.append(snapshot, state.field, state.density, state.current, state.error)
    if writer is not None:
        writer.finish()
        world.say(f"label: {len(spins)} snapshots in {output}")
