"""``hpcspin label``: exact fields of given spins, shared among ranks, resumable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hpcspin.assembly.outputs import sole_writer
from hpcspin.assembly.system import build_system
from hpcspin.config import Config
from hpcspin.dynamics import EXIT_REQUEUE
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.electrons import DrivenLattice, ElectronSystem, Transport, label_snapshots
from hpcspin.electrons.labelling import Frame
from hpcspin.electrons.settings import ElectronsSettings
from hpcspin.parallel.world import World
from hpcspin.storage import LabelWriter, SpinsFile, partial_path, read_attributes, require_output, require_same_config


def label_file(
    config: Config,
    spins_path: Path,
    output: Path,
    world: World,
    origin: Mapping[str, Any] | None = None,
    snapshots: range | None = None,
) -> int:
    """Label every snapshot of a file of spins, or those of ``snapshots``; each rank reads only those that it solves.

    ``origin`` tells where the spins come from and is stored with the labels as JSON values. Returns the exit code.
    """
    system, attributes = build_system(config), None
    lattice = system.lattice
    open_source = partial(
        SpinsFile, spins_path, lattice.size, lattice.cartesian(lattice.sites), config.lattice.kind, system.vacancies
    )
    if world.rank == 0:
        source = open_source()
        source.check()
        require_output(output, *source.files)
        attributes = {
            "config": config.model_dump(mode="json"),
            "spins_sha256": source.sha256(),
            **({"origin": dict(origin)} if origin else {}),
        }
    attributes = world.broadcast(attributes)
    source = open_source()
    energies = config.section(ElectronsSettings).transport
    these = range(source.count) if snapshots is None else snapshots
    return write_label_file(
        system, lambda n: source.read(these[n]), len(these), output, attributes, world, config.device, energies
    )


def write_label_file(
    system: ElectronSystem,
    frame: Frame,
    count: int,
    output: Path,
    attributes: Mapping[str, Any],
    world: World,
    device: str = "auto",
    energies: Sequence[float] | None = None,
) -> int:
    """Label snapshots by `label_snapshots`; rank 0 writes, continues an unfinished file and keeps a finished one.

    Returns the exit code: `EXIT_REQUEUE` if it was asked to stop, by a signal or the file STOP beside the output.
    """
    writer: LabelWriter | None = None
    given = {**attributes, "precision": system.precision}
    flowing = {} if energies is None else Transport.shapes(system, energies)
    if isinstance(system, DrivenLattice):
        given["reservoirs"] = [reservoir.name for reservoir in system.reservoirs]
    with sole_writer(output, world, directory=False):
        if world.broadcast(_is_finished(output, {**given, "snapshots": count}) if world.rank == 0 else None):
            world.log_result(f"{output}: {count} snapshots, all of them labelled already")
            return 0
        if world.rank == 0:
            writer = LabelWriter(output, system.lattice.size, {**system.result_shapes, **flowing}, given, count)
        done = world.broadcast(writer.done if writer else None)
        with StopRequest(output.parent / "STOP", world) as stop:
            labels = label_snapshots(system, frame, count, world, device, done, energies, stop.requested)
            for snapshot, state, flows in labels:
                assert writer is not None
                others = {name: getattr(state, name) for name in system.result_shapes}
                others |= {name: getattr(flows, name)[None] for name in flowing}
                writer.append(spins=snapshot, field=state.field, **others)
        done = world.broadcast(writer.done if writer else None)
        if done < count:
            world.log(f"label: stopped after {done} of {count} snapshots; the same command goes on")
            return EXIT_REQUEUE
        if writer is not None:
            writer.finish()
            world.log_result(f"{output}: {count} snapshots")
    return 0


def _is_finished(output: Path, given: Mapping[str, Any]) -> bool:
    """Whether a finished file has these labels; one with others may have taken hours, and is not replaced."""
    if not output.exists() or partial_path(output).exists():
        return False
    stored = read_attributes(output)
    wanted = json.loads(json.dumps(given))
    require_same_config({key: stored.get(key) for key in wanted}, wanted, output, "choose another output")
    return True
