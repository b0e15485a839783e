"""Spin-transfer torque: the parts of a field that a spin current polarised along an axis p exerts on spins.

Perpendicular to a spin, any field has the form H = a S x p + b [p - S (S·p)]. The first part turns the spin towards p,
or away from it, by the damping-like torque -a S x (S x p) of J. C. Slonczewski, J. Magn. Magn. Mater. 159, L1 (1996);
it derives from no energy, and a p is the vector p_i of dG/dS_i = -p_i (Eq. 3 of arXiv:2112.12124). The second part is
that of a Zeeman field b p and exerts the field-like torque.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class SpinTransfer(NamedTuple):
    """Coefficients of a field perpendicular to the spins, in units of the hopping."""

    damping_like: Array
    """a of H = a S x p + b [p - S (S·p)]."""
    field_like: Array
    """b."""


def spin_transfer(spins: Array, field: Array, axis: ArrayLike) -> SpinTransfer:
    """Damping-like and field-like part, (...), of the field on each spin, (..., 3), none of which is parallel to p."""
    p = np.asarray(axis, dtype=np.float64)
    turned, towards = np.cross(spins, p), p - spins * (spins @ p)[..., None]
    square = (turned**2).sum(-1)
    return SpinTransfer((field * turned).sum(-1) / square, (field * towards).sum(-1) / square)


def stability_matrix(spins: Array, field: Array, axis: ArrayLike, damping: float) -> NDArray[np.complex128]:
    """The Landau-Lifshitz-Gilbert equation linearised around spins along p, for deviations u + i v perpendicular to p.

    Everything that acts on the spins must turn with them about p; then one complex matrix M in d(u + iv)/dt = M (u +
    iv) suffices. The magnet is unstable where an eigenvalue of M has a positive real part. A rigid magnet of n spins
    has the rate sum_ij M_ij / n; with the field of `spin_transfer` and an easy axis along p, of the energy -K (S·p)²,
    its real part is -[a + alpha (b + 2 K)] / (1 + alpha²) around the spins parallel to p.

    In snapshot j of ``spins``, shape (n, n, 3), spin j is slightly tilted, in the same direction in all snapshots;
    ``field`` is the total field on these spins, ``axis`` the unit vector p and ``damping`` alpha. The columns of M
    belong to the snapshots.
    """
    p = np.asarray(axis, dtype=np.float64)
    tilted = np.einsum("jjk->jk", spins)
    across = tilted - (tilted @ p)[:, None] * p
    length = np.linalg.norm(across, axis=1)
    u = across[0] / length[0]
    torque = np.cross(spins, field)
    rate = -(torque + damping * np.cross(spins, torque)) / (1 + damping**2)
    return np.asarray((rate @ u + 1j * (rate @ np.cross(p, u))).T / length)


def largest_growth(matrix: NDArray[np.complex128], error: float) -> tuple[float, float]:
    """Largest real part of an eigenvalue of `stability_matrix`, and the bound on its error to first order.

    Each element of the matrix has at most the ``error``; an eigenvalue with the right vector x and the left one y,
    y·x = 1, changes by at most error |x|_1 |y|_1.
    """
    levels, right = np.linalg.eig(matrix)
    change = error * np.abs(right).sum(axis=0) * np.abs(np.linalg.inv(right)).sum(axis=1)
    growth = levels.real.max()
    return float(growth), float((levels.real + change).max() - growth)


def zero_crossing(x: Array, y: Array) -> float | None:
    """Where y, linear between consecutive points, first rises through zero; None if it does not."""
    rises = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    if not len(rises):
        return None
    i = rises[0]
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
