"""``hpcspin report``: the paper's figures and the numbers of a finished reproduction, from its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from hpcspin.config import Config, parse_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, bond_map
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import PredictedFields, load_force
from hpcspin.storage import SPINS, make_directory, open_hdf5, provenance, read_json, read_rows, real_dataset, write_json
from hpcspin.workflows import figures
from hpcspin.workflows.comparison import Estimate, near_wall, wall_speed
from hpcspin.workflows.driven_distance import driven_distances
from hpcspin.workflows.layout import Layout
from hpcspin.workflows.sole_writer import sole_writer
from hpcspin.workflows.system import build_lattice, build_system
from hpcspin.workflows.tables import new_table, print_table

_MAPS = 5
_PARITY_SITES = 20_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One recorded trajectory."""

    time: Array
    spins: Array
    field: Array
    wall_position: Array


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
            driven_distances(config, run.time, run.spins, driven_states, world, layout.nonconservativity)
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
    exact = [_read_run(layout.trajectory("electrons", name)) for name in names]
    learned = [_read_run(layout.trajectory("learned", name)) for name in names]
    evaluation = _read_json(layout.evaluation)
    predicted = _predictions(config, layout, lattice, exact, world)

    make_directory(layout.figures)
    _draw_parity(exact, predicted, evaluation["sigma"], layout.figures / "torque_parity.png")
    _draw_maps(lattice, exact[0], learned[0], layout.figures / "bond_maps.png")
    figures.wall_positions(
        [(a.time, a.wall_position, b.wall_position) for a, b in zip(exact, learned, strict=True)],
        layout.figures / "wall_position.png",
    )
    ratio = np.concatenate([torque_ratio(run, fields) for run, fields in zip(exact, predicted, strict=True)])
    if np.any(ratio > 0):  # a conservative force field has no nonequilibrium torque to show
        figures.torque_ratio(ratio, layout.figures / "torque_ratio.png")
    return {
        "test": {name: value for name, value in evaluation.items() if name != "snapshot_mse"},
        "walls": _walls(names, exact, learned),
        "torque_ratio_near_wall": dict(
            zip(("quartile_1", "median", "quartile_3"), np.quantile(ratio, (0.25, 0.5, 0.75)).tolist(), strict=True)
        ),
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
        likes = {"time": shape[:1], "spins": shape, "field": shape, "wall_position": shape[:1]}
        return Run(**{name: read_rows(real_dataset(file, path, name, like), path) for name, like in likes.items()})


def _predictions(
    config: Config, layout: Layout, lattice: Lattice, runs: list[Run], world: World
) -> list[PredictedFields]:
    """Learned fields on the spins of the exact trajectories."""
    model = load_force(layout.model).to(pick_device(world, config.device))
    bias = build_system(config).bias
    return [model.predict(run.spins, lattice, bias) for run in runs]


def _draw_parity(exact: list[Run], predicted: list[PredictedFields], sigma: float, path: Path) -> None:
    """Torques of a random sample of sites: all of them would only blacken the picture."""
    spins = np.concatenate([run.spins.reshape(-1, 3) for run in exact])
    true = np.concatenate([run.field.reshape(-1, 3) for run in exact])
    learned = np.concatenate([fields.field.reshape(-1, 3) for fields in predicted])
    shown = np.random.default_rng(0).permutation(len(spins))[:_PARITY_SITES]
    torques = [np.cross(spins[shown], field[shown]) for field in (true, learned)]
    figures.torque_parity(torques[0], torques[1], sigma, path)


def _draw_maps(lattice: Lattice, exact: Run, learned: Run, path: Path) -> None:
    frames = np.linspace(0, len(exact.time) - 1, _MAPS).round().astype(int)
    maps = [bond_map(lattice, run.spins[frames]) for run in (exact, learned)]
    figures.bond_maps(exact.time[frames], maps[0], maps[1], path)


def torque_ratio(run: Run, fields: PredictedFields) -> Array:
    """|T^neq| / |T^eq| of the sites near the wall (Fig. 5b of the paper), one number a site and frame.

    Parameters
    ----------
    run
        The frames.
    fields
        What a force field says about them.
    """
    chosen = near_wall(run.wall_position, run.spins.shape[1:3])
    lengths = [
        np.linalg.norm(np.cross(run.spins[chosen], field[chosen]), axis=-1)
        for field in (fields.nonequilibrium, fields.equilibrium)
    ]
    return lengths[0] / np.maximum(lengths[1], np.finfo(float).tiny)


def _walls(names: list[str], exact: list[Run], learned: list[Run]) -> dict[str, Any]:
    """Wall speed of both dynamics and their distance, for each run and over all of them."""
    runs: dict[str, dict[str, Any]] = {}
    for name, one, other in zip(names, exact, learned, strict=True):
        apart = np.abs(one.wall_position - other.wall_position)
        runs[name] = {
            "electrons": dict(zip(("speed", "error"), wall_speed(one.time, one.wall_position), strict=True)),
            "learned": dict(zip(("speed", "error"), wall_speed(other.time, other.wall_position), strict=True)),
            "travel": float(one.wall_position[-1] - one.wall_position[0]),
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

    test, walls = numbers["test"], numbers["walls"]
    table = new_table("Learned against exact, on independent trajectories", header=False)
    table.add_row("test snapshots", str(test["snapshots"]))
    table.add_row("mean squared error of a perpendicular field component", f"{test['mse']:.3g}")
    table.add_row("sigma of its error", f"{test['sigma']:.3g}")
    if "variance_fraction" in test:
        table.add_row("fraction of its variance unexplained", f"{test['variance_fraction']:.2%}")
    table.add_row("wall speed, NEGF–LLG", estimate(walls["speed_electrons"], "columns per ħ/t"))
    table.add_row("wall speed, ML–LLG", estimate(walls["speed_learned"], "columns per ħ/t"))
    table.add_row("mean distance of the walls", estimate(walls["mean_distance"], "columns"))
    largest = max(run["largest_distance"] for run in walls["runs"].values())
    table.add_row("largest distance of the walls", f"{largest:.3g} columns")
    table.add_row("median |T^neq|/|T^eq| near the wall", f"{numbers['torque_ratio_near_wall']['median']:.2g}")
    for state in numbers["nonconservativity"]:
        value = f"{state['ratio']:.3g} ± {state['error']:.2g}"
        table.add_row(f"nonconservativity of the exact field at time {state['time']:g}", value)
    for stage, seconds in numbers["stage_seconds"].items():
        table.add_row(f"seconds, {stage}", f"{seconds:.1f}")
    return table
