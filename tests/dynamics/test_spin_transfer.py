"""Both parts of a spin-transfer torque, and what they do to the angle of a magnet."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.dynamics.spin_transfer import SpinTransfer, angle_rate, macrospin_rate, spin_transfer, zero_crossing
from hpcspin.dynamics.torque import angular_velocity

Z = np.array([0.0, 0.0, 1.0])


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal((*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_field_is_the_sum_of_both_parts_and_of_one_along_the_spin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spins, axis, field = unit(rng, 5), unit(rng), rng.standard_normal((5, 3))
    a, b = spin_transfer(spins, field, axis)
    across = field - spins * (spins * field).sum(-1, keepdims=True)
    again = a[:, None] * np.cross(spins, axis) + b[:, None] * (axis - spins * (spins @ axis)[:, None])
    np.testing.assert_allclose(again, across, atol=1e-9 * (1 + np.abs(a).max() + np.abs(b).max()))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 3.0), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1))
def test_the_rate_is_that_of_the_landau_lifshitz_gilbert_equation(
    angle: float, a: float, b: float, damping: float
) -> None:
    spin = np.array([np.sin(angle), 0.0, np.cos(angle)])
    field = a * np.cross(spin, Z) + b * Z
    omega = angular_velocity(*(torch.from_numpy(x)[None, None] for x in (spin, field)), damping).numpy()[0, 0]
    turning = -np.cross(omega, spin)[2] / np.sin(angle)  # d theta/dt
    expected = macrospin_rate(spin_transfer(spin, field, Z), damping) * np.sin(angle)
    assert abs(turning - expected) < 1e-12


def test_the_growth_of_an_angle_is_found_again() -> None:
    time = np.linspace(0, 10, 7)
    angle = 2 * np.arctan(0.1 * np.exp(0.3 * time))
    magnetization = 0.8 * np.stack([np.sin(angle) * np.cos(time), np.sin(angle) * np.sin(time), np.cos(angle)], -1)
    assert abs(angle_rate(time, magnetization, Z) - 0.3) < 1e-12


def test_where_a_curve_rises_through_zero() -> None:
    assert zero_crossing(np.array([1.0, 2.0, 4.0]), np.array([1.0, -1.0, 3.0])) == 2.5
    assert zero_crossing(np.array([1.0, 2.0]), np.array([1.0, -1.0])) is None


def test_an_easy_axis_holds_a_rigid_magnet_up_to_twice_its_constant_times_the_damping() -> None:
    damping, anisotropy = 0.05, 0.02
    rates = [
        macrospin_rate(SpinTransfer(np.array(-share * 2 * damping * anisotropy), np.array(2 * anisotropy)), damping)
        for share in (0.99, 1.01)
    ]
    assert rates[0] < 0 < rates[1]
