r"""How long a step the motion of the spins, the drives and the noise allow.

Each bound is measured with the integrators themselves, on a problem with an exact answer.

*Motion*: small deviations of the spins follow :math:`\dot v = J v`, with J the derivative of the torque. Its largest
eigenvalue follows from power iteration, and J v from the difference of two torques, so that any field will do. The
phase of a precession of two coupled spins must stay within a twentieth of a radian over one period.

*Drives*: a spin at rest perpendicular to a field :math:`a \sin(\omega t + \varphi)` turns by the integral of the field.
A step samples the drive at its stages only; the largest :math:`\omega\,dt` that keeps the tilt to a fiftieth of itself,
at any phase, bounds the steps for all drives. A Gaussian pulse of width w counts with the rate 1/w, at which its
spectrum has fallen to 0.6.

*Noise*: over a step the random field turns a spin by an angle of variance
:math:`\theta^2 = 2 \alpha T\, dt / (1 + \alpha^2)` about each axis perpendicular to it. With finite steps the spins
take on a temperature other than that of the bath; in two limits it follows from one step alone.

Free spins in a weak field h have the magnetisation :math:`m = h / 3T`.  With :math:`\langle S' \rangle = \lambda S` for
h = 0, and A the mean of :math:`\partial S'_z / \partial h` over all directions of S, balance in the stationary state
requires :math:`(1 - \lambda)\, m = A h`, whence

.. math:: T_{\text{eff}} = \frac{1 - \lambda}{3 A} = T\,[1 - c\,\theta^2 + \ldots]

The averages over the noise are Gauss–Hermite sums.  They give c = 11/12 for ``depondt_mertens``, 3/4 for ``sib``, 1/4
for ``heun`` and 0 for ``midpoint``, at any damping.

Spins near a strong field h have the complex tilt s with :math:`\langle |s|^2 \rangle = 2T / h`.  A step maps it to
:math:`\mu s + \nu\, dt\, (\eta_x + i \eta_y)`, so that

.. math:: T_{\text{eff}} = T\, \frac{2 \alpha\, h\,dt\, |\nu|^2}{1 - |\mu|^2}

which bounds h dt: at small damping a scheme that does not conserve the length of s heats the spins.

``midpoint`` is exact in both limits, but its iteration diverges where a spin turns too far in one step: the spins'
motion and eight standard deviations of the noise, which no run of 10^12 random fields exceeds, must stay below that
angle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import Field, terms_of
from hpcspin.dynamics.integrators import INTEGRATORS, Largest, make_integrator, rotate
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.dynamics.torque import angular_velocity, components_first, dot, normalise
from hpcspin.dynamics.waveforms import Driven

PHASE_ERROR = 0.05
_SHIFT = 1e-3
_STREAM = 1  # the noise has stream 0
DRIVE_ERROR = 0.02
"""Allowed relative error of the tilt that a drive causes."""
NOISE_ERROR = 0.005
"""Allowed relative error of the temperature that the spins take on."""
_NODES = 8
_RAREST = 8.0
"""Size of the random field, in standard deviations, up to which the iteration of an implicit scheme must converge."""
_WEAK = 1e-3


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
    """Angle from ``least`` to 2, to a percent, up to which an error is allowed; any exception counts as infinite."""

    def fits(angle: float) -> bool:
        try:
            return error(angle) < allowed
        except Exception:  # An integrator of a user; the run says what is wrong with it.
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


def drives_of(field: Field) -> list[Driven]:
    """The terms of a field that depend explicitly on time."""
    return [term for term in terms_of(field) if isinstance(term, Driven)]


def step_bounds(
    name: str, rate: float, drives: Sequence[Driven], duration: float, damping: float, temperature: float
) -> dict[str, float]:
    """Longest steps that an integrator tolerates, by their cause; ``rate`` is that of the motion at time zero.

    The product of damping and temperature is 0 for no noise, or for an integrator that does not support noise.
    """
    bounds, strength = {}, 2 * damping * temperature
    changes = [drive.rate(0.0, duration) for drive in drives]
    fastest = rate + sum(drive.strength for drive, change in zip(drives, changes, strict=True) if change)
    if fastest:
        angle = tolerated_angle(name)
        if strength:
            angle = min(angle, tolerated_angle_with_noise(name, damping))
        bounds["the motion of the spins"] = angle / fastest
    if change := max(changes, default=0.0):
        bounds["the drives"] = tolerated_change(name) / change
    if strength:
        bounds["the noise"] = tolerated_turn(name, damping) ** 2 * (1 + damping**2) / strength
        if INTEGRATORS[name].implicit:
            # fastest dt + _RAREST (strength dt)^(1/2) is the largest angle.
            half, angle = _RAREST * math.sqrt(strength) / 2, largest_angle(name, damping)
            bounds["the noise"] = min(bounds["the noise"], (angle / (half + math.sqrt(half**2 + fastest * angle))) ** 2)
    return bounds


@functools.cache
def tolerated_change(name: str) -> float:
    """Largest rate of a drive times step at which an integrator follows it; see the module."""
    return largest_within(lambda change: _tilt_error(name, change), DRIVE_ERROR)


@functools.cache
def tolerated_turn(name: str, damping: float) -> float:
    """Largest standard deviation of the noise's turn in a step that leaves the temperature right; see the module."""
    return largest_within(lambda turn: abs(temperature_at_turn(name, damping, turn) - 1), NOISE_ERROR)


