"""Walls of exact and learned dynamics from the same spins with the same noise.

    python perf/walls.py --exact DIR ... --learned DIR ... [--until TIME ...] [--output perf/results/walls.json]

Each DIR is one of ``hpcspin simulate``; the n-th exact run belongs to the n-th
learned one. Writes the mean distance of the walls over time, how far the
walls went, and their speeds, with standard errors over the runs, and a plot.
Distances of exact runs with one start from each other say how much of that is chaos. With
``--until`` there is one set of numbers for each of the times.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from shared import RESULTS

from hpcspin.storage import atomic_path, provenance
from hpcspin.workflows.comparison import Estimate, wall_speed
from hpcspin.workflows.figures import wall_positions

_SAME_START = 0.5
"""Columns between walls that are taken to start at the same place."""
Run = tuple[NDArray[np.float64], NDArray[np.float64]]


def read(directory: Path) -> Run:
    """Times and wall positions of a finished run."""
    with h5py.File(directory / "trajectory.h5") as file:
        return file["time"][()], file["wall_position"][()]


def compare(exact: list[Run], learned: list[Run]) -> dict[str, Any]:
    """All numbers; every run must have the same times."""
    pairs = list(zip(exact, learned, strict=True))
    if any(not np.array_equal(a[0], b[0]) for a, b in pairs):
        raise SystemExit("walls: exact and learned runs differ in their times; run both with one config")
    apart = [float(np.mean(np.abs(a[1] - b[1]))) for a, b in pairs]
    starts_near = [(a, b) for a, b in combinations(exact, 2) if abs(a[1][0] - b[1][0]) < _SAME_START]
    chaos = [float(np.mean(np.abs(a[1] - b[1]))) for a, b in starts_near]
    found: dict[str, list[float]] = {
        "distance_exact_learned": apart,
        "largest_distance": [float(np.max(np.abs(a[1] - b[1]))) for a, b in pairs],
        "distance_exact_exact": chaos,
        "travelled_exact": [float(a[1][-1] - a[1][0]) for a in exact],
        "travelled_learned": [float(b[1][-1] - b[1][0]) for b in learned],
        "speed_exact": [wall_speed(*a)[0] for a in exact],
        "speed_learned": [wall_speed(*b)[0] for b in learned],
    }
    return {
        name: {"runs": values, "mean": Estimate.of(values).mean, "error": Estimate.of(values).error}
        for name, values in found.items()
        if values
    }


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=Path, nargs="+", required=True)
    parser.add_argument("--learned", type=Path, nargs="+", required=True)
    parser.add_argument("--until", type=float, nargs="+", default=[np.inf])
    parser.add_argument("--output", type=Path, default=RESULTS / "walls.json")
    arguments = parser.parse_args()
    exact, learned = ([read(directory) for directory in group] for group in (arguments.exact, arguments.learned))
    found: dict[str, Any] = {"provenance": provenance()}
    for until in arguments.until:
        parts = [[(time[time <= until], wall[time <= until]) for time, wall in group] for group in (exact, learned)]
        found[f"until {parts[0][0][0][-1]:g}"] = compare(*parts)
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    runs = [(a[0], a[1], b[1]) for a, b in zip(exact, learned, strict=True)]
    wall_positions(runs, arguments.output.with_suffix(".png"))
    for when in list(found)[1:]:
        for name, value in found[when].items():
            print(f"{when}, {name}: {value['mean']:.3g} (standard error {value['error'] or float('nan'):.2g})")


if __name__ == "__main__":
    main()
