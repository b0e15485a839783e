r"""How fast the spins can move, and how long a step this motion allows.

Small deviations of the spins follow :math:`\dot v = J v`, with J the derivative of the torque. Its largest eigenvalue
follows from power iteration, and J v from the difference of two torques, so that any field will do. The longest step is
measured with the integrators themselves on two coupled spins, whose motion is known exactly: the phase of a precession
must stay within a twentieth of a radian over one period.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from hpcspin.dynamics.integrators import Largest, make_integrator, rotate
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.dynamics.torque import components_first, dot, normalise
from hpcspin.errors import HpcspinError

PHASE_ERROR = 0.05
_SHIFT = 1e-3
_STREAM = 1  # the noise has stream 0


def fastest_rate(
    velocity: Callable[[Tensor], Tensor], spins: Tensor, sites: Tensor, largest: Largest, evaluations: int
) -> float:
    """Largest rate of precession or relaxation near given spins: the spectral radius of J, or the present velocity.

    ``velocity`` maps the spins of my block, shape (nx, ny, 3), to dS/dt, and is evaluated ``evaluations`` times, at
    least 3; the last half of the iterations are averaged. ``sites`` are their global indices, ``largest`` is over all
    ranks.
    """
    base = velocity(spins)
    direction = normal_vectors(sites, 0, _STREAM, 0, 0).to(spins.dtype)
    growths = []
    for _ in range(evaluations - 1):
        direction = direction - dot(direction, spins) * spins
        direction = direction / largest(direction)
        moved = normalise(spins + _SHIFT * direction)
        slope = (velocity(moved) - base) / _SHIFT
        growth = largest(slope)
        if growth == 0:
            break
        growths.append(growth)
        direction = slope
    converged = growths[len(growths) // 2 :]
    radius = math.exp(sum(map(math.log, converged)) / len(converged)) if converged else 0.0
    return max(radius, largest(base))


@functools.cache
def tolerated_angle(name: str) -> float:
    """Largest rate times step at which an integrator keeps the phase of a precession; see the module."""
    return largest_within(lambda angle: _phase_error(name, angle), PHASE_ERROR)


def largest_within(error: Callable[[float], float], allowed: float, least: float = 1 / 64) -> float:
    """Angle from ``least`` to 2, to a percent, up to which an error is allowed; HpcspinError counts as infinite."""

    def fits(angle: float) -> bool:
        try:
            return error(angle) < allowed
        except HpcspinError:
            return False

    low = least
    while low < 2 and fits(2 * low):
        low *= 2
    if low >= 2:
        return 2.0
    high = 2 * low
    for _ in range(6):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _phase_error(name: str, angle: float) -> float:
    """Distance of two coupled spins, nearly parallel, from their exact place after one turn about their sum."""
    steps = math.ceil(2 * math.pi / angle)
    tilt = 0.01
    along = math.sqrt(1 - tilt**2)
    start = components_first(torch.tensor([[[tilt, 0.0, along]], [[-tilt, 0.0, along]]], dtype=torch.float64))
    now, advance = start, make_integrator(name, noise=False).step
    for step in range(steps):
        now = advance(now, step * angle, angle, lambda spins, time: spins.flip(0) / (2 * along))
    axis = torch.tensor([0.0, 0.0, steps * angle], dtype=torch.float64).expand_as(start)
    return float((now - rotate(start, axis)).abs().max()) / tilt
