"""The bispectrum of bonds and scalar chiralities: invariants that relate all irreps to each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.descriptors.coefficients import Coefficients, Copy, copies_of
from hpcspin.potential.gather import SegmentSum, StaticGather
from hpcspin.potential.irreps import Irrep, close_pairs, find_orbits, invariant, irreps_of
from hpcspin.potential.polynomials import Polynomials, Rows

_CLOSE = 1.5
"""Neighbours j and k closer to each other than this, in lattice constants, have a bond b_jk and a chirality χ_0jk."""

_Kind = tuple[int, int]
"""Number of an irrep and parity under time reversal."""
_Term = tuple[float, int, int]
"""Factor of a product of two components of references, and their numbers."""
_Invariant = tuple[int, int, int, int]
"""First components of both factors of a scalar product, its dimension and its time parity."""


class Bispectrum(Descriptor):
    """Third-order invariants of bonds and scalar chiralities; their number grows linearly with the neighbours.

    The building blocks are all b_0j, and b_jk and χ_0jk = S_0·(S_j x S_k) of neighbours j and k at most a diagonal of
    the square lattice apart. Each orbit of them is projected onto the irreps Γ of the point group, which gives
    coefficients f^Γ. Every irrep and time parity has a reference r^Γ, the mean of all copies f^Γ. The invariants are

    - f of the trivial irrep,
    - the power spectrum |f^Γ|² of all others,
    - f^Γ·r^Γ, which keeps the relative phase of different copies of Γ,
    - B = Σ_abc C_abc r^Γ_a r^Γ'_b r^Γ''_c of all references, with the invariant vector C of Γ⊗Γ'⊗Γ'': the products
      above do not change when an operation acts on one irrep alone, and these do,
    - B = Σ_abc C_abc f^Γ_a r^Γ'_b r^Γ''_c of each copy f^Γ of a doublet, which |f^Γ|² and f^Γ·r^Γ determine up
      to a sign.

    Bonds are even and chiralities odd under time reversal. If the features must be even, chiralities of the trivial
    irrep also enter only squared and through products, and products contain an even number of chiralities.

    Some products of references vanish, those of a doublet with itself and A2; if an irrep has one copy, which then is
    the reference, some are equal. They are kept, so that the set follows a simple rule.

    Further features are the counts of existing neighbours along the lattice's axes.

    References
    ----------
    P. Zhang and G.-W. Chern, Phys. Rev. Lett. 127, 146401 (2021).
    """

    name = "bispectrum"

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        irreps = irreps_of(lattice, operations)
        orbits = find_orbits(offsets, operations, close_pairs(lattice, offsets, _CLOSE))
        copies = list(copies_of(orbits, irreps))
        direct = [copy for copy in copies if copy.irrep == 0 and (copy.parity > 0 or not even)]
        others = sorted((copy for copy in copies if copy.irrep > 0 or (copy.parity < 0 and even)), key=_kind)
        kinds = sorted({_kind(copy) for copy in others})
        self.coefficients = Coefficients(orbits, irreps, [*direct, *others], len(offsets))
        self.references = _References(irreps, others, kinds)
        products = _Products(irreps, self.references.starts)
        invariants = list(_invariants(irreps, others, self.references, products, even))
        self.products = _Quadratic(products.terms, self.references.width)
        self.numbers = [len(direct), sum(irreps[copy.irrep].shape[1] for copy in others), self.references.width]
        length = sum(self.numbers[1:]) + len(products.terms)
        dots = [[(1.0, left + a, right + a) for a in range(size)] for left, right, size, _ in invariants]
        self.invariants = _Quadratic(dots, length)
        self.parity = np.array(
            [copy.parity for copy in direct] + [parity for *_, parity in invariants] + [1] * len(self.presence_counts)
        )

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """See `Descriptor`."""
        direct, covariants = self._covariants(spins)
        return torch.cat([direct, self.invariants(covariants), self.presence(spins, tile)])

    def adjoint(self, spins: Tensor, cotangents: Tensor, slots: int, tile: int) -> Tensor:
        """See `Descriptor`: back through the invariants, the references, the irreps, and the bonds and chiralities."""
        _, covariants = self._covariants(spins)
        numbers = [self.numbers[0], len(self.invariants.sums), len(self.presence_counts)]
        direct, by_invariant, _ = cotangents.flatten(2).split(numbers)
        back = self.invariants.adjoint(covariants, by_invariant)
        sizes = [*self.numbers[1:], len(covariants) - sum(self.numbers[1:])]
        by_copy, by_reference, by_quadratic = back.split(sizes)
        references = covariants.split(sizes)[1]
        by_reference = by_reference + self.products.adjoint(references, by_quadratic)
        by_coefficient = torch.cat([direct, by_copy + self.references.adjoint(by_reference)])
        return self.coefficients.adjoint(spins, by_coefficient)[:slots]

    def polynomials(self) -> Polynomials:
        """See `Descriptor`."""
        written = Polynomials(self.presence_counts.shape[1])
        direct, others = np.split(self.coefficients.written(written), self.numbers[:1])
        references = self.references.written(written, others)
        rows = np.concatenate([others, references, self.products.written(written, references)])
        # The features, one after the other.
        written.mapped(np.eye(len(direct)), direct)
        self.invariants.written(written, rows)
        written.mapped(self.presence_counts.double().numpy(), written.presence)
        return written

    def _covariants(self, spins: Tensor) -> tuple[Tensor, Tensor]:
        """Invariant values, and the components of all covariant ones: copies, references, their products."""
        coefficients = self.coefficients(spins)
        direct, others = coefficients.split([self.numbers[0], self.numbers[1]])
        references = self.references(others)
        return direct, torch.cat([others, references, self.products(references)])


class _References(nn.Module):
    """The mean of the copies of each irrep and time parity, times the square root of their number.

    Copies are ordered by kind. ``starts`` has the index of the first component of each reference, ``width`` is the
    number of all components.
    """

    scale: Tensor

    def __init__(self, irreps: Sequence[Irrep], copies: Sequence[Copy], kinds: Sequence[_Kind]) -> None:
        super().__init__()
        self.starts: dict[_Kind, int] = {}
        places, counts, start = list[int](), list[int](), 0
        for kind in kinds:
            self.starts[kind] = len(counts)
            dimension, count = irreps[kind[0]].shape[1], sum(_kind(copy) == kind for copy in copies)
            places += [start + dimension * copy + a for a in range(dimension) for copy in range(count)]
            counts += [count] * dimension
            start += dimension * count
        self.width = len(counts)
        self.order = StaticGather(places, start)
        self.sums = SegmentSum(np.array(counts, dtype=np.int64))
        scale = 1 / np.sqrt(np.array(counts, dtype=np.float64))
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        """References of coefficients: (coefficients, ...) to (components, ...)."""
        sums: Tensor = self.sums(self.order(coefficients))
        return sums * self.scale[:, None]

    def written(self, polynomials: Polynomials, coefficients: Rows) -> Rows:
        """Rows of the references, from those of the coefficients."""
        owner = self.sums.owner.numpy()
        factors = self.scale.double().numpy()[owner]
        return polynomials.sums(self.width, owner, factors, coefficients[self.order.index.numpy()])

    def adjoint(self, by_reference: Tensor) -> Tensor:
        """Derivative with respect to the coefficients, from that with respect to the references."""
        return self.order.adjoint(self.sums.expand(by_reference * self.scale[:, None, None]))


class _Products:
    """Products of two references that transform like an irrep, v_a = Σ_bc C_abc r_b r'_c, made on demand.

    ``starts`` has the first component of each reference, ``terms`` those of each component of all products.
    """

    def __init__(self, irreps: Sequence[Irrep], starts: dict[_Kind, int]) -> None:
        self._irreps, self._starts = irreps, starts
        self._known: dict[tuple[int, _Kind, _Kind], int | None] = {}
        self.terms: list[list[_Term]] = []

    def first(self, irrep: int, left: _Kind, right: _Kind) -> int | None:
        """Index of the first component of the product that transforms like an irrep; None if there is none."""
        key = irrep, left, right
        if key not in self._known:
            vector = invariant(*(self._irreps[n] for n in (irrep, left[0], right[0])))
            self._known[key] = None if vector is None else len(self.terms)
            for row in [] if vector is None else vector:
                self.terms.append(
                    [
                        (float(row[b, c]), self._starts[left] + int(b), self._starts[right] + int(c))
                        for b, c in np.argwhere(row)
                    ]
                )
        return self._known[key]


class _Quadratic(nn.Module):
    """Sums of products of two out of ``length`` components, from the terms of each sum."""

    factors: Tensor

    def __init__(self, terms: Sequence[Sequence[_Term]], length: int) -> None:
        super().__init__()
        flat = [term for those in terms for term in those]
        self.left, self.right = (StaticGather([term[side] for term in flat], length) for side in (1, 2))
        self.sums = SegmentSum(np.array([len(those) for those in terms], dtype=np.int64))
        factors = torch.tensor([term[0] for term in flat], dtype=torch.float64)
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (components, centres) to (sums, centres)."""
        sums: Tensor = self.sums(self.left(x) * self.right(x) * self.factors[:, None])
        return sums

    def written(self, polynomials: Polynomials, rows: Rows) -> Rows:
        """Rows of the sums, from those of the components."""
        left, right = (rows[gather.index.numpy()] for gather in (self.left, self.right))
        factors = self.factors.double().numpy()
        return polynomials.sums(len(self.sums), self.sums.owner.numpy(), factors, left, right)

    def adjoint(self, x: Tensor, by_sum: Tensor) -> Tensor:
        """Derivative with respect to the components, from that with respect to the sums, shape (sums, m, centres)."""
        by_term = self.sums.expand(by_sum) * self.factors[:, None, None]
        left, right = self.left(x)[:, None], self.right(x)[:, None]
        return self.left.adjoint(by_term * right) + self.right.adjoint(by_term * left)


