r"""Time steps of :math:`\dot S = \Omega(S, t) \times S`, pure functions registered by name.

An integrator maps spins at t to spins at t + dt. The random field is part of Omega and constant within the step, which
gives every integrator marked as Langevin the Stratonovich solution. All renormalise at the end of the step; the schemes
that rotate conserve the length by themselves, to rounding.

===================  =====  ======  =====================================================================
name                 order  fields  literature
===================  =====  ======  =====================================================================
``heun``             2      2       García-Palacios and Lázaro, PRB 58, 14937 (1998)
``depondt_mertens``  2      2       Depondt and Mertens, J. Phys.: Condens. Matter 21, 336005 (2009)
``sib``              2      2       Mentink et al., J. Phys.: Condens. Matter 22, 176001 (2010)
``midpoint``         2      ~15     McLachlan, Modin and Verdier, PRE 89, 061301 (2014), implicit
``rk4``              4      4       classical Runge–Kutta, deterministic runs only
``dormand_prince``   5      6       Dormand and Prince, J. Comput. Appl. Math. 6, 19 (1980), deterministic
                                    runs only; with an error estimate, see :mod:`hpcspin.dynamics.adaptive`
===================  =====  ======  =====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from hpcspin.dynamics.elementary import sincos
from hpcspin.dynamics.torque import cross, dot, normalise
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.registry import Registry

Largest = Callable[[Tensor], float]
AngularVelocity = Callable[[Tensor, float], Tensor]
Step = Callable[..., Tensor]
Pair = Callable[[Tensor, float, float, AngularVelocity], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Integrator:
    """A time step and its properties.

    Attributes
    ----------
    name : str
        Name in the config.
    step : callable
        ``step(spins, time, dt, omega) -> spins``.
    order : int
        Deterministic order of convergence.
    langevin : bool
        Whether it converges to the Stratonovich solution of the stochastic equation.
    implicit : bool
        Whether it iterates; the fifth argument of `step` is then a function that gives the largest change on all ranks.
    pair : callable or None
        ``pair(spins, time, dt, omega) -> spins, error``: the step with an estimate of its error.
    """

    name: str
    step: Step
    order: int
    langevin: bool
    implicit: bool = False
    pair: Pair | None = None


INTEGRATORS: Registry[Integrator] = Registry("dynamics.integrator", call=attrgetter("step"))


def integrator(
    name: str, *, order: int, langevin: bool, implicit: bool = False, pair: Pair | None = None
) -> Callable[[Step], Step]:
    """Register a step function."""

    def register(step: Step) -> Step:
        INTEGRATORS.add(name, Integrator(name, step, order, langevin, implicit, pair))
        return step

    return register


def largest_on(world: World) -> Largest:
    """Function that all ranks call for the largest absolute component, NaN if any is NaN.

    No other reduction may affect the dynamics: a maximum has the same bits however the lattice is cut.
    """

    def largest(block: Tensor) -> float:
        return float(np.max(world.allgather(float(block.abs().max()))))

    return largest


def make_integrator(name: str, *, noise: bool, largest: Largest | None = None) -> Integrator:
    """Look up an integrator; its `step` then takes four arguments.

    Parameters
    ----------
    name
        Registered name.
    noise
        Whether the run has Langevin noise.
    largest
        Maximum over the ranks; None for this rank alone.

    Raises
    ------
    HpcspinError
        If the name is unknown, or the integrator is not valid with noise.
    """
    chosen = INTEGRATORS[name]
    if noise and not chosen.langevin:
        valid = ", ".join(sorted(key for key, value in INTEGRATORS.items() if value.langevin))
        raise HpcspinError(
            f"dynamics.integrator: {name} is not a scheme for Langevin noise, whose paths are too rough for its order "
            f"and its stages; choose one of {valid}, or dynamics.temperature 0"
        )
    if chosen.implicit:
        iterate, over_ranks = chosen.step, largest or largest_on(World())
        return replace(chosen, step=lambda spins, time, dt, omega: iterate(spins, time, dt, omega, over_ranks))
    return chosen


def rotate(spins: Tensor, angle: Tensor) -> Tensor:
    """Rotate each spin about the direction of its vector `angle` by that vector's length (Rodrigues)."""
    square = dot(angle, angle)
    length = square.sqrt()
    sine, cosine = sincos(length.to(torch.float64))
    still = square == 0
    divisor = torch.where(still, torch.ones_like(square), square)
    # sin(a)/a and (1 - cos a)/a^2; where the angle is zero, the products below vanish whatever their values.
    first = sine.to(spins.dtype) / divisor.sqrt()
    second = (1 - cosine).to(spins.dtype) / divisor
    turned = cross(angle, spins)
    return spins + first * turned + second * cross(angle, turned)


def cayley(spins: Tensor, angle: Tensor) -> Tensor:
    """Solve X = S + angle x (S + X)/2: a rotation about `angle`, without trigonometry."""
    half = 0.5 * angle
    square = dot(half, half)
    return ((1 - square) * spins + 2 * cross(half, spins) + 2 * dot(half, spins) * half) / (1 + square)


