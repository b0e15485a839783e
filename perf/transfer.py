"""A force field on lattices larger than those that it was trained on: exact fields there, and the wall's speed.

    python perf/transfer.py CONFIG MODEL --output DIR [--sizes 30x24:4 60x48:3 120x96:1] [KEY=VALUE ...]

For every size, so many times as stands behind it, the force field moves a wall from a quarter of the
lattice; the last frame is labelled exactly, and the learned field compared
with it. The speed is the slope of the wall's position over the second half of
the run. A stopped run continues. Writes ``perf/results/transfer.json`` and a
table in ``perf/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from shared import RESULTS, table, write_section

from hpcspin.config import Config, load_config
from hpcspin.parallel.world import World
from hpcspin.storage import provenance
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.label import label_file
from hpcspin.workflows.simulate import simulate_directory


def moved_wall(config: Config, directory: Path, seed: int) -> float:
    """Move a wall by the force field, keep the last frame in ``last.h5``; the speed in columns per unit of time."""
    assert config.dynamics is not None
    assert config.initial is not None
    dynamics = config.dynamics.model_copy(update={"seed": seed, "observers": ("wall_position",)})
    initial = config.initial.model_copy(update={"position": config.lattice.size[0] / 4})
    code = simulate_directory(config.model_copy(update={"dynamics": dynamics, "initial": initial}), directory, World())
    if code:
        raise SystemExit(code)
    with h5py.File(directory / "trajectory.h5") as file:
        times, walls, last = file["time"][()], file["wall_position"][()], file["spins"][-1:]
    with h5py.File(directory / "last.h5", "w") as file:
        file["spins"] = last / np.linalg.norm(last, axis=-1, keepdims=True)
    half = len(times) // 2
    return float(np.polyfit(times[half:], walls[half:], 1)[0])


def errors_of_last(config: Config, directory: Path, model: Path) -> dict[str, Any]:
    """Error of the force field on the last frame."""
    labels = directory / "label.h5"
    if not labels.exists():
        label_file(config, directory / "last.h5", labels, World())
    target = directory / "errors.json"
    evaluate_files(model, labels, target, World())
    errors = json.loads(target.read_text())
    return {key: errors[key] for key in ("mse", "sigma", "variance_fraction")}


def measure(config: Config, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All sizes, each with its runs."""
    found = []
    for entry in arguments.sizes:
        name, count = entry.split(":")
        size = tuple(int(length) for length in name.split("x"))
        lattice = config.lattice.model_copy(update={"size": size})
        assert config.dynamics is not None
        dynamics = config.dynamics.model_copy(update={"field": "learned", "model": str(arguments.model.resolve())})
        sized = config.model_copy(update={"lattice": lattice, "dynamics": dynamics})
        runs = []
        for seed in range(1, int(count) + 1):
            directory = arguments.output / f"{name}-{seed}"
            speed = moved_wall(sized, directory, seed)
            runs.append({"seed": seed, "speed": speed, **errors_of_last(sized, directory, arguments.model)})
        found.append({"size": size, "runs": runs})
    return found


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    mean = f"{np.mean(values):.2e}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.0e}"


def summary(sizes: list[dict[str, Any]]) -> str:
    """What ``perf/README.md`` says."""
    columns = ("mse", "variance_fraction", "speed")
    rows = [
        ["x".join(map(str, size["size"])), *(spread([run[column] for run in size["runs"]]) for column in columns)]
        for size in sizes
    ]
    return table(["lattice", "mean squared error", "of the variance", "columns per ħ/t"], rows)


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--sizes", nargs="+", default=["30x24:4", "60x48:3", "120x96:1"])
    parser.add_argument("--output", type=Path, required=True, help="directory for the runs")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    config.need("electrons", "initial", "dynamics")
    sizes = measure(config, arguments)
    found = {"sizes": sizes, "load_after": os.getloadavg()[0], "provenance": provenance()}
    (RESULTS / "transfer.json").write_text(json.dumps(found, indent=2) + "\n")
    write_section("transfer.py", summary(sizes))
    print(summary(sizes))


if __name__ == "__main__":
    main()
