"""Rates against spin-wave theory, and steps against what the integrators then do."""

import logging

import numpy as np
import pytest
import torch
from laws import evolve, random_spins, single_domain
from run_simulation import simulation

from hpcspin.dynamics import INTEGRATORS, DynamicsSettings, Heisenberg, SumField, Zeeman
from hpcspin.dynamics.integrators import largest_on
from hpcspin.dynamics.motion import Motion
from hpcspin.dynamics.step_bounds import PHASE_ERROR, fastest_rate, tolerated_angle
from hpcspin.dynamics.torque import components_first
from hpcspin.parallel.world import World


def rate(field, spins, kind="square", damping=0.0, evaluations=200, vacancies=None, **settings):
    domain = single_domain(spins.shape[:2], (True, True), kind)
    block = components_first(torch.as_tensor(spins))
    motion = Motion(
        field, domain, DynamicsSettings(damping=damping, duration=1.0, **settings), torch.device("cpu"), vacancies
    )
    return fastest_rate(motion.velocity, block, motion.sites, largest_on(World()), evaluations)


def ordered(kind, sign):
    up = np.zeros((12, 12, 3))
    up[..., 2] = 1
    return up if sign > 0 else up * (1 - 2 * (np.indices((12, 12)).sum(axis=0) % 2))[..., None]


@pytest.mark.parametrize(
    ("kind", "exchange", "expected"),
    [("square", 0.5, 8 * 0.5), ("square", -0.5, 4 * 0.5), ("triangular", 0.5, 9 * 0.5)],
)
def test_the_fastest_spin_wave(kind, exchange, expected):
    """J (z - sum of cos) at the zone's edge: 8 J and 9 J in ferromagnets, 4 |J| in the square antiferromagnet."""
    field = Heisenberg(exchange)
    assert rate(field, ordered(kind, exchange), kind) == pytest.approx(expected, rel=0.03)
    few = rate(field, ordered(kind, exchange), kind, evaluations=6)
    assert 0.6 * expected < few < 1.1 * expected


def test_a_uniform_field_and_rest():
    assert rate(Zeeman((0, 0, 3.0)), random_spins((6, 6))) == pytest.approx(3.0, rel=0.02)
    assert rate(Zeeman((0, 0, 0.0)), random_spins((6, 6))) == 0


def test_spins_that_are_missing_or_pinned_have_no_rate():
    spins, holes = random_spins((3, 4)), np.ones((3, 4), dtype=bool)
    holes[1, 1] = False
    assert rate(Heisenberg(1.0), spins, vacancies=holes) == 0
    pinned = tuple(map(tuple, np.argwhere(holes).tolist()))
    neighbours = spins[0, 1] + spins[2, 1] + spins[1, 0] + spins[1, 2]
    alone, in_their_field = (
        rate(field, spins, pinned=pinned) for field in (Heisenberg(1.0), Zeeman(tuple(neighbours.tolist())))
    )
    assert alone == pytest.approx(in_their_field, rel=0.01)
    assert alone == pytest.approx(np.linalg.norm(neighbours), rel=0.1)


@pytest.mark.parametrize("name", sorted(INTEGRATORS))
def test_the_tolerated_step_keeps_the_phase_of_a_spin_wave(name):
    """The mode at the zone's edge, which the bound was not derived from, stays in phase for its period."""
    spins = ordered("square", 1)
    spins[..., 0] = 1e-3 * (1 - 2 * (np.indices((12, 12)).sum(axis=0) % 2))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    steps = int(np.ceil(2 * np.pi / tolerated_angle(name)))
    end = evolve(
        SumField([Heisenberg(0.125)]),
        spins,
        2 * np.pi / steps,
        steps,
        damping=0.0,
        integrator=name,
        domain=single_domain((12, 12), (True, True)),
    )
    assert np.abs(end - spins)[..., :2].max() < 1.1 * PHASE_ERROR * 1e-3


def test_a_run_says_that_its_step_is_long(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        simulation(tmp_path / "short", duration=0.1)
        assert "is long for" not in caplog.text
        simulation(tmp_path / "long", duration=0.1, size=[12, 12]).run()
    assert "dynamics.step 0.1 is long for heun" in caplog.text
