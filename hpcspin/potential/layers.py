"""One layer of message passing: spin densities around each site, and a network of their invariants."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import axis_presence
from hpcspin.potential.descriptors.densities import site_bases
from hpcspin.potential.irreps import irreps_of, slot_permutations
from hpcspin.potential.network import Network
from hpcspin.potential.surroundings import Surroundings
from hpcspin.potential.tiles import WHOLE, cross, dot, is_present


class Channels(NamedTuple):
    """Numbers of vectors and scalars of a site that a layer reads or writes."""

    vectors: int
    scalars: int


class Width(NamedTuple):
    """Widths of a layer."""

    channels: int
    """Number of vectors that sites exchange; all other widths are in proportion."""

    @property
    def between(self) -> Channels:
        """Numbers of vectors and scalars that a layer passes to the next one."""
        return Channels(self.channels, 4 * self.channels // 3)

    @property
    def products(self) -> int:
        """Number of scalar products of two mixtures of densities, and of scalar triple products."""
        return 8 * self.channels // 3

    def densities(self, copies: int, vectors: int) -> int:
        """Number of densities of an irrep with so many copies among the sites, each with so many vectors."""
        return min(5 * self.channels // 6, max(1, copies * self.channels // 12), copies * vectors)


class SiteData(NamedTuple):
    """Vectors (3, sites, vectors) and scalars (sites, scalars) of sites."""

    vectors: Tensor
    scalars: Tensor


class Maps(NamedTuple):
    """The matrices of a layer, derived from its weights and the same for all centres."""

    kernels: Tensor
    mixtures: Tensor
    scalars: Tensor


class Layer(nn.Module):
    """Compute new vectors and scalars of each centre from those of the sites around it.

    Vectors v rotate with the spins and scalars s do not; both are invariant under the operations of the site symmetry.
    The spin is the first vector that a layer reads; it writes none. Densities A^Γ_ca = Σ_δd W^Γ_cda(δ) v_d(δ), with
    learned kernels that transform like the row a of the irrep Γ, have the invariants

        S·A_c (of the trivial irrep),   Σ_a P_pa·Q_pa   and   Σ_a S·(P'_pa x Q'_pa)

    of learned mixtures P, Q, P', Q' of the densities of one irrep. A network of these, of the centre's scalars and of
    densities of scalars gives the new scalars and the weights w, w' of the new vectors Σ_c (w V_c A_c + w' V'_c S x
    A_c), which are sums over densities of the trivial irrep. Under S -> -S the third invariant changes its sign and S x
    A_c does not: a layer that is ``even`` under time reversal has P' = Q' = V' = 0.
    """

    basis0: Tensor
    presence_counts: Tensor

    def __init__(
        self,
        lattice: Lattice,
        offsets: NDArray[np.int64],
        operations: NDArray[np.int64],
        reads: Channels,
        writes: Channels,
        width: Width,
        inputs: int,
        hidden: tuple[int, ...],
        even: bool,
    ) -> None:
        super().__init__()
        self.reads, self.writes = reads, writes
        bases = site_bases(irreps_of(lattice, operations), slot_permutations(offsets, operations))
        counts = [width.densities(len(basis), reads.vectors) for basis in bases]
        for number, basis in enumerate(bases):
            self._constant(f"basis{number}", basis)
        self.kernels = nn.ParameterList(
            torch.randn(count, len(basis) * reads.vectors) / math.sqrt(len(basis) * reads.vectors)
            for count, basis in zip(counts, bases, strict=True)
        )
        # The centre's spin is one more density of the trivial irrep.
        members = [counts[0] + 1, *counts[1:]]
        shares = [len(part) for part in np.array_split(np.arange(width.products), len(members))]
        self.mixtures = nn.ParameterList(
            torch.randn(count, share) / math.sqrt(count)
            for _ in range(2 if even else 4)
            for share, count in zip(shares, members, strict=True)
        )
        self.vectors = nn.Parameter(
            torch.randn(members[0], (1 if even else 2) * writes.vectors) / math.sqrt(members[0])
        )
        self.scalar_kernels = (
            nn.Parameter(torch.randn(reads.scalars, len(bases[0]) * reads.scalars) / math.sqrt(len(bases[0])))
            if reads.scalars
            else None
        )
        self.trivial = members[0]
        self.densities = sum(count * basis.shape[1] for count, basis in zip(counts, bases, strict=True))
        self.dimensions = [basis.shape[1] for basis in bases]
        self.rows = [share * dimension for share, dimension in zip(shares, self.dimensions, strict=True)]
        self._constant("presence_counts", axis_presence(offsets, operations).T)
        features = (
            counts[0] + 2 * width.products + (2 * reads.scalars if reads.scalars else self.presence_counts.shape[1])
        )
        self.network = Network(features, inputs, hidden, 2 * writes.vectors + writes.scalars)

    def _constant(self, name: str, array: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.tensor(array, dtype=torch.float64), persistent=False)

    def maps(self) -> Maps:
        """Matrices that multiply from the right; scalars of the first layer are counts of neighbours."""
        return Maps(self._kernels(), self._mixtures(), self._scalar_weights())

    def whole_maps(self) -> Maps:
        """The `maps`, padded with columns of zeros to whole vectors of any processor.

        With a few odd columns a product adds in a different order for the last centres of a tile (MKL on AVX2).
        """
        return Maps(*(functional.pad(matrix, (0, -matrix.shape[1] % WHOLE)) for matrix in self.maps()))

    def features(self, sites: SiteData, around: Surroundings, maps: Maps) -> tuple[Tensor, Tensor]:
        """Features, (centres, features), and the sums of densities that become vectors, (3, centres, 2 vectors).

        ``sites`` are the vectors and scalars of all rows, followed by zeros for missing sites.
        """
        spin = around.own(sites.vectors[:, :, :1])
        densities = torch.cat([spin, around.sums(sites.vectors, maps.kernels)[..., : self.densities]], 2)
        widths = [sum(self.rows)] * 4 + [2 * self.writes.vectors]
        *mixed, sums = around.product(densities, maps.mixtures)[..., : sum(widths)].split(widths, 2)
        dots = self._over_rows(dot(mixed[0], mixed[1], 0))
        triples = self._over_rows(dot(spin, cross(mixed[2], mixed[3], 0), 0))
        parts = [dot(spin, densities[:, :, 1 : self.trivial], 0), dots, triples]
        if self.scalar_kernels is None:
            counts = around.sums(is_present(sites.vectors[:, :, :1], 0)[None], maps.scalars)[0]
            parts.append(counts[:, : self.presence_counts.shape[1]])
        else:
            sums_of_scalars = around.sums(sites.scalars[None], maps.scalars)[0]
            parts += [sums_of_scalars[:, : self.reads.scalars], around.own(sites.scalars[None])[0]]
        return torch.cat(parts, 1), sums

    def forward(self, sites: SiteData, around: Surroundings, inputs: Tensor, maps: Maps) -> SiteData:
        """New vectors and scalars of each centre, zero where missing; ``inputs``, (inputs, centres), of the network."""
        features, sums = self.features(sites, around, maps)
        spin = around.own(sites.vectors[:, :, :1])
        outputs = self.network(features.T, inputs, around.tile or len(features)).T * is_present(spin, 0)
        straight, turned, scalars = outputs.split([self.writes.vectors, self.writes.vectors, self.writes.scalars], 1)
        along, across = sums.split([self.writes.vectors] * 2, 2)
        return SiteData(straight * along + turned * cross(spin, across, 0), scalars)

    def _kernels(self) -> Tensor:
        """Kernels of all densities, shape (slots * vectors, densities)."""
        parts = [
            torch.einsum(
                "crd,ras->sdca", kernel.unflatten(1, (-1, self.reads.vectors)), getattr(self, f"basis{number}")
            ).flatten(2)
            for number, kernel in enumerate(self.kernels)
        ]
        return torch.cat(parts, 2).flatten(0, 1)

    def _scalar_weights(self) -> Tensor:
        """Kernels of the scalars, or counts of neighbours if there are none."""
        if self.scalar_kernels is None:
            return self.presence_counts
        weights = self.scalar_kernels.unflatten(1, (-1, self.reads.scalars))
        return torch.einsum("crd,rs->sdc", weights, self.basis0[:, 0]).flatten(0, 1)

    def _mixtures(self) -> Tensor:
        """Matrices from the densities to P, Q, P', Q' and to the new vectors, each row of an irrep separately."""
        maps, irreps = [], len(self.dimensions)
        for side in range(len(self.mixtures) // irreps):
            blocks = [
                torch.kron(mixture, torch.eye(dimension, dtype=mixture.dtype, device=mixture.device))
                for mixture, dimension in zip(
                    self.mixtures[side * irreps : (side + 1) * irreps], self.dimensions, strict=True
                )
            ]
            maps.append(torch.block_diag(*blocks))
        maps += [torch.zeros_like(maps[0])] * (4 - len(maps))
        turned = 2 * self.writes.vectors - self.vectors.shape[1]
        return torch.cat([*maps, functional.pad(self.vectors, (0, turned, 0, len(maps[0]) - self.trivial))], 1)

    def _over_rows(self, products: Tensor) -> Tensor:
        """Sums over the rows of each irrep, in a fixed order."""
        if max(self.dimensions) == 1:
            return products
        sums = []
        for part, dimension in zip(products.split(self.rows, 1), self.dimensions, strict=True):
            first, *others = part.unflatten(1, (-1, dimension)).unbind(2)
            sums.append(sum(others, first))
        return torch.cat(sums, 1)
