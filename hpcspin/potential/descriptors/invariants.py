"""Base of the descriptors of bonds and scalar chiralities: scalar products of what transforms like one irrep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.descriptors.coefficients import Coefficients, Copy, copies_of
from hpcspin.potential.gather import SegmentSum, StaticGather
from hpcspin.potential.irreps import Irrep, Orbit, invariant, irreps_of
from hpcspin.potential.polynomials import Polynomials, Rows
from hpcspin.potential.tiles import product

Kind = tuple[int, int]
"""Number of an irrep and parity under time reversal."""
Invariant = tuple[int, int, int, int]
"""First components of both factors of a scalar product, its dimension and its time parity."""
Term = tuple[float, int, int]
"""Factor of a product of two components, and their numbers."""


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

    The reference of a kind is the mean of all its copies, times the square root of their number; 0 without any.
    ``places`` and ``starts`` have the first component of each copy and of each reference.
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
        self.sums = SegmentSum(np.array([len(those) for those in terms], dtype=np.int64))
        factors = torch.tensor([term[0] for term in flat], dtype=torch.float64)
        self._plain = all(term[0] == 1 for term in flat)
        self.register_buffer("factors", factors, persistent=False)

    def __len__(self) -> int:
        return len(self.sums)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """From components of both factors, shape (components, centres), to (sums, centres)."""
        products = self.left(left) * self.right(right)
        sums: Tensor = self.sums(products if self._plain else products * self.factors[:, None])
        return sums

    def written(self, polynomials: Polynomials, left: Rows, right: Rows) -> Rows:
        """Rows of the sums, from those of the components, or of vectors, (components, 3), for scalar products."""
        left, right = left[self.left.index.numpy()], right[self.right.index.numpy()]
        repeat = left[:1].size or 1
        owner, factors = (part.numpy().repeat(repeat) for part in (self.sums.owner, self.factors.double()))
        return polynomials.sums(len(self), owner, factors, left.ravel(), right.ravel())


def kind_of(copy: Copy) -> Kind:
    """Irrep and parity of a copy."""
    return copy.irrep, copy.parity
