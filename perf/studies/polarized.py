"""Exact labels of magnets between two electrodes, one of which may be polarised, and of spin valves.

    python perf/study.py polarized CONFIG --output DIR [--files 40] [--snapshots 16] [--voltage 0.5] [--seed 1]
        [KEY=VALUE]

Each file has a voltage of either sign, shared out as the section ``torque`` of CONFIG says, and, where a reservoir is
polarised in CONFIG, a polarisation of random direction and length up to 0.9. Every second snapshot is a ferromagnet
with a small tilt of each spin, or, where ``torque.free`` gives the columns of a free magnet, in turn with two magnets
of different directions; the others are a spiral across the columns or two domains with a smooth wall, of random
directions.
What stands in DIR is not labelled again. Every eighth file is ``validation-NN.h5``; the training is

    hpcspin train configs/torque_model.yaml --data DIR --output MODEL 'training.validation=[validation-00.h5, ...]'
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shared import parser_of

import hpcspin as hs
from hpcspin.config import load_config

Array = NDArray[np.float64]
LONGEST = 0.9
TILT = 0.1
_VALIDATES = 8


def unit(rng: np.random.Generator) -> Array:
    """A random direction, shape (3,)."""
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def magnet(number: int, size: tuple[int, int], free: tuple[int, int] | None, rng: np.random.Generator) -> Array:
    """A ferromagnet, two magnets (the second between the ``free`` columns), a spiral or two domains: (Lx, Ly, 3)."""
    one, other, place = unit(rng), unit(rng), np.arange(size[0]) / (size[0] - 1)
    across = np.cross(one, other) / np.linalg.norm(np.cross(one, other))
    most = np.arccos(one @ other)
    angles = {
        1: most * rng.uniform() * place,
        3: most / (1 + np.exp(-size[0] / 2 * (place - rng.uniform(0.2, 0.8)))),
    }.get(number % 4, 0 * place)
    if free and number % 4 == 2:
        angles[free[0] : free[1] + 1] = most
    angles = angles[:, None]
    columns = np.cos(angles) * one + np.sin(angles) * np.cross(across, one)
    spins = columns[:, None] + TILT * rng.uniform() * rng.standard_normal((*size, 3))
    return np.asarray(spins / np.linalg.norm(spins, axis=-1, keepdims=True))


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--snapshots", type=int, default=16)
    parser.add_argument("--voltage", type=float, default=0.5, help="largest voltage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    config = load_config(given.config, given.overrides)
    assert config.electrons is not None
    assert config.torque is not None
    for number in range(given.files):
        role = "validation" if number % _VALIDATES == 0 else "train"
        rng = np.random.default_rng((given.seed, number))
        polarization, voltage = LONGEST * rng.uniform() * unit(rng), given.voltage * rng.uniform(-1, 1)
        changes = []
        for place, reservoir in enumerate(config.electrons.reservoirs):
            potential = reservoir.potential + voltage * config.torque.shares.get(reservoir.name, 0.0)
            changes.append(f"electrons.reservoirs.{place}.potential={potential}")
            if any(reservoir.polarization):
                changes.append(f"electrons.reservoirs.{place}.polarization={json.dumps(polarization.tolist())}")
        system = hs.load_system(given.config, *given.overrides, *changes)
        size, free = config.lattice.size, config.torque.free
        spins = np.stack([magnet(snapshot, size, free, rng) for snapshot in range(given.snapshots)])
        name = f"{role}-{number // _VALIDATES if role == 'validation' else number:02d}.h5"
        hs.label(system, spins, given.output / name)


if __name__ == "__main__":
    main()
