"""Spin densities: learned, symmetric averages of the spins around a centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.gather import SegmentSum, StaticGather
from hpcspin.potential.irreps import Irrep, group_transform, independent_copies, irreps_of, slot_permutations
from hpcspin.potential.polynomials import Polynomials, Rows
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
        blocks = _blocks(counts, [basis.shape[1] for basis in bases])
        self.bonds, self.chiralities = (_Pairs(blocks, pairs) for pairs in _pairs(blocks))
        count = blocks[-1].rows(blocks[-1].channels).start
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

    def densities(self, spins: Tensor, tile: int) -> Tensor:
        """The centre's spin and all densities A, shape (1 + densities, 3, centres)."""
        return torch.cat([spins[:1], product(self.kernels(), spins, tile)])

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """See `Descriptor`."""
        densities = self.densities(spins, tile)
        even, odd = self.bonds(densities, densities), self.chiralities(cross(self.own(densities), densities), densities)
        return torch.cat([even, odd * odd if self._even else odd, self.presence(spins, tile)])

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


@dataclass(frozen=True)
class _Block:
    """The channels of one irrep: their first density, their number and the dimension.

    The trivial irrep comes first; its channel 0 is the centre's own spin.
    """

    start: int
    channels: int
    dimension: int

    def rows(self, channel: int) -> range:
        """Densities of a channel."""
        first = self.start + channel * self.dimension
        return range(first, first + self.dimension)


_Pair = tuple[int, int, int]


class _Pairs(nn.Module):
    """Scalar products of pairs (c, c') of channels of one irrep, summed over the rows of the irrep."""

    def __init__(self, blocks: Sequence[_Block], pairs: Sequence[_Pair]) -> None:
        super().__init__()
        rows = [(blocks[b].rows(left), blocks[b].rows(right)) for b, left, right in pairs]
        total = blocks[-1].rows(blocks[-1].channels).start
        self.left, self.right = (StaticGather([row for pair in rows for row in pair[side]], total) for side in (0, 1))
        self.total = SegmentSum(np.array([len(left) for left, _ in rows]))

    def __len__(self) -> int:
        return len(self.total)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Products, shape (pairs, centres), of vectors (densities, 3, centres)."""
        # Component by component: all three at once do not fit the cache.
        x, y, z = ((self.left(a), self.right(b)) for a, b in zip(left.unbind(1), right.unbind(1), strict=True))
        products: Tensor = self.total(torch.addcmul(torch.addcmul(x[0] * x[1], *y), *z))
        return products

    def written(self, polynomials: Polynomials, left: Rows, right: Rows) -> Rows:
        """Rows of the products, from those of the vectors, shape (densities, 3)."""
        factors = left[self.left.index.numpy()], right[self.right.index.numpy()]
        owner = self.total.owner.numpy().repeat(3)
        return polynomials.sums(len(self), owner, 1, *(rows.ravel() for rows in factors))


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


def _blocks(counts: list[int], dimensions: list[int]) -> list[_Block]:
    """The channels of all irreps, one density after the other."""
    blocks = [_Block(0, 1 + counts[0], dimensions[0])]
    for count, dimension in zip(counts[1:], dimensions[1:], strict=True):
        blocks.append(_Block(blocks[-1].rows(blocks[-1].channels).start, count, dimension))
    return blocks


def _pairs(blocks: Sequence[_Block]) -> tuple[list[_Pair], list[_Pair]]:
    """Pairs of channels of one irrep that make a bond and a chirality, in the order of the features."""
    bonds, chiralities = [], []
    for number, block in enumerate(blocks):
        channels = range(1 if number == 0 else 0, block.channels)
        bonds += [(number, *pair) for pair in combinations_with_replacement(channels, 2)]
        bonds += [(number, 0, channel) for channel in channels if number == 0]
        chiralities += [(number, *pair) for pair in combinations(channels, 2)]
    return bonds, chiralities
