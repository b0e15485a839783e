"""The bispectrum of bonds and scalar chiralities: invariants that relate all irreps to each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice import Lattice
from hpcspin.potential.descriptors.invariants import Copy, Covariants, Invariant, Invariants, Kind, kind_of
from hpcspin.potential.irreps import Irrep, Orbit, close_pairs, find_orbits

_CLOSE = 1.5
"""Neighbours j and k closer to each other than this, in lattice constants, have a bond b_jk and a chirality χ_0jk."""


class Bispectrum(Invariants):
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

    def _orbits(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> Sequence[Orbit]:
        return find_orbits(offsets, operations, close_pairs(lattice, offsets, _CLOSE))

    def _covariants(self, irreps: Sequence[Irrep], copies: Sequence[Copy], even: bool) -> Covariants:
        return Covariants(irreps, sorted(copies, key=kind_of), sorted(set(map(kind_of, copies))))

    def _invariants(self, covariants: Covariants, even: bool) -> Iterator[Invariant]:
        starts, allowed = covariants.starts, (1,) if even else (1, -1)
        copies = [
            (place, len(copy.places), kind_of(copy))
            for place, copy in zip(covariants.places, covariants.copies, strict=True)
        ]

        def with_products(kind: Kind, place: int, size: int, pairs: Iterable[tuple[Kind, Kind]]) -> Iterator[Invariant]:
            for left, right in pairs:
                parity = kind[1] * left[1] * right[1]
                first = covariants.product(kind[0], left, right) if parity in allowed else None
                if first is not None:
                    yield place, first, size, parity

        for place, size, _ in copies:
            yield place, place, size, 1
        for place, size, (irrep, own) in copies:
            for parity in (1, -1):
                if (irrep, parity) in starts and parity * own in allowed:
                    yield place, starts[irrep, parity], size, parity * own
        pairs = list(combinations_with_replacement(starts, 2))
        sizes = {kind: size for _, size, kind in copies}
        for kind, start in starts.items():
            # The first of three references comes no later than the others, so that each set of three counts once.
            yield from with_products(kind, start, sizes[kind], (pair for pair in pairs if kind <= pair[0]))
        for place, size, kind in copies:
            if size > 1:
                yield from with_products(kind, place, size, pairs)
