"""Domains of a texture: correlation of the scalar chirality, walls between its signs, ferromagnetic puddles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice.lattice import Lattice, nearest_vectors
from hpcspin.lattice.measures import FERROMAGNETIC, nearest_bonds, scalar_chirality

Array = NDArray[np.float64]


def correlation_bins(lattice: Lattice) -> int:
    """Number of distances of `correlation_function`: 0, 1, ... up to half of the shorter side."""
    return min(lattice.size) // 2 + 1


def correlation_function(lattice: Lattice, values: Array) -> tuple[Array, Array]:
    """Correlation <v_i v_j> / <v_i^2> of a number on each site, shape (Lx, Ly), against distance.

    Sites with NaN are left out, and across periodic sides distances are those to the nearest image. Returns distances
    and correlations, both of shape (bins,): the means over all pairs of sites whose distance rounds to 0, 1, 2, ...
    lattice constants, up to half of the shorter side. NaN if all values are 0.
    """
    there = ~np.isnan(values)
    # Zero padding separates the ends of an open side; along a periodic side the correlation is cyclic, like the sites.
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
    """Distance at which a correlation that is 1 at distance 0 has fallen to 1/2; NaN if it does not fall that far."""
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
    """Length of the walls between domains of positive and negative scalar chirality, in lattice constants.

    It is meaningful for textures with chiral order: if all spins lie in a plane, the sign is only rounding noise.
    A wall follows the edges of the Voronoi cells of the lattice, so that the length of a straight wall is up to sqrt 2
    times (square lattice) or 2 / sqrt 3 times (triangular) that of the straight line. The area of the lattice divided
    by the length of its walls is a measure of the domain size.

    Arguments are those of `scalar_chirality`. Cells beyond an open edge have no walls.
    """
    chirality = scalar_chirality(lattice, spins).ravel()
    sign = np.where(np.isnan(chirality), 0, np.where(chirality < 0, -1, 1))
    table = lattice.shift(lattice.bonds)
    opposite = (table >= 0) & (sign[:, None] * sign[table] < 0)
    # The edges of a Voronoi cell bisect the bonds of its site: area = neighbours * distance * edge / 4.
    length = float(np.linalg.norm(lattice.cartesian(lattice.bonds[0])))
    area = abs(np.linalg.det(lattice.primitive_vectors))
    return float(opposite.sum() * 4 * area / (2 * len(lattice.bonds) * length))


def puddle_sizes(lattice: Lattice, spins: Array) -> NDArray[np.int64]:
    """Number of sites of each ferromagnetic puddle, largest first.

    A puddle is a cluster of two or more sites connected by bonds with S_i·S_j > 1/2, also across periodic edges.

    Arguments are those of `scalar_chirality`.
    """
    bonds = nearest_bonds(lattice, spins).reshape(lattice.num_sites, -1)
    site, bond = np.nonzero(bonds > FERROMAGNETIC)
    # The import takes a third of a second, and most commands do not need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array(
        (np.ones(len(site)), (site, lattice.shift(lattice.bonds)[site, bond])), shape=(lattice.num_sites,) * 2
    )
    sizes = np.bincount(connected_components(joined, directed=False)[1])
    return np.sort(sizes[sizes > 1])[::-1]
