"""Domains of a texture: correlation of the scalar chirality, walls between its signs, ferromagnetic puddles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice.lattice import Lattice, nearest_vectors
from hpcspin.lattice.measures import FERROMAGNETIC, nearest_bonds, scalar_chirality

Array = NDArray[np.float64]


def correlation_bins(lattice: Lattice) -> int:
    """How many distances `correlation_function` has: 0, 1, ... up to half of the shorter side."""
    return min(lattice.size) // 2 + 1


def correlation_function(lattice: Lattice, values: Array) -> tuple[Array, Array]:
    """Correlation <v_i v_j> / <v_i^2> of a number on each site, against distance.

    Parameters
    ----------
    lattice
        The lattice; across its periodic sides the nearest images count.
    values
        Shape (Lx, Ly); a site with NaN is left out.

    Returns
    -------
    tuple of ndarray
        Distances and correlations, both of shape (bins,): the means over all pairs of sites whose distance rounds to
        0, 1, 2, ... lattice constants, up to half of the shorter side. NaN of values that are all 0.
    """
    there = ~np.isnan(values)
    # Zeros beyond an open side keep its ends apart; along a periodic one the correlation is cyclic, as its sites are.
    padded = [length if closed else 2 * length for length, closed in zip(lattice.size, lattice.periodic, strict=True)]
    products, pairs = (_autocorrelation(array, padded) for array in (np.where(there, values, 0.0), there.astype(float)))
    offsets = np.moveaxis(np.indices(padded), 0, -1)
    for axis in range(2):
        if not lattice.periodic[axis]:
            far = offsets[..., axis] >= lattice.size[axis]
            offsets[..., axis][far] -= padded[axis]
    distance = np.linalg.norm(nearest_vectors(lattice, offsets), axis=-1).ravel()
    pairs = np.round(pairs).ravel()
    bins, count = np.round(distance).astype(int), correlation_bins(lattice)
    weight, total, radius = (
        np.bincount(bins, weights, minlength=count)[:count] for weights in (pairs, products.ravel(), pairs * distance)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / weight
        return radius / weight, mean / mean[0]


def _autocorrelation(values: Array, padded: list[int]) -> Array:
    """Sum of v(r) v(r + d) over all r for each offset d, shape ``padded``."""
    return np.fft.irfft2(np.abs(np.fft.rfft2(values, padded)) ** 2, padded)


def correlation_length(distance: Array, correlation: Array) -> float:
    """Distance at which a correlation that is 1 at distance 0 has fallen to 1/2; NaN where it does not fall so far."""
    below = np.flatnonzero(correlation <= 1 / 2)
    if not len(below):
        return float("nan")
    last = below[0]
    (near, far), (high, low) = distance[last - 1 : last + 1], correlation[last - 1 : last + 1]
    return float(near + (high - 1 / 2) / (high - low) * (far - near))


def chirality_correlation(lattice: Lattice, spins: Array) -> tuple[Array, Array]:
    """Correlation function of the `scalar_chirality` of the cells, see `correlation_function`."""
    return correlation_function(lattice, scalar_chirality(lattice, spins))


def chirality_walls(lattice: Lattice, spins: Array) -> float:
    """Length of the walls between domains of positive and of negative scalar chirality, in lattice constants.

    It means something for textures with chiral order: where all spins lie in a plane the sign is only rounding.
    A wall follows the edges of the Voronoi cells of the lattice: of a straight one the length is up to sqrt 2 times
    (square lattice) and 2 / sqrt 3 times (triangular) that of the line. The area of the lattice over the length of its
    walls is a size of the domains.

    Arguments are those of `scalar_chirality`. Cells beyond an open edge have no walls.
    """
    chirality = scalar_chirality(lattice, spins).ravel()
    sign = np.where(np.isnan(chirality), 0, np.where(chirality < 0, -1, 1))
    table = lattice.shift(lattice.bonds)
    opposite = (table >= 0) & (sign[:, None] * sign[table] < 0)
    # The cell of a site is cut from it by the middles of its bonds: area = neighbours * distance * edge / 4.
    length = float(np.linalg.norm(lattice.cartesian(lattice.bonds[0])))
    area = abs(np.linalg.det(lattice.primitive_vectors))
    return float(opposite.sum() * 4 * area / (2 * len(lattice.bonds) * length))


def puddle_sizes(lattice: Lattice, spins: Array) -> NDArray[np.int64]:
    """Sites of each ferromagnetic puddle, the largest first.

    A puddle is a cluster of two or more sites that bonds with S_i·S_j > 1/2 join, across periodic edges too.

    Arguments are those of `scalar_chirality`.
    """
    bonds = nearest_bonds(lattice, spins).reshape(lattice.num_sites, -1)
    site, bond = np.nonzero(bonds > FERROMAGNETIC)
    # Takes a third of a second to import, and most commands do not need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array(
        (np.ones(len(site)), (site, lattice.shift(lattice.bonds)[site, bond])), shape=(lattice.num_sites,) * 2
    )
    sizes = np.bincount(connected_components(joined, directed=False)[1])
    return np.sort(sizes[sizes > 1])[::-1]
