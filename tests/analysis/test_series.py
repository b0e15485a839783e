"""Numbers of series and of runs: estimates scatter about the truth as their errors say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcspin.analysis.series import Estimate, first_passage, velocity
from hpcspin.training.metrics import autocorrelation_frames


def test_velocity_of_a_straight_line_is_exact() -> None:
    time = np.arange(50) * 0.8
    speed, error = velocity(time, 3.0 + 0.05 * time)
    assert speed == pytest.approx(0.05, abs=1e-14)
    assert error < 1e-12


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_velocity_error_is_the_scatter_over_repetitions(memory: float) -> None:
    """Also for correlated residuals (an autoregressive process), where the naive error is too small."""
    rng = np.random.default_rng(5)
    time = np.arange(400) * 0.5
    speeds, errors = [], []
    for _ in range(300):
        noise = rng.standard_normal(400)
        for k in range(1, 400):
            noise[k] += memory * noise[k - 1]
        speed, error = velocity(time, 0.02 * time + noise)
        speeds.append(speed)
        errors.append(error)
    assert np.mean(speeds) == pytest.approx(0.02, abs=4 * np.std(speeds) / math.sqrt(300))
    assert 0.75 < np.median(errors) / np.std(speeds) < 1.35


def test_autocorrelation_time_of_an_autoregressive_process() -> None:
    rng = np.random.default_rng(6)
    series = rng.standard_normal(40000)
    for k in range(1, len(series)):
        series[k] += 0.7 * series[k - 1]
    assert autocorrelation_frames(series) == pytest.approx((1 + 0.7) / (1 - 0.7), rel=0.15)


def test_an_estimate_from_one_run_has_no_error() -> None:
    assert Estimate.of([2.0]) == Estimate(2.0, None)
    estimate = Estimate.of([1.0, 3.0])
    assert (estimate.mean, estimate.error) == (2.0, pytest.approx(1.0))


def test_first_passage_of_a_parabola_is_its_root_and_of_a_series_on_one_side_of_the_level_none() -> None:
    time = np.linspace(0, 10, 2001)
    assert first_passage(time, time**2 - 20, 3.0) == pytest.approx(math.sqrt(23), abs=1e-6)
    assert first_passage(time, np.where(time < 5, time, 5.0), 5.0) is None
    assert first_passage(time, time + 4, 3.0) is None
    falling_back = np.sin(time)  # the first of several passages counts
    assert first_passage(time, falling_back, 0.5) == pytest.approx(math.pi / 6, abs=1e-5)
