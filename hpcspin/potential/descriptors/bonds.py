"""Bonds and scalar chiralities in irreps of the site symmetry, the paper's descriptor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.invariants import Copy, Covariants, Invariant, Invariants
from hpcspin.potential.irreps import Irrep, Orbit, find_orbits


class Bonds(Invariants):
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

    def _orbits(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> Sequence[Orbit]:
        return find_orbits(offsets, operations)

    def _covariants(self, irreps: Sequence[Irrep], copies: Sequence[Copy], even: bool) -> Covariants:
        kinds = {(copy.irrep, copy.parity if even else 1) for copy in copies if copy.irrep > 0}
        # Those of the trivial irrep, which are only squared, come first.
        return Covariants(irreps, sorted(copies, key=lambda copy: copy.irrep > 0), sorted(kinds))

    def _invariants(self, covariants: Covariants, even: bool) -> Iterator[Invariant]:
        copies = list(zip(covariants.places, covariants.copies, strict=True))
        for place, copy in copies:
            yield place, place, len(copy.places), 1
        for place, copy in copies:
            if copy.irrep > 0:
                start = covariants.starts[copy.irrep, copy.parity if even else 1]
                yield place, start, len(copy.places), 1 if even else copy.parity
