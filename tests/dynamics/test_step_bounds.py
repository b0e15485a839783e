"""Bounds of the step against what spins then do: under drives faster than the motion, and in heat baths."""

import functools
import logging
import math

import numpy as np
import pytest
import torch
from laws import evolve, random_spins
from numpy.polynomial import legendre
from run_simulation import classical, simulation
from test_adaptive import run

from hpcspin.dynamics import INTEGRATORS, SumField, Thermostat, Zeeman, make_waveform
from hpcspin.dynamics.adaptive import AdaptiveStep
from hpcspin.dynamics.integrators import make_integrator
from hpcspin.dynamics.step_bounds import (
    DRIVE_ERROR,
    NOISE_ERROR,
    largest_angle,
    step_bounds,
    temperature_at_angle,
    temperature_at_turn,
    tolerated_angle_with_noise,
    tolerated_change,
    tolerated_turn,
)
from hpcspin.dynamics.torque import angular_velocity, components_first
from hpcspin.dynamics.waveforms import waveform
from hpcspin.errors import HpcspinError

NAMES = sorted(INTEGRATORS)
NOISY = sorted(name for name, scheme in INTEGRATORS.items() if scheme.langevin)
UP = np.array([[[0.0, 0.0, 1.0]]])
PULSE = ("pulse", {"centre": 5.5, "width": 0.3}, (0.3, 0, 0))
WAVES = [
    PULSE,
    ("sinusoid", {"frequency": 6.483185307}, (0.05, 0, 0)),
    ("sinusoid", {"frequency": 2.0, "phase": 1.0}, (0.05, 0, 0)),
    ("sinc", {"centre": 5.2, "frequency": 4.0}, (0.3, 0, 0)),
]


def driven(drive):
    """A field of other terms and a drive."""
    return SumField([*classical().terms, drive])


def tilt(drive, dt, duration=12.0, name="rk4"):
    """Largest tilt of a spin that turns slowly about z."""
    found = []
    evolve(
        SumField([Zeeman((0, 0, 0.1)), drive]), UP, dt, math.ceil(duration / dt), damping=0.0, integrator=name,
        visit=lambda step, spins: found.append(np.hypot(*spins[0, 0, :2])),
    )  # fmt: skip
    return max(found)


@functools.cache
def true_tilt(drive):
    """The tilt in steps far below the bounds."""
    return tilt(drive, 0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "parameters", "field"), WAVES)
def test_the_suggested_step_follows_the_drive(name, kind, parameters, field):
    drive = Zeeman(field, make_waveform(kind, **parameters))
    dt = min(step_bounds(name, 0.1, [drive], 12.0, 0.0, 0.0).values())
    assert dt == step_bounds(name, 0.1, [drive], 12.0, 0.0, 0.0)["the drives"]
    assert tilt(drive, dt, name=name) == pytest.approx(true_tilt(drive), rel=2 * DRIVE_ERROR)


def test_a_step_that_is_too_long_misses_the_drive():
    """What the bound is for: the same tilts are wrong at a few times the step."""
    for kind, parameters, field in WAVES:
        drive = Zeeman(field, make_waveform(kind, **parameters))
        dt = 8 * step_bounds("heun", 0.1, [drive], 12.0, 0.0, 0.0)["the drives"]
        assert abs(tilt(drive, dt, name="heun") / true_tilt(drive) - 1) > 2 * DRIVE_ERROR


def test_drives_bound_the_motion_and_only_while_they_last():
    pulse = Zeeman((3.0, 0, 4.0), make_waveform("pulse", centre=50.0, width=0.5))
    before, during = (step_bounds("heun", 0.5, [pulse], duration, 0.0, 0.0) for duration in (20.0, 60.0))
    assert list(before) == ["the motion of the spins"]
    assert before["the motion of the spins"] / during["the motion of the spins"] == pytest.approx(5.5 / 0.5)
    assert during["the drives"] == 0.5 * tolerated_change("heun")
    assert step_bounds("heun", 0.0, [Zeeman((0, 0, 0), pulse.amplitude)], 60.0, 0.0, 0.0) == {}


