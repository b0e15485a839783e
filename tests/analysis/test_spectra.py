"""Spectra and correlations against spin waves that are known exactly."""

import numpy as np
import pytest

import hpcspin as hs
from hpcspin.analysis import dispersion, dynamical_structure_factor, spectra, spin_correlation
from hpcspin.dynamics import DzyaloshinskiiMoriya, Heisenberg, SumField, Zeeman
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture, topological_charge, topological_charges

SIZE = (6, 4)


def waves(order: str, exchange: float) -> np.ndarray:
    """Frames 0.16 apart of small deviations from an order of the square Heisenberg magnet, which nothing damps."""
    lattice = make_lattice("square", SIZE, (True, True))
    start = make_texture(order, lattice, 3, tilt=0.01)
    run = hs.simulate(
        lattice, Heisenberg(exchange), start, damping=0.0, step=0.08, duration=48, integrator="rk4", record_interval=2
    )
    return run.spins


@pytest.mark.parametrize(("order", "exchange"), [("ferromagnet", 1.0), ("antiferromagnet", -1.0)])
def test_spin_waves_have_the_frequencies_of_the_heisenberg_magnet(order: str, exchange: float) -> None:
    found = dispersion(waves(order, exchange), 0.16)
    x, y = (2 * np.pi * np.fft.fftfreq(length) for length in SIZE)
    cosines = np.cos(x)[:, None] + np.cos(y)
    exact = 2 * (2 - cosines) if exchange > 0 else 4 * np.sqrt(1 - (cosines / 2) ** 2)
    moving = exact > 1e-6
    assert moving.sum() >= 22
    np.testing.assert_allclose(found[moving], exact[moving], atol=0.02)


def test_spin_waves_along_and_against_a_wave_vector_differ_where_inversion_is_broken() -> None:
    exchange, dmi, field = 1.0, 0.2, 0.5
    lattice = make_lattice("square", (12, 3), (True, True))
    start = make_texture("ferromagnet", lattice, 3, tilt=0.01)  # Along x.
    terms = SumField([Heisenberg(exchange), DzyaloshinskiiMoriya.bulk(lattice, dmi), Zeeman((field, 0, 0))])
    run = hs.simulate(lattice, terms, start, damping=0.0, step=0.08, duration=80, integrator="rk4", record_interval=2)
    q = 2 * np.pi * np.fft.fftfreq(12)
    found = dispersion(run.spins, 0.16)[:, 0]
    exact = {sign: field + 2 * exchange * (1 - np.cos(q)) + sign * 2 * dmi * np.sin(q) for sign in (-1, 1)}
    error = {sign: np.abs(found - omega).max() for sign, omega in exact.items()}
    assert min(error.values()) < 0.02
    assert max(error.values()) > 0.5


def test_a_wave_is_at_the_wave_vector_along_which_it_moves() -> None:
    t, x = np.mgrid[:16, :8]
    phase = 2 * np.pi * (2 * x / 8 - 3 * t / 16)
    spins = np.stack([np.cos(phase), np.sin(phase), np.zeros_like(phase)], -1)[:, :, None]
    spectrum = dynamical_structure_factor(spins, 0.5)[1][:, :, 0]
    assert np.unravel_index(spectrum.argmax(), spectrum.shape) == (3, 2)
    assert spectrum[:, np.arange(8) != 2].max() < 1e-12 * spectrum.max()


def test_the_spectrum_sums_to_the_fluctuations() -> None:
    for frames in (8, 9):
        spins = make_texture("random", make_lattice("square", (frames * 5, 4), (True, True)), 1)
        spins = spins.reshape(frames, 5, 4, 3)
        frequency, spectrum = dynamical_structure_factor(spins, 0.5)
        weight = np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 4
        amplitude = np.fft.fftn(spins - spins.mean(axis=0), axes=(1, 2)) / np.sqrt(20)
        expected = np.einsum("t,txya->xy", weight, np.abs(amplitude) ** 2) / weight.sum()
        total = spectrum.sum(axis=0) * frequency[1]
        reverse = np.roll(total[::-1, ::-1], (1, 1), axis=(0, 1))
        np.testing.assert_allclose((total + reverse) / 2, expected, rtol=1e-10)


@pytest.mark.parametrize("vacancies", [[], [(0, 1), (3, 2)]])
@pytest.mark.parametrize("periodic", [(True, True), (False, True)])
def test_correlations_are_means_over_pairs(periodic: tuple[bool, bool], vacancies: list[tuple[int, int]]) -> None:
    lattice = make_lattice("square", (4, 3), periodic)
    spins = np.stack([make_texture("random", lattice, seed) for seed in range(5)])
    for site in vacancies:
        spins[:, *site] = np.nan
    found = spin_correlation(lattice, spins)
    assert found.shape == (3, 4, 3)
    for t, dx, dy in np.ndindex(found.shape):
        products = [
            spins[first, x, y] @ spins[first + t, (x + dx) % 4, (y + dy) % 3]
            for first in range(5 - t)
            for x in range(4)
            for y in range(3)
            if periodic[0] or x + dx < 4
        ]
        assert abs(found[t, dx, dy] - np.nanmean(products)) < 1e-12


def test_a_vacancy_has_no_waves() -> None:
    spins = make_texture("random", make_lattice("square", (40, 4), (True, True)), 1).reshape(8, 5, 4, 3)
    spins[:, 2, 1] = np.nan
    frequency, spectrum = dynamical_structure_factor(spins, 0.5)
    weight = np.sin(np.pi * (np.arange(8) + 0.5) / 8) ** 4
    moving = np.nan_to_num(spins - spins.mean(axis=0))
    # Parseval: the sum over wave vectors is that over sites, of which 19 hold a spin.
    expected = np.einsum("t,txya->", weight, moving**2) * 20 / 19 / weight.sum()
    assert abs(spectrum.sum() * frequency[1] - expected) < 1e-10 * expected


@pytest.mark.parametrize("charge", [-1, 1])
def test_the_charge_of_a_skyrmion_lies_where_it_is(charge: int) -> None:
    small, wide = (make_lattice("square", size, (True, True)) for size in ((8, 8), (16, 8)))
    skyrmion = make_texture("skyrmions", small, 1, charge=charge, tilt=0.0)
    spins = np.concatenate([skyrmion, np.broadcast_to((0.0, 0.0, 1.0), (8, 8, 3))])
    charges = topological_charges(wide, spins)
    assert abs(charges[:8].sum() - charge) < 1e-9
    assert abs(topological_charge(wide, spins) - charge) < 1e-9
    assert np.abs(charges[8:15]).max() < 1e-12


def test_blocks_of_wave_vectors_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    spins = make_texture("random", make_lattice("square", (35, 4), (True, True)), 1).reshape(7, 5, 4, 3)
    whole = dynamical_structure_factor(spins, 0.5)[1]
    monkeypatch.setattr(spectra, "_BLOCK", 48 * 7 * 4 * 2)
    np.testing.assert_array_equal(dynamical_structure_factor(spins, 0.5)[1], whole)
    moving = (spins - spins.mean(axis=0)) * (np.sin(np.pi * (np.arange(7) + 0.5) / 7) ** 2)[:, None, None, None]
    direct = (np.abs(np.fft.fftn(moving, axes=(0, 1, 2))) ** 2).sum(axis=-1)
    assert (direct[0] / whole[0]).std() < 1e-9 * (direct[0] / whole[0]).mean()


def test_a_correlation_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra, "available_memory", lambda: 1000)
    with pytest.raises(HpcspinError, match="needs about"):
        spin_correlation(make_lattice("square", SIZE), np.ones((5, *SIZE, 3)))