def _kind(copy: Copy) -> _Kind:
    return copy.irrep, copy.parity


def _invariants(
    irreps: Sequence[Irrep], copies: Sequence[Copy], references: _References, products: _Products, even: bool
) -> Iterator[_Invariant]:
    """All scalar products; components are numbered through copies, references and products of references."""
    dimensions = [irreps[copy.irrep].shape[1] for copy in copies]
    *places, width = np.cumsum([0, *dimensions]).tolist()
    starts = {kind: width + start for kind, start in references.starts.items()}
    allowed = (1,) if even else (1, -1)

    def with_products(kind: _Kind, place: int, pairs: Iterable[tuple[_Kind, _Kind]]) -> Iterator[_Invariant]:
        for left, right in pairs:
            parity = kind[1] * left[1] * right[1]
            first = products.first(kind[0], left, right) if parity in allowed else None
            if first is not None:
                yield place, width + references.width + first, irreps[kind[0]].shape[1], parity

    for place, size in zip(places, dimensions, strict=True):
        yield place, place, size, 1
    for place, size, copy in zip(places, dimensions, copies, strict=True):
        for parity in (1, -1):
            if (copy.irrep, parity) in starts and parity * copy.parity in allowed:
                yield place, starts[copy.irrep, parity], size, parity * copy.parity
    pairs = list(combinations_with_replacement(starts, 2))
    for kind, start in starts.items():
        # The first of three references comes no later than the others, so that each set of three counts once.
        yield from with_products(kind, start, (pair for pair in pairs if kind <= pair[0]))
    for place, size, copy in zip(places, dimensions, copies, strict=True):
        if size > 1:
            yield from with_products(_kind(copy), place, pairs)
