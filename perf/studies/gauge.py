"""How much of |T^neq| / |T^eq| near the wall is physics, and how much is the choice of a gauge.

    python perf/study.py gauge CONFIG --data DIR [DIR ...] --test FILE [FILE ...] --runs RUNS
        [--weights 1e-6 1e-4 1e-2] [--seeds 1 2] [KEY=VALUE ...]

The fields decide on E and G only up to a gauge; ``training.gauge``, the weight
of the mean square of h^neq in the loss, chooses the smallest G. The config's pair
of potentials is trained on the labels with every weight and seed, and the
torques on labels of other trajectories are compared: error, and quartiles of the ratio
near the wall. A stopped run continues in RUNS. Writes ``perf/results/gauge.json`` and a table in ``perf/README.md``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import publish, table, training_parser_of

from hpcspin.config import Config, load_config
from hpcspin.drawing.comparison import ComparedRun
from hpcspin.drawing.driven import torque_ratio
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import provenance, read_labels
from hpcspin.training import evaluate
from hpcspin.training.sources import read_source
from hpcspin.workflows.train import train_directory


def torque_ratios(model: Any, labels: list[Path]) -> NDArray[np.float64]:
    """|T^neq| / |T^eq| of the sites near the wall, on all frames of some label files."""
    ratios = []
    for path in labels:
        frames, source = read_labels(path), read_source(path, "square", 0.0)
        run = ComparedRun(np.arange(float(len(frames.spins))), frames.spins, frames.field)
        ratios.append(torque_ratio(source.lattice, run, model.predict(frames.spins, source.lattice, source.drive[0])))
    return np.concatenate(ratios)


def measure(
    config: Config, data: list[Path], test: list[Path], weight: float, seed: int, output: Path
) -> dict[str, Any]:
    """Train with one weight and seed; error and quartiles."""
    assert config.training is not None
    training = config.training.model_copy(update={"gauge": weight, "seed": seed})
    if code := train_directory(config.model_copy(update={"training": training}), data, output, World()):
        raise SystemExit(code)
    model = load_force(output)
    quartiles = np.quantile(torque_ratios(model, test), (0.25, 0.5, 0.75))
    errors = evaluate(model, test, World(), torch.device("cpu"))
    return {"weight": weight, "seed": seed, "mse": errors["mse"], "quartiles": quartiles.tolist()}


def summary(measured: dict[str, Any]) -> str:
    """What ``perf/README.md`` says: means and half the range over the seeds."""

    def cell(values: list[float]) -> str:
        return f"{np.mean(values):.2e} ± {np.ptp(values) / 2:.0e}"

    runs, rows = measured["runs"], []
    for weight in sorted({run["weight"] for run in runs}):
        mine = [run for run in runs if run["weight"] == weight]
        columns = [[run["mse"] for run in mine], *zip(*(run["quartiles"] for run in mine), strict=True)]
        rows.append([f"{weight:g}", *(cell(list(column)) for column in columns)])
    return table(["weight of G", "mean squared error", "first quartile", "median", "third quartile"], rows)


def main() -> None:
    """Enter from the command line."""
    parser = training_parser_of(__doc__, "gauge.json")
    parser.add_argument("--weights", type=float, nargs="+", default=[1e-6, 1e-4, 1e-2])
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    runs = [
        measure(config, arguments.data, arguments.test, weight, seed, arguments.runs / f"{weight:g}-{seed}")
        for weight in arguments.weights
        for seed in arguments.seeds
    ]
    measured = {
        "config": config.model_dump(mode="json", include={"potential", "training"}),
        "labels": [str(path) for path in arguments.test],
        "runs": runs,
        "load_after": os.getloadavg()[0],
        "provenance": provenance(),
    }
    publish("gauge.py", measured, arguments.output, summary)


if __name__ == "__main__":
    main()
