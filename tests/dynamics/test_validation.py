"""Textbook results that the integrators, fields and noise must reach together."""

import math

import numpy as np
import pytest
import torch
from laws import evolve, random_spins, single_domain
from scipy import stats

from hpcspin.dynamics import Anisotropy, Heisenberg, Slonczewski, SumField, Thermostat, Zeeman
from hpcspin.dynamics.fields import FieldEvaluator


def frequency(signal, dt):
    """Angular frequency of a complex signal of one line: its mean advance of phase in a step."""
    return np.angle(np.vdot(signal[:-1], signal[1:])) / dt


@pytest.mark.parametrize("mode", [1, 3, 8])
def test_dispersion_of_a_ferromagnet(mode):
    """A chain along x has omega = h + 2 J (1 - cos q), counterclockwise about the field."""
    length, exchange, h, dt, tilt = 16, 1.0, 0.3, 0.005, 1e-4
    q = 2 * math.pi * mode / length
    phase = q * np.arange(length)[:, None]
    spins = np.stack([tilt * np.cos(phase), tilt * np.sin(phase), np.ones_like(phase)], axis=-1)
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    signal = []

    def visit(step, now):
        transverse = now[:, 0, 0] + 1j * now[:, 0, 1]
        signal.append((transverse * np.exp(-1j * phase[:, 0])).sum())

    field = SumField([Heisenberg(exchange), Zeeman((0.0, 0.0, h))])
    evolve(field, spins, dt, 400, damping=0.0, domain=single_domain((length, 1), (True, False)), visit=visit)
    expected = h + 2 * exchange * (1 - math.cos(q))
    # Heun's own phase error is (omega dt)^2 / 6, below 8e-5 for the fastest mode.
    assert abs(frequency(np.array(signal), dt) - expected) < 2e-4 * expected


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_dispersion_of_an_antiferromagnet(mode):
    """A chain has omega = 2 |J| |sin q|: linear at small q, unlike the ferromagnet."""
    length, exchange, dt, tilt = 16, -1.0, 0.01, 1e-4
    q = 2 * math.pi * mode / length
    sites = np.arange(length)
    sign = 1.0 - 2 * (sites % 2)
    spins = np.stack([tilt * np.cos(q * sites), np.zeros(length), sign], axis=-1)[:, None]
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    amplitude = []

    def visit(step, now):
        amplitude.append((now[:, 0, 0] * np.cos(q * sites)).sum())

    steps = round(2 * 2 * math.pi / (2 * abs(math.sin(q))) / dt)
    evolve(
        Heisenberg(exchange),
        spins,
        dt,
        steps,
        damping=0.0,
        domain=single_domain((length, 1), (True, False)),
        visit=visit,
    )
    # x starts at rest as a standing wave: its amplitude obeys a'' = -omega^2 a exactly in linear order.
    a = np.array(amplitude)
    second = (a[2:] - 2 * a[1:-1] + a[:-2]) / dt**2
    omega = math.sqrt(-np.vdot(a[1:-1], second) / np.vdot(a[1:-1], a[1:-1]))
    assert abs(omega - 2 * abs(exchange * math.sin(q))) < 1e-3 * omega


@pytest.mark.parametrize(
    ("name", "order"), [("heun", 3), ("depondt_mertens", 3), ("sib", 2), ("rk4", 5), ("dormand_prince", 5)]
)
def test_energy_drift_of_a_conservative_system_falls_with_the_step(name, order):
    """Halving the step lowers the drift over a fixed time by at least 2 to the order of the scheme's energy error."""
    field, domain = SumField([Heisenberg(1.0), Anisotropy(0.3)]), single_domain((4, 4), (True, True))
    start = random_spins((4, 4), 2)
    evaluate = FieldEvaluator(field, domain)

    def total(spins):
        return energy_of(evaluate, field, spins)

    drifts = []
    for dt in (0.08, 0.04):
        end = evolve(field, start, dt, round(8 / dt), damping=0.0, integrator=name, domain=domain)
        drifts.append(abs(total(end) - total(start)))
    assert drifts[1] < drifts[0] / 2 ** (order - 0.7)


