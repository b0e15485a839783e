"""``hpcspin report``: a page about any output; for a reproduction also the paper's figures and its numbers."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.agreement import require_electrons
from hpcspin.assembly.outputs import Layout, sole_writer
from hpcspin.assembly.system import build_system
from hpcspin.config import Config, DynamicsSection, ReproduceSection, parse_config
from hpcspin.drawing import closed, driven, figures
from hpcspin.drawing.comparison import Compared, ComparedRun
from hpcspin.drawing.contents import describe, find_kind
from hpcspin.drawing.lattice_figures import flow_maps
from hpcspin.drawing.page import page
from hpcspin.drawing.series import some_frames
from hpcspin.drawing.tables import REPRODUCTION, print_table, reproduction_rows
from hpcspin.electrons import DrivenLattice, estimate_nonconservativity, make_solver
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import PredictedFields, load_force
from hpcspin.storage import (
    SPINS,
    FrameReader,
    make_directory,
    open_hdf5,
    provenance,
    read_attributes,
    read_json,
    read_labels,
    read_rows,
    real_dataset,
    write_json,
    write_text,
)

_LABELLED = 21
"""Frames of a learned run of a closed lattice that get exact labels."""
_DIFFERENCED = 1e-8
"""Tolerance of the fields of which finite differences are taken."""
_PARITY_SITES = 20_000

Array = NDArray[np.float64]


def report_directory(directory: Path, world: World, driven_states: int = 0, watch: int | None = None) -> None:
    """Write ``report.html``, one page that needs no other file, about any output of a verb.

    Of a single label file ``NAME.h5`` the page is ``NAME.html`` beside it, with a picture of its currents if it holds
    any. Of a reproduction the figures and ``numbers.json`` are made again from its files; ``driven_states`` is the
    number of states of its first test trajectory at which to measure how far the exact field is from that of any
    energy, 144 exact labels each. With ``watch`` the page, and only the page, is written again after as many seconds,
    until the job is done. Only rank 0 works, except on the states.
    """
    if watch is None:
        if find_kind(directory) == "reproduce" or driven_states:
            _report_reproduction(directory, world, driven_states)
        if world.rank == 0:
            _write_page(directory, world, None)
            if directory.is_file():
                draw_flows(directory, world)
        return
    while world.rank == 0 and _keeps_running(directory, world, watch):
        time.sleep(watch)


def _keeps_running(directory: Path, world: World, seconds: int) -> bool:
    """Write the page of a job; files that cannot be read yet may be readable next time."""
    try:
        return _write_page(directory, world, seconds)
    except HpcspinError as failure:
        world.log(f"waiting: {failure}")
        return True


def _write_page(output: Path, world: World, seconds: int | None) -> bool:
    """Write the page; returns whether the job has more to do."""
    kind = find_kind(output)
    sections, unfinished = describe(output, kind)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = f"hpcspin {kind}, as the files were at {now}; {'not finished' if unfinished else 'finished'}"
    path = output / "report.html" if output.is_dir() else output.with_suffix(".html")
    write_text(path, page(output.resolve().name, about, sections, seconds if unfinished else None))
    world.log_result(f"{path}: the report, for a browser")
    return unfinished


def _report_reproduction(directory: Path, world: World, driven_states: int) -> None:
    layout = Layout(directory)
    config = _read_config(layout)
    with sole_writer(directory, world):
        if driven_states:
            run = _read_run(layout.trajectory("electrons", "test-000"))
            _driven_distances(config, run, driven_states, world, layout.nonconservativity)
        write_numbers(layout, draw_figures(layout, world), world)


def draw_flows(labels: Path, world: World) -> None:
    """Draw the currents of the last snapshot of a label file, if it holds any, as a PNG of its name beside it."""
    stored = read_attributes(labels).get("config", {})
    with FrameReader(labels) as frames:
        if not {"bond_current", "bond_spin_current"} <= set(frames.names) or "electrons" not in stored:
            return
        shown = {"bond_current", "bond_spin_current", "ldos", "transmission"} & set(frames.names)
        flows = {name: getattr(frames, name)[-1] for name in shown}
        spins = frames.spins[-1]
    system = build_system(parse_config({name: stored[name] for name in ("lattice", "electrons")}, str(labels)))
    energies, path = stored["electrons"].get("transport") or (), labels.with_suffix(".png")
    spins = np.where(system.occupied[..., None], spins, np.nan)
    offsets = [term.offset for term in system.hopping_terms]
    names = [reservoir.name for reservoir in getattr(system, "reservoirs", ())]
    flow_maps(system.lattice, offsets, spins, flows, energies, path, names)
    world.log_result(f"{path}")


def draw_figures(layout: Layout, world: World) -> dict[str, Any]:
    """Draw the figures of a reproduction on rank 0; return what was measured for them, an empty dict on other ranks."""
    config = _read_config(layout)
    if world.rank > 0:
        return {}
    system = build_system(config)
    lattice = system.lattice
    names = [f"test-{number:03d}" for number in range(len(config.section(ReproduceSection).test))]
    model = load_force(layout.model)
    paths = {field: [layout.trajectory(field, name) for name in names] for field in ("electrons", "learned")}
    allow = config.section(DynamicsSection).allow
    for path in (*paths["electrons"], *paths["learned"]):
        stored = read_attributes(path).get("config", {})
        require_electrons(stored, model.card, (str(layout.model), str(path)), allow, world)
    exact, learned = ([_read_run(path) for path in found] for found in paths.values())
    evaluation = _read_json(layout.evaluation)
    model = model.to(pick_device(world, config.device))
    predicted = [model.predict(run.spins, lattice, model.drive(system)) for run in exact]

    make_directory(layout.figures)
    _draw_parity(exact, predicted, layout.figures / "torque_parity.png")
    test = {name: value for name, value in evaluation.items() if name != "snapshot_mse"}
    pairs = dict(zip(names, zip(exact, learned, predicted, strict=True), strict=True))
    if isinstance(system, DrivenLattice):
        driven_runs = {name: Compared(*pair) for name, pair in pairs.items()}
        return {"test": test, **driven.draw(lattice, driven_runs, layout.figures)}

    def energies(run: ComparedRun) -> Array | None:
        return model.potentials(run.spins, lattice, model.drive(system)).energy if model.has_potentials else None

    quenches = {}
    for name, pair in pairs.items():
        labelled = _read_labelled(layout.labelled(name), pair[1])
        quenches[name] = closed.Quench(*pair, labelled, energies(pair[0]), energies(labelled))
    return {"test": test, **closed.draw(lattice, quenches, layout.figures)}


def write_numbers(layout: Layout, measured: dict[str, Any], world: World) -> None:
    """Write ``numbers.json`` on rank 0, with what was measured and the seconds of all stages, and print a table."""
    if world.rank > 0:
        return
    numbers = {
        **measured,
        "nonconservativity": _read_json(layout.nonconservativity, list) if layout.nonconservativity.exists() else [],
        "stage_seconds": _read_json(layout.stages) if layout.stages.exists() else {},
        "provenance": provenance(),
    }
    write_json(layout.numbers, numbers)
    print_table(REPRODUCTION, reproduction_rows(numbers), world)
    world.log_result(f"{layout.numbers}: the numbers; figures in {layout.figures}")


def _driven_distances(config: Config, run: ComparedRun, states: int, world: World, output: Path) -> None:
    """Nonconservativity of some states of a trajectory, equally spaced in time; rank 0 writes it to a JSON file."""
    system = build_system(config)
    tolerance = min(system.tolerance, _DIFFERENCED)
    solver = make_solver(system.solver, system, tolerance, world, pick_device(world, config.device))
    found = []
    for frame in some_frames(len(run.time), states):
        distance = estimate_nonconservativity(solver, run.spins[frame])
        found.append({"time": float(run.time[frame]), **asdict(distance)})
        world.log(f"report: nonconservativity {distance.ratio:.3g} ± {distance.error:.2g} at time {run.time[frame]:g}")
    if world.rank == 0:
        write_json(output, found)


def _read_config(layout: Layout) -> Config:
    config = parse_config(_read_json(layout.config), str(layout.config))
    config.need("reproduce")
    return config


def _read_json(path: Path, kind: type = dict) -> Any:
    try:
        return read_json(path, "delete it and run `hpcspin reproduce` again", kind)
    except FileNotFoundError:
        raise HpcspinError(f"{path}: not there; run `hpcspin reproduce CONFIG --output {path.parent}` first") from None


def _read_run(path: Path) -> ComparedRun:
    with open_hdf5(path) as file:
        shape = real_dataset(file, path, "spins", SPINS).shape
        likes = {"time": shape[:1], "spins": shape, "field": shape}
        likes |= {name: like for name, like in {"density": shape[:3], "energy": shape[:1]}.items() if name in file}
        return ComparedRun(
            **{name: read_rows(real_dataset(file, path, name, like), path) for name, like in likes.items()}
        )


def _read_labelled(path: Path, learned: ComparedRun) -> ComparedRun:
    """The labelled frames of a learned run, with their times."""
    if not path.exists():
        raise HpcspinError(f"{path}: not there; run `hpcspin reproduce` on the directory again")
    labels = read_labels(path)
    frames = labelled_frames(len(learned.time))
    known = {name: labels.others.get(name) for name in ("density", "energy")}
    return ComparedRun(learned.time[frames], labels.spins, labels.field, **known)


def labelled_frames(count: int) -> list[int]:
    """Frames of a learned run of a closed lattice that get exact labels, equally spaced, the last one among them."""
    return some_frames(count, _LABELLED)


def _draw_parity(exact: list[ComparedRun], predicted: list[PredictedFields], path: Path) -> None:
    """Draw the torques of a random sample of sites: all of them would only blacken the picture."""
    spins = np.concatenate([run.spins.reshape(-1, 3) for run in exact])
    true = np.concatenate([run.field.reshape(-1, 3) for run in exact])
    learned = np.concatenate([fields.field.reshape(-1, 3) for fields in predicted])
    shown = np.random.default_rng(0).permutation(len(spins))[:_PARITY_SITES]
    figures.torque_parity(np.cross(spins[shown], true[shown]), np.cross(spins[shown], learned[shown]), path)
