"""The statistics of a comparison: estimates scatter about the truth as their errors say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcspin.drawing.comparison import Estimate, autocorrelation_frames, near_wall, wall_speed


def test_wall_speed_of_a_straight_line_is_exact() -> None:
    time = np.arange(50) * 0.8
    speed, error = wall_speed(time, 3.0 + 0.05 * time)
    assert speed == pytest.approx(0.05, abs=1e-14)
    assert error < 1e-12


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_wall_speed_error_is_the_scatter_over_repetitions(memory: float) -> None:
    """Also for correlated residuals (an autoregressive process), where the naive error is too small."""
    rng = np.random.default_rng(5)
    time = np.arange(400) * 0.5
    speeds, errors = [], []
    for _ in range(300):
        noise = rng.standard_normal(400)
        for k in range(1, 400):
            noise[k] += memory * noise[k - 1]
        speed, error = wall_speed(time, 0.02 * time + noise)
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


def test_sites_near_the_wall_are_whole_columns() -> None:
    mask = near_wall(np.array([3.5, 0.0]), (8, 3), reach=1.0)
    np.testing.assert_array_equal(mask[0].all(axis=1), [False, False, False, True, True, False, False, False])
    np.testing.assert_array_equal(mask[1].any(axis=1), [True, True, False, False, False, False, False, False])
