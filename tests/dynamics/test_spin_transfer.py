"""Both parts of a spin-transfer torque, and what they do to spins along the axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.dynamics.spin_transfer import spin_transfer, stability_matrix, zero_crossing


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


@pytest.mark.parametrize("sign", [1, -1])
def test_deviations_of_coupled_spins_grow_as_their_modes_do(sign: int) -> None:
    """Two spins, bound by an exchange J, in a torque and on an easy axis: they turn together or against each other."""
    a, b, anisotropy, exchange, damping = -0.03, 0.02, 0.05, 0.4, 0.1
    axis = unit(np.random.default_rng(2))
    across = np.cross(axis, [1.0, 0.0, 0.0])
    spins = np.tile(sign * axis, (2, 2, 1))
    for j in range(2):
        spins[j, j] = np.cos(0.01) * sign * axis + np.sin(0.01) * across / np.linalg.norm(across)
    along = (spins @ axis)[..., None] * axis
    field = a * np.cross(spins, axis) + b * axis + 2 * anisotropy * along + exchange * spins[:, ::-1]
    matrix = stability_matrix(spins, field, axis, damping)
    found = np.sort(np.linalg.eigvals(matrix).real)
    together = -sign * a - damping * (sign * b + 2 * anisotropy)
    expected = np.sort([together, together - 2 * damping * exchange]) / (1 + damping**2)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert abs(matrix.sum().real / 2 - together / (1 + damping**2)) < 2e-5


def test_where_a_curve_rises_through_zero() -> None:
    assert zero_crossing(np.array([1.0, 2.0, 4.0]), np.array([1.0, -1.0, 3.0])) == 2.5
    assert zero_crossing(np.array([1.0, 2.0]), np.array([1.0, -1.0])) is None