@pytest.mark.parametrize("width", [1e-1, 1e-3])
def test_adaptive_steps_land_on_pulses(width):
    """Between 10 and 1000 times shorter than the step; the spin turns by the pulse's area about its axis."""
    pulse = Zeeman((0.5 / width, 0, 0), make_waveform("pulse", centre=7.43, width=width))
    change = tolerated_change("dormand_prince")

    def longest(start, end):
        return change / pulse.rate(start, end) if pulse.rate(start, end) else math.inf

    end, levels = run(pulse, UP, 2.0, 8, 1e-6, longest)
    missed, _ = run(pulse, UP, 2.0, 8, 1e-6)
    angle = 0.5 * math.sqrt(2 * math.pi)
    assert np.abs(end[0, 0] - [0, -math.sin(angle), math.cos(angle)]).max() < 1e-4
    assert np.abs(missed - UP).max() < 1e-4 or width > 1e-2
    assert levels[0] == levels[2] == 0
    assert max(levels) > 0


def test_a_pulse_that_no_part_can_land_on_is_refused():
    def longest(start, end):
        return 1e-9

    with pytest.raises(HpcspinError, match="a drive changes too fast for even a millionth"):
        run(Zeeman((0, 0, 1.0)), UP, 1.0, 1, 1e-6, longest)


def test_runs_hand_their_drives_to_adaptive_steps(tmp_path):
    drive = Zeeman((3.0, 0, 0), make_waveform("sinusoid", frequency=100.0))
    advance = simulation(
        tmp_path, driven(drive), integrator="dormand_prince", tolerance=1e-6, temperature=0.0
    )._motion.advance
    assert isinstance(advance, AdaptiveStep)
    assert advance._longest(0.0, 1.0) == tolerated_change("dormand_prince") / 100.0


FAST = [("sinusoid", {"frequency": 60.0}), ("pulse", {"centre": 0.3, "width": 0.01})]


@pytest.mark.parametrize(("kind", "parameters"), FAST)
def test_fixed_steps_warn_of_drives(tmp_path, caplog, kind, parameters):
    drive = Zeeman((0.1, 0, 0), make_waveform(kind, **parameters))
    with caplog.at_level(logging.INFO):
        simulation(tmp_path, driven(drive), duration=0.5, temperature=0.0, integrator="rk4").run()
    (said,) = [line for line in caplog.messages if line.startswith("warning: dynamics.step 0.1 is long for rk4")]
    assert "for the drives up to" in said


