"""One potential against two, site potentials and direct fields, on data of the same small systems.

    python perf/study.py ablation [--output perf/results/ablation.json] [--epochs 24] [--seeds 3] [--workers 2]

Four systems: the wall of ``configs/driven_sd_small.yaml``, the same with a bath
ten times wider, walls that reach the right electrode at eV = 3.7, so that metal
bridges both, and a spin valve of two ferromagnetic regions between them. Exact
labels are made anew in a temporary directory. Each model, of one layer or of
three, is trained with several seeds of the initial weights on the same shards;
a validation shard chooses the epoch, and trajectories (of the valve: textures)
of their own judge. Errors are means over the seeds with their standard error.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shared import parser_of

from hpcspin.assembly.system import build_solver, build_system
from hpcspin.config import Config, load_config
from hpcspin.electrons import nonconservativity
from hpcspin.lattice import make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_model
from hpcspin.storage import make_directory, provenance, write_labels, write_manifest
from hpcspin.training import evaluate, find_data, train
from hpcspin.workflows.simulate import simulate_directory

CONFIG = Path(__file__).parents[2] / "configs" / "driven_sd_small.yaml"
VARIANTS: list[dict[str, Any]] = [
    *({"kind": kind, "descriptor": "densities"} for kind in ("conservative", "pair", "site")),
    {"kind": "direct", "layers": (1,)},
    *({"kind": kind, "layers": (1, 1, 1)} for kind in ("conservative", "pair", "direct")),
]
"""Keys of the section ``potential``."""
WALLS = {"train0": 3, "train1": 4, "train2": 5, "train3": 6, "train4": 3, "train5": 5, "validation": 4, "test": 4}
"""Initial position of the wall of each shard."""
VALVES = {"train": 400, "validation": 50, "test": 100}
METER = ("lattice.size=[8, 4]",)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class System:
    """What is learned.

    Attributes
    ----------
    overrides : tuple of str
        What differs from the shipped config.
    radius : float
        Cutoff radius of the models.
    valve : bool
        Whether the spins are those of a valve, not of a wall's trajectory.
    further : int
        By how many columns the walls start further to the right.
    """

    overrides: tuple[str, ...]
    radius: float
    valve: bool = False
    further: int = 0

    def config(self, *more: str) -> Config:
        """Config of the system."""
        return load_config(CONFIG, [*self.overrides, *more])


SYSTEMS = {
    "wall": System(("dynamics.duration=40",), 2.0),
    "wall, bath 0.01": System(("dynamics.duration=40", "electrons.reservoirs.2.width=0.01"), 2.0),
    "bridged metal": System(("dynamics.duration=40", "electrons.reservoirs.left.potential=-3.7"), 2.0, further=5),
    # Three columns to each electrode: the cutoff radius lets every spin see the other region.
    "spin valve": System(("lattice.size=[6, 4]",), 3.0, valve=True),
}


def valves(size: tuple[int, int], count: int, seed: int) -> NDArray[np.float64]:
    """Left half along x, right half at an angle between 45 and 135 degrees, each spin tilted: (count, Lx, Ly, 3)."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(np.pi / 4, 3 * np.pi / 4, count)[:, None] * (np.arange(size[0]) >= size[0] / 2)
    spins = 0.2 * rng.standard_normal((count, *size, 3))
    spins[..., 0] += np.cos(angle)[..., None]
    spins[..., 1] += np.sin(angle)[..., None]
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def make_data(system: System, directory: Path) -> None:
    """Shards of one system with exact labels, and their manifest; ``test.h5`` lies apart."""
    make_directory(directory / "data")
    for number, (name, value) in enumerate((VALVES if system.valve else WALLS).items()):
        target = (directory if name == "test" else directory / "data") / f"{name}.h5"
        if system.valve:
            config = system.config()
            spins = valves(config.lattice.size, value, number)
            state = build_solver(config, build_system(config), World()).solve(spins)
            attributes = {
                "config": config.model_dump(mode="json"),
                "precision": "float64",
                "reservoirs": ["left", "right", "bath"],
            }
            write_labels(target, spins, state.field, attributes, error=state.error)
        else:
            config = system.config(f"initial.position={value + system.further}", f"dynamics.seed={11 + number}")
            simulate_directory(config, directory / name, World())
            (directory / name / "trajectory.h5").rename(target)
    write_manifest(directory / "data")


