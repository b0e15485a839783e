"""What a spin texture shows: local bonds and the position of a domain wall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcspin.lattice.lattice import Lattice


def _bonds(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """S_i·S_j from each site along each bond offset, (..., Lx, Ly, bonds); NaN beyond an open edge."""
    table = lattice.shift(lattice.bonds)
    flat = spins.reshape(*spins.shape[:-3], lattice.num_sites, 3)
    products = np.einsum("...ia,...ika->...ik", flat, flat[..., table, :])
    return np.where(table >= 0, products, np.nan).reshape(*spins.shape[:-1], len(lattice.bonds))


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
        Shape (..., Lx, Ly); -1 in an antiferromagnet, +1 in a ferromagnet.
    """
    return np.nanmean(_bonds(lattice, spins), axis=-1)


def bond_columns(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local bond of each site, averaged over all bonds that touch it.

    Unlike `bond_map` it is centred on the site, so a wall read from it has no
    bias of half a column towards either side. Shape (..., Lx, Ly).
    """
    bonds = _bonds(lattice, spins)
    total = np.nansum(bonds, axis=-1)
    count = np.sum(~np.isnan(bonds), axis=-1).astype(float)
    flat_total = total.reshape(*total.shape[:-2], -1)
    flat_count = count.reshape(*count.shape[:-2], -1)
    flat_bonds = bonds.reshape(*bonds.shape[:-3], lattice.num_sites, -1)
    back = lattice.shift(-np.asarray(lattice.bonds))
    for k in range(len(lattice.bonds)):
        incoming = np.where(back[:, k] >= 0, flat_bonds[..., back[:, k], k], np.nan)
        flat_total = flat_total + np.nan_to_num(incoming)
        flat_count = flat_count + ~np.isnan(incoming)
    return (flat_total / flat_count).reshape(total.shape)


def wall_position(lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position of the ferromagnet–antiferromagnet wall, averaged over y (Fig. 5a of the paper).

    In each row the site bonds, smoothed over one column to either side, are
    followed from the right; the wall is where they cross zero, interpolated
    linearly. A row without a crossing counts as 0 when it is antiferromagnetic
    at its left end and as Lx when it is ferromagnetic everywhere.

    Parameters
    ----------
    lattice
        The lattice of the spins.
    spins
        Unit vectors, shape (..., Lx, Ly, 3).

    Returns
    -------
    ndarray
        Shape (...), in columns; a sharp wall before column x is at x - 1/2.
    """
    bonds = bond_columns(lattice, spins)
    padded = np.concatenate([bonds[..., :1, :], bonds, bonds[..., -1:, :]], axis=-2)
    smooth = (padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]) / 3
    length = smooth.shape[-2]
    crossing = (smooth[..., :-1, :] > 0) & (smooth[..., 1:, :] <= 0)
    found = crossing.any(axis=-2)
    last = np.where(found, length - 2 - np.argmax(crossing[..., ::-1, :], axis=-2), 0)
    left = np.take_along_axis(smooth, last[..., None, :], axis=-2)[..., 0, :]
    right = np.take_along_axis(smooth, np.minimum(last + 1, length - 1)[..., None, :], axis=-2)[..., 0, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        position = last + left / (left - right)
    without = np.where(smooth[..., -1, :] > 0, float(length), 0.0)
    return np.where(found, position, without).mean(axis=-1)
