"""How much of |T^neq| / |T^eq| near the wall is physics, and how much is the choice of a gauge.

    python perf/study.py gauge DIR --output RUNS [--weights 1e-6 1e-5 1e-4 1e-3 1e-2] [--seeds 1 2]

The fields decide on E and G only up to a gauge; ``training.gauge``, the weight
of the mean square of h^neq in the loss, chooses the smallest G. DIR is what
`hpcspin reproduce` has finished. The force field is trained on its data again
with every weight and seed, and its torques on the exact test trajectories are
compared: error, and quartiles of the ratio near the wall. A stopped run
continues. Writes ``perf/results/gauge.json`` and a table in ``perf/README.md``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import RESULTS, parser_of, table, write_section

from hpcspin.assembly.outputs import Layout
from hpcspin.assembly.system import build_lattice, build_system
from hpcspin.config import Config, parse_config
from hpcspin.drawing.comparison import Run
from hpcspin.drawing.driven import torque_ratio
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import provenance, read_labels
from hpcspin.training import evaluate
from hpcspin.workflows.train import train_directory


def torque_ratios(config: Config, model: Any, labels: list[Path]) -> NDArray[np.float64]:
    """|T^neq| / |T^eq| of the sites near the wall, on all frames of some label files."""
    lattice, bias = build_lattice(config.lattice), build_system(config).bias
    ratios = []
    for path in labels:
        frames = read_labels(path, config.lattice.size)
        run = Run(np.arange(float(len(frames.spins))), frames.spins, frames.field)
        ratios.append(torque_ratio(lattice, run, model.predict(frames.spins, lattice, bias)))
    return np.concatenate(ratios)


def measure(config: Config, layout: Layout, weight: float, seed: int, directory: Path) -> dict[str, Any]:
    """Train with one weight and seed; error and quartiles."""
    assert config.training is not None
    validation = tuple(sorted(path.name for path in layout.data.glob("validation-*.h5")))
    training = config.training.model_copy(update={"gauge": weight, "seed": seed, "validation": validation})
    code = train_directory(config.model_copy(update={"training": training}), [layout.data], directory, World())
    if code:
        raise SystemExit(code)
    model = load_force(directory)
    labels = sorted(layout.test.glob("*.h5"))
    quartiles = np.quantile(torque_ratios(config, model, labels), (0.25, 0.5, 0.75))
    errors = evaluate(model, labels, World(), torch.device("cpu"))
    return {"weight": weight, "seed": seed, "mse": errors["mse"], "quartiles": quartiles.tolist()}


def summary(runs: list[dict[str, Any]]) -> str:
    """What ``perf/README.md`` says: means and half the range over the seeds."""

    def cell(values: list[float]) -> str:
        return f"{np.mean(values):.2e} ± {np.ptp(values) / 2:.0e}"

    rows = []
    for weight in sorted({run["weight"] for run in runs}):
        mine = [run for run in runs if run["weight"] == weight]
        columns = [[run["mse"] for run in mine], *zip(*(run["quartiles"] for run in mine), strict=True)]
        rows.append([f"{weight:g}", *(cell(list(column)) for column in columns)])
    return table(["weight of G", "mean squared error", "first quartile", "median", "third quartile"], rows)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--weights", type=float, nargs="+", default=[1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, required=True, help="directory for the trained models")
    arguments = parser.parse_args()
    layout = Layout(arguments.directory)
    config = parse_config(json.loads(layout.config.read_text()), str(layout.config))
    runs = [
        measure(config, layout, weight, seed, arguments.output / f"{weight:g}-{seed}")
        for weight in arguments.weights
        for seed in arguments.seeds
    ]
    measured = {
        "lattice": config.lattice.size,
        "runs": runs,
        "load_after": os.getloadavg()[0],
        "provenance": provenance(),
    }
    (RESULTS / "gauge.json").write_text(json.dumps(measured, indent=2) + "\n")
    write_section("gauge.py", summary(runs))
    print(summary(runs))


if __name__ == "__main__":
    main()
