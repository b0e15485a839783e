"""The velocity that a field gives to a wall, as the studies of torques measure it."""

import numpy as np
import pytest

from hpcspin.lattice import make_lattice, make_texture, wall_position


def test_the_rate_of_a_wall_is_that_of_a_short_step_and_rates_of_parts_add_up(study: dict) -> None:
    lattice, rng = make_lattice("square", (12, 4)), np.random.default_rng(4)
    wall_rate, spins = study["wall_rate"], make_texture("wall", lattice, 1, position=6, tilt=0.3)
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
