"""Probing vectors: sites far apart share a vector, and random phases let the mixture of them average out.

The matrix elements of a density matrix decay with distance. A vector with phases of modulus 1 on sites that lie s apart
along both axes, and zero elsewhere, therefore sees the on-site block of each of them, and a little of what joins them,
which has mean zero over the phases. One vector a colour and spin; as many colours as sites give unit vectors, which see
nothing else. J. M. Tang and Y. Saad, Numer. Linear Algebra Appl. 19, 485 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice import Lattice
from hpcspin.parallel.philox import WORD, philox

_STREAM = 0x4B504D
"""Second word of the generator's key, of these phases alone."""


@dataclass(frozen=True)
class Colouring:
    """Colours of the sites of a lattice.

    Attributes
    ----------
    colours
        From 0 on, shape (Lx Ly,).
    count
        How many there are.
    """

    colours: NDArray[np.int64]
    count: int

    @property
    def is_exact(self) -> bool:
        """Whether every site has a colour of its own."""
        return self.count == len(self.colours)


def colouring(lattice: Lattice, distance: int) -> Colouring:
    """Colours of which sites of the same one are at least ``distance`` steps apart along x or along y.

    Each side is cut into as many pieces as hold ``distance`` sites, of two lengths where they do not divide it; the
    place in its piece is a site's colour along that side, so that the last colours may have fewer sites.
    """
    (x, across), (y, along) = (_along(length, distance) for length in lattice.size)
    return Colouring((x[:, None] * along + y).reshape(-1), across * along)


def unit_colouring(lattice: Lattice) -> Colouring:
    """A colour for every site."""
    return Colouring(np.arange(lattice.num_sites), lattice.num_sites)


def _along(length: int, distance: int) -> tuple[NDArray[np.int64], int]:
    pieces = max(1, length // distance)
    sites = np.arange(length)
    piece = sites * pieces // length
    first = np.searchsorted(piece, np.arange(pieces))
    return sites - first[piece], -(-length // pieces)


def random_phases(sites: int, seed: int, number: int, stage: int) -> NDArray[np.float64]:
    """exp(i phi) of so many sites as pairs of real numbers, shape (sites, 2).

    The seed, 32 bits, is the key of the generator; ``number`` is that of the snapshot in its file, or the step of a
    trajectory, ``stage`` which of several independent sets.
    """
    words, *_ = philox((np.arange(sites), number & WORD, number >> 32, stage), (seed, _STREAM))
    angles = words * (2 * np.pi / 2**32)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


@dataclass(frozen=True)
class ProbeGroup:
    """The probing vectors of a few colours: two a colour, which start with spin up and with spin down.

    Attributes
    ----------
    sites
        Where they start, int32, shape (k,).
    pairs
        Which pair of vectors starts at each of them, int32, shape (k,).
    phases
        With which phase, real and imaginary part, shape (k, 2).
    """

    sites: NDArray[np.int32]
    pairs: NDArray[np.int32]
    phases: NDArray[np.float64]


def probe_groups(coloured: Colouring, phases: NDArray[np.float64], pairs: int) -> list[ProbeGroup]:
    """All probing vectors, ``pairs`` colours a group."""
    groups = []
    for first in range(0, coloured.count, pairs):
        inside = (coloured.colours >= first) & (coloured.colours < first + pairs)
        sites = np.flatnonzero(inside)
        own = (coloured.colours[sites] - first).astype(np.int32)
        groups.append(ProbeGroup(sites.astype(np.int32), own, np.ascontiguousarray(phases[sites])))
    return groups
