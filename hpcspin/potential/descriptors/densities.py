"""Spin densities: learned, symmetric averages of the spins around a centre."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor, selection
from hpcspin.potential.gather import StaticGather
from hpcspin.potential.irreps import Irrep, group_transform, independent_copies, irreps_of
from hpcspin.potential.orbits import slot_permutations
from hpcspin.potential.segments import SegmentSum
from hpcspin.potential.tiles import WHOLE, linear


class Densities(Descriptor):
    """Invariants of spin densities with learned kernels.

    A density is a vector A^Γ_ca = Σ_δ W^Γ_ca(δ) S_δ over the neighbourhood
    whose kernels transform like the row a of the irrep Γ of the site symmetry;
    each is a learned mixture, c, of the copies of Γ among the sites. Invariant
    are, for each pair of channels c, c' of one irrep,

        Σ_a A_ca·A_c'a   and   Σ_a S_0·(A_ca x A_c'a),

    even and odd under time reversal; the centre's own spin is one more channel
    of the trivial irrep. If the features must be even, the odd ones are
    squared. The cost grows with the number of neighbours, not of pairs.
    """

    name = "densities"

    CHANNELS = 12
    """Channels of each irrep, as far as it has as many copies among the sites."""

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        self._even = even
        bases = _site_bases(irreps_of(lattice, operations), slot_permutations(offsets, operations))
        counts = [min(self.CHANNELS, len(basis)) for basis in bases]
        self.mixtures = nn.ParameterList(
            torch.randn(count, len(basis)) / math.sqrt(len(basis)) for count, basis in zip(counts, bases, strict=True)
        )
        for number, basis in enumerate(bases):
            self.constant(f"basis{number}", basis)
        self.bonds, self.chiralities, self.entries = _invariants(counts, [basis.shape[1] for basis in bases])
        self.parity = np.array(
            [1] * len(self.bonds.pointer[1:])
            + [1 if even else -1] * len(self.chiralities.pointer[1:])
            + [1] * len(self.presence_counts)
        )

    def kernels(self) -> Tensor:
        """Kernels W of all densities, one row for each irrep, channel and row a: (densities, slots)."""
        parts = [
            torch.einsum("cr,ras->cas", mixture, getattr(self, f"basis{number}")).flatten(0, 1)
            for number, mixture in enumerate(self.mixtures)
        ]
        return torch.cat(parts)

    def forward(self, spins: Tensor, tile: int = WHOLE) -> Tensor:
        """See `Descriptor`."""
        by_slot = spins.transpose(1, 2).flatten(0, 1)
        averaged = linear(by_slot, self.kernels(), None, tile if tile == WHOLE else 3 * tile)
        centre = spins[:, :1]
        densities = torch.cat([centre, averaged.unflatten(0, (-1, 3)).transpose(1, 2)], 1)
        crossed = torch.linalg.cross(centre.expand_as(densities), densities)
        dots = torch.bmm(torch.cat([densities, crossed], 1), densities.transpose(1, 2))
        products = self.entries(dots.flatten(1))
        bonds, chiralities = products.split([int(s.pointer[-1]) for s in (self.bonds, self.chiralities)], -1)
        odd = self.chiralities(chiralities)
        return torch.cat([self.bonds(bonds), odd * odd if self._even else odd, self.presence(spins, tile)], -1)


def _site_bases(irreps: tuple[Irrep, ...], permutations: NDArray[np.int64]) -> list[NDArray[np.float64]]:
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
                kernel = np.zeros((irrep.dimension, permutations.shape[1]))
                for a in range(irrep.dimension):
                    np.add.at(kernel[a], images, scale * matrix[row[n, a, b]])
                bases[n].append(kernel)
    return [np.stack(basis) for basis in bases if basis]


def _invariants(counts: list[int], dimensions: list[int]) -> tuple[SegmentSum, SegmentSum, StaticGather]:
    """Which products of densities are added to which invariant: bonds, then chiralities.

    Density 0 is the centre's spin; the products are those of (A, S_0 x A) with A.
    """
    total = 1 + sum(count * dimension for count, dimension in zip(counts, dimensions, strict=True))
    bonds, chiralities = [], []
    for number, channels in enumerate(_channels(counts, dimensions)):
        centre = [range(1)] if number == 0 else []
        pairs = list(combinations_with_replacement(channels, 2)) + [(c, s) for s in centre for c in channels]
        bonds += [[left * total + right for left, right in zip(*pair, strict=True)] for pair in pairs]
        chiralities += [
            [(total + left) * total + right for left, right in zip(*pair, strict=True)]
            for pair in combinations(channels, 2)
        ]
    lengths = [np.array([len(places) for places in group]) for group in (bonds, chiralities)]
    flat = [place for places in (*bonds, *chiralities) for place in places]
    return SegmentSum(lengths[0]), SegmentSum(lengths[1]), selection(flat, 2 * total * total)


def _channels(counts: list[int], dimensions: list[int]) -> Iterator[list[range]]:
    """For each irrep, the densities of each of its channels."""
    start = 1
    for count, dimension in zip(counts, dimensions, strict=True):
        yield [range(start + c * dimension, start + (c + 1) * dimension) for c in range(count)]
        start += count * dimension
