"""Driven lattices for the tests of the electrons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons import DrivenLattice, Reservoir
from hpcspin.lattice import LATTICES, SquareLattice, make_lattice

KINDS = tuple(sorted(kind for kind, lattice in LATTICES.items() if lattice.__module__.startswith("hpcspin.")))


class OtherDiagonal(SquareLattice):
    """The square grid and the (1, 1) diagonal."""

    kind = "other_diagonal"
    bonds = ((1, 0), (0, 1), (1, 1))


class SecondNeighbours(SquareLattice):
    """J1-J2: the square grid and both diagonals."""

    kind = "second_neighbours"
    bonds = ((1, 0), (0, 1), (1, 1), (1, -1))


class Chains(SquareLattice):
    """No bond within a column."""

    kind = "chains"
    bonds = ((1, 0), (1, 1))


class Rows(SquareLattice):
    """Rows that are bound by nothing but their reservoirs."""

    kind = "rows"
    bonds = ((1, 0),)


class Ladder(SquareLattice):
    """Neighbouring columns as on the square lattice, and second neighbours within each."""

    kind = "ladder"
    bonds = ((-1, 0), (0, 1), (0, 2))


class Knight(SquareLattice):
    """Bonds that pass a row, one of them named by the half that points to the left."""

    kind = "knight"
    bonds = ((-1, 2), (0, 1), (1, 1))


class NextColumnButOne(SquareLattice):
    """A bond that passes a column."""

    kind = "next_column_but_one"
    bonds = ((1, 0), (0, 1), (2, 0))


OWN_KINDS = tuple(kind.kind for kind in (OtherDiagonal, SecondNeighbours, Chains, Rows, Ladder, Knight))
"""Lattices of the tests' own that `negf` can treat."""


def _mask(name: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    x, y = np.indices(size)
    masks = {
        "left": x == 0,
        "right": x == size[0] - 1,
        "bath": x >= 0,
        "middle": (x == size[0] // 2) & (y < 2),
        "corner": (x == 0) & (y == 0),
    }
    return masks[name]


def driven(
    kind: str = "square",
    size: tuple[int, int] = (6, 4),
    *,
    periodic_x: bool = False,
    periodic_y: bool = True,
    hopping: float = 1.0,
    exchange: float = 2.5,
    temperature: float = 0.03,
    **reservoirs: tuple[Any, ...],
) -> DrivenLattice:
    """A driven lattice; each keyword is a reservoir (width, potential[, polarization]) at a named place."""
    return DrivenLattice(
        make_lattice(kind, size, (periodic_x, periodic_y)),
        hopping,
        exchange,
        temperature,
        tuple(Reservoir(name, _mask(name, size), *values) for name, values in reservoirs.items()),
    )


def random_spins(system: DrivenLattice, count: int, seed: int) -> NDArray[np.float64]:
    """Independent unit vectors, shape (count, Lx, Ly, 3)."""
    spins = np.random.default_rng(seed).standard_normal((count, *system.lattice.size, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def from_reference(content: dict[str, Any]) -> DrivenLattice:
    """The driven lattice of a file of exact steady states."""
    meta = content["meta"]
    reservoirs = {
        name: (meta[f"gamma_{name}"], meta[f"mu_{name}"], tuple(meta.get(f"{name}_polarization", (0, 0, 0))))
        for name in ("left", "right", "bath")
    }
    return driven(
        meta["lattice"],
        (meta["lx"], meta["ly"]),
        periodic_y=meta["periodic_y"],
        hopping=meta["t"],
        exchange=meta["J"],
        temperature=meta["T"],
        **reservoirs,
    )
