"""Probing vectors: distant sites share a vector, and random phases average out the matrix elements between them.

The matrix elements of a density matrix decay with distance. A vector with phases of modulus 1 on sites that lie s apart
along both axes, and zero elsewhere, therefore gives the on-site block of each of these sites, plus small contributions
of the elements between them, whose mean over the phases is zero. There is one vector for each colour and spin; with as
many colours as sites these are unit vectors, and the contributions vanish. J. M. Tang and Y. Saad, Numer. Linear
Algebra Appl. 19, 485 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice import Lattice
from hpcspin.parallel.philox import WORD, philox

_STREAM = 0x4B504D
"""Second word of the generator's key, used for these phases only."""


@dataclass(frozen=True)
class Colouring:
    """Colours of the sites of a lattice."""

    colours: NDArray[np.int64]
    """Colour of each site, from 0 on, shape (Lx Ly,)."""
    count: int
    """Number of colours."""

    @property
    def is_exact(self) -> bool:
        """Whether every site has its own colour."""
        return self.count == len(self.colours)


def colouring(lattice: Lattice, distance: int) -> Colouring:
    """Colours such that sites of the same colour are at least ``distance`` steps apart along x or along y.

    Each side is cut into as many pieces of at least ``distance`` sites as possible, of two lengths where equal ones do
    not fit. The position of a site in its piece is its colour along that side, so that the last colours may have fewer
    sites.
    """
    (x, across), (y, along) = (_along(length, distance) for length in lattice.size)
    return Colouring((x[:, None] * along + y).reshape(-1), across * along)


def unit_colouring(lattice: Lattice) -> Colouring:
    """One colour for each site."""
    return Colouring(np.arange(lattice.num_sites), lattice.num_sites)


def _along(length: int, distance: int) -> tuple[NDArray[np.int64], int]:
    pieces = max(1, length // distance)
    sites = np.arange(length)
    piece = sites * pieces // length
    first = np.searchsorted(piece, np.arange(pieces))
    return sites - first[piece], -(-length // pieces)


def random_phases(sites: int, seed: int, number: int, stage: int) -> NDArray[np.float64]:
    """exp(i phi) on each site as pairs of real numbers, shape (sites, 2).

    The seed, 32 bits, is the key of the generator; ``number`` is the number of the snapshot in its file, or the step of
    a trajectory; ``stage`` is the index of one of several independent sets.
    """
    words, *_ = philox((np.arange(sites), number & WORD, number >> 32, stage), (seed, _STREAM))
    angles = words * (2 * np.pi / 2**32)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


@dataclass(frozen=True)
class ProbeGroup:
    """The probing vectors of a few colours: two for each colour, with spin up and with spin down."""

    sites: NDArray[np.int32]
    """Sites on which the vectors are not zero, int32, shape (k,)."""
    pairs: NDArray[np.int32]
    """Index of the pair of vectors of each of these sites, int32, shape (k,)."""
    phases: NDArray[np.float64]
    """Phase on each of these sites, real and imaginary part, shape (k, 2)."""


def probe_groups(coloured: Colouring, phases: NDArray[np.float64], pairs: int) -> list[ProbeGroup]:
    """All probing vectors in groups of ``pairs`` colours."""
    groups = []
    for first in range(0, coloured.count, pairs):
        inside = (coloured.colours >= first) & (coloured.colours < first + pairs)
        sites = np.flatnonzero(inside)
        own = (coloured.colours[sites] - first).astype(np.int32)
        groups.append(ProbeGroup(sites.astype(np.int32), own, np.ascontiguousarray(phases[sites])))
    return groups
