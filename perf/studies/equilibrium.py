"""Bispectrum networks against layered potentials on closed systems: error against labels, radius and cost.

    python perf/study.py equilibrium --data NAME=DIR [NAME=DIR ...] --validation q2.h5 --test q101.h5
        [--labels 20 80] [--epochs 20] [--workers 1] [--output perf/results/equilibrium.json]

Each directory holds exact labels of one system, each file a quench of its own, as ``hpcspin simulate`` with
``dynamics.field: electrons`` or ``hpcspin label`` leaves it. The files that are named judge, and choose the epoch;
frames evenly spread over all others are learned from. Every force field is conservative, has the full point group and
learns the energies, too. Errors are those of the test files, whole and of their last quarter, where the order stands;
the cost is that of an evaluation on one thread, measured by itself after all trainings.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import choose_labels, parser_of, table

from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_model, make_force_field
from hpcspin.storage import provenance
from hpcspin.training import TrainingSettings, examine, find_data, train
from hpcspin.training.sources import read_source

CPU = torch.device("cpu")
SIZE = (48, 48)
"""Of the lattice on which the cost is measured."""
TRAINING: dict[str, Any] = {"batch": 4, "learning_rate": 3e-3, "ema": 0.99, "energy_weight": 1.0}


@dataclass(frozen=True)
class Variant:
    """A force field: keys of the sections ``potential`` and ``training``."""

    potential: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What tables call it."""
        layers = self.potential.get("layers")
        what = f"{len(layers)} layers" if layers else self.potential["descriptor"]
        return f"{what}, radius {self.potential['radius']:g}"


def _descriptor(name: str, radius: float) -> Variant:
    even = {"descriptor": name, "time_reversal": "even", "hidden": (64, 64)}
    return Variant({"radius": radius, **even}, {"optimiser": "adamw"})


def _layers(count: int, radius: float) -> Variant:
    return Variant(
        {"radius": radius, "layers": (1,) * count, "channels": 12, "hidden": (64, 64)},
        {"optimiser": "muon", "weight_decay": 0.1},
    )


VARIANTS = {
    "square": [
        *(_descriptor("bispectrum", radius) for radius in (1.5, 2.0, 3.0)),
        *(_descriptor(name, 2.0) for name in ("bonds", "densities")),
        *(_layers(count, radius) for count, radius in ((1, 2.3), (2, 1.5), (2, 2.3))),
    ],
    "triangular": [
        *(_descriptor("bispectrum", radius) for radius in (1.0, 1.8, 2.0)),
        *(_descriptor(name, 1.8) for name in ("bonds", "densities")),
        *(_layers(count, radius) for count, radius in ((1, 2.0), (2, 1.0), (2, 2.0))),
    ],
}


def architecture(kind: str, variant: Variant) -> Architecture:
    """Of a lattice of this kind."""
    return Architecture(kind, kind="conservative", symmetry="full", **variant.potential)


def fit(data: Path, output: Path, test: list[Path], variant: Variant, epochs: int) -> dict[str, Any]:
    """Train one force field on one set of labels; its errors on the test files."""
    torch.set_num_threads(1)
    kind = read_source(test[0], "square", 0.0).lattice.kind
    settings = TrainingSettings(
        **{**TRAINING, **variant.training, "epochs": epochs, "checkpoint_interval": max(1, epochs // 4)}
    )
    outcome = train(
        architecture(kind, variant),
        find_data([data], ("validation-00.h5",), kind, World()),
        settings,
        output,
        World(),
        CPU,
    )
    model, card = load_model(outcome.model)
    found = examine(model, test, World(), CPU)
    late = np.concatenate([np.array(mse)[-len(mse) // 4 :] for mse in found.snapshot_mse.values()])
    return {**found.errors.summary(), "late_mse": float(late.mean()), "best_epoch": card["best_epoch"]}


def cost(kind: str, variant: Variant) -> dict[str, Any]:
    """Processor microseconds of an evaluation a site, single precision, one thread, and how far the field sees."""
    torch.set_num_threads(1)
    model = make_force_field(architecture(kind, variant)).eval()
    lattice = make_lattice(kind, SIZE, (True, True))
    spins = torch.nn.functional.normalize(torch.randn(1, lattice.num_sites, 3), dim=-1)
    neighbourhood, bias = model.neighbourhood(lattice), torch.zeros(1)
    layers, times = len(variant.potential.get("layers", (1,))), []
    for _ in range(8):
        # Other programs on the machine do not count.
        start = time.process_time()
        model(spins, neighbourhood, bias)
        times.append(time.process_time() - start)
    return {
        "microseconds_a_site": 1e6 * statistics.median(times[1:]) / lattice.num_sites,
        "features": len(model.networks[-1].mean),
        "sees": 2 * layers * float(variant.potential["radius"]),
    }


def measure(
    systems: Mapping[str, Path], validation: str, test: list[str], counts: list[int], epochs: int, workers: int
) -> dict[str, Any]:
    """All figures of one run."""
    found: dict[str, Any] = {
        "provenance": provenance(),
        "load": os.getloadavg()[0],
        "epochs": epochs,
        "training": TRAINING,
        "systems": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            tasks = {}
            for name, source in systems.items():
                files = [source / file for file in test]
                learned = [path for path in sorted(source.glob("*.h5")) if path.name not in (validation, *test)]
                kind = read_source(files[0], "square", 0.0).lattice.kind
                for labels in counts:
                    data = Path(temporary) / f"{name}_{labels}"
                    choose_labels(learned, [source / validation], labels, data)
                    for variant in VARIANTS[kind]:
                        output = Path(temporary) / f"{name}_{labels}_{variant.title}"
                        arguments = (data, output, files, variant, epochs)
                        tasks[name, kind, labels, variant.title] = pool.submit(fit, *arguments)
            errors = {key: task.result() for key, task in tasks.items()}
    costs = {kind: {variant.title: cost(kind, variant) for variant in variants} for kind, variants in VARIANTS.items()}
    for (name, kind, labels, title), numbers in errors.items():
        models = found["systems"].setdefault(name, {"lattice": kind, "models": {}})["models"]
        models.setdefault(title, {**costs[kind][title], "labels": {}})["labels"][labels] = numbers
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """A table of each system."""
    parts = []
    for (name, system), header in product(
        found["systems"].items(),
        [["model", "sees", "µs a site", "labels", "test mse", "of variance", "late mse", "energy rms"]],
    ):
        rows = [
            [
                title,
                f"{model['sees']:g}",
                f"{model['microseconds_a_site']:.1f}",
                str(labels),
                f"{errors['mse']:.2e}",
                f"{errors['variance_fraction']:.2%}",
                f"{errors['late_mse']:.1e}",
                f"{errors['energy_rms']:.1e}",
            ]
            for title, model in system["models"].items()
            for labels, errors in model["labels"].items()
        ]
        parts.append(f"{name} ({system['lattice']})\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "equilibrium.json")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR", help="exact labels of a system")
    parser.add_argument("--validation", required=True, help="file of each directory that chooses the epoch")
    parser.add_argument("--test", nargs="+", required=True, help="files of each directory that judge")
    parser.add_argument("--labels", nargs="+", type=int, default=[20, 80], help="numbers of labels learned from")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    arguments = parser.parse_args()
    systems = {name: Path(directory) for name, directory in (entry.split("=", 1) for entry in arguments.data)}
    found = measure(
        systems, arguments.validation, arguments.test, arguments.labels, arguments.epochs, arguments.workers
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(in_words(found))


if __name__ == "__main__":
    main()
