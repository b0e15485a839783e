"""Noise: the published generator, Gaussian, independent of everything but seed, site and step."""

import math

import numpy as np
import pytest
import torch
from laws import evolve, random_spins
from scipy import stats

from hpcspin.dynamics import Anisotropy, Thermostat, Zeeman
from hpcspin.dynamics.elementary import log, sincos
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.errors import HpcspinError


def test_elementary_functions_to_the_last_bits():
    x = torch.rand(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = x * 2.0**-33
    for values in (x, small, 1 - small):
        exact = np.log(values.numpy())
        assert np.allclose(log(values).numpy(), exact, rtol=5e-16, atol=0)
    angles = (x - 0.5) * 200
    sine, cosine = sincos(angles)
    assert np.abs(sine.numpy() - np.sin(angles.numpy())).max() < 4e-16
    assert np.abs(cosine.numpy() - np.cos(angles.numpy())).max() < 4e-16


def test_components_are_independent_standard_normals():
    vectors = normal_vectors(torch.arange(200_000), seed=7, stream=0, step=3, stage=0).numpy()
    for component in vectors.T:
        assert stats.kstest(component, "norm").pvalue > 1e-3
    n = len(vectors)
    assert np.abs(vectors.mean(axis=0)).max() < 4 / math.sqrt(n)
    assert np.abs(vectors.var(axis=0) - 1).max() < 4 * math.sqrt(2 / n)
    assert np.abs((vectors**4).mean(axis=0) - 3).max() < 4 * math.sqrt(96 / n)
    correlations = np.corrcoef(vectors.T) - np.eye(3)
    assert np.abs(correlations).max() < 4 / math.sqrt(n)


@pytest.mark.parametrize("changed", [{"seed": 8}, {"stream": 1}, {"step": 4}, {"step": 3 + 2**32}, {"stage": 1}])
def test_streams_are_independent(changed):
    base = {"seed": 7, "stream": 0, "step": 3, "stage": 0}
    sites = torch.arange(100_000)
    first, second = (normal_vectors(sites, **parameters).numpy() for parameters in (base, base | changed))
    assert abs((first * second).mean()) < 4 / math.sqrt(first.size)


def test_a_site_has_its_noise_whatever_block_it_is_in():
    sites = torch.arange(30 * 24).reshape(30, 24)
    whole = normal_vectors(sites, 1, 0, 5, 0)
    for block in ((slice(0, 7), slice(3, 4)), (slice(11, 30), slice(5, 24))):
        assert torch.equal(normal_vectors(sites[block], 1, 0, 5, 0), whole[block])


def test_strength_of_the_random_field():
    """Variance 2 alpha T / dt of each component."""
    field = Thermostat(0.3, 0.1, 0.05, seed=1).field(torch.arange(100_000), 0, torch.float64)
    assert float(field.var()) == pytest.approx(2 * 0.1 * 0.3 / 0.05, rel=0.02)


def test_impossible_baths_are_refused():
    with pytest.raises(HpcspinError, match="needs damping"):
        Thermostat(0.1, 0.0, 0.1, seed=1)
    with pytest.raises(HpcspinError, match="seed"):
        Thermostat(0.1, 0.1, 0.1, seed=2**32)
    assert Thermostat(0.0, 0.0, 0.1, seed=1).field(torch.arange(3), 0, torch.float64) is None


def sampled(field, temperature, integrator, measure, *, dt=0.02, burn_in=600, steps=600, size=(40, 40)):
    """Equilibrium mean of a measure over independent spins that start at random, and its standard error."""
    dt = dt / max(temperature, 1.0)
    bath = Thermostat(temperature, 1.0, dt, seed=11)
    total = np.zeros(size)

    def visit(step, spins):
        if step > burn_in:
            np.add(total, measure(spins), out=total)

    start = random_spins(size, 5)
    evolve(field, start, dt, burn_in + steps, damping=1.0, integrator=integrator, bath=bath, visit=visit)
    # Sites are independent, instants are not: the spread of the sites' time averages is the honest error.
    means = total / steps
    return means.mean(), means.std() / math.sqrt(means.size)


@pytest.mark.parametrize(
    ("name", "temperature"),
    [("heun", 0.3), ("heun", 1.0), ("heun", 3.0), ("sib", 1.0), ("depondt_mertens", 1.0), ("midpoint", 1.0)],
)
def test_langevin_function_of_free_spins(name, temperature):
    """<m> = coth x - 1/x with x = h/T."""
    mean, error = sampled(Zeeman((0, 0, 1.0)), temperature, name, lambda spins: spins[..., 2])
    x = 1 / temperature
    assert error < 0.01
    assert abs(mean - (1 / math.tanh(x) - 1 / x)) < 4 * error


def test_boltzmann_distribution_of_an_anisotropic_spin():
    """<z^2> under exp(K z^2 / T)."""
    strength, temperature = 1.0, 0.5
    mean, error = sampled(Anisotropy(strength), temperature, "heun", lambda spins: spins[..., 2] ** 2)
    z = np.linspace(-1, 1, 20001)
    weight = np.exp(strength * z**2 / temperature)
    assert abs(mean - (z**2 * weight).sum() / weight.sum()) < 4 * error
