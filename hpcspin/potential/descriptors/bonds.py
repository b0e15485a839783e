"""Bonds and scalar chiralities in irreps of the site symmetry, the paper's descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor, selection
from hpcspin.potential.gather import StaticGather
from hpcspin.potential.irreps import Irrep, group_transform, independent_copies, irreps_of
from hpcspin.potential.orbits import Orbit, find_orbits
from hpcspin.potential.segments import SegmentSum
from hpcspin.potential.tiles import WHOLE, linear


class Bonds(Descriptor):
    """Bonds and scalar chiralities, decomposed into irreps of the site symmetry.

    The building blocks are b_0j, b_jk and χ_0jk = S_0·(S_j x S_k) of all spins
    within the cutoff radius. Each orbit of them is projected onto the irreps Γ
    of the point group, which gives coefficients f^Γ. Invariant are

    - f of the trivial irrep,
    - the power spectrum |f^Γ|² of the others,
    - the reference products f^Γ·f^Γ_ref, which keep the relative phase of
      different copies of Γ. The reference is the mean of all copies of Γ among
      the bonds. Zhang and Chern divide by both lengths; undivided, the product
      stays smooth where one of them vanishes.

    Bonds are even and chiralities odd under time reversal. If the features
    must be even, chiralities enter through their power spectrum and through
    products with a reference that is made of chiralities.

    The presence of the neighbours along the lattice's axes is added.

    References
    ----------
    P. Zhang and G.-W. Chern, Phys. Rev. Lett. 127, 146401 (2021).
    """

    name = "bonds"

    transform: Tensor
    scale: Tensor
    to_reference: Tensor
    from_reference: Tensor

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        orbits = find_orbits(offsets, operations)
        irreps = irreps_of(lattice, operations)
        direct, squared, referenced = _sorted_copies(orbits, irreps, even)
        copies = [*direct, *squared, *referenced]
        self.order = len(operations)
        self.entries = _entries(orbits, len(offsets))
        self.components = selection([place for copy in copies for place in copy.places], len(orbits) * self.order)
        self.sizes = [sum(len(c.places) for c in group) for group in (direct, squared, referenced)]
        self.powers = SegmentSum(np.array([len(c.places) for c in (*squared, *referenced)]))
        self.products = SegmentSum(np.array([len(c.places) for c in referenced]))
        to_reference, from_reference = _references(referenced, even)
        self.constant("transform", group_transform(irreps)[0])
        self.constant("scale", np.array([c.scale for c in copies for _ in c.places]))
        self.constant("to_reference", to_reference)
        self.constant("from_reference", from_reference)
        self.parity = np.array(
            [c.parity for c in direct]
            + [1] * (len(squared) + len(referenced))
            + [1 if even else c.parity for c in referenced]
            + [1] * len(self.presence_counts)
        )

    def coefficients(self, spins: Tensor, tile: int = WHOLE) -> Tensor:
        """Coefficients f^Γ of all copies of all irreps, orthonormal on each orbit: (centres, coefficients)."""
        centre, neighbours = spins[:, :1], spins[:, 1:]
        crossed = torch.linalg.cross(centre.expand_as(neighbours), neighbours)
        dots = torch.bmm(torch.cat([spins, crossed], 1), spins.transpose(1, 2))
        values = self.entries(dots.flatten(1)).view(-1, self.order)
        per_centre = self.entries.index.numel() // self.order
        transformed = linear(values, self.transform, None, tile if tile == WHOLE else tile * per_centre)
        selected: Tensor = self.components(transformed.view(len(spins), -1))
        return selected * self.scale

    def forward(self, spins: Tensor, tile: int = WHOLE) -> Tensor:
        """See `Descriptor`."""
        coefficients = self.coefficients(spins, tile)
        direct, _, referenced = coefficients.split(self.sizes, -1)
        others = coefficients[:, self.sizes[0] :]
        reference = linear(linear(referenced, self.to_reference, None, tile), self.from_reference, None, tile)
        features = [
            direct,
            self.powers(others * others),
            self.products(referenced * reference),
            self.presence(spins, tile),
        ]
        return torch.cat(features, -1)


@dataclass(frozen=True)
class _Copy:
    """One copy of an irrep in an orbit: where its components stand among all orbits' transforms."""

    irrep: int
    places: tuple[int, ...]
    scale: float
    parity: int


def _sorted_copies(
    orbits: list[Orbit], irreps: tuple[Irrep, ...], even: bool
) -> tuple[list[_Copy], list[_Copy], list[_Copy]]:
    """Copies that are features themselves, that are only squared, and that have a reference besides."""
    copies = list(_copies(orbits, irreps))
    trivial = [c for c in copies if c.irrep == 0]
    direct = [c for c in trivial if c.parity > 0 or not even]
    return direct, [c for c in trivial if c not in direct], [c for c in copies if c.irrep > 0]


def _copies(orbits: list[Orbit], irreps: tuple[Irrep, ...]) -> Iterator[_Copy]:
    matrix, rows = group_transform(irreps)
    row = {triple: number for number, triple in enumerate(rows)}
    for number, orbit in enumerate(orbits):
        for n, irrep in enumerate(irreps):
            for b, scale in independent_copies(irrep, orbit.stabiliser):
                places = tuple(number * len(matrix) + row[n, a, b] for a in range(irrep.dimension))
                yield _Copy(n, places, scale, orbit.parity)


def _references(copies: list[_Copy], even: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrices that average coefficients to references, and that hand each coefficient its reference."""
    components = [(c.irrep, a, c.parity) for c in copies for a in range(len(c.places))]
    wanted = [(n, a, parity if even else 1) for n, a, parity in components]
    names = sorted(set(wanted))
    to_reference = np.array([[float(component == name) for component in components] for name in names])
    to_reference /= np.sqrt(np.maximum(to_reference.sum(1, keepdims=True), 1))
    from_reference = np.array([[float(want == name) for name in names] for want in wanted])
    return to_reference.reshape(len(names), len(wanted)), from_reference.reshape(len(wanted), len(names))


def _entries(orbits: list[Orbit], slots: int) -> StaticGather:
    """Where each orbit member stands among the products of (S_j, S_0 x S_j) with S_k."""
    places = []
    for orbit in orbits:
        left = orbit.pairs[:, 0] + (slots - 1 if orbit.kind == "chirality" else 0)
        places.append(left * slots + orbit.pairs[:, 1])
    return selection(np.concatenate(places), (2 * slots - 1) * slots)
