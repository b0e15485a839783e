"""The study of coarsening: powers that domains grow with are found, as far as the lattice does not limit them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest


def test_the_power_is_found_until_domains_feel_the_lattice(study: dict[str, Any]) -> None:
    """Three runs of L = a t^0.5 that stop growing at 40: only sizes up to 30 count."""
    time = np.arange(0.0, 4001.0, 10.0)
    runs = [(time, np.minimum(a * np.sqrt(time), 40.0)) for a in (0.9, 1.0, 1.1)]
    found = study["fitted"](runs, 20.0, 30.0)
    assert found["mean"] == pytest.approx(0.5, abs=1e-9)
    assert (found["from"], found["until"]) == (20.0, 900.0)


def test_the_error_is_the_scatter_of_the_seeds_and_powers_are_compared_by_it(study: dict[str, Any]) -> None:
    time = np.arange(0.0, 501.0, 5.0)
    found = study["fitted"]([(time, time**power) for power in (0.4, 0.5, 0.6)], 10.0, np.inf)
    assert found["runs"] == pytest.approx([0.4, 0.5, 0.6])
    assert found["error"] == pytest.approx(0.1 / np.sqrt(3))
    assert found["standard_errors_from"] == pytest.approx({"0.5": 0, "1": -0.5 / (0.1 / np.sqrt(3))}, abs=1e-9)


def test_equal_factors_of_time_weigh_the_same(study: dict[str, Any]) -> None:
    """A size that turns from power 1 to power 0 in the middle of log(t): the frames at the end are many."""
    time = np.arange(10.0, 100001.0)
    assert study["exponent"](time, np.minimum(time, 1000.0)) == pytest.approx(0.5, abs=0.01)


def test_sizes_that_are_not_known_are_null(study: dict[str, Any]) -> None:
    assert json.dumps(study["listed"](np.array([1.0, np.nan, np.inf]))) == "[1.0, null, null]"
    with pytest.raises(SystemExit, match="too few frames"):
        study["fitted"]([(np.arange(3.0), np.full(3, np.nan))], 1.0, 10.0)
