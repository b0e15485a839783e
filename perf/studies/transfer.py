"""A force field on lattices larger than those that it was trained on: exact fields there, and the wall's speed.

    python perf/study.py transfer CONFIG MODEL --output DIR [--sizes 30x24:4 60x48:3 120x96:1 120x96@8:1]
        [--exact 30x24 60x48] [KEY=VALUE ...]

For every size, so many times as stands behind it, the force field moves a wall from a quarter of the
lattice, or from the column after the @; the last frame is labelled exactly, and the learned field compared
with it. Of the sizes of ``--exact`` the same spins with the same noise move by the field of ``driven_sd_light``
that an exact label corrects every sixth step, and both walls are compared. The speed is the slope of the
wall's position over the second half of the run. A stopped run continues. Writes
``perf/results/transfer.json`` and a table in ``perf/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from shared import RESULTS, parser_of, table, write_section

from hpcspin.config import Config, load_config
from hpcspin.parallel.world import World
from hpcspin.storage import provenance
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.label import label_file
from hpcspin.workflows.simulate import simulate_directory

CORRECTED = {
    "field": "corrected",
    "exact_interval": 6,
    "model": str(Path(__file__).parents[2] / "configs" / "models" / "driven_sd_light.safetensors"),
}
"""Dynamics that stand for the exact one, whichever model is compared with it."""


def moved_wall(config: Config, directory: Path, **dynamics: Any) -> tuple[NDArray[np.float64], float]:
    """Move a wall: its position in each frame, and its speed in columns per unit of time."""
    assert config.dynamics is not None
    section = config.dynamics.model_copy(update={"observers": ("wall_position",), **dynamics})
    code = simulate_directory(config.model_copy(update={"dynamics": section}), directory, World())
    if code:
        raise SystemExit(code)
    with h5py.File(directory / "trajectory.h5") as file:
        times, walls = file["time"][()], file["wall_position"][()]
    half = len(times) // 2
    return walls, float(np.polyfit(times[half:], walls[half:], 1)[0])


def errors_of_last(config: Config, directory: Path, model: Path) -> dict[str, Any]:
    """Error of the force field on the last frame."""
    labels = directory / "label.h5"
    if not labels.exists():
        with h5py.File(directory / "trajectory.h5") as file, h5py.File(directory / "last.h5", "w") as frame:
            last = file["spins"][-1:]
            frame["spins"] = last / np.linalg.norm(last, axis=-1, keepdims=True)
        label_file(config, directory / "last.h5", labels, World())
    target = directory / "errors.json"
    evaluate_files(model, labels, target, World(), force=True)
    errors = json.loads(target.read_text())
    return {key: errors[key] for key in ("mse", "sigma", "variance_fraction")}


def measure(config: Config, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All sizes, each with its runs."""
    assert config.dynamics is not None
    assert config.initial is not None
    model, measured = arguments.model.resolve(), []
    for entry in arguments.sizes:
        name, count = entry.split(":")
        shape, _, column = name.partition("@")
        size = tuple(int(length) for length in shape.split("x"))
        start = float(column) if column else size[0] / 4
        sized = config.model_copy(
            update={
                "lattice": config.lattice.model_copy(update={"size": size}),
                "initial": config.initial.model_copy(update={"position": start}),
                "dynamics": config.dynamics.model_copy(update={"field": "learned", "model": str(model)}),
            }
        )
        runs = []
        for seed in range(1, int(count) + 1):
            directory = arguments.output / f"{name}-{seed}"
            walls, speed = moved_wall(sized, directory, seed=seed)
            run = {"seed": seed, "speed": speed, **errors_of_last(sized, directory, model)}
            if name in arguments.exact:
                directory = arguments.output / f"{name}-{seed}-exact"
                exact, run["exact_speed"] = moved_wall(sized, directory, seed=seed, **CORRECTED)
                run["apart"] = float(np.abs(walls - exact).mean())
                run["travelled"] = float(exact.max() - exact[0])
            runs.append(run)
        measured.append({"size": size, "start": start, "runs": runs})
    return measured


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    if not values:
        return ""
    mean = f"{np.mean(values):.2e}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.0e}"


def summary(sizes: list[dict[str, Any]]) -> str:
    """What ``perf/README.md`` says."""
    columns = ("mse", "variance_fraction", "speed", "exact_speed", "travelled", "apart")
    rows = [
        [
            "x".join(map(str, size["size"])),
            f"{size['start']:g}",
            *(spread([run[column] for run in size["runs"] if column in run]) for column in columns),
        ]
        for size in sizes
    ]
    header = ["lattice", "wall from column", "mean squared error", "of the variance", "columns per ħ/t"]
    return table([*header, "exact ones", "exact way in columns", "walls apart"], rows)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--sizes", nargs="+", default=["30x24:4", "60x48:3", "120x96:1", "120x96@8:1"])
    parser.add_argument("--exact", nargs="*", default=["30x24", "60x48"])
    parser.add_argument("--output", type=Path, required=True, help="directory for the runs")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    config.need("electrons", "initial", "dynamics")
    sizes = measure(config, arguments)
    measured = {"sizes": sizes, "load_after": os.getloadavg()[0], "provenance": provenance()}
    (RESULTS / "transfer.json").write_text(json.dumps(measured, indent=2) + "\n")
    write_section("transfer.py", summary(sizes))
    print(summary(sizes))


if __name__ == "__main__":
    main()
