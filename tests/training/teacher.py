"""Labels from a known pair of potentials, and a short training on them.

As a program: ``python teacher.py DATA[:DATA...] OUTPUT BATCH EPOCHS [LEARNING_RATE]`` trains on as many ranks as were
started.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from hpcspin.lattice import Lattice, make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture
from hpcspin.storage import write_manifest
from hpcspin.training import TrainingOutcome, TrainingSettings, find_data, train

SIZE = (5, 4)
BIAS = 1.5
CPU = torch.device("cpu")
Teacher = Callable[[Tensor, Lattice, float], Tensor]


def bonds(lattice: Lattice, spins: Tensor, step: tuple[int, int]) -> Tensor:
    """b_ij of all sites with the neighbour at an offset, zero beyond an edge."""
    padded = torch.cat([spins, torch.zeros_like(spins[:, :1])], 1)
    return (spins * padded[:, torch.from_numpy(lattice.shift([step])[:, 0])]).sum(-1)


def teacher_energy(spins: Tensor, lattice: Lattice) -> Tensor:
    """E = Σ (b + b²/2) over nearest neighbours."""
    x, y = (bonds(lattice, spins, step) for step in ((1, 0), (0, 1)))
    return (x + x**2 / 2 + y + y**2 / 2).sum(-1)


def teacher_field(spins: Tensor, lattice: Lattice, bias: float) -> Tensor:
    """Field of E = Σ (b + b²/2) over nearest neighbours and G = bias Σ b_x (0.5 - 0.2 (b_y + b_-y))."""
    free = spins.clone().requires_grad_()
    x, y, back = (bonds(lattice, free, step) for step in ((1, 0), (0, 1), (0, -1)))
    energy = teacher_energy(free, lattice).sum()
    toroidal = bias * (x * (0.5 - 0.2 * (y + back))).sum()
    (dE,) = torch.autograd.grad(energy, free, retain_graph=True)
    (dG,) = torch.autograd.grad(toroidal, free)
    return (-dE - torch.linalg.cross(spins, dG)).detach()


def site_local_field(spins: Tensor, lattice: Lattice, bias: float) -> Tensor:
    """H_i = S_left b(right) + bias S_i x S_right: the bonds act on one of their two spins alone.

    No pair of global potentials makes it, since neither part is returned by the neighbour.
    """
    padded = torch.cat([spins, torch.zeros_like(spins[:, :1])], 1)
    left, right = (padded[:, torch.from_numpy(lattice.shift([step])[:, 0])] for step in ((-1, 0), (1, 0)))
    return left * (spins * right).sum(-1, keepdim=True) + bias * torch.linalg.cross(spins, right)


def write_shard(
    path: Path,
    snapshots: int,
    seed: int,
    bias: float = BIAS,
    teacher: Teacher = teacher_field,
    size: tuple[int, int] = SIZE,
    energy_of_a_site: float | None = None,
) -> None:
    """A label file of random spins with a teacher's field and a config that tells the bias.

    With an energy of a site the teacher's energies are in it, and this one for each site besides.
    """
    lattice = make_lattice("square", size)
    draw = torch.randn((snapshots, lattice.num_sites, 3), generator=torch.Generator().manual_seed(seed))
    spins = torch.nn.functional.normalize(draw.double(), dim=-1)
    with h5py.File(path, "w") as file:
        file["spins"] = spins.reshape(-1, *size, 3).numpy()
        if energy_of_a_site is not None:
            file["energy"] = (teacher_energy(spins, lattice) + energy_of_a_site * lattice.num_sites).numpy()
        file["field"] = teacher(spins, lattice, bias).reshape(-1, *size, 3).numpy()
        reservoirs = [{"potential": -bias}, {"potential": 0.0}]
        content = {"lattice": {"kind": "square", "size": size}, "electrons": {"reservoirs": reservoirs}}
        file.attrs["config"] = json.dumps(content)


def write_data(
    directory: Path,
    snapshots: tuple[int, ...] = (7, 6),
    teacher: Teacher = teacher_field,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Training shards a, b, ... and one validation shard ``z.h5``, with a manifest."""
    directory.mkdir(parents=True)
    for number, count in enumerate(snapshots):
        write_shard(directory / f"{chr(ord('a') + number)}.h5", count, number, teacher=teacher, size=size)
    write_shard(directory / "z.h5", 5, 99, teacher=teacher, size=size)
    write_manifest(directory)
    return directory


def run(data: Path | list[Path], directory: Path, world: World | None = None, **changes: Any) -> TrainingOutcome:
    """A short double-precision training; changes may name settings, the kind, the device, or ``stop``."""
    numbers: dict[str, Any] = {
        "epochs": 4,
        "batch": 4,
        "optimiser": "adamw",
        "learning_rate": 5e-3,
        "warmup": 0.05,
        "weight_decay": 1e-3,
        "gauge": 1e-4,
        "ema": 0.9,
        "seed": 1,
        "checkpoint_interval": 2,
    }
    kind = changes.pop("kind", "pair")
    extra = {name: changes.pop(name) for name in ("start", "stop", "card") if name in changes}
    checks = {name: changes.pop(name) for name in ("electrons", "allow") if name in changes}
    layers = changes.pop("layers", (1,) if kind == "direct" else None)
    description: dict[str, Any] = {"layers": layers, "channels": 6} if layers else {"descriptor": "bonds"}
    if drive := changes.pop("drive", None):
        description["drive"] = drive
        checks["drive"] = drive
    architecture = Architecture(
        "square",
        1.0,
        (16, 16),
        kind=kind,
        precision=changes.pop("precision", "float64"),
        **description,
    )
    directories = data if isinstance(data, list) else [data]
    device = changes.pop("device", CPU)
    names = ("z.h5",) if len(directories) == 1 else tuple(str(directory / "z.h5") for directory in directories)
    validation = changes.pop("validation", names)
    settings = TrainingSettings(**{**numbers, **changes})
    ranks, start = world or World(), extra.get("start")
    checks["distil"] = settings.distillation > 0
    found = find_data(directories, validation, "square", ranks, start=start, **checks)
    return train(architecture, found, settings, directory, ranks, device, **extra)


if __name__ == "__main__":
    ranks = World.detect()
    with ranks.abort_on_failure():
        data, output, batch, epochs, *rate = sys.argv[1:]
        run(
            [Path(part) for part in data.split(":")],
            Path(output),
            ranks,
            batch=int(batch),
            epochs=int(epochs),
            checkpoint_interval=1,
            **({"learning_rate": float(rate[0])} if rate else {}),
        )
        ranks.finish()