def test_fixed_steps_warn_of_noise(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        simulation(tmp_path, Zeeman((0, 0, 1.0)), duration=0.5, temperature=5.0, damping=0.5).run()
    (said,) = [line for line in caplog.messages if line.startswith("warning: dynamics.step 0.1 is long for heun")]
    assert "for the noise up to" in said


def test_a_waveform_that_does_not_say_how_fast_it_changes_is_refused():
    with pytest.raises(HpcspinError, match="nothing says how fast it changes"):

        @waveform("step")
        class Step:
            def __call__(self, time):
                return 1.0


def moments(field, name, damping, temperature, dt, steps, measure, start):
    """Mean of a measure of independent spins over the last two thirds of the time, and its standard error."""
    total = np.zeros(start.shape[:2])

    def visit(step, spins):
        if step > steps // 3:
            np.add(total, measure(spins), out=total)

    evolve(
        field, start, dt, steps, damping=damping, integrator=name, visit=visit,
        bath=Thermostat(temperature, damping, dt, seed=7),
    )  # fmt: skip
    means = total / (steps - steps // 3)
    return means.mean(), means.std() / math.sqrt(means.size)


def in_equilibrium(x, size=(64, 64)):
    """Spins of a Boltzmann distribution exp(x z)."""
    rng = np.random.default_rng(3)
    z = 1 + np.log(rng.random(size) * (1 - math.exp(-2 * x)) + math.exp(-2 * x)) / x
    angle = rng.random(size) * 2 * np.pi
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=-1)


def langevin(x):
    return 1 / math.tanh(x) - 1 / x


@pytest.mark.parametrize(
    ("name", "temperature", "damping"), [*((name, 2.0, 0.5) for name in NOISY), ("heun", 0.5, 0.1)]
)
def test_langevin_function_at_the_suggested_step(name, temperature, damping):
    """At the step that the motion alone allows, 0.2 to 0.3, the first of these is wrong by up to 30 standard errors."""
    dt = min(step_bounds(name, 1.0, [], 1.0, damping, temperature).values())
    steps = math.ceil(5 * (1 + damping**2) / (2 * damping * temperature) / dt)
    x = 1 / temperature
    field, start = Zeeman((0, 0, 1.0)), in_equilibrium(x)
    mean, error = moments(field, name, damping, temperature, dt, steps, lambda spins: spins[..., 2], start)
    assert error < 0.01
    assert abs(mean - langevin(x)) < 3 * error


def stationary_mean(name, damping, temperature, dt, degree=16, nodes=8):
    """<z> of free spins in a field of 1 from the transfer operator of z, a Markov chain, on Legendre polynomials."""
    points, chances = np.polynomial.hermite_e.hermegauss(nodes)
    chance = np.einsum("i,j,k->ijk", chances, chances, chances).ravel() / chances.sum() ** 3
    noise = np.stack(np.meshgrid(points, points, points), axis=-1).reshape(-1, 3)
    total = noise * math.sqrt(2 * damping * temperature / dt) + [0, 0, 1]
    z, weights = legendre.leggauss(2 * degree)
    start = np.stack([np.sqrt(1 - z**2), 0 * z, z], axis=-1)
    spins = components_first(torch.from_numpy(np.repeat(start[:, None], len(total), axis=1)))
    field = components_first(torch.from_numpy(total).expand_as(spins))
    moved = make_integrator(name, noise=True).step(
        spins, 0.0, dt, lambda at, time: angular_velocity(at, field, damping)
    )
    expected = np.einsum("znl,n->zl", legendre.legvander(moved[..., 2].numpy(), degree), chance)
    moments = (weights[:, None] * expected).T @ legendre.legvander(z, degree) * (np.arange(degree + 1) + 0.5)
    return np.linalg.solve(np.eye(degree) - moments[1:, 1:], moments[1:, 0])[0]


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize(("temperature", "damping"), [(5.0, 0.1), (2.0, 0.5), (0.5, 0.5), (0.5, 0.1)])
def test_the_suggested_step_leaves_the_stationary_state_right(name, temperature, damping):
    """Without sampling, and in fields that are not weak, of which the bound knows nothing."""
    dt = min(step_bounds(name, 1.0, [], 1.0, damping, temperature).values())
    assert stationary_mean(name, damping, temperature, dt) == pytest.approx(langevin(1 / temperature), rel=NOISE_ERROR)
    if name in ("sib", "depondt_mertens"):
        wrong = stationary_mean(name, damping, temperature, 4 * dt) / langevin(1 / temperature) - 1
        assert abs(wrong) > 1.5 * NOISE_ERROR


def test_small_turns_lower_the_temperature_by_known_multiples_of_their_square():
    for name, multiple in (("depondt_mertens", 11 / 12), ("sib", 3 / 4), ("heun", 1 / 4), ("midpoint", 0)):
        for damping in (0.01, 0.5):
            assert 1 - temperature_at_turn(name, damping, 0.01) == pytest.approx(multiple * 1e-4, rel=0.01, abs=1e-7)


def test_the_temperature_of_tilts_follows_from_one_step():
    """Heun-like schemes heat spins of little damping: |mu|^2 is larger by (h dt)^4 / 4 than it should be."""
    for name in ("heun", "sib", "depondt_mertens"):
        assert temperature_at_angle(name, 0.01, 0.1) - 1 == pytest.approx(0.1**3 / (8 * 0.01), rel=0.2)
    assert temperature_at_angle("midpoint", 0.01, 0.1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("damping", [0.01, 0.5])
def test_bounds_are_where_the_errors_are(damping):
    for name in NOISY:
        turn, angle = tolerated_turn(name, damping), tolerated_angle_with_noise(name, damping)
        assert abs(temperature_at_turn(name, damping, turn) - 1) < NOISE_ERROR
        assert abs(temperature_at_angle(name, damping, angle) - 1) < NOISE_ERROR
        if name != "midpoint":
            assert abs(temperature_at_turn(name, damping, 1.1 * turn) - 1) > NOISE_ERROR


@pytest.mark.parametrize("damping", [0.01, 0.5])
def test_midpoint_converges_at_the_largest_angle_and_not_far_beyond(damping):
    angle = largest_angle("midpoint", damping)
    spins = random_spins((40, 40))
    for factor, fails in ((0.99, False), (1.3, True)):
        try:
            evolve(Zeeman((0, 0, factor * angle)), spins, 1.0, 1, damping=damping, integrator="midpoint")
        except HpcspinError:
            assert fails
        else:
            assert not fails
