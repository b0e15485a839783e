"""``hpcspin report``: the paper's figures and the numbers of a finished reproduction, from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from hpcspin.assembly.agreement import require_electrons
from hpcspin.assembly.outputs import Layout, sole_writer
from hpcspin.assembly.system import build_lattice, build_system
from hpcspin.config import Config, parse_config
from hpcspin.drawing import figures
from hpcspin.drawing.comparison import Estimate, near_wall, wall_speed
from hpcspin.drawing.tables import new_table, print_table
from hpcspin.electrons import estimate_nonconservativity, make_solver
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, bond_map, has_wall, wall_position
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import PredictedFields, load_force
from hpcspin.storage import (
    SPINS,
    make_directory,
    open_hdf5,
    provenance,
    read_attributes,
    read_json,
    read_rows,
    real_dataset,
    write_json,
)

_MAPS = 5
_DIFFERENCED = 1e-8
"""Tolerance of the fields whose differences are taken."""
_PARITY_SITES = 20_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One recorded trajectory, or some of its frames."""

    time: Array
    spins: Array
    field: Array

    def at(self, time: Array) -> Run:
        """The frames at some of its times."""
        frames = np.isin(self.time, time)
        return Run(self.time[frames], self.spins[frames], self.field[frames])


@dataclass(frozen=True)
class Walls:
    """Wall positions of a test run under both fields, at the frames that both have recorded."""

    time: Array
    electrons: Array
    learned: Array


def report_directory(directory: Path, world: World, driven_states: int = 0) -> None:
    """Draw the figures and write ``numbers.json`` of a reproduction.

    Parameters
    ----------
    directory
        Where `hpcspin reproduce` has worked.
    world
        The ranks; only rank 0 works, except on the states below.
    driven_states
        Of how many states of the first test trajectory to measure how far they
        are from any energy function; each takes 144 exact labels.

    Raises
    ------
    HpcspinError
        If a stage has not been done yet.
    """
    layout = Layout(directory)
    config = _read_config(layout)
    with sole_writer(directory, world):
        if driven_states:
            run = _read_run(layout.trajectory("electrons", "test-000"))
            _driven_distances(config, run, driven_states, world, layout.nonconservativity)
        write_numbers(layout, draw_figures(layout, world), world)


def draw_figures(layout: Layout, world: World) -> dict[str, Any]:
    """Draw the figures of a reproduction on rank 0.

    Returns
    -------
    dict
        What was measured for them, as it stands in ``numbers.json``; empty on other ranks.

    Raises
    ------
    HpcspinError
        If a stage has not been done yet.
    """
    config = _read_config(layout)
    if world.rank > 0:
        return {}
    assert config.reproduce is not None
    lattice = build_lattice(config.lattice)
    names = [f"test-{number:03d}" for number in range(len(config.reproduce.test))]
    model = load_force(layout.model)
    paths = [layout.trajectory(field, name) for field in ("electrons", "learned") for name in names]
    for path in paths:
        _require_same_electrons(path, config, model.card, layout, world)
    runs = [_read_run(path) for path in paths]
    exact, learned = runs[: len(names)], runs[len(names) :]
    evaluation = _read_json(layout.evaluation)
    model, bias = model.to(pick_device(world, config.device)), build_system(config).bias
    predicted = [model.predict(run.spins, lattice, bias) for run in exact]

    make_directory(layout.figures)
    _draw_parity(exact, predicted, layout.figures / "torque_parity.png")
    _draw_maps(lattice, exact[0], learned[0], layout.figures / "bond_maps.png")
    walls = _walls(lattice, dict(zip(names, zip(exact, learned, strict=True), strict=True)))
    figure = _drawn_anew(layout.figures / "wall_position.png")
    if walls:
        figures.wall_positions([(wall.time, wall.electrons, wall.learned) for wall in walls.values()], figure)
    ratio = np.concatenate([torque_ratio(lattice, *pair) for pair in zip(exact, predicted, strict=True)])
    figure = _drawn_anew(layout.figures / "torque_ratio.png")
    if len(ratio):
        figures.torque_ratio(ratio, figure)
    return {
        "test": {name: value for name, value in evaluation.items() if name != "snapshot_mse"},
        **({"walls": _wall_numbers(walls)} if walls else {}),
        **({"torque_ratio_near_wall": _quartiles(ratio)} if len(ratio) else {}),
    }


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
    print_table(_table(numbers), world)
    world.tell(f"{layout.numbers}: the numbers; figures in {layout.figures}")


