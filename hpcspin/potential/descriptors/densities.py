"""Spin densities: learned, symmetric averages of the spins around a centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.gather import SegmentSum, StaticGather
from hpcspin.potential.irreps import Irrep, group_transform, independent_copies, irreps_of, slot_permutations
from hpcspin.potential.tiles import cross, product, tiled


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
        self.bonds, self.chiralities = (
            _Pairs(blocks, pairs, sign) for pairs, sign in zip(_pairs(blocks), (1, -1), strict=True)
        )
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
        odd = self._odd(densities)
        even = self.bonds(densities, densities)
        return torch.cat([even, odd * odd if self._even else odd, self.presence(spins, tile)])

    def adjoint(self, spins: Tensor, cotangents: Tensor, slots: int, tile: int) -> Tensor:
        """See `Descriptor`.

        With the symmetric P_c = Σ_c' λ_cc' A_c' of the bonds and the antisymmetric Q_c = Σ_c' λ_cc' A_c' of the
        chiralities, the derivative with respect to A_c is P_c + Q_c x S_0, and that with respect to S_0 has
        half of Σ_c A_c x Q_c in addition.
        """
        densities = self.densities(spins, tile)
        even, odd, _ = cotangents.split([len(self.bonds), len(self.chiralities), len(self.presence_counts)])
        if self._even:
            odd = 2 * odd * tiled(self._odd(densities), tile).transpose(0, 1)[:, None]
        symmetric, antisymmetric = self.bonds.spread(densities, even), self.chiralities.spread(densities, odd)
        by_density = symmetric + cross(antisymmetric, densities[:1, None])
        torques = cross(densities[:, None], antisymmetric)
        by_spin = product(self.kernels()[:, :slots].T, by_density[1:], tile)
        by_spin[0] += by_density[0]
        own = by_spin[0]
        for torque in torques[1:].unbind():
            own.add_(torque, alpha=0.5)
        return by_spin

    def _odd(self, densities: Tensor) -> Tensor:
        chiralities: Tensor = self.chiralities(cross(densities[:1], densities), densities)
        return chiralities


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

    def view(self, x: Tensor) -> Tensor:
        """Cut this block out of x: shape (densities, ...) to (channels, dimension, ...)."""
        stop = self.start + self.channels * self.dimension
        return x[self.start : stop].unflatten(0, (self.channels, self.dimension))


_Pair = tuple[int, int, int]


class _Pairs(nn.Module):
    """Scalar products of pairs (c, c') of channels of one irrep, c' >= c, summed over the rows of the irrep.

    ``sign`` is that of a product when c and c' are exchanged.
    """

    order: Tensor

    def __init__(self, blocks: Sequence[_Block], pairs: Sequence[_Pair], sign: int) -> None:
        super().__init__()
        rows = [(blocks[b].rows(left), blocks[b].rows(right)) for b, left, right in pairs]
        total = blocks[-1].rows(blocks[-1].channels).start
        self.left, self.right = (StaticGather([row for pair in rows for row in pair[side]], total) for side in (0, 1))
        self.total = SegmentSum(np.array([len(left) for left, _ in rows]))
        self._sign = sign
        order = sorted(range(len(pairs)), key=lambda n: (pairs[n][0], pairs[n][2] - pairs[n][1], pairs[n][1]))
        runs = [list(run) for _, run in groupby((pairs[n] for n in order), lambda pair: (pair[0], pair[2] - pair[1]))]
        self._lengths = [len(run) for run in runs]
        self._runs = [
            (block, [(slice(*_ends(run, 1)), slice(*_ends(run, 2))) for run in runs if run[0][0] == number])
            for number, block in enumerate(blocks)
        ]
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def __len__(self) -> int:
        return len(self.order)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Products, shape (pairs, centres), of vectors (densities, 3, centres)."""
        # Component by component: all three at once do not fit the cache.
        x, y, z = ((self.left(a), self.right(b)) for a, b in zip(left.unbind(1), right.unbind(1), strict=True))
        products: Tensor = self.total(torch.addcmul(torch.addcmul(x[0] * x[1], *y), *z))
        return products

    def spread(self, vectors: Tensor, cotangents: Tensor) -> Tensor:
        """Σ_c' λ_cc' A_c' of all channels c, with λ_c'c = ± λ_cc' of the pairs, shape (densities, m, 3, centres).

        The vectors A have the shape (densities, 3, centres), the cotangents λ (pairs, m, tiles, tile). Runs of pairs at
        the same distance c' - c are slices on both sides.
        """
        densities, components, centres = vectors.shape
        spread = vectors.new_zeros((densities, cotangents.shape[1], components, centres))
        factors = iter(cotangents.index_select(0, self.order).flatten(2)[:, None, :, None].split(self._lengths))
        for block, runs in self._runs:
            source, target = block.view(vectors[:, None]), block.view(spread)
            for first, second in runs:
                factor = next(factors)
                target[first].addcmul_(factor, source[second])
                target[second].addcmul_(factor, source[first], value=self._sign)
        return spread


def _ends(run: Sequence[_Pair], member: int) -> tuple[int, int]:
    return run[0][member], run[-1][member] + 1


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