@functools.cache
def tolerated_angle_with_noise(name: str, damping: float) -> float:
    """Largest rate times step that leaves the temperature of spins near their field right; see the module."""
    return largest_within(lambda angle: abs(temperature_at_angle(name, damping, angle) - 1), NOISE_ERROR, 1 / 256)


@functools.cache
def largest_angle(name: str, damping: float) -> float:
    """Largest product of a field of any direction and the step at which an implicit integrator converges."""
    return largest_within(lambda angle: _convergence_error(name, damping, angle), 1.0)


def _tilt_error(name: str, change: float) -> float:
    """Largest error of the tilt by weak sinusoids of many phases over a period, relative to the largest tilt."""
    advance = make_integrator(name, noise=False).step
    phases = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    spins = components_first(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(1, len(phases), 1))
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    errors = []
    for step in range(math.ceil(2 * math.pi / change)):
        spins = advance(
            spins, step * change, change, lambda _, time: _WEAK * torch.sin(time + phases)[None, :, None] * along
        )
        angle = _WEAK * (torch.cos(phases) - torch.cos((step + 1) * change + phases))
        errors.append(float((spins[0, :, 1] + torch.sin(angle)).abs().max()))
    return max(errors) / (2 * _WEAK)


def temperature_at_turn(name: str, damping: float, turn: float) -> float:
    """Temperature of free spins in units of the bath's; raises HpcspinError where the scheme does not converge."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    noise = np.stack(np.meshgrid(nodes, nodes, nodes), axis=-1).reshape(-1, 3) * turn * math.sqrt(1 + damping**2)
    chance = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3
    # To first order in h a step gives a h + b S (S·h) + c S x h: a spin along h and one perpendicular to it give the
    # average.
    directions, shares = np.eye(3)[[2, 0]], np.array([1 / 3, 2 / 3])
    start = components_first(torch.from_numpy(np.repeat(directions[:, None], len(noise), axis=1)))
    advance = make_integrator(name, noise=True).step

    def mean(field: float) -> NDArray[np.float64]:
        total = components_first(torch.from_numpy(noise + np.array([0.0, 0.0, field])).expand_as(start))
        moved = advance(start, 0.0, 1.0, lambda spins, time: angular_velocity(spins, total, damping))
        return np.tensordot(moved.numpy(), chance, axes=(1, 0))

    without, up, down = mean(0.0), mean(_WEAK), mean(-_WEAK)
    overlap = float((without * directions).sum(axis=-1) @ shares)
    response = float((up - down)[:, 2] @ shares) / (2 * _WEAK)
    temperature = turn**2 * (1 + damping**2) / (2 * damping)
    return (1 - overlap) / (3 * response) / temperature


def temperature_at_angle(name: str, damping: float, angle: float) -> float:
    """Temperature of spins near a strong field in units of the bath's; infinite, or HpcspinError, if unstable."""
    small = 1e-6
    spins = components_first(torch.tensor([[[0.0, 0.0, 1.0], [small, 0.0, math.sqrt(1 - small**2)]]]).double())
    field = components_first(torch.tensor([[[small, 0.0, angle], [0.0, 0.0, angle]]]).double())
    advance = make_integrator(name, noise=True).step
    moved = advance(spins, 0.0, 1.0, lambda at, time: angular_velocity(at, field, damping))
    by_noise, factor = (moved[0, :, :2].norm(dim=-1) / small).tolist()
    return 2 * damping * angle * by_noise**2 / (1 - factor**2) if factor < 1 else math.inf


def _convergence_error(name: str, damping: float, angle: float) -> float:
    """0 if a step converges in fields of this magnitude times step in all directions; raises HpcspinError if not."""
    polar = torch.linspace(0, math.pi, 61, dtype=torch.float64)
    field = components_first(angle * torch.stack([polar.sin(), 0 * polar, polar.cos()], dim=-1)[None])
    spins = components_first(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(field))
    advance = make_integrator(name, noise=True).step
    advance(spins, 0.0, 1.0, lambda at, time: angular_velocity(at, field, damping))
    return 0.0
