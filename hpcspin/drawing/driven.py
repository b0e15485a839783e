"""Figures and numbers of a driven lattice's reproduction: the wall and the torques near it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.series import Estimate, velocity
from hpcspin.drawing import figures
from hpcspin.drawing.comparison import Array, Compared, ComparedRun, near_wall, shown_times
from hpcspin.drawing.lattice_figures import BONDS, at_times, site_maps
from hpcspin.lattice import Lattice, bond_map, has_wall, wall_position
from hpcspin.potential import PredictedFields

NAMES = ("NEGF–LLG", "ML–LLG")


def draw(lattice: Lattice, runs: Mapping[str, Compared], directory: Path) -> dict[str, Any]:
    """Draw the figures of the test runs, given by name, into a directory, and measure what they show."""
    first = next(iter(runs.values()))
    time = shown_times(first)
    maps = (bond_map(lattice, run.at(time).spins) for run in (first.exact, first.learned))
    site_maps(lattice, at_times(time), dict(zip(NAMES, maps, strict=True)), BONDS, directory / "bond_maps.png")
    walls = _walls(lattice, runs)
    figure, numbers = _drawn_anew(directory / "wall_position.png"), dict[str, Any]()
    if walls:
        curves = [{NAMES[0]: (time, exact), NAMES[1]: (time, learned)} for time, exact, learned in walls.values()]
        figures.against_time(curves, "wall position (columns)", figure)
        numbers["walls"] = _wall_numbers(walls)
    ratio = np.concatenate([torque_ratio(lattice, run.exact, run.predicted) for run in runs.values()])
    figure = _drawn_anew(directory / "torque_ratio.png")
    if len(ratio):
        figures.torque_ratio(ratio, figure)
        quartiles = np.quantile(ratio, (0.25, 0.5, 0.75)).tolist()
        numbers["torque_ratio_near_wall"] = dict(zip(("quartile_1", "median", "quartile_3"), quartiles, strict=True))
    return numbers


def rows(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table of a report."""
    found = []
    if "walls" in numbers:
        walls = numbers["walls"]
        found = [
            (f"wall speed, {name}", f"{Estimate(**walls[key])} columns per ħ/t")
            for name, key in zip(NAMES, ("speed_electrons", "speed_learned"), strict=True)
        ]
        largest = max(run["largest_distance"] for run in walls["runs"].values())
        found += [
            ("mean distance of the walls", f"{Estimate(**walls['mean_distance'])} columns"),
            ("largest distance of the walls", f"{largest:.3g} columns"),
        ]
    if "torque_ratio_near_wall" in numbers:
        found.append(("median |T^neq|/|T^eq| near the wall", f"{numbers['torque_ratio_near_wall']['median']:.2g}"))
    return found


def torque_ratio(lattice: Lattice, run: ComparedRun, fields: PredictedFields) -> Array:
    """|T^neq| / |T^eq| of the sites near the wall (Fig. 5b of the paper), one number per site and frame of a run.

    It is empty where no frame has a wall, or the force field has no nonequilibrium torque, like one without potentials.
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


def _drawn_anew(path: Path) -> Path:
    """Path of a figure, from which an earlier one is removed."""
    path.unlink(missing_ok=True)
    return path


def _walls(lattice: Lattice, runs: Mapping[str, Compared]) -> dict[str, tuple[Array, Array, Array]]:
    """Times, exact and learned walls at them, of the runs that have one in at least half of the exact frames."""
    found = {}
    for name, run in runs.items():
        if np.mean(has_wall(lattice, run.exact.spins)) >= 1 / 2:
            exact, learned = (wall_position(lattice, one.at(run.times).spins) for one in (run.exact, run.learned))
            found[name] = run.times, exact, learned
    return found


def _wall_numbers(walls: Mapping[str, tuple[Array, Array, Array]]) -> dict[str, Any]:
    """Wall speed of both dynamics and their distance, for each run and over all of them."""
    runs: dict[str, dict[str, Any]] = {}
    for name, (time, exact, learned) in walls.items():
        apart = np.abs(exact - learned)
        runs[name] = {
            "electrons": dict(zip(("speed", "error"), velocity(time, exact), strict=True)),
            "learned": dict(zip(("speed", "error"), velocity(time, learned), strict=True)),
            "travel": float(exact[-1] - exact[0]),
            "mean_distance": float(apart.mean()),
            "largest_distance": float(apart.max()),
        }
    return {
        "runs": runs,
        "speed_electrons": asdict(Estimate.of([run["electrons"]["speed"] for run in runs.values()])),
        "speed_learned": asdict(Estimate.of([run["learned"]["speed"] for run in runs.values()])),
        "mean_distance": asdict(Estimate.of([run["mean_distance"] for run in runs.values()])),
    }
