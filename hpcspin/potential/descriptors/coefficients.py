"""Coefficients f^Γ of bonds and scalar chiralities in the irreps of the site symmetry."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hpcspin.potential.gather import StaticGather, linear
from hpcspin.potential.irreps import Irrep, Orbit, group_transform, independent_copies
from hpcspin.potential.polynomials import Polynomials, Rows
from hpcspin.potential.tiles import cross, dot

_ROUNDING = 1e-6
"""Weights below this are zeros of the characters, rounded in single precision."""


@dataclass(frozen=True)
class Copy:
    """One copy of an irrep in an orbit."""

    irrep: int
    """Number of the irrep, 0 for the trivial one."""
    places: tuple[int, ...]
    """Positions of its components among the transforms of all orbits."""
    scale: float
    """Makes the coefficients orthonormal on the distinct members of the orbit."""
    parity: int
    """Sign under time reversal, S -> -S: 1 of bonds, -1 of chiralities."""


def copies_of(orbits: Sequence[Orbit], irreps: Sequence[Irrep]) -> Iterator[Copy]:
    """All independent copies of all irreps, orbit by orbit."""
    matrix, rows = group_transform(tuple(irreps))
    row = {triple: number for number, triple in enumerate(rows)}
    for number, orbit in enumerate(orbits):
        for n, irrep in enumerate(irreps):
            for b, scale in independent_copies(irrep, orbit.stabiliser):
                places = tuple(number * len(matrix) + row[n, a, b] for a in range(irrep.shape[1]))
                yield Copy(n, places, scale, orbit.parity)


class Coefficients(nn.Module):
    """Coefficients of chosen copies of irreps, in the order given, and their derivative with respect to the spins."""

    transform: Tensor
    scale: Tensor

    def __init__(self, orbits: Sequence[Orbit], irreps: Sequence[Irrep], copies: Sequence[Copy], slots: int) -> None:
        super().__init__()
        self.copies = tuple(copies)
        matrix, _ = group_transform(tuple(irreps))
        self._order = len(matrix)
        first = [orbit.pairs[:, 0] + (slots - 1 if orbit.kind == "chirality" else 0) for orbit in orbits]
        second = [orbit.pairs[:, 1] for orbit in orbits]
        # The first factor of a chirality S_0·(S_j x S_k) = (S_0 x S_j)·S_k is stored after all spins.
        # Not by broadcasting, whose derivative is a torch.sum: its order depends on the position in memory.
        self.own = StaticGather([0] * (slots - 1), slots)
        self.left = StaticGather(np.concatenate(first), 2 * slots - 1)
        self.right = StaticGather(np.concatenate(second), slots)
        self.components = StaticGather([place for copy in copies for place in copy.places], len(orbits) * self._order)
        scale = [copy.scale for copy in copies for _ in copy.places]
        for name, constant in (("transform", matrix), ("scale", scale)):
            self.register_buffer(name, torch.tensor(constant, dtype=torch.float64), persistent=False)

    def forward(self, spins: Tensor) -> Tensor:
        """Coefficients, orthonormal on each orbit: from spins (slots, 3, centres), shape (coefficients, centres)."""
        crossed = cross(self.own(spins), spins[1:])
        values = dot(self.left(torch.cat([spins, crossed])), self.right(spins))
        there, back = (functools.partial(self._transformed, matrix) for matrix in (self.transform, self.transform.T))
        selected: Tensor = self.components(linear(values, there, back))
        return selected * self.scale[:, None]

    def _transformed(self, transform: Tensor, values: Tensor) -> Tensor:
        """Transform on the group, orbit by orbit; a sum of so few terms needs no matrix product."""
        by_operation = values.unflatten(0, (-1, self._order)).unbind(1)
        terms = (column[:, None] * value[:, None] for column, value in zip(transform.T, by_operation, strict=True))
        return functools.reduce(torch.add, terms).flatten(0, 1)

    def written(self, polynomials: Polynomials) -> Rows:
        """Rows of the coefficients; members of an orbit that are equal up to a sign are computed once."""
        spins, slots = polynomials.spins, len(polynomials.spins)
        first, second = (gather.index.numpy() for gather in (self.left, self.right))
        chirality = first >= slots
        pairs = np.stack([first - np.where(chirality, slots - 1, 0), second], 1)
        sign = np.where(chirality & (pairs[:, 0] > pairs[:, 1]), -1.0, 1.0)
        keys = np.column_stack([chirality, np.sort(pairs, 1)])
        distinct, member = np.unique(keys, axis=0, return_inverse=True)
        vectors = np.concatenate([spins, polynomials.crossed(spins[0], spins[1:])])
        values = polynomials.dots(vectors[distinct[:, 1] + (slots - 1) * distinct[:, 0]], spins[distinct[:, 2]])
        orbit, row = np.divmod(self.components.index.numpy(), self._order)
        columns = self._order * orbit[:, None] + np.arange(self._order)
        weights = (self.scale[:, None] * self.transform[row]).double().numpy() * sign[columns]
        places, term = np.unique(np.arange(len(row))[:, None] * len(values) + member[columns], return_inverse=True)
        factors = np.bincount(term.ravel(), weights.ravel())
        owner, column = np.divmod(places, len(values))
        return polynomials.sums(len(row), owner, np.where(np.abs(factors) > _ROUNDING, factors, 0), values[column])