def _driven_distances(config: Config, run: Run, states: int, world: World, output: Path) -> None:
    """Nonconservativity of some states of a trajectory, equally spaced in time; rank 0 writes it to a JSON file."""
    assert config.electrons is not None
    tolerance = min(config.electrons.tolerance, _DIFFERENCED)
    solver = make_solver(
        config.electrons.solver, build_system(config), tolerance, world, pick_device(world, config.device)
    )
    found = []
    for frame in np.unique(np.linspace(0, len(run.time) - 1, states).round().astype(int)):
        distance = estimate_nonconservativity(solver, run.spins[frame])
        found.append({"time": float(run.time[frame]), **asdict(distance)})
        world.say(f"report: nonconservativity {distance.ratio:.3g} ± {distance.error:.2g} at time {run.time[frame]:g}")
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


def _read_run(path: Path) -> Run:
    with open_hdf5(path) as file:
        shape = real_dataset(file, path, "spins", SPINS).shape
        likes = {"time": shape[:1], "spins": shape, "field": shape}
        return Run(**{name: read_rows(real_dataset(file, path, name, like), path) for name, like in likes.items()})


def _require_same_electrons(path: Path, config: Config, card: Mapping[str, Any], layout: Layout, world: World) -> None:
    assert config.dynamics is not None
    stored = read_attributes(path).get("config", {})
    require_electrons(stored, card, (str(layout.model), str(path)), config.dynamics.allow, world)


def _drawn_anew(path: Path) -> Path:
    """The name of a figure, of which no earlier one stays behind."""
    path.unlink(missing_ok=True)
    return path


def _draw_parity(exact: list[Run], predicted: list[PredictedFields], path: Path) -> None:
    """Torques of a random sample of sites: all of them would only blacken the picture."""
    spins = np.concatenate([run.spins.reshape(-1, 3) for run in exact])
    true = np.concatenate([run.field.reshape(-1, 3) for run in exact])
    learned = np.concatenate([fields.field.reshape(-1, 3) for fields in predicted])
    shown = np.random.default_rng(0).permutation(len(spins))[:_PARITY_SITES]
    figures.torque_parity(np.cross(spins[shown], true[shown]), np.cross(spins[shown], learned[shown]), path)


def _draw_maps(lattice: Lattice, exact: Run, learned: Run, path: Path) -> None:
    both = np.intersect1d(exact.time, learned.time)
    time = both[np.unique(np.linspace(0, len(both) - 1, _MAPS).round().astype(int))]
    maps = [bond_map(lattice, run.at(time).spins) for run in (exact, learned)]
    figures.bond_maps(time, maps[0], maps[1], path)


def torque_ratio(lattice: Lattice, run: Run, fields: PredictedFields) -> Array:
    """|T^neq| / |T^eq| of the sites near the wall (Fig. 5b of the paper), one number a site and frame.

    Parameters
    ----------
    lattice
        Of the frames.
    run
        The frames.
    fields
        What a force field says about them.

    Returns
    -------
    ndarray
        Empty where no frame has a wall, or the force field no nonequilibrium torque, as one without potentials.
    """
    walled = has_wall(lattice, run.spins)
    if not walled.any() or not fields.nonequilibrium.any():
        return np.zeros(0)
    spins = run.spins[walled]
    chosen = near_wall(wall_position(lattice, spins), lattice.size)
    lengths = [
        np.linalg.norm(np.cross(spins[chosen], field[walled][chosen]), axis=-1)
        for field in (fields.nonequilibrium, fields.equilibrium)
    ]
    return lengths[0] / np.maximum(lengths[1], np.finfo(float).tiny)


