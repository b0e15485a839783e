"""Steps that divide themselves: as accurate as asked for, back to long ones, and restartable to the same bits."""

import numpy as np
import pytest
import torch
from laws import single_domain
from run_simulation import simulation
from test_simulation import assert_same_bits

from hpcspin.dynamics import FieldEvaluator, Heisenberg, SumField, Zeeman, make_waveform
from hpcspin.dynamics.adaptive import AdaptiveStep
from hpcspin.dynamics.integrators import INTEGRATORS, largest_on, rotate
from hpcspin.dynamics.torque import components_first
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import read_checkpoint

ADAPTIVE = {"integrator": "dormand_prince", "temperature": 0.0, "rich": True}


def run(field, spins, dt, steps, tolerance, longest=lambda start, end: np.inf):
    """Spins after some adaptive steps without damping, and the level after each."""
    evaluate = FieldEvaluator(field, single_domain(spins.shape[:2]))
    scheme = INTEGRATORS["dormand_prince"]
    assert scheme.pair is not None
    advance = AdaptiveStep(scheme.pair, scheme.order, tolerance, largest_on(World()), longest)
    now, levels = components_first(torch.as_tensor(spins)), []
    for step in range(steps):
        now = advance(now, step * dt, dt, evaluate)
        levels.append(advance.level)
    return now.numpy(), levels


def test_the_error_follows_the_tolerance():
    """Two coupled spins turn about their sum: the global error is at most that of all parts added up."""
    start = np.array([[[1.0, 0, 0]], [[0, 0.6, 0.8]]])
    exact = rotate(torch.as_tensor(start), torch.as_tensor(0.7 * 20.0 * start.sum(axis=0)).expand(2, 1, 3)).numpy()
    levels = {}
    for tolerance in (1e-5, 1e-7, 1e-9):
        end, found = run(Heisenberg(0.7), start, 2.0, 10, tolerance)
        levels[tolerance] = found[-1]
        assert np.abs(end - exact).max() < 10 * 2 ** found[-1] * tolerance
    assert levels[1e-5] < levels[1e-9]


def test_a_pulse_shortens_the_steps_only_while_it_lasts():
    pulse = Zeeman((0.0, 0.0, 20.0), make_waveform("pulse", centre=5.0, width=0.3))
    _, levels = run(SumField([Heisenberg(0.1), pulse]), np.array([[[1.0, 0, 0]], [[0, 0.6, 0.8]]]), 0.5, 20, 1e-6)
    assert max(levels[8:12]) >= max(levels[:6]) + 2
    assert max(levels[16:]) <= max(levels[:6])


def test_interrupted_runs_continue_with_the_step_they_had(tmp_path):
    changes = ADAPTIVE | {"tolerance": 1e-9}
    simulation(tmp_path / "whole", **changes).run()
    for duration in (2.3, 4.0):
        simulation(tmp_path / "parts", **changes, duration=duration).run()
        checkpoint = read_checkpoint(tmp_path / "parts" / "checkpoint.h5")
        assert checkpoint is not None
        assert checkpoint.meta["level"] >= 2
        # A restart at level 0 would find its way back unnoticed unless the error is just at the tolerance.
        assert (
            simulation(tmp_path / "parts", **changes, duration=duration)._motion.advance.level
            == checkpoint.meta["level"]
        )
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")


def test_what_cannot_be_adaptive_is_refused(tmp_path):
    with pytest.raises(HpcspinError, match="heun estimates no error"):
        simulation(tmp_path / "heun", temperature=0.0, tolerance=1e-6)
    with pytest.raises(HpcspinError, match="dormand_prince is not a scheme for Langevin noise"):
        simulation(tmp_path / "warm", **(ADAPTIVE | {"temperature": 0.1, "tolerance": 1e-6}))
