"""Exact, learned and corrected dynamics from the same spins with the same noise: how far apart, and at what price.

    python perf/study.py corrected --output DIR [--intervals 5 10] [--times 10 20 40] [--seeds 301 302] [--model FILE]
        [KEY=VALUE]

Simulates ``configs/driven_sd.yaml`` with a wall at 8 and electrons.tolerance 1e-3 under the exact field, the learned
one, and the learned one corrected by an exact label every so many steps. Each is one process of one thread, one after
the other; runs that are finished in DIR are not repeated, and neither are their times. Writes
``perf/results/corrected.json`` and the table in ``perf/README.md``: root mean square difference of a spin component
from the exact run, the run's own estimate of its force error, exact labels and processor seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from shared import RESULTS, parser_of, table, write_section

from hpcspin.storage import provenance, write_json

ROOT = Path(__file__).resolve().parents[2]


def simulate(directory: Path, overrides: list[str]) -> float:
    """Processor seconds of a run, those of an earlier call if it is finished."""
    spent = directory.with_suffix(".seconds")
    if not spent.exists():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "hpcspin", "simulate", str(ROOT / "configs" / "driven_sd.yaml")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([*command, *overrides, "--output", str(directory)], check=True, env=environment)
        spent.write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
    return float(spent.read_text())


def read(directory: Path) -> dict[str, Any]:
    """Datasets of a finished trajectory."""
    with h5py.File(directory / "trajectory.h5") as file:
        names = ("spins", "step", "time", "deviation", "force_error")
        return {name: file[name][()] for name in names if name in file}


def figures(outcome: dict[str, Any], exact: dict[str, Any], times: list[float], interval: int | None) -> dict[str, Any]:
    """Distances from the exact run at some times, and what the run itself says of its errors."""
    apart = np.sqrt(np.square(outcome["spins"] - exact["spins"]).mean((1, 2, 3)))
    places = [int(np.argmin(np.abs(exact["time"] - time))) for time in times]
    result: dict[str, Any] = {"spins_apart": [float(apart[place]) for place in places]}
    if outcome is exact:  # both stages of Heun's scheme, and the last frame
        result["labels"] = 2 * int(outcome["step"][-1]) + 1
    if interval is not None:
        measured = outcome["step"] % interval == 0
        for name in ("deviation", "force_error"):
            result[name] = float(np.sqrt(np.nanmean(np.square(outcome[name][measured]))))
        result["labels"] = int(outcome["step"][-1] // interval + 1)
    return result


def sample(root: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs of one seed."""
    common = [
        "electrons.tolerance=1e-3",
        "initial.position=8",
        "potential=null",
        "dynamics.record_interval=1",
        f"dynamics.duration={max(arguments.times)}",
        f"dynamics.seed={seed}",
        *arguments.overrides,
    ]
    model = f"dynamics.model={arguments.model.resolve()}"
    kinds: dict[str, tuple[int | None, list[str]]] = {
        "exact": (None, []),
        "learned": (None, ["dynamics.field=learned", model]),
    }
    for interval in arguments.intervals:
        changes = ["dynamics.field=corrected", model, f"dynamics.exact_interval={interval}"]
        kinds[f"corrected {interval}"] = (interval, changes)
    seconds = {
        name: simulate(root / f"{seed}-{name.replace(' ', '-')}", [*common, *changes])
        for name, (_, changes) in kinds.items()
    }
    runs = {name: read(root / f"{seed}-{name.replace(' ', '-')}") for name in kinds}
    return {
        name: {**figures(runs[name], runs["exact"], arguments.times, interval), "processor_seconds": seconds[name]}
        for name, (interval, _) in kinds.items()
    }


def report(outcome: dict[str, Any]) -> str:
    """Tables for people."""
    header = ["field", *(f"spins apart at {time:g}" for time in outcome["times"])]
    header += ["force error, its own estimate", "exact labels", "processor seconds"]
    parts = []
    for seed, runs in outcome["seeds"].items():
        rows = []
        for name, row in runs.items():
            apart = ["" if name == "exact" else f"{value:.1e}" for value in row["spins_apart"]]
            error = f"{row['force_error']:.1e}" if "force_error" in row else ""
            labels = f"{row['labels']}" if "labels" in row else ""
            rows.append([name, *apart, error, labels, f"{row['processor_seconds']:.0f}"])
        deviation = next(row["deviation"] for row in runs.values() if "deviation" in row)
        parts.append(
            f"Seed {seed}, {outcome['model']}; the learned field alone errs by {deviation:.1e} a component:\n\n"
            + table(header, rows)
        )
    return "\n\n".join(parts)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--intervals", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--times", type=float, nargs="+", default=[10.0, 20.0, 40.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[301, 302])
    parser.add_argument("--model", type=Path, default=ROOT / "configs" / "models" / "driven_sd.safetensors")
    parser.add_argument("overrides", nargs="*", help="key.path=value, for all runs")
    arguments = parser.parse_intermixed_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    outcome = {
        "provenance": provenance(),
        "load": os.getloadavg()[0],
        "model": arguments.model.name,
        "overrides": arguments.overrides,
        "times": arguments.times,
        "seeds": {str(seed): sample(arguments.output, seed, arguments) for seed in arguments.seeds},
    }
    write_json(RESULTS / "corrected.json", outcome)
    write_section("corrected.py", report(outcome))


if __name__ == "__main__":
    main()
