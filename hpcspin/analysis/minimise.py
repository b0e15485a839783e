"""Spins at rest: minima of an energy that is known only through its field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Results, perpendicular

Array = NDArray[np.float64]
_FARTHEST = 0.3
"""Largest turn of a spin in one step, in radians."""


@dataclass(frozen=True, repr=False)
class Minimum(Results):
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


def descend(slope: Callable[[Array], Array], spins: Array, step: float = 1.0, evaluations: int = 0) -> Iterator[Point]:
    """Steepest descent on the spheres with the step lengths of Barzilai and Borwein.

    The slope is a function from spins of shape (..., 3), perpendicular to these and of the same shape; the spins to
    start from are unit vectors. A descent that starts from a point of an earlier one, with its step and evaluations,
    repeats this point and those after it bit for bit. L. Exl et al., J. Appl. Phys. 115, 17D118 (2014).
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
    """Follow a field H_i = -dE/dS_i downhill until no spin feels a torque beyond a tolerance, in units of the hopping.

    The torque vanishes at saddles too, so start from spins without symmetry. Raises HpcspinError if the torque is still
    larger after ``most`` evaluations, or not a number, as for fields without an energy.
    """
    for point in descend(lambda now: -perpendicular(now, field(now)), spins):
        if point.torque <= tolerance:
            return Minimum(point.spins, point.torque, point.evaluations)
        require_progress(point.torque, point.evaluations, tolerance, most)
    raise AssertionError("a descent does not end by itself")


def require_progress(residual: float, evaluations: int, tolerance: float, most: int) -> None:
    """Refuse a descent that has used all its evaluations, or whose residual force, a torque, is not a number."""
    if evaluations >= most or not np.isfinite(residual):
        raise HpcspinError(
            f"the residual force is {residual:.3g} after {evaluations} evaluations, and {tolerance:g} is asked for; "
            "give a larger tolerance, more evaluations, ends of a path that are at rest, or a field that derives from "
            "a smooth energy, as that of a hardly trained model may not be"
        )
