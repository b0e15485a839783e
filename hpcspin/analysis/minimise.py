"""Spins at rest: minima of an energy, known through its field alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError

Array = NDArray[np.float64]
_FARTHEST = 0.3
"""Largest turn of a spin in one step, in radians."""


@dataclass(frozen=True)
class Minimum:
    """Spins at rest, shape (Lx, Ly, 3), the largest torque |S_i x H_i| on one of them, and evaluations of the field."""

    spins: Array
    torque: float
    evaluations: int


@dataclass(frozen=True)
class Point:
    """A point of a descent: spins and slope, shape (..., 3), the length of the next step, evaluations until here."""

    spins: Array
    slope: Array
    step: float
    evaluations: int

    @property
    def torque(self) -> float:
        """Largest slope of a spin."""
        return float(np.linalg.norm(self.slope, axis=-1).max())


def across(spins: Array, vectors: Array) -> Array:
    """The part of vectors across the spins, both of shape (..., 3)."""
    return np.asarray(vectors - (spins * vectors).sum(axis=-1, keepdims=True) * spins)


def descend(slope: Callable[[Array], Array], spins: Array, step: float = 1.0, evaluations: int = 0) -> Iterator[Point]:
    """Steepest descent on the spheres with the step lengths of Barzilai and Borwein.

    L. Exl et al., J. Appl. Phys. 115, 17D118 (2014). A descent that begins at a point of another one repeats this point
    and those behind it bit for bit.

    Parameters
    ----------
    slope
        From spins of shape (..., 3) to what is to vanish, across the spins, of the same shape.
    spins
        Start, unit vectors.
    step, evaluations
        Of the point to go on from.
    """
    uphill, evaluations = slope(spins), max(evaluations - 1, 0)
    while True:
        now = Point(spins, uphill, step, evaluations := evaluations + 1)
        yield now
        moving = spins - min(step, _FARTHEST / max(now.torque, 1e-300)) * uphill
        spins = moving / np.linalg.norm(moving, axis=-1, keepdims=True)
        uphill = slope(spins)
        moved, changed = spins - now.spins, uphill - now.slope
        curvature = abs(float((moved * changed).sum()))
        step = float((moved**2).sum()) / curvature if curvature > 0 else step


def minimise(field: Callable[[Array], Array], spins: Array, tolerance: float, most: int = 10_000) -> Minimum:
    """Follow a conservative field downhill until no spin feels a torque beyond a tolerance.

    Saddles have no torque either: start from spins without symmetry.

    Parameters
    ----------
    field
        From spins of shape (Lx, Ly, 3) to H_i = -dE/dS_i of the same shape, such as that of closed electrons,
        ``lambda s: system.solve(s).field``, or of a model of kind conservative.
    spins
        Start, unit vectors of shape (Lx, Ly, 3).
    tolerance
        Of the torque, in units of the hopping.
    most
        Evaluations of the field.

    Raises
    ------
    HpcspinError
        If the torque is still larger after ``most`` evaluations, or not a number, as of fields without an energy.
    """
    for point in descend(lambda now: -across(now, field(now)), spins):
        if point.torque <= tolerance:
            return Minimum(point.spins, point.torque, point.evaluations)
        require_progress(point, tolerance, most)
    raise AssertionError("a descent does not end by itself")


def require_progress(point: Point, tolerance: float, most: int) -> None:
    """Refuse a descent that has had all its evaluations, or whose slope is not a number; raises HpcspinError."""
    if point.evaluations >= most or not np.isfinite(point.torque):
        raise HpcspinError(
            f"the largest torque is {point.torque:.3g} after {point.evaluations} evaluations, and {tolerance:g} is "
            "asked for; give a larger tolerance, more evaluations, or a field that derives from an energy"
        )
