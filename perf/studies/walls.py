"""Walls of exact and learned dynamics from the same spins with the same noise.

    python perf/study.py walls --exact DIR ... --learned DIR ... [--until TIME ...] [--output perf/results/walls.json]
    python perf/study.py walls --figure FILE.png MODEL=RESULT.json ...

Each DIR is one of ``hpcspin simulate``; the n-th exact run belongs to the n-th
learned one. Exact runs are dear: the output keeps their walls, and can stand in
the place of their directories. Writes the mean distance of the walls over time,
how far the walls went, and their speeds, with standard errors over the runs, and
a plot. Distances of exact runs with one start from each other say how much of
that is chaos. With ``--until`` there is one set of numbers for each of the times. ``--figure``
draws the distance travelled by the walls that earlier outputs keep, each run, and mean and spread
(standard deviation over the runs), of the dynamics corrected by exact labels and of each model's.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import parser_of

from hpcspin.analysis.series import Estimate, velocity
from hpcspin.drawing.figures import against_time
from hpcspin.drawing.style import save
from hpcspin.storage import provenance, write_json

_DIGITS = 6
_SAME_START = 0.5
"""Columns between walls that are taken to start at the same place."""
Run = tuple[NDArray[np.float64], NDArray[np.float64]]


def read(path: Path) -> list[Run]:
    """Times and wall positions of a finished run, or of the exact ones whose walls an earlier output keeps."""
    if path.suffix == ".json":
        stored = json.loads(path.read_text())["walls"]
        return [(np.array(stored["time"]), np.array(wall)) for wall in stored["exact"]]
    with h5py.File(path / "trajectory.h5") as file:
        return [(file["time"][()].round(_DIGITS), file["wall_position"][()])]


def compare(exact: list[Run], learned: list[Run]) -> dict[str, Any]:
    """All numbers; every run must have the same times."""
    pairs = list(zip(exact, learned, strict=True))
    if any(not np.array_equal(a[0], b[0]) for a, b in pairs):
        raise SystemExit("walls: exact and learned runs differ in their times; run both with one config")
    apart = [float(np.mean(np.abs(a[1] - b[1]))) for a, b in pairs]
    starts_near = [(a, b) for a, b in combinations(exact, 2) if abs(a[1][0] - b[1][0]) < _SAME_START]
    chaos = [float(np.mean(np.abs(a[1] - b[1]))) for a, b in starts_near]
    measured: dict[str, list[float]] = {
        "distance_exact_learned": apart,
        "largest_distance": [float(np.max(np.abs(a[1] - b[1]))) for a, b in pairs],
        "distance_exact_exact": chaos,
        "travelled_exact": [float(a[1][-1] - a[1][0]) for a in exact],
        "travelled_learned": [float(b[1][-1] - b[1][0]) for b in learned],
        "speed_exact": [velocity(*a)[0] for a in exact],
        "speed_learned": [velocity(*b)[0] for b in learned],
    }
    return {
        name: {"runs": values, "mean": Estimate.of(values).mean, "error": Estimate.of(values).error}
        for name, values in measured.items()
        if values
    }


def draw(results: list[str], path: Path) -> None:
    """Columns that the walls have travelled, of runs that belong together."""
    named = dict(result.split("=", 1) for result in results)
    stored = {model: json.loads(Path(result).read_text())["walls"] for model, result in named.items()}
    first = next(iter(stored.values()))
    if any(walls["exact"] != first["exact"] for walls in stored.values()):
        raise SystemExit("walls: the results have other exact runs; draw those of the same")
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    groups = {"corrected": first["exact"], **{name: walls["learned"] for name, walls in stored.items()}}
    for number, (name, runs) in enumerate(groups.items()):
        ways = np.array(runs) - np.array(runs)[:, :1]
        mean, spread, colour = ways.mean(0), ways.std(0, ddof=1), f"C{number}"
        axis.plot(first["time"], ways.T, color=colour, linewidth=0.5, alpha=0.5)
        axis.plot(first["time"], mean, color=colour, label=f"{name}, mean of {len(runs)} seeds")
        axis.fill_between(first["time"], mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="time (ħ/t)", ylabel="distance travelled by the wall (columns)")
    axis.legend(frameon=False)
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "walls.json")
    parser.add_argument("--exact", type=Path, nargs="+", default=[])
    parser.add_argument("--learned", type=Path, nargs="+", default=[])
    parser.add_argument("--figure", nargs="+", metavar=("FILE.png", "MODEL=RESULT.json"))
    parser.add_argument("--until", type=float, nargs="+", default=[np.inf])
    arguments = parser.parse_args()
    if arguments.figure:
        draw(arguments.figure[1:], Path(arguments.figure[0]))
        return
    if not (arguments.exact and arguments.learned):
        parser.error("--exact and --learned are needed, or --figure")
    exact, learned = ([run for path in group for run in read(path)] for group in (arguments.exact, arguments.learned))
    measured: dict[str, Any] = {"provenance": provenance()}
    for until in arguments.until:
        parts = [[(time[time <= until], wall[time <= until]) for time, wall in group] for group in (exact, learned)]
        measured[f"until {parts[0][0][0][-1]:g}"] = compare(*parts)
    summaries = [name for name in measured if name != "provenance"]
    walls = {
        name: [wall.round(3).tolist() for _, wall in group] for name, group in (("exact", exact), ("learned", learned))
    }
    measured["walls"] = {"time": exact[0][0].tolist(), **walls}
    write_json(arguments.output, measured)
    # Corrected runs often stand in the place of exact ones.
    runs = [{"exact or corrected": a, "learned": b} for a, b in zip(exact, learned, strict=True)]
    against_time(runs, "wall position (columns)", arguments.output.with_suffix(".png"))
    for when in summaries:
        for name, value in measured[when].items():
            print(f"{when}, {name}: {value['mean']:.3g} (standard error {value['error'] or float('nan'):.2g})")


if __name__ == "__main__":
    main()
