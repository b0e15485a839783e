"""Spins at rest: minima of an energy, known through its field alone."""

from __future__ import annotations

from collections.abc import Callable
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


def minimise(field: Callable[[Array], Array], spins: Array, tolerance: float, most: int = 10_000) -> Minimum:
    """Follow a conservative field downhill until no spin feels a torque beyond a tolerance.

    Steepest descent on the spheres with the step lengths of Barzilai and Borwein, as L. Exl et al., J. Appl. Phys. 115,
    17D118 (2014), use it. Saddles have no torque either: start from spins without symmetry.

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
    step, before = 1.0, None
    for number in range(1, most + 1):
        force = field(spins)
        slope = (spins * force).sum(axis=-1, keepdims=True) * spins - force
        torque = float(np.linalg.norm(slope, axis=-1).max())
        if torque <= tolerance:
            return Minimum(spins, torque, number)
        if not np.isfinite(torque):
            break
        if before is not None:
            moved, changed = spins - before[0], slope - before[1]
            curvature = abs(float((moved * changed).sum()))
            step = float((moved**2).sum()) / curvature if curvature > 0 else step
        before = (spins, slope)
        moving = spins - min(step, _FARTHEST / torque) * slope
        spins = moving / np.linalg.norm(moving, axis=-1, keepdims=True)
    raise HpcspinError(
        f"the largest torque is {torque:.3g} after {number} evaluations, and {tolerance:g} is asked for; give a larger "
        "tolerance, more evaluations, or a field that derives from an energy"
    )