def _quartiles(ratio: Array) -> dict[str, float]:
    return dict(
        zip(("quartile_1", "median", "quartile_3"), np.quantile(ratio, (0.25, 0.5, 0.75)).tolist(), strict=True)
    )


def _walls(lattice: Lattice, runs: Mapping[str, tuple[Run, Run]]) -> dict[str, Walls]:
    """Walls of the runs, exact and learned, that have one in most of the exact frames."""
    found = {}
    for name, (exact, learned) in runs.items():
        if np.mean(has_wall(lattice, exact.spins)) < 1 / 2:
            continue
        time = np.intersect1d(exact.time, learned.time)
        found[name] = Walls(time, *(wall_position(lattice, run.at(time).spins) for run in (exact, learned)))
    return found


def _wall_numbers(walls: Mapping[str, Walls]) -> dict[str, Any]:
    """Wall speed of both dynamics and their distance, for each run and over all of them."""
    runs: dict[str, dict[str, Any]] = {}
    for name, wall in walls.items():
        apart = np.abs(wall.electrons - wall.learned)
        runs[name] = {
            "electrons": dict(zip(("speed", "error"), wall_speed(wall.time, wall.electrons), strict=True)),
            "learned": dict(zip(("speed", "error"), wall_speed(wall.time, wall.learned), strict=True)),
            "travel": float(wall.electrons[-1] - wall.electrons[0]),
            "mean_distance": float(apart.mean()),
            "largest_distance": float(apart.max()),
        }
    return {
        "runs": runs,
        "speed_electrons": asdict(Estimate.of([run["electrons"]["speed"] for run in runs.values()])),
        "speed_learned": asdict(Estimate.of([run["learned"]["speed"] for run in runs.values()])),
        "mean_distance": asdict(Estimate.of([run["mean_distance"] for run in runs.values()])),
    }


def _table(numbers: dict[str, Any]) -> Table:
    def estimate(value: dict[str, float | None], unit: str) -> str:
        error = "" if value["error"] is None else f" ± {value['error']:.2g}"
        return f"{value['mean']:.3g}{error} {unit}"

    test = numbers["test"]
    table = new_table("Learned against exact, on independent trajectories", header=False)
    table.add_row("test snapshots", str(test["snapshots"]))
    table.add_row("mean squared error of a perpendicular field component", f"{test['mse']:.3g}")
    table.add_row("sigma of its error", f"{test['sigma']:.3g}")
    if "variance_fraction" in test:
        table.add_row("fraction of its variance unexplained", f"{test['variance_fraction']:.2%}")
    if "walls" in numbers:
        walls = numbers["walls"]
        table.add_row("wall speed, NEGF–LLG", estimate(walls["speed_electrons"], "columns per ħ/t"))
        table.add_row("wall speed, ML–LLG", estimate(walls["speed_learned"], "columns per ħ/t"))
        table.add_row("mean distance of the walls", estimate(walls["mean_distance"], "columns"))
        largest = max(run["largest_distance"] for run in walls["runs"].values())
        table.add_row("largest distance of the walls", f"{largest:.3g} columns")
    if "torque_ratio_near_wall" in numbers:
        table.add_row("median |T^neq|/|T^eq| near the wall", f"{numbers['torque_ratio_near_wall']['median']:.2g}")
    for state in numbers["nonconservativity"]:
        value = f"{state['ratio']:.3g} ± {state['error']:.2g}"
        table.add_row(f"nonconservativity of the exact field at time {state['time']:g}", value)
    for stage, seconds in numbers["stage_seconds"].items():
        table.add_row(f"seconds, {stage}", f"{seconds:.1f}")
    return table
