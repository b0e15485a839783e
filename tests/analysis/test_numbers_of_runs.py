"""What a trajectory came to: walls of known velocity, means over the last half."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.analysis.runs import frame_series, wall_numbers


def test_the_velocity_is_that_of_the_wall_before_it_reaches_an_end() -> None:
    time = np.arange(0, 200, 0.8)
    numbers = wall_numbers(time, np.minimum(5 + 0.1 * time, 20.0), 20)
    assert numbers["wall_velocity"] == pytest.approx(0.1, abs=1e-12)
    assert numbers["wall_end"] == 20
    back = wall_numbers(time, np.maximum(8 - 0.05 * time, 0.0), 20)
    assert back["wall_velocity"] == pytest.approx(-0.05, abs=1e-12)


def test_a_nucleus_has_a_time_and_no_velocity() -> None:
    time = np.arange(0, 100, 0.5)
    numbers = wall_numbers(time, 0.04 * time, 20)
    assert numbers["nucleation_time"] == pytest.approx(75)
    assert numbers["wall_velocity"] is None
    assert wall_numbers(time, 0.01 * time, 20)["nucleation_time"] is None


def test_entries_of_vectors_have_names_where_they_mean_something(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["spins"] = np.broadcast_to([0.0, 0.0, 1.0], (2, 3, 4, 3))
        for name, length in {"magnetization": 3, "bond_fractions": 2, "own": 2, "current": 2}.items():
            file[name] = np.arange(2.0 * length).reshape(2, length)
    series = frame_series(tmp_path / "t.h5")
    # Reservoirs of a user's own file have no names.
    assert sorted(series) == [
        *("bond_fractions_antiferromagnetic", "bond_fractions_ferromagnetic", "current_0", "current_1"),
        *("magnetization_x", "magnetization_y", "magnetization_z", "own_0", "own_1"),
    ]
    assert series["magnetization_z"].tolist() == [2.0, 5.0]