def _tangential(spins: Tensor, omega: AngularVelocity, time: float) -> Tensor:
    """Angular velocity without its component along the spin.

    That component exerts no torque but changes a rotation by a finite angle: with it the rotating schemes were 150
    times less accurate on the reference trajectory of the driven s-d model at a step of 1/4.
    """
    full = omega(spins, time)
    return full - dot(spins, full) * spins


@integrator("heun", order=2, langevin=True)
def heun(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Predictor–corrector with projection onto the sphere at the end.

    The field is evaluated at the projected predictor, since it is defined on unit vectors, but the slope is taken at
    the unprojected one: projecting that too would be of the same order and four times further from the Boltzmann
    distribution (free spins, T = h = alpha = 1, dt = 0.05: <m> off by 0.017 instead of 0.004).
    """
    slope = cross(omega(spins, time), spins)
    predicted = spins + dt * slope
    corrected = cross(omega(normalise(predicted), time + dt), predicted)
    return normalise(spins + (0.5 * dt) * (slope + corrected))


@integrator("depondt_mertens", order=2, langevin=True)
def depondt_mertens(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Heun's scheme with rotations instead of straight steps."""
    first = _tangential(spins, omega, time)
    second = _tangential(normalise(rotate(spins, dt * first)), omega, time + dt)
    return normalise(rotate(spins, (0.5 * dt) * (first + second)))


@integrator("sib", order=2, langevin=True)
def sib(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Semi-implicit midpoint, scheme B: an implicit rotation about the field at a predicted, normalised midpoint."""
    predicted = cayley(spins, dt * _tangential(spins, omega, time))
    midpoint = normalise(spins + predicted)
    return normalise(cayley(spins, dt * _tangential(midpoint, omega, time + 0.5 * dt)))


@integrator("rk4", order=4, langevin=False)
def rk4(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Classical fourth-order Runge–Kutta."""

    def slope(at: Tensor, moment: float) -> Tensor:
        return cross(omega(at, moment), at)

    k1 = slope(spins, time)
    k2 = slope(normalise(spins + (0.5 * dt) * k1), time + 0.5 * dt)
    k3 = slope(normalise(spins + (0.5 * dt) * k2), time + 0.5 * dt)
    k4 = slope(normalise(spins + dt * k3), time + dt)
    return normalise(spins + (dt / 6) * (k1 + 2 * k2 + 2 * k3 + k4))


_ITERATIONS = 100
_SINGLE = 1e-6
"""Change of the spins in an iteration below which it may be due to the rounding of a single-precision field alone."""
_STALLED = 3
"""Iterations without a smaller change after which it is taken to be due to rounding."""


@integrator("midpoint", order=2, langevin=True, implicit=True)
def midpoint(spins: Tensor, time: float, dt: float, omega: AngularVelocity, largest: Largest) -> Tensor:
    """Spherical midpoint rule: S' = S + dt Omega(M) x M, M the unit vector along S + S'.

    Symmetric in time and symplectic. Each iteration solves for the rotation in the field at the last M, so that only
    the change of the field is left to converge. Iterations go on until only rounding changes the spins, or until the
    precision of the field prevents further convergence. Raises HpcspinError if the iteration does not converge.
    """
    eps = torch.finfo(spins.dtype).eps
    before = least = math.inf
    stalled = 0
    moved = cayley(spins, dt * _tangential(spins, omega, time))
    for _ in range(_ITERATIONS):
        double = spins + moved
        length = dot(double, double).sqrt()
        again = cayley(spins, (2 * dt) * _tangential(double / length, omega, time + 0.5 * dt) / length)
        change, moved = largest(again - moved), again
        stalled = 0 if change < least else stalled + 1
        if change <= 8 * eps or before <= change < math.sqrt(eps) or (stalled == _STALLED and change < _SINGLE):
            return normalise(moved)
        before, least = change, min(least, change)
    raise HpcspinError(
        f"dynamics.integrator: midpoint does not converge at time {time:.6g}; make dynamics.step smaller than "
        f"{dt:.4g}, or correct the field if it is not finite there"
    )


_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total += weight * slope
    return total


def _stages(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> tuple[Tensor, list[Tensor]]:
    """Spins after the step and the six slopes that gave them."""
    at, slopes = spins, [cross(omega(spins, time), spins)]
    for node, weights in zip(_NODES, _WEIGHTS[:-1], strict=True):
        at = normalise(spins + dt * _combine(weights, slopes))
        slopes.append(cross(omega(at, time + node * dt), at))
    return normalise(spins + dt * _combine(_WEIGHTS[-1], slopes)), slopes


def dormand_prince_pair(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> tuple[Tensor, Tensor]:
    """Fifth-order step and its distance from the embedded fourth-order one, with the first slope of the next step."""
    moved, slopes = _stages(spins, time, dt, omega)
    slopes.append(cross(omega(moved, time + dt), moved))
    return moved, dt * _combine(_DIFFERENCE, slopes)


@integrator("dormand_prince", order=5, langevin=False, pair=dormand_prince_pair)
def dormand_prince(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Fifth-order Runge–Kutta scheme of Dormand and Prince."""
    return _stages(spins, time, dt, omega)[0]
