"""What the study of the drift measures under learned fields: work without an energy, slopes, E of a pair alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcspin.lattice import make_lattice
from hpcspin.potential import Architecture, make_force_field

SIZE = (4, 3)


def spins_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random unit spins."""
    spins = rng.normal(size=(count, *SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_only_a_field_with_an_energy_does_the_same_work_on_all_ways(study: dict, sign: int) -> None:
    """H = AS has the energy -SAS/2 where A is symmetric, and none where it is antisymmetric."""
    rng = np.random.default_rng(1)
    matrix, (first, middle, last) = rng.normal(size=(36, 36)), spins_of(rng, 3)
    matrix += sign * matrix.T

    def field(spins: np.ndarray, system: object) -> np.ndarray:
        return (spins.reshape(len(spins), -1) @ matrix.T).reshape(spins.shape)

    def energy(spins: np.ndarray) -> float:
        return -0.5 * spins.ravel() @ matrix @ spins.ravel()

    model = SimpleNamespace(field=field)
    ways = [study["work"](model, None, *ends) for ends in ((first, last), (first, middle), (middle, last))]
    if sign == 1:
        np.testing.assert_allclose(ways[0], energy(first) - energy(last), rtol=1e-10)
        np.testing.assert_allclose(ways[0], ways[1] + ways[2], rtol=1e-10)
    else:
        assert abs(ways[0] - ways[1] - ways[2]) > 0.1


def test_the_error_of_a_slope_counts_what_is_correlated(study: dict) -> None:
    """Of noise that stays for a tenth of the time, the plain error of a line would be a sixth of the scatter."""
    times = np.arange(1000.0)
    slope, error = study["line"](times, 2 * times)
    assert slope == pytest.approx(2)
    assert error < 1e-12
    slopes, errors = [], []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=10).repeat(100)
        slope, error = study["line"](times, noise)
        slopes.append(slope)
        errors.append(error)
    assert 0.7 < np.std(slopes) / np.sqrt(np.mean(np.square(errors))) < 1.4


def test_e_alone_is_that_of_the_pair(study: dict) -> None:
    torch.manual_seed(1)
    pair = make_force_field(Architecture("square", 1.5, (8,), kind="pair", layers=(1, 2), channels=3)).eval()
    alone = study["with_energy_alone"](pair)
    given = spins_of(np.random.default_rng(2), 1), make_lattice("square", SIZE), 1.0
    np.testing.assert_array_equal(alone.predict(*given).field, pair.predict(*given).equilibrium)
    np.testing.assert_allclose(alone.potentials(*given).energy, pair.potentials(*given).energy, rtol=1e-6)
