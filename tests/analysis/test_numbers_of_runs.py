"""What a trajectory came to: walls of known velocity, means over the last half."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.analysis.runs import frame_series, wall_numbers, wall_rate
from hpcspin.lattice import make_lattice, make_texture, wall_position


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


def test_the_rate_of_a_wall_is_that_of_a_short_step_and_rates_of_parts_add_up() -> None:
    lattice, rng = make_lattice("square", (12, 4)), np.random.default_rng(4)
    spins = make_texture("wall", lattice, 1, position=6, tilt=0.3)
    fields = rng.standard_normal((2, 12, 4, 3))
    rates = [wall_rate(lattice, spins, field, 0.2) for field in (*fields, fields.sum(0))]
    assert rates[0] + rates[1] == pytest.approx(rates[2], abs=1e-5)
    assert abs(rates[2]) > 1e-2
    # Without damping spins in a uniform field along z turn by the angle -h t about it, which moves no wall.
    assert wall_rate(lattice, spins, np.broadcast_to([0.0, 0.0, 0.7], spins.shape), 0.0) == pytest.approx(0, abs=1e-7)
    # With one field a site they turn about their own fields: Rodrigues' formula.
    time, field = 1e-3, fields[0]
    length = np.linalg.norm(field, axis=-1, keepdims=True)
    axis, angle = field / length, length * time
    turned = (
        spins * np.cos(angle)
        + np.cross(axis, spins) * np.sin(angle)
        + axis * (axis * spins).sum(-1, keepdims=True) * (1 - np.cos(angle))
    )
    moved = float(wall_position(lattice, turned) - wall_position(lattice, spins)) / time
    assert wall_rate(lattice, spins, field, 0.0) == pytest.approx(moved, rel=2e-2, abs=1e-3)


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
