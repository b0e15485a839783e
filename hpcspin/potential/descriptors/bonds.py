"""Bonds and scalar chiralities in irreps of the site symmetry, the paper's descriptor."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.base import Descriptor
from hpcspin.potential.descriptors.coefficients import Coefficients, Copy, copies_of
from hpcspin.potential.gather import SegmentSum
from hpcspin.potential.irreps import find_orbits, irreps_of
from hpcspin.potential.tiles import product


class Bonds(Descriptor):
    """Bonds and scalar chiralities, decomposed into irreps of the site symmetry.

    The building blocks are b_0j, b_jk and χ_0jk = S_0·(S_j x S_k) of all spins within the cutoff radius. Each orbit of
    them is projected onto the irreps Γ of the point group, which gives coefficients f^Γ. The invariants are

    - f of the trivial irrep,
    - the power spectrum |f^Γ|² of the others,
    - the reference products f^Γ·f^Γ_ref, which keep the relative phase of
      different copies of Γ. The reference is the mean of all copies of Γ among the bonds. Zhang and Chern divide by
      both lengths; undivided, the product stays smooth where one of them vanishes.

    Bonds are even and chiralities odd under time reversal. If the features must be even, chiralities enter through
    their power spectrum and through products with a reference made of chiralities.

    Further features are the counts of existing neighbours along the lattice's axes.

    References
    ----------
    P. Zhang and G.-W. Chern, Phys. Rev. Lett. 127, 146401 (2021).
    """

    name = "bonds"

    to_reference: Tensor
    from_reference: Tensor

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__(lattice, offsets, operations, even)
        orbits = find_orbits(offsets, operations)
        irreps = irreps_of(lattice, operations)
        # Copies that are features themselves, that are only squared, and that also have a reference.
        copies = list(copies_of(orbits, irreps))
        direct = [c for c in copies if c.irrep == 0 and (c.parity > 0 or not even)]
        squared = [c for c in copies if c.irrep == 0 and c.parity < 0 and even]
        referenced = [c for c in copies if c.irrep > 0]
        self.coefficients = Coefficients(orbits, irreps, [*direct, *squared, *referenced], len(offsets))
        self.sizes = [sum(len(c.places) for c in group) for group in (direct, squared, referenced)]
        self.powers = SegmentSum(np.array([len(c.places) for c in (*squared, *referenced)]))
        self.products = SegmentSum(np.array([len(c.places) for c in referenced]))
        to_reference, from_reference = _references(referenced, even)
        self.constant("to_reference", to_reference)
        self.constant("from_reference", from_reference)
        self.parity = np.array(
            [c.parity for c in direct]
            + [1] * (len(squared) + len(referenced))
            + [1 if even else c.parity for c in referenced]
            + [1] * len(self.presence_counts)
        )

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """See `Descriptor`."""
        coefficients = self.coefficients(spins)
        direct, _, referenced = coefficients.split(self.sizes)
        others = coefficients[self.sizes[0] :]
        features = [
            direct,
            self.powers(others * others),
            self.products(referenced * self._reference(referenced, tile)),
            self.presence(spins, tile),
        ]
        return torch.cat(features)

    def adjoint(self, spins: Tensor, cotangents: Tensor, slots: int, tile: int) -> Tensor:
        """See `Descriptor`: back through the invariants, the irreps, and the bonds and chiralities."""
        return self.coefficients.adjoint(spins, self._by_coefficient(spins, cotangents, tile))[:slots]

    def _reference(self, referenced: Tensor, tile: int) -> Tensor:
        return product(self.from_reference, product(self.to_reference, referenced, tile), tile)

    def _by_coefficient(self, spins: Tensor, cotangents: Tensor, tile: int) -> Tensor:
        """Derivative with respect to the coefficients of the irreps, shape (coefficients, m, centres)."""
        coefficients = self.coefficients(spins)[:, None]
        numbers = [self.sizes[0], len(self.powers), len(self.products)]
        direct, powers, products = cotangents[: sum(numbers)].flatten(2).split(numbers)
        squares = 2 * self.powers.expand(powers) * coefficients[self.sizes[0] :]
        squared, referenced = squares.split(self.sizes[1:])
        factors, products = coefficients[len(coefficients) - self.sizes[2] :], self.products.expand(products)
        averaged = product(self.from_reference.T, products * factors, tile)
        by_factor = product(self.to_reference.T, averaged, tile) + products * self._reference(factors, tile)
        return torch.cat([direct, squared, referenced + by_factor])


def _references(copies: list[Copy], even: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrices that average coefficients to references, and that assign each coefficient its reference."""
    components = [(c.irrep, a, c.parity) for c in copies for a in range(len(c.places))]
    wanted = [(n, a, parity if even else 1) for n, a, parity in components]
    names = sorted(set(wanted))
    to_reference = np.array([[float(component == name) for component in components] for name in names])
    to_reference /= np.sqrt(np.maximum(to_reference.sum(1, keepdims=True), 1))
    from_reference = np.array([[float(want == name) for name in names] for want in wanted])
    return to_reference.reshape(len(names), len(wanted)), from_reference.reshape(len(wanted), len(names))
