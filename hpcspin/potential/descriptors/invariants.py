"""Base of the descriptors of bonds and scalar chiralities: scalar products of what transforms like one irrep."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.gather import StaticGather, linear
from hpcspin.potential.irreps import Irrep, Orbit, group_transform, independent_copies, invariant, irreps_of
from hpcspin.potential.polynomials import Polynomials, Rows
from hpcspin.potential.tiles import cross, dot, product

_ROUNDING = 1e-6
"""Weights below this are zeros of the characters, rounded in single precision."""
Kind = tuple[int, int]
"""Number of an irrep and parity under time reversal."""
Invariant = tuple[int, int, int, int]
"""First components of both factors of a scalar product, its dimension and its time parity."""
Term = tuple[float, int, int]
"""Factor of a product of two components, and their numbers."""


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
        return self.components(linear(values, there, back)) * self.scale[:, None]

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


class Invariants(Descriptor, registered=False):
    """Coefficients f of the trivial irrep, and scalar products of the others, their references and products of these.

    A subclass chooses the orbits, the kinds of references and the scalar products.
    """

    references: Tensor

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        orbits, irreps = self._orbits(lattice, offsets, operations), irreps_of(lattice, operations)
        copies = list(copies_of(orbits, irreps))
        direct = [copy for copy in copies if copy.irrep == 0 and (copy.parity > 0 or not even)]
        others = [copy for copy in copies if copy.irrep > 0 or (copy.parity < 0 and even)]
        covariants = self._covariants(irreps, others, even)
        invariants = list(self._invariants(covariants, even))
        self.coefficients = Coefficients(orbits, irreps, [*direct, *covariants.copies], len(offsets))
        self.constant("references", covariants.references)
        self.products = Quadratic(covariants.products, len(covariants.references))
        self.sizes = [len(direct), covariants.references.shape[1]]
        dots = [[(1.0, left + a, right + a) for a in range(size)] for left, right, size, _ in invariants]
        self.dots = Quadratic(dots, sum(covariants.references.shape) + len(covariants.products))
        self.parity = np.array(
            [copy.parity for copy in direct] + [parity for *_, parity in invariants] + [1] * len(self.presence_counts)
        )

    def _orbits(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> Sequence[Orbit]:
        """Orbits of the bonds and chiralities."""
        raise NotImplementedError

    def _covariants(self, irreps: Sequence[Irrep], copies: Sequence[Copy], even: bool) -> Covariants:
        """The copies, in the order of their scalar products, and the references."""
        raise NotImplementedError

    def _invariants(self, covariants: Covariants, even: bool) -> Iterable[Invariant]:
        """The scalar products."""
        raise NotImplementedError

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """See `Descriptor`."""
        direct, others = self.coefficients(spins).split(self.sizes)
        references = product(self.references, others, tile)
        covariants = torch.cat([others, references, self.products(references, references)])
        return torch.cat([direct, self.dots(covariants, covariants), self.presence(spins, tile)])

    def polynomials(self) -> Polynomials:
        """See `Descriptor`."""
        written = Polynomials(self.presence_counts.shape[1])
        direct, others = np.split(self.coefficients.written(written), self.sizes[:1])
        references = written.mapped(self.references.double().numpy(), others)
        rows = np.concatenate([others, references, self.products.written(written, references, references)])
        # The features, one after the other.
        written.mapped(np.eye(len(direct)), direct)
        self.dots.written(written, rows, rows)
        written.mapped(self.presence_counts.double().numpy(), written.presence)
        return written


class Covariants:
    """Components of what transforms like the irreps: copies f in the given order, references, and products of these.

    The reference of a kind is the mean of its copies, times the square root of their number. ``places`` and ``starts``
    have the first component of each copy and of each reference.
    """

    def __init__(self, irreps: Sequence[Irrep], copies: Sequence[Copy], kinds: Iterable[Kind]) -> None:
        self._irreps, self.copies = irreps, copies
        *self.places, width = np.cumsum([0, *(len(copy.places) for copy in copies)]).tolist()
        self.starts: dict[Kind, int] = {}
        rows: list[NDArray[np.float64]] = []
        for kind in kinds:
            self.starts[kind] = width + len(rows)
            members = [place for place, copy in zip(self.places, copies, strict=True) if kind_of(copy) == kind]
            for a in range(irreps[kind[0]].shape[1]):
                rows.append(np.zeros(width))
                rows[-1][np.array(members, dtype=np.int64) + a] = 1 / np.sqrt(max(1, len(members)))
        self.references = np.array(rows).reshape(-1, width)
        self.products: list[list[Term]] = []
        self._known: dict[tuple[int, Kind, Kind], int | None] = {}

    def product(self, irrep: int, left: Kind, right: Kind) -> int | None:
        """First component of v_a = Σ_bc C_abc r_b r'_c, made on demand; None if no product is of this irrep."""
        key, (rows, width) = (irrep, left, right), self.references.shape
        if key not in self._known:
            vector = invariant(*(self._irreps[n] for n in (irrep, left[0], right[0])))
            self._known[key] = None if vector is None else width + rows + len(self.products)
            for row in [] if vector is None else vector:
                first, second = (self.starts[kind] - width for kind in (left, right))
                self.products.append([(float(row[b, c]), first + int(b), second + int(c)) for b, c in np.argwhere(row)])
        return self._known[key]


class Quadratic(nn.Module):
    """Sums of products of two out of ``length`` components, from the terms of each sum."""

    factors: Tensor

    def __init__(self, terms: Sequence[Sequence[Term]], length: int) -> None:
        super().__init__()
        flat = [term for those in terms for term in those]
        self.left, self.right = (StaticGather([term[side] for term in flat], length) for side in (1, 2))
        self._length = len(terms)
        self.sums = StaticGather([number for number, those in enumerate(terms) for _ in those], len(terms))
        factors = torch.tensor([term[0] for term in flat], dtype=torch.float64)
        self._plain = all(term[0] == 1 for term in flat)
        self.register_buffer("factors", factors, persistent=False)

    def __len__(self) -> int:
        return self._length

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """From components of both factors, shape (components, centres), to (sums, centres)."""
        products = self.left(left) * self.right(right)
        return self.sums.adjoint(products if self._plain else products * self.factors[:, None])

    def written(self, polynomials: Polynomials, left: Rows, right: Rows) -> Rows:
        """Rows of the sums, from those of the components, or of vectors, (components, 3), for scalar products."""
        left, right = left[self.left.index.numpy()], right[self.right.index.numpy()]
        repeat = left[:1].size or 1
        owner, factors = (part.numpy().repeat(repeat) for part in (self.sums.index, self.factors.double()))
        return polynomials.sums(len(self), owner, factors, left.ravel(), right.ravel())


def kind_of(copy: Copy) -> Kind:
    """Irrep and parity of a copy."""
    return copy.irrep, copy.parity
