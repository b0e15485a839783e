"""Spin densities: learned, symmetric averages of the spins around a centre."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.descriptors.invariants import Quadratic, Term
from hpcspin.potential.gather import StaticGather
from hpcspin.potential.irreps import Irrep, group_transform, independent_copies, irreps_of, slot_permutations
from hpcspin.potential.polynomials import Polynomials
from hpcspin.potential.tiles import cross, product


class Densities(Descriptor):
    """Invariants of spin densities with learned kernels.

    A density is a vector A^Γ_ca = Σ_δ W^Γ_ca(δ) S_δ over the neighbourhood whose kernels transform like the row a of
    the irrep Γ of the site symmetry; each is a learned mixture, c, of the copies of Γ among the sites. The invariants
    are, for each pair of channels c, c' of one irrep,

        Σ_a A_ca·A_c'a   and   Σ_a S_0·(A_ca x A_c'a),

    even and odd under time reversal; the centre's own spin is one more channel of the trivial irrep. If the features
    must be even, the odd ones are squared. The cost grows with the number of neighbours, not of pairs.
    """

    name = "densities"

    CHANNELS = 12
    """Channels of each irrep, or fewer if it has fewer copies among the sites."""

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        self._even = even
        bases = site_bases(irreps_of(lattice, operations), slot_permutations(offsets, operations))
        counts = [min(self.CHANNELS, len(basis)) for basis in bases]
        self.mixtures = nn.ParameterList(
            torch.randn(count, len(basis)) / math.sqrt(len(basis)) for count, basis in zip(counts, bases, strict=True)
        )
        for number, basis in enumerate(bases):
            self.constant(f"basis{number}", basis)
        dimensions = [basis.shape[1] for basis in bases]
        count = 1 + sum(map(operator.mul, counts, dimensions))
        self.bonds, self.chiralities = (Quadratic(terms, count) for terms in _pairs(counts, dimensions))
        # Not by broadcasting, whose derivative is a torch.sum: its order depends on the position in memory.
        self.own = StaticGather([0] * count, count)
        self.parity = np.array(
            [1] * len(self.bonds) + [1 if even else -1] * len(self.chiralities) + [1] * len(self.presence_counts)
        )

    def kernels(self) -> Tensor:
        """Kernels W of all densities, one row for each irrep, channel and row a: (densities, slots)."""
        parts = [
            torch.einsum("cr,ras->cas", mixture, getattr(self, f"basis{number}")).flatten(0, 1)
            for number, mixture in enumerate(self.mixtures)
        ]
        return torch.cat(parts)

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """See `Descriptor`."""
        densities = torch.cat([spins[:1], product(self.kernels(), spins, tile)])
        crossed = cross(self.own(densities), densities)
        even, odd = self._dots(self.bonds, densities, densities), self._dots(self.chiralities, crossed, densities)
        return torch.cat([even, odd * odd if self._even else odd, self.presence(spins, tile)])

    def _dots(self, pairs: Quadratic, left: Tensor, right: Tensor) -> Tensor:
        # Component by component: all three at once do not fit the cache.
        x, y, z = (pairs(a, b) for a, b in zip(left.unbind(1), right.unbind(1), strict=True))
        return x + y + z

    def polynomials(self) -> Polynomials:
        """See `Descriptor`."""
        written = Polynomials(self.presence_counts.shape[1])
        matrix = np.kron(self.kernels().detach().double().numpy(), np.eye(3))
        densities = np.concatenate([written.spins[:1], written.mapped(matrix, written.spins.ravel()).reshape(-1, 3)])
        crossed = written.crossed(written.spins[0], densities)
        if self._even:
            odd = self.chiralities.written(written, crossed, densities)
        # The features, one after the other.
        self.bonds.written(written, densities, densities)
        if self._even:
            written.sums(len(odd), np.arange(len(odd)), 1, odd, odd)
        else:
            self.chiralities.written(written, crossed, densities)
        written.mapped(self.presence_counts.double().numpy(), written.presence)
        return written


def site_bases(irreps: tuple[Irrep, ...], permutations: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Orthonormal kernels that transform like each irrep, shapes (copies, d, slots)."""
    matrix, rows = group_transform(irreps)
    row = {triple: number for number, triple in enumerate(rows)}
    bases: list[list[NDArray[np.float64]]] = [[] for _ in irreps]
    for slot in range(permutations.shape[1]):
        images = permutations[:, slot]
        if images.min() < slot:
            continue
        stabiliser = (images == slot).astype(float)
        for n, irrep in enumerate(irreps):
            for b, scale in independent_copies(irrep, stabiliser):
                kernel = np.zeros((irrep.shape[1], permutations.shape[1]))
                for a in range(len(kernel)):
                    np.add.at(kernel[a], images, scale * matrix[row[n, a, b]])
                bases[n].append(kernel)
    return [np.stack(basis) for basis in bases if basis]


def _pairs(counts: Sequence[int], dimensions: Sequence[int]) -> Iterator[list[list[Term]]]:
    """Terms of the bonds and of the chiralities of all pairs of channels of one irrep; density 0 is the own spin."""
    bonds, chiralities, start = list[tuple[range, range]](), list[tuple[range, range]](), 1
    for number, (count, dimension) in enumerate(zip(counts, dimensions, strict=True)):
        end = start + count * dimension
        channels = [range(first, first + dimension) for first in range(start, end, dimension)]
        bonds += combinations_with_replacement(channels, 2)
        bonds += [(range(1), channel) for channel in channels if number == 0]
        chiralities += combinations(channels, 2)
        start = end
    for pairs in (bonds, chiralities):
        yield [[(1.0, a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
