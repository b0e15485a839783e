"""Distances on lattices that close on themselves."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.lattice.lattice import Lattice


def nearest_vectors(lattice: Lattice, offsets: ArrayLike) -> NDArray[np.float64]:
    """Cartesian vectors of lattice offsets, each to the nearest of its periodic images.

    Parameters
    ----------
    lattice
        The lattice.
    offsets
        Integers, shape (..., 2).

    Returns
    -------
    ndarray
        Shape (..., 2), in lattice constants.
    """
    vectors = lattice.cartesian(offsets)
    basis = _reduced(lattice.cartesian(np.diag(lattice.size)[list(lattice.periodic)]))
    if not len(basis):
        return vectors
    whole = np.round(vectors @ np.linalg.pinv(basis))
    # Of a reduced basis the nearest point is the rounded one, or next to it.
    steps = np.array(list(product((-1, 0, 1), repeat=len(basis))))
    images = vectors[..., None, :] - (whole[..., None, :] + steps) @ basis
    nearest = np.argmin((images**2).sum(axis=-1), axis=-1)
    return np.take_along_axis(images, nearest[..., None, None], axis=-2)[..., 0, :]


def _reduced(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest vectors that span the same lattice of translations (Lagrange and Gauss), shape (0 to 2, 2)."""
    if len(basis) < 2:
        return basis
    while True:
        short, long = sorted(basis, key=np.linalg.norm)
        shorter = long - np.round(short @ long / (short @ short)) * short
        if np.linalg.norm(shorter) >= np.linalg.norm(long) * (1 - 1e-12):
            return np.array([short, long])
        basis = np.array([short, shorter])