def test_the_midpoint_rule_alone_has_no_energy_drift():
    """Its energy error of late times is that of early times; Heun's grows with the time."""
    field, domain = SumField([Heisenberg(1.0), Anisotropy(0.3)]), single_domain((2, 2))
    evaluate, start, grown = FieldEvaluator(field, domain), random_spins((2, 2), 2), {}
    for name in ("midpoint", "heun"):
        energies = []
        evolve(
            field,
            start,
            0.08,
            600,
            damping=0.0,
            integrator=name,
            domain=domain,
            visit=lambda step, spins, found=energies: found.append(energy_of(evaluate, field, spins)),
        )
        errors = np.abs(np.array(energies) - energy_of(evaluate, field, start))
        grown[name] = errors[300:].max() / errors[:300].max()
    assert grown["midpoint"] < 1.2
    assert grown["heun"] > 2


def energy_of(evaluate, field, spins):
    """Energy of a field whose terms are all of second degree: -(1/2) sum S·H."""
    at = torch.as_tensor(spins)
    return -0.5 * float((at * evaluate(at, 0.0)).sum())


def test_two_coupled_spins_in_a_bath_have_boltzmanns_distribution():
    """The density of c = S_1·S_2 is exp(J c / T) up to a factor; the noise of one spin reaches the other."""
    exchange, temperature, dt, steps, pairs = 1.0, 0.5, 0.06, 200, 1200
    bath = Thermostat(temperature, 1.0, dt, seed=4)
    end = evolve(Pairs(exchange), random_spins((2, pairs), 9), dt, steps, damping=1.0, bath=bath)
    bonds, x = (end[0] * end[1]).sum(-1), exchange / temperature

    def cumulative(c):
        return (np.exp(x * c) - math.exp(-x)) / (2 * math.sinh(x))

    assert stats.kstest(bonds, cumulative).pvalue > 0.01
    # The same test tells a bath from one that is a fifth warmer.
    x = exchange / (1.2 * temperature)
    assert stats.kstest(bonds, cumulative).pvalue < 1e-3


class Pairs:
    """Exchange between the two spins of each column of a 2 x n lattice, and none along the rows."""

    halo = (0, 0)

    def __init__(self, exchange):
        self.exchange = exchange

    def bind(self, domain):
        return lambda spins, time: self.exchange * spins.flip(0)


def test_width_of_a_uniaxial_wall():
    """m_z = tanh(x / delta), delta = sqrt(J / 2K) lattice steps where it is wide against the lattice."""
    exchange, strength, length = 1.0, 0.02, 60
    x = np.arange(length) - (length - 1) / 2
    start = np.stack([1 / np.cosh(x / 3), 0 * x, np.tanh(x / 3)], axis=-1)[:, None]
    field = SumField([Heisenberg(exchange), Anisotropy(strength)])
    end = evolve(field, start, 0.2, 1500, damping=1.0)[:, 0, 2]
    inner = np.abs(end) < 0.8
    delta = 1 / np.polyfit(x[inner], np.arctanh(end[inner]), 1)[0]
    assert abs(delta / math.sqrt(exchange / (2 * strength)) - 1) < 0.01


@pytest.mark.parametrize("current", [0.002, 0.004])
def test_speed_of_a_wall_driven_by_a_spin_current(current):
    """The torque -S x (S x p), p along the easy axis, grows the domain along p at the one-dimensional model's speed.

    The wall's place X and azimuth phi obey |phi'| = alpha |X'| / delta and |X'| (1 + alpha^2) = p delta: the
    torque moves the wall, damping turns it.
    """
    exchange, strength, damping, length, dt, steps = 1.0, 0.02, 0.5, 80, 0.2, 2000
    delta = math.sqrt(exchange / (2 * strength))
    x = np.arange(length) - (length - 1) / 2
    start = np.stack([1 / np.cosh(x / delta), 0 * x, np.tanh(x / delta)], axis=-1)[:, None]
    field = SumField([Heisenberg(exchange), Anisotropy(strength), Slonczewski((0.0, 0.0, current))])
    # The sum of m_z changes by two for each site that the wall passes; the domain along +z is on the right.
    places = []

    def visit(step, now):
        places.append(-now[:, 0, 2].sum() / 2)

    evolve(field, start, dt, steps, damping=damping, visit=visit)
    half = steps // 2
    speed = (places[-1] - places[half]) / (dt * (steps - 1 - half))
    assert abs(-speed / (current * delta / (1 + damping**2)) - 1) < 0.03
