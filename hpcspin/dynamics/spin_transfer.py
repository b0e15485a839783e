"""Spin-transfer torque: the parts of a field that a spin current polarised along an axis p exerts on spins.

Across a spin any field is H = a S x p + b [p - S (S·p)]. The first part turns the spin towards p, or away from it, by
the damping-like torque -a S x (S x p) of J. C. Slonczewski, J. Magn. Magn. Mater. 159, L1 (1996); it derives from no
energy, and a p is the vector p_i of dG/dS_i = -p_i (Eq. 3 of arXiv:2112.12124). The second part is that of a Zeeman
field b p: the field-like torque.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class SpinTransfer(NamedTuple):
    """Both coefficients of a field across the spins, in hoppings.

    Attributes
    ----------
    damping_like
        a of H = a S x p + b [p - S (S·p)].
    field_like
        b.
    """

    damping_like: Array
    field_like: Array


def spin_transfer(spins: Array, field: Array, axis: ArrayLike) -> SpinTransfer:
    """Split the field on each spin into its damping-like and its field-like part.

    Parameters
    ----------
    spins, field
        Shape (..., 3).
    axis
        Unit vector p, to which no spin is parallel.

    Returns
    -------
    SpinTransfer
        Arrays of shape (...).
    """
    p = np.asarray(axis, dtype=np.float64)
    turned, towards = np.cross(spins, p), p - spins * (spins @ p)[..., None]
    square = (turned**2).sum(-1)
    return SpinTransfer((field * turned).sum(-1) / square, (field * towards).sum(-1) / square)


def macrospin_rate(transfer: SpinTransfer, damping: float) -> Array:
    """Rate of ln tan(theta/2) of a rigid magnet at the angle theta to p: -(a + alpha b) / (1 + alpha²).

    The Landau-Lifshitz-Gilbert equation of one spin in the field of `spin_transfer`, whose angle obeys
    d theta/dt = -(a + alpha b) sin(theta) / (1 + alpha²). With an easy axis along p, of the energy -K (S·p)², b gains
    2 K cos(theta): parallel to p the magnet is unstable where -a > alpha (2 K + b).

    Parameters
    ----------
    transfer
        Means over the spins of the magnet.
    damping
        Gilbert damping alpha.
    """
    return -(transfer.damping_like + damping * transfer.field_like) / (1 + damping**2)


def angle_rate(time: Array, magnetization: Array, axis: ArrayLike) -> float:
    """Slope of ln tan(theta/2) against time, by least squares, theta the angle of a magnetization to p.

    Parameters
    ----------
    time
        Shape (n,).
    magnetization
        Of any length, shape (n, 3).
    axis
        Unit vector p.
    """
    p = np.asarray(axis, dtype=np.float64)
    along, across = magnetization @ p, np.linalg.norm(np.cross(magnetization, p), axis=-1)
    return float(np.polyfit(time, np.log(np.tan(np.arctan2(across, along) / 2)), 1)[0])


def zero_crossing(x: Array, y: Array) -> float | None:
    """Where y, linear between its values at increasing x, first rises through zero; None if it does not."""
    rises = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    if not len(rises):
        return None
    i = rises[0]
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
