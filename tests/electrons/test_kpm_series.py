"""Chebyshev series: bounds of the spectrum, coefficients, derivatives, the chemical potential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.special import expit
from systems import random_spins

from hpcspin.electrons import ClosedLattice, sd_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, Interval, jackson, spectral_interval
from hpcspin.lattice import make_lattice

INTERVAL = Interval(-1.5, 8.0)


def series(count=1024, temperature=0.2, kernel="none"):
    return Expansion(INTERVAL, temperature, count, kernel)


def value(coefficients, energies):
    return chebyshev.chebval((energies - INTERVAL.centre) / INTERVAL.half_width, coefficients)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["square", "triangular"]),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([1.0, (0.7, -0.4)]),
    st.floats(-1, 1),
    st.integers(0, 2**32 - 1),
)
def test_the_interval_holds_the_spectrum(kind, periodic, hopping, rashba, seed):
    rng = np.random.default_rng(seed)
    exchange, on_site = rng.normal(size=(2, 5, 6))
    system = ClosedLattice(
        make_lattice(kind, (5, 6), periodic), hopping, exchange, 0.1, potential=0.0, rashba=rashba, on_site=on_site
    )
    levels = np.linalg.eigvalsh(sd_hamiltonian(system, random_spins(system, 1, seed)[0]))
    low, high = spectral_interval(system).ends
    assert low < levels[0]
    assert levels[-1] < high


def test_bounds_are_those_of_the_band_of_a_periodic_lattice():
    system = ClosedLattice(make_lattice("triangular", (6, 6), (True, True)), 1.0, 2.0, 0.1, potential=0.0)
    low, high = spectral_interval(system).ends
    assert (low, high) == pytest.approx((-8, 5), rel=0.02)


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("potential", [-9.4, -3.0, 0.4])
def test_the_majorant_is_nowhere_below_the_error_of_the_occupation(temperature, potential):
    """At energies between its points too; not far above either where the error is largest."""
    expansion, energies = series(128, temperature, "jackson"), np.linspace(*INTERVAL.ends, 9999)
    exact, bound = expit((potential - energies) / temperature), value(expansion.majorant(potential), energies)
    for found in (expansion.occupation(potential), expansion.occupation_of_gradient(potential)):
        assert (np.abs(value(found, energies) - exact) <= 1.01 * bound + 1e-12).all()
    assert bound.max() < 1.5


def test_coefficients_reproduce_the_functions():
    energies = np.linspace(*INTERVAL.ends, 999)
    expansion, potential = series(), 0.4
    assert np.abs(value(expansion.occupation(potential), energies) - expit((potential - energies) / 0.2)).max() < 1e-12
    exact = -0.2 * np.logaddexp(0, (potential - energies) / 0.2)
    assert np.abs(value(expansion.grand_potential(potential), energies) - exact).max() < 1e-12


@pytest.mark.parametrize("kernel", ["none", "jackson"])
def test_derivatives_of_the_truncated_grand_potential(kernel):
    """By the energy it is what the gradient occupies, by mu minus the occupation, however short the series is."""
    expansion, energies, step = series(48, kernel=kernel), np.linspace(-9, 6, 40), 1e-5
    omega = expansion.grand_potential(0.4)
    by_energy = (value(omega, energies + step) - value(omega, energies - step)) / (2 * step)
    assert np.abs(value(expansion.occupation_of_gradient(0.4), energies) - by_energy).max() < 1e-8
    by_potential = (expansion.grand_potential(0.4 + step) - expansion.grand_potential(0.4 - step)) / (2 * step)
    assert np.abs(by_potential + expansion.occupation(0.4)).max() < 1e-8


def test_jacksons_kernel_leaves_no_gibbs_oscillations():
    """The truncated step stays within [0, 1], which it leaves by 9 % without a kernel."""
    energies = np.linspace(*INTERVAL.ends, 5000)
    smooth, sharp = (value(series(64, 0.001, kernel).occupation(0.0), energies) for kernel in ("jackson", "none"))
    assert smooth.min() > -1e-3
    assert smooth.max() < 1 + 1e-3
    assert sharp.max() > 1.05
    assert jackson(64)[0] == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_the_potential_holds_the_electrons(filling, seed):
    levels = np.random.default_rng(seed).uniform(-9, 6, 30)
    x = (levels - INTERVAL.centre) / INTERVAL.half_width
    expansion = series(512)
    moments = np.cos(np.arange(512)[:, None] * np.arccos(x)).sum(axis=1)
    potential = expansion.potential(moments, 15 * filling)
    assert np.isfinite(potential)
    assert expansion.occupation(potential) @ moments == pytest.approx(15 * filling, abs=1e-9)
