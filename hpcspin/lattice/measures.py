"""Measures of a spin texture: local bonds, chirality, order at a wave vector, the position of a domain wall."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.lattice.lattice import Lattice

FERROMAGNETIC = 1 / 2
"""S_i·S_j above which a bond counts as ferromagnetic; below minus this value it counts as antiferromagnetic."""


def nearest_bonds(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """S_i·S_j from each site along each bond offset, (..., Lx, Ly, bonds); NaN beyond an open edge."""
    table = lattice.shift(lattice.bonds)
    flat = spins.reshape(*spins.shape[:-3], lattice.num_sites, 3)
    products = np.einsum("...ia,...ika->...ik", flat, flat[..., table, :])
    return np.where(table >= 0, products, np.nan).reshape(*spins.shape[:-1], len(lattice.bonds))


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN if there are none, as of the triangles of a chain."""
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))


def _mean_along(axis: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along an axis of the values that are not NaN; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=axis) / np.sum(~np.isnan(values), axis=axis))


def bond_map(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of S_i·S_j over the bonds that leave each site towards +x and +y (Fig. 4 of the paper).

    Parameters
    ----------
    lattice
        The lattice of the spins.
    spins
        Unit vectors, shape (..., Lx, Ly, 3).

    Returns
    -------
    ndarray
        Shape (..., Lx, Ly); -1 in an antiferromagnet, +1 in a ferromagnet, NaN at a site without such a bond.
    """
    return _mean_along(-1, nearest_bonds(lattice, spins))


def bond_fractions(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractions of bonds with S_i·S_j > 1/2 (ferromagnetic) and < -1/2 (antiferromagnetic), shape (..., 2).

    Arguments are those of `bond_map`.
    """
    bonds = nearest_bonds(lattice, spins)
    flat = bonds.reshape(*bonds.shape[:-3], -1)
    number = np.sum(~np.isnan(flat), axis=-1)
    return (
        np.stack([np.sum(flat > FERROMAGNETIC, axis=-1), np.sum(flat < -FERROMAGNETIC, axis=-1)], axis=-1)
        / (number[..., None])
    )


def bond_columns(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of S_i·S_j over all bonds of each site, shape (..., Lx, Ly).

    Unlike `bond_map` it is centred on the site, so that the position of a wall
    read from it is not shifted by half a column.
    """
    bonds = nearest_bonds(lattice, spins)
    back = lattice.shift(-np.asarray(lattice.bonds))
    leaving = bonds.reshape(*bonds.shape[:-3], lattice.num_sites, -1)
    arriving = [np.where(back[:, k] >= 0, leaving[..., back[:, k], k], np.nan) for k in range(len(lattice.bonds))]
    total, count = np.nansum(leaving, axis=-1), np.sum(~np.isnan(leaving), axis=-1).astype(float)
    for one in arriving:
        total, count = total + np.nan_to_num(one), count + ~np.isnan(one)
    with np.errstate(invalid="ignore"):
        return (total / count).reshape(bonds.shape[:-1])


def _triangles(lattice: Lattice, spins: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Corners of the two triangles of each cell, counterclockwise: 3 arrays (2, sites, 3), NaN without a spin there."""
    flat = spins.reshape(lattice.num_sites, 3)
    table = lattice.shift([(0, 0), (1, 0), (0, 1), (1, 1)]).T
    o, x, y, xy = np.where(table[..., None] >= 0, flat[table], np.nan)
    if np.linalg.det(lattice.primitive_vectors) < 0:
        x, y = y, x
    return np.stack([o, xy]), np.stack([x, y]), np.stack([y, x])


def scalar_chirality(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of S_a·(S_b x S_c) over the two triangles of the cell towards +x and +y of each site.

    Cells of the square lattice are divided along the diagonal from (1, 0) to (0, 1). A triangle with a vacancy, whose
    spin is NaN, does not count.

    Parameters
    ----------
    lattice
        The lattice of the spins.
    spins
        Unit vectors, shape (Lx, Ly, 3).

    Returns
    -------
    ndarray
        Shape (Lx, Ly); NaN where no triangle counts, as beyond an open edge.
    """
    a, b, c = _triangles(lattice, spins)
    return _mean_along(0, (a * np.cross(b, c)).sum(axis=-1)).reshape(lattice.size)


def topological_charges(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed fraction of the sphere that the spins of the cell towards +x and +y of each site cover.

    It is the sum of the solid angles of the two triangles of the cell, divided by 4 pi (B. Berg and M. Lüscher, Nucl.
    Phys. B 190, 412 (1981)). Arguments and shape of the result are those of `scalar_chirality`.
    """
    a, b, c = _triangles(lattice, spins)
    volume = (a * np.cross(b, c)).sum(axis=-1)
    angles = 2 * np.arctan2(volume, 1 + (a * b).sum(axis=-1) + (b * c).sum(axis=-1) + (c * a).sum(axis=-1))
    covered = np.where(np.isnan(angles).all(axis=0), np.nan, np.nansum(angles, axis=0))
    return covered.reshape(lattice.size) / (4 * np.pi)


def topological_charge(lattice: Lattice, spins: NDArray[np.float64]) -> float:
    """Number of times that the spins wrap the sphere: the sum of `topological_charges`, an integer if periodic."""
    return float(np.nansum(topological_charges(lattice, spins)))


def structure_factor(lattice: Lattice, spins: NDArray[np.float64], wave_vectors: ArrayLike) -> NDArray[np.float64]:
    """Static structure factor |sum_i S_i exp(-i q·r_i)|^2 / N.

    Parameters
    ----------
    lattice
        The lattice of the spins.
    spins
        Unit vectors, shape (Lx, Ly, 3).
    wave_vectors
        Shape (n, 2), in units of the reciprocal vectors: the square antiferromagnet is at (1/2, 1/2), the 120 degree
        order of the triangular lattice at K = (1/3, 2/3) and K' = (2/3, 1/3), the tetrahedral order at (1/2, 0),
        (0, 1/2) and (1/2, 1/2).

    Returns
    -------
    ndarray
        Shape (n,). The sum over all wave vectors of a periodic lattice is N. Perfect order has N at its wave vector, or
        equal parts at several: N/2 at K and at K', N/3 at each of the three wave vectors of the tetrahedral order.
    """
    along_x, along_y = (
        np.exp(-2j * np.pi * np.outer(np.asarray(wave_vectors, dtype=float)[:, axis], np.arange(lattice.size[axis])))
        for axis in range(2)
    )
    amplitude = np.einsum("qx,qy,xya->qa", along_x, along_y, spins, optimize=True)
    return (np.abs(amplitude) ** 2).sum(axis=-1) / lattice.num_sites


def structure_factors(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """`structure_factor` at all wave vectors (h / Lx, k / Ly) of the lattice, shape (Lx, Ly)."""
    amplitude = np.fft.fft2(spins, axes=(0, 1))
    return (np.abs(amplitude) ** 2).sum(axis=-1) / lattice.num_sites


def wall_position(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of the ferromagnet–antiferromagnet wall, averaged over y (Fig. 5a of the paper).

    In each row the site bonds, smoothed over one column to either side, are followed from the right to the wall, where
    they first cross zero, interpolated linearly. A row without a crossing counts as 0 if it is antiferromagnetic at its
    left end, and as Lx if it is ferromagnetic everywhere. Arguments are those of `bond_map`.

    Returns
    -------
    ndarray
        Shape (...), in columns; a sharp wall just before column x is at x - 1/2.
    """
    smooth = _smooth_bonds(lattice, spins)
    length = smooth.shape[-2]
    after = np.concatenate([smooth[..., 1:, :], smooth[..., -1:, :]], axis=-2)
    crossing = (smooth > 0) & (after <= 0)
    crosses = crossing.any(axis=-2)
    last = np.where(crosses, length - 1 - np.argmax(crossing[..., ::-1, :], axis=-2), 0)
    left = np.take_along_axis(smooth, last[..., None, :], axis=-2)[..., 0, :]
    right = np.take_along_axis(smooth, np.minimum(last + 1, length - 1)[..., None, :], axis=-2)[..., 0, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        position = last + left / (left - right)
    without = np.where(smooth[..., -1, :] > 0, float(length), 0.0)
    return np.where(crosses, position, without).mean(axis=-1)


def has_wall(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether spins form a ferromagnet to the left of a wall and an antiferromagnet to its right.

    The mean bond must be above 1/4 in the columns to the left of the wall and below -1/6 in those to its right. A
    driven metal is not a perfect ferromagnet: its bonds fall to 0.34 on small lattices. The triangular antiferromagnet
    has -1/3.

    Arguments and shapes are those of `wall_position`. False if a single order fills the lattice, and for random spins,
    except about one in a thousand configurations of 8x4 sites.
    """
    profile = _smooth_bonds(lattice, spins).mean(axis=-1)
    left = np.arange(lattice.size[0]) <= wall_position(lattice, spins)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        ferromagnet, antiferromagnet = (
            np.sum(profile * side, axis=-1) / np.sum(side, axis=-1) for side in (left, ~left)
        )
    return (ferromagnet > 1 / 4) & (antiferromagnet < -1 / 6)


def _smooth_bonds(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Site bonds averaged over one column to either side, shape (..., Lx, Ly)."""
    bonds = bond_columns(lattice, spins)
    padded = np.concatenate([bonds[..., :1, :], bonds, bonds[..., -1:, :]], axis=-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Sites surrounded by vacancies only.
        return np.asarray(np.nanmean([padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]], axis=0))
