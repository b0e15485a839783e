"""Levers of training, each against the same baseline on the same labels and with the same number of passes over them.

    python perf/study.py levers --data DIR [--labels 200] [--epochs 24] [--seeds 2] [--output perf/results/levers.json]

DIR holds label files of one trajectory each with a ``manifest.json``. Every
fifth file judges; frames of the others, equally spaced, are learned from. The
baseline is what `hpcspin train` does with ``configs/driven_sd_strips.yaml``.
Errors are standard errors over the judging trajectories, those of ratios paired.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import parser_of, table, write_section
from torch import Tensor, nn

from hpcspin.config import load_config
from hpcspin.lattice import Lattice, perpendicular, wall_position
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, ForceField, make_force_field
from hpcspin.storage import provenance, read_labels, read_manifest
from hpcspin.training.dataset import Snapshots, epoch_batches
from hpcspin.training.moments import normalise
from hpcspin.training.optimisers import Optimiser, RunningMean, learning_rate_factor
from hpcspin.training.sources import read_source

CONFIG = Path(__file__).parents[2] / "configs" / "driven_sd_strips.yaml"
CPU = torch.device("cpu")
NEAR = 2.0
"""Columns from the wall within which a site is near it."""
Judge = list[tuple[Snapshots, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Lever:
    """What differs from the baseline.

    Attributes
    ----------
    optimiser : str
        As of `hpcspin.training.optimisers.Optimiser`, or ``lbfgs``.
    learning_rate : float
        Largest one.
    width : int
        Of the hidden layers.
    wall_weight : float
        Weight in the loss of sites near the wall, of others 1.
    """

    optimiser: str = "adamw"
    learning_rate: float = 3e-3
    width: int = 128
    wall_weight: float = 1.0


LEVERS = {
    "baseline: AdamW": Lever(),
    "Muon": Lever(optimiser="muon"),
    "Muon, rate x 3": Lever(optimiser="muon", learning_rate=9e-3),
    "L-BFGS, all labels a step": Lever(optimiser="lbfgs"),
    "rate / 3": Lever(learning_rate=1e-3),
    "rate x 3": Lever(learning_rate=9e-3),
    "width 32": Lever(width=32),
    "wall x 3 in the loss": Lever(wall_weight=3.0),
}


def read(path: Path, frames: slice | NDArray[np.int64]) -> Snapshots:
    """Some frames of a label file."""
    source = read_source(path, "square", 0.0)
    labels = read_labels(path, source.lattice.size)
    spins, field = (torch.from_numpy(a[frames]).flatten(1, 2).float() for a in (labels.spins, labels.field))
    bias = torch.full((len(spins),), source.drive[0])
    places = np.arange(len(spins)), np.zeros(len(spins), int)
    return Snapshots(spins, field, bias, bias.double(), *places, len(spins), source.lattice)


def near_wall(data: Snapshots) -> NDArray[np.bool_]:
    """Which sites are near the wall, shape (snapshots, sites)."""
    lattice: Lattice = data.lattice
    positions = wall_position(lattice, data.spins.double().numpy().reshape(-1, *lattice.size, 3))
    columns = np.arange(lattice.num_sites) // lattice.size[1]
    near: NDArray[np.bool_] = np.abs(columns - np.asarray(positions)[:, None]) <= NEAR
    return near


def split(directory: Path, labels: int) -> tuple[Snapshots, Judge, dict[str, Any]]:
    """What is learned from, the trajectories that judge, and a note of both."""
    shards = read_manifest(directory)
    judging, learning = shards[::5], [shard for number, shard in enumerate(shards) if number % 5]
    shares = [(labels + number) // len(learning) for number in range(len(learning))]
    parts = [
        read(directory / shard.file, np.linspace(0, shard.snapshots - 1, share).round().astype(int))
        for shard, share in zip(learning, shares, strict=True)
    ]
    spins, field, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("spins", "field", "bias"))
    places = np.arange(len(spins)), np.zeros(len(spins), int)
    train = Snapshots(spins, field, bias, bias.double(), *places, len(spins), parts[0].lattice)
    test = [read(directory / shard.file, slice(None)) for shard in judging]
    note = {
        "labels": len(spins),
        "trajectories": len(learning),
        "test_labels": sum(len(part.spins) for part in test),
        "test_trajectories": len(test),
        "files": {shard.file: shard.checksum for shard in shards},
    }
    return train, [(part, near_wall(part)) for part in test], note


def make_loss(model: ForceField, data: Snapshots, lever: Lever, gauge: float) -> Callable[[NDArray[np.int64]], Tensor]:
    """Loss of some snapshots: that of `hpcspin train`, with weights of the sites."""
    sites = torch.where(torch.from_numpy(near_wall(data)), lever.wall_weight, 1.0)
    sites, near = sites / sites.mean(), model.neighbourhood(data.lattice)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        predicted = model(data.spins[rows], near, data.bias[rows])
        error = perpendicular(data.spins[rows], predicted.field - data.field[rows]).square().sum(-1)
        square = (sites[rows] * error).sum() + gauge * predicted.nonequilibrium.square().sum()
        return square / (2 * sites[rows].numel() * model.field_scale**2)

    return loss


def fit(data: Snapshots, lever: Lever, seed: int, epochs: int) -> ForceField:
    """Train one model."""
    config = load_config(CONFIG)
    assert config.potential is not None
    assert config.training is not None
    settings = config.training
    architecture = Architecture(lattice="square", **config.potential.model_dump())
    width = (lever.width,) * len(architecture.settings.hidden)
    torch.manual_seed(seed)
    model = make_force_field(architecture.changed(bias_reference=float(data.bias.max()), hidden=width))
    normalise(model, [data], World(), CPU)
    loss = make_loss(model, data, lever, settings.gauge)
    if lever.optimiser == "lbfgs":
        minimise(model, loss, data.total, epochs)
        return model.eval()
    mean, optimiser = RunningMean(model, settings.ema), Optimiser(model, lever.optimiser, settings.weight_decay)
    batches = [rows for epoch in range(epochs) for rows in epoch_batches(data.total, settings.batch, seed, epoch)]
    for step, rows in enumerate(batches):
        optimiser.zero_grad()
        optimiser.rate = lever.learning_rate * learning_rate_factor(step, len(batches), settings.warmup)
        loss(rows).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean.update(model, step)
    mean.write_to(model)
    return model.eval()


def minimise(model: ForceField, loss: Callable[[NDArray[np.int64]], Tensor], total: int, passes: int) -> None:
    """L-BFGS with a strong Wolfe line search, for as many passes over the data."""
    parts = np.array_split(np.arange(total), -(-total // 8))
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=passes, max_eval=passes, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        total_loss = torch.zeros(())
        for rows in parts:
            part = loss(rows) * (len(rows) / total)
            part.backward()
            total_loss += part.detach()
        return total_loss

    optimiser.step(closure)


def judge(model: ForceField, test: Judge) -> NDArray[np.float64]:
    """Mean squared error of a perpendicular component on each trajectory: all sites, near the wall; (n, 2)."""
    measured = []
    for data, near in test:
        predicted = model(data.spins, model.neighbourhood(data.lattice), data.bias).field
        square = perpendicular(data.spins, predicted - data.field).square().sum(-1).double().numpy() / 2
        # A frame without a wall has no site near it.
        measured.append([square.mean(), square[near].mean() if near.any() else np.nan])
    return np.array(measured)


def estimate(values: NDArray[np.float64]) -> list[float]:
    """Mean over trajectories and its standard error."""
    values = values[np.isfinite(values)]
    return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]


def summary(errors: NDArray[np.float64], baseline: NDArray[np.float64]) -> dict[str, Any]:
    """What the table shows; errors of shape (seeds, trajectories, 2)."""
    mine, other = errors.mean(0), baseline.mean(0)
    gained = estimate(mine[:, 0] - other[:, 0])
    scale = float(other[:, 0].mean())
    return {
        "mse": estimate(mine[:, 0]),
        "near_wall_mse": estimate(mine[:, 1]),
        "mse_of_seeds": errors[:, :, 0].mean(1).tolist(),
        "over_baseline": [1 + gained[0] / scale, gained[1] / scale],
    }


def report(measured: dict[str, Any]) -> str:
    """Text for ``perf/README.md``."""
    data = measured["data"]
    rows = []
    for name, row in measured["levers"].items():
        values = [f"{row[key][0] * 1e5:.2f} ± {row[key][1] * 1e5:.2f}" for key in ("mse", "near_wall_mse")]
        seeds = ", ".join(f"{value * 1e5:.2f}" for value in row["mse_of_seeds"])
        ratio = f"{row['over_baseline'][0]:.3f} ± {row['over_baseline'][1]:.3f}"
        rows.append([name, *values, seeds, ratio, f"{row['cpu_seconds']:.0f}"])
    header = ["lever", "test MSE, 1e-5", "near the wall, 1e-5", "each seed, 1e-5", "over the baseline", "CPU s"]
    return (
        f"{data['labels']} labels of {data['trajectories']} trajectories learned from in {measured['epochs']} passes, "
        f"{data['test_labels']} labels of {data['test_trajectories']} other trajectories judge. Errors are over these "
        "trajectories; the seeds show what chance does besides.\n\n"
        f"{table(header, rows)}"
    )


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "levers.json")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test, note = split(arguments.data, arguments.labels)
    measured: dict[str, Any] = {"provenance": provenance(), "epochs": arguments.epochs, "data": note, "levers": {}}
    baseline: NDArray[np.float64] | None = None
    for name, lever in LEVERS.items():
        start = time.process_time()
        models = [fit(train, lever, seed, arguments.epochs) for seed in range(1, arguments.seeds + 1)]
        spent = (time.process_time() - start) / arguments.seeds
        errors = np.stack([judge(model, test) for model in models])
        baseline = errors if baseline is None else baseline
        measured["levers"][name] = {**asdict(lever), **summary(errors, baseline), "cpu_seconds": spent}
        print(name, json.dumps(measured["levers"][name]), flush=True)
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    write_section("levers.py", report(measured))


if __name__ == "__main__":
    main()
