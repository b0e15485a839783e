"""Error against milliseconds of all force fields of the driven lattice that come with the program.

    python perf/benchmark.py front [--repeats 20] [--figure FILE.png]

Error of a perpendicular component on ``configs/models/driven_sd_exact.h5``; processor time of one evaluation of 30x24
on one thread, the least of several, the models in turn, and how many of them take as long as an exact label on one
thread: of an initial wall, and of frames of exact trajectories. Writes ``perf/results/front.json`` and the figure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from force_field import CONFIG, CPU, EXACT, PAPER, label_seconds, seconds
from matplotlib.figure import Figure
from shared import RESULTS, parser_of

from hpcspin.assembly.system import build_system
from hpcspin.config import load_config
from hpcspin.drawing.style import save
from hpcspin.lattice import make_lattice
from hpcspin.parallel.devices import keep_freed_memory
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField, load_force
from hpcspin.storage import provenance, read_spins, write_json
from hpcspin.training import evaluate

SYSTEM = build_system(load_config(CONFIG))
PUBLISHED = 8.97e-6
"""Mean squared error of the paper's model."""


def evaluation(model: ForceField) -> Callable[[], Any]:
    """One field of the last exact frame."""
    spins = torch.from_numpy(read_spins(EXACT, PAPER)[-1]).reshape(1, -1, 3)
    given = spins, model.neighbourhood(make_lattice("square", PAPER)), torch.tensor([model.drive(SYSTEM)])
    return lambda: model(*given)


def draw(points: dict[str, dict[str, float]], path: Path) -> None:
    """The models in a plane of time and error, and the paper's error as a line."""
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, point in points.items():
        at = point["milliseconds"], point["mse"]
        axis.loglog(*at, "o", color="C0")
        axis.annotate(name, at, xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=7)
    axis.axhline(PUBLISHED, color="grey", linestyle="--", linewidth=1, label="Zhang and Chern, any time")
    axis.margins(x=0.35)
    axis.set_xticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
    axis.set_xticks([], minor=True)
    axis.legend()
    axis.set(xlabel="time of an evaluation on 30×24, one thread (ms)", ylabel="mean squared error of a component (t²)")
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--figure", type=Path, default=RESULTS / "front.png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    models = {path.stem: load_force(path) for path in sorted(CONFIG.parent.glob("models/driven_sd*.safetensors"))}
    runs = {name: evaluation(model) for name, model in models.items() if isinstance(model, ForceField)}
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            least[name] = min(least[name], seconds(run, CPU, 1))
    label = label_seconds(load_config(CONFIG), 1)
    points = {
        name: {
            "milliseconds": 1e3 * least[name],
            "mse": evaluate(models[name], [EXACT], World(), CPU)["mse"],
            "evaluations_a_label": {of: taken / least[name] for of, taken in label.items()},
        }
        for name in runs
    }
    head = {"provenance": provenance(), "load": os.getloadavg()[0], "label_seconds": label}
    write_json(RESULTS / "front.json", {**head, "models": points})
    draw(points, arguments.figure)
    for name, point in points.items():
        many = ", ".join(f"{count:.0f} {of}" for of, count in point["evaluations_a_label"].items())
        print(f"{name}: {point['milliseconds']:.2f} ms, {point['mse']:.2e}, for one label {many}")


if __name__ == "__main__":
    main()