def meter(system: System) -> list[float]:
    """Nonconservativity ratios of three snapshots of a small lattice of this system."""
    config = system.config() if system.valve else system.config(*METER)
    driven = build_system(config)
    solver = build_solver(config, driven, World())
    if system.valve:
        return [nonconservativity(solver, spins) for spins in valves(config.lattice.size, 3, 99)]
    positions = (column + system.further // 2 for column in (2, 3, 5))
    walls = [make_texture("wall", driven.lattice, 99 + p, position=p, tilt=0.1) for p in positions]
    return [nonconservativity(solver, spins) for spins in walls]


def _title(variant: dict[str, Any]) -> str:
    return f"{variant['kind']}, {variant.get('descriptor') or 'layers: ' + str(len(variant['layers']))}"


def fit(name: str, directory: Path, variant: dict[str, Any], seed: int, epochs: int) -> dict[str, Any]:
    """Train one model; its errors on the shards learned from and on independent ones."""
    torch.set_num_threads(1)
    system = SYSTEMS[name]
    config, start = system.config(), time.perf_counter()
    assert config.potential is not None
    assert config.training is not None
    shared = config.potential.model_dump(include={"symmetry", "hidden", "precision"})
    outcome = train(
        Architecture(lattice=config.lattice.kind, radius=system.radius, **shared, **variant),
        find_data([directory / "data"], ("validation.h5",), config.lattice.kind, World()),
        config.training.model_copy(update={"seed": seed, "epochs": epochs, "checkpoint_interval": 4}),
        directory / f"{_title(variant)}_{seed}",
        World(),
        CPU,
    )
    model, card = load_model(outcome.model)
    shards = sorted((directory / "data").glob("train*.h5"))
    return {
        "system": name,
        "variant": variant,
        "seed": seed,
        "best_epoch": card["best_epoch"],
        "seconds": time.perf_counter() - start,
        "train": evaluate(model, shards, World(), CPU),
        "test": evaluate(model, [directory / "test.h5"], World(), CPU),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the seeds, and its standard error, of every variant of a system, and ratios to one potential."""
    table: dict[str, Any] = {}
    for variant in VARIANTS:
        members = [run for run in runs if run["variant"] == variant]
        row: dict[str, Any] = {"seconds_a_training": float(np.mean([run["seconds"] for run in members]))}
        for role, metric in product(("train", "test"), ("mse", "variance_fraction")):
            values = np.array([run[role][metric] for run in members])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            row[f"{role}_{metric}"] = [float(values.mean()), float(error)]
        alike = _title({**variant, "kind": "conservative"})
        reference = row if alike == _title(variant) else table.get(alike, table[_title(VARIANTS[0])] if table else row)
        row["test_mse_over_conservative"] = row["test_mse"][0] / reference["test_mse"][0]
        table[_title(variant)] = row
    return table


def measure(epochs: int, seeds: int, workers: int) -> dict[str, Any]:
    """All figures of one run."""
    measured: dict[str, Any] = {
        "provenance": provenance(),
        "epochs": epochs,
        "seeds": seeds,
        "data": {"walls": WALLS, "valves": VALVES},
        "systems": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            places = {name: Path(temporary) / str(number) for number, name in enumerate(SYSTEMS)}
            list(pool.map(make_data, SYSTEMS.values(), places.values()))
            meters = list(pool.map(meter, SYSTEMS.values()))
            tasks = [
                pool.submit(fit, name, place, variant, seed, epochs)
                for seed in range(1, seeds + 1)
                for name, place in places.items()
                for variant in VARIANTS
            ]
            runs = [task.result() for task in tasks]
    for (name, system), ratios in zip(SYSTEMS.items(), meters, strict=True):
        mine = [run for run in runs if run["system"] == name]
        measured["systems"][name] = {
            "overrides": system.overrides,
            "radius": system.radius,
            "nonconservativity": ratios,
            "models": summary(mine),
            "runs": mine,
        }
    return measured


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "ablation.json")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, a thread each")
    arguments = parser.parse_args()
    measured = measure(arguments.epochs, arguments.seeds, arguments.workers)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    for name, system in measured["systems"].items():
        print(f"{name}: nonconservativity {', '.join(f'{ratio:.3f}' for ratio in system['nonconservativity'])}")
        for model, row in system["models"].items():
            (mse, error), (fraction, _) = row["test_mse"], row["test_variance_fraction"]
            print(
                f"  {model:26} test mse {mse:.2e} ± {error:.1e}, {fraction:6.2%} of the variance, "
                f"{row['test_mse_over_conservative']:.2f} of one potential's, "
                f"train mse {row['train_mse'][0]:.2e}, {row['seconds_a_training']:.1f} s"
            )


if __name__ == "__main__":
    main()
