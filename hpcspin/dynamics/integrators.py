r"""Time steps of :math:`\dot S = \Omega(S, t) \times S`, pure functions registered by name.

An integrator maps spins at t to spins at t + dt.  The random field is part of Omega and constant within
the step, which gives every integrator marked as Langevin the Stratonovich solution.  All renormalise at
the end of the step: the schemes that rotate conserve the length by themselves, and so keep it to
rounding for ever.

===================  =====  ======  =====================================================================
name                 order  fields  literature
===================  =====  ======  =====================================================================
``heun``             2      2       García-Palacios and Lázaro, PRB 58, 14937 (1998)
``depondt_mertens``  2      2       Depondt and Mertens, J. Phys.: Condens. Matter 21, 336005 (2009)
``sib``              2      2       Mentink et al., J. Phys.: Condens. Matter 22, 176001 (2010)
``rk4``              4      4       classical Runge–Kutta, deterministic runs only
===================  =====  ======  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcspin.dynamics.elementary import sincos
from hpcspin.dynamics.torque import cross, dot, normalise
from hpcspin.errors import HpcspinError

AngularVelocity = Callable[[Tensor, float], Tensor]
Step = Callable[[Tensor, float, float, AngularVelocity], Tensor]


@dataclass(frozen=True)
class Integrator:
    """A time step and what is known of it.

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
    """

    name: str
    step: Step
    order: int
    langevin: bool


INTEGRATORS: dict[str, Integrator] = {}


def integrator(name: str, *, order: int, langevin: bool) -> Callable[[Step], Step]:
    """Register a step function."""

    def register(step: Step) -> Step:
        INTEGRATORS[name] = Integrator(name, step, order, langevin)
        return step

    return register


def make_integrator(name: str, *, noise: bool) -> Integrator:
    """Look up an integrator.

    Parameters
    ----------
    name
        Registered name.
    noise
        Whether the run has Langevin noise.

    Raises
    ------
    HpcspinError
        If the name is unknown, or the integrator is not valid with noise.
    """
    if name not in INTEGRATORS:
        raise HpcspinError(f"dynamics.integrator: {name!r} is unknown; choose one of {', '.join(sorted(INTEGRATORS))}")
    found = INTEGRATORS[name]
    if noise and not found.langevin:
        valid = ", ".join(sorted(key for key, value in INTEGRATORS.items() if value.langevin))
        raise HpcspinError(
            f"dynamics.integrator: {name} is not a scheme for Langevin noise, whose paths are too rough for its order "
            f"and its stages; choose one of {valid}, or dynamics.temperature 0"
        )
    return found


def rotate(spins: Tensor, angle: Tensor) -> Tensor:
    """Rotate each spin about the direction of its vector `angle` by that vector's length (Rodrigues)."""
    square = dot(angle, angle)
    length = square.sqrt()
    sine, cosine = sincos(length.to(torch.float64))
    still = square == 0
    divisor = torch.where(still, torch.ones_like(square), square)
    # sin(a)/a and (1 - cos a)/a^2; where nothing turns the products below vanish whatever these are.
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

    That component moves nothing, but a rotation by a finite angle about a vector that contains it does not know.
    It is most of an electronic field, and arbitrary in a learned one: with it the rotating schemes were 150 times
    less accurate on the reference trajectory of the driven s-d model at a step of 1/4.
    """
    full = omega(spins, time)
    return full - dot(spins, full) * spins


@integrator("heun", order=2, langevin=True)
def heun(spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
    """Predictor–corrector with projection onto the sphere at the end.

    The field is asked at the projected predictor, since it is defined on unit vectors, but the slope is taken at
    the straight one: projecting that too would be of the same order and four times further from the Boltzmann
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
    """Semi-implicit midpoint, scheme B: an implicit rotation about the field at a predicted midpoint.

    The midpoint is normalised before the field sees it, since fields are defined on unit vectors.
    """
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
