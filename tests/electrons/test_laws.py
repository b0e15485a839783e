"""Exact properties of driven steady states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.spatial.transform import Rotation
from systems import driven, from_reference, random_spins

from hpcspin.electrons import (
    ClosedFormSolver,
    RecursiveSolver,
    grand_potential,
    nonconservativity,
    transmission,
)
from hpcspin.electrons.hamiltonian import effective_hamiltonian
from hpcspin.electrons.model import site_matrices
from hpcspin.electrons.nonconservativity import tangents
from hpcspin.electrons.system import SIGMA
from hpcspin.errors import HpcspinError

SOLVERS = [ClosedFormSolver, RecursiveSolver]
DRIVEN = {"left": (1.0, -2.0), "right": (0.6, 0.4), "bath": (0.05, 0.1)}
every_solver = pytest.mark.parametrize("solver", SOLVERS)


@every_solver
def test_high_potentials_fill_every_level_but_for_the_tail_of_the_width(solver):
    potential = 1000.0
    system = driven("square", (4, 3), temperature=0.1, left=(1.0, potential), bath=(0.05, potential))
    state = solver(system, 1e-7).solve(random_spins(system, 1, seed=1))
    widths = system.widths[..., 0].sum(axis=0)
    # Beyond mu the spectral function of a site is 2 Gamma / e², whose integral over 2 pi is Gamma / (pi mu).
    missing = 2 * widths / (np.pi * potential)
    assert np.abs(2 - state.density[0] - missing).max() < 0.01 * missing.max()
    assert np.abs(state.spin_density).max() < 0.01 * missing.max()


@every_solver
@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_currents_of_all_reservoirs_cancel(solver, kind):
    system = driven(kind, (5, 4), **DRIVEN, middle=(0.3, -1.0, (0, 0.6, 0)))
    current = solver(system, 1e-7).solve(random_spins(system, 2, seed=3)).current
    assert np.abs(current).max() > 1e-2
    assert np.abs(current.sum(axis=1)).max() < 1e-10


@every_solver
def test_no_current_flows_at_equal_potentials(solver):
    system = driven("triangular", (5, 3), left=(1.0, 0.3), right=(0.2, 0.3, (0, 0, 0.9)), bath=(0.01, 0.3))
    assert np.abs(solver(system, 1e-8).solve(random_spins(system, 1, seed=4)).current).max() < 1e-10


@every_solver
@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_equilibrium_field_is_minus_the_gradient_of_the_grand_potential(solver, kind):
    mu = -0.7
    system = driven(kind, (4, 3), left=(1.0, mu), right=(0.5, mu, (0.3, 0, 0.4)), bath=(0.02, mu))
    spins = random_spins(system, 1, seed=5)
    field = solver(system, 1e-8).solve(spins).field[0]
    step = 1e-4
    for x, y, a in ((0, 0, 0), (1, 2, 1), (3, 1, 2)):
        # Omega is a function of unconstrained vectors: its gradient has a radial part as well.
        energies = []
        for sign in (1, -1):
            moved = spins[0].copy()
            moved[x, y, a] += sign * step
            energies.append(grand_potential(system, moved))
        assert field[x, y, a] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-6)


def test_a_reservoir_without_a_width_drives_nothing():
    parts = {"bath": (0.02, -0.7), "right": (0.5, -0.7)}
    coupled, cut_off = driven("square", (4, 3), **parts), driven("square", (4, 3), left=(0.0, 1.2), **parts)
    spins = random_spins(coupled, 1, seed=5)[0]
    assert cut_off.bias == 0
    assert grand_potential(cut_off, spins) == grand_potential(coupled, spins)


def test_a_driven_state_has_no_grand_potential():
    system = driven("square", (4, 3), **DRIVEN)
    with pytest.raises(HpcspinError, match="grand potential"):
        grand_potential(system, random_spins(system, 1, seed=1)[0])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rotation=st.tuples(*[st.floats(-3, 3)] * 3), kind=st.sampled_from(["square", "triangular"]))
def test_field_turns_with_the_spins(rotation, kind):
    turn = Rotation.from_rotvec(rotation).as_matrix()
    system = driven(kind, (4, 3), **DRIVEN)
    spins = random_spins(system, 1, seed=6)
    solver = RecursiveSolver(system, 1e-7)
    before, after = solver.solve(spins), solver.solve(spins @ turn.T)
    assert np.abs(after.field - before.field @ turn.T).max() < 1e-7
    assert np.abs(after.density - before.density).max() < 1e-7


@every_solver
@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_translation_along_y(solver, kind):
    system = driven(kind, (4, 5), **DRIVEN)
    spins = random_spins(system, 1, seed=7)
    before = solver(system, 1e-8).solve(spins).field
    after = solver(system, 1e-8).solve(np.roll(spins, 2, axis=2)).field
    assert np.abs(after - np.roll(before, 2, axis=2)).max() < 2e-8


@every_solver
@pytest.mark.parametrize("periodic", [True, False])
def test_mirror_in_y_of_the_square_lattice(solver, periodic):
    system = driven("square", (4, 5), periodic_y=periodic, **DRIVEN)
    spins = random_spins(system, 1, seed=8)
    before = solver(system, 1e-8).solve(spins).field
    after = solver(system, 1e-8).solve(spins[:, :, ::-1]).field
    assert np.abs(after - before[:, :, ::-1]).max() < 2e-8


@every_solver
def test_mirror_in_x_exchanges_the_electrodes(solver):
    system = driven("square", (5, 4), left=(1.0, -2.0), right=(0.6, 0.4), bath=(0.05, 0.1))
    mirrored = driven("square", (5, 4), left=(0.6, 0.4), right=(1.0, -2.0), bath=(0.05, 0.1))
    spins = random_spins(system, 1, seed=9)
    before = solver(system, 1e-8).solve(spins)
    after = solver(mirrored, 1e-8).solve(spins[:, ::-1])
    assert np.abs(after.field - before.field[:, ::-1]).max() < 2e-8
    assert np.abs(after.current - before.current[:, [1, 0, 2]]).max() < 1e-7


@every_solver
def test_inversion_of_the_triangular_lattice_exchanges_the_electrodes(solver):
    system = driven("triangular", (5, 4), left=(1.0, -2.0), right=(0.6, 0.4), bath=(0.05, 0.1))
    inverted = driven("triangular", (5, 4), left=(0.6, 0.4), right=(1.0, -2.0), bath=(0.05, 0.1))
    spins = random_spins(system, 1, seed=10)
    before = solver(system, 1e-8).solve(spins).field
    after = solver(inverted, 1e-8).solve(spins[:, ::-1, ::-1]).field
    assert np.abs(after - before[:, ::-1, ::-1]).max() < 2e-8


@every_solver
def test_half_filling_of_a_bipartite_lattice_is_uniform(solver):
    system = driven("square", (5, 4), left=(1.0, 0.0), right=(0.4, 0.0), bath=(0.01, 0.0))
    density = solver(system, 1e-9).solve(random_spins(system, 1, seed=12)).density
    assert np.abs(density - 1).max() < 1e-9


def _ozaki_poles(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poles and weights of the rational approximation of the Fermi function.

    f(x) = 1/2 - sum_p R_p [1/(x - i x_p) + 1/(x + i x_p)], with 1/x_p the
    positive eigenvalues of a tridiagonal matrix (T. Ozaki, Phys. Rev. B 75,
    035123 (2007)). The first poles are Matsubara frequencies with R = 1, the
    last are sparse and reach far.

    Returns
    -------
    tuple
        x_p and R_p, each of shape (count,), in increasing order of x_p.
    """
    k = np.arange(1, 2 * count)
    off_diagonal = 0.5 / np.sqrt((2 * k - 1.0) * (2 * k + 1.0))
    values, vectors = eigh_tridiagonal(np.zeros(2 * count), off_diagonal)
    values, first = values[: count - 1 : -1], vectors[0, : count - 1 : -1]
    return 1 / values, first**2 / (4 * values**2)


def test_closed_form_solves_its_lyapunov_equation():
    """H_eff rho - rho H_eff† = 2 sum_r (Q_r Gamma_r - Gamma_r Q_r†), Q_r = ∫ de/2pi f_r G, by squared Smith."""
    system = driven("triangular", (4, 3), temperature=0.1, **DRIVEN)
    spins = random_spins(system, 1, seed=13)
    effective = effective_hamiltonian(system, spins[0])
    size = len(effective)
    poles, residues = _ozaki_poles(2000)
    right = np.zeros_like(effective)
    for reservoir in system.reservoirs:
        energies = reservoir.potential + 1j * poles * system.temperature
        green = np.linalg.inv(energies[:, None, None] * np.eye(size) - effective)
        filled = -0.25j * np.eye(size) - 1j * system.temperature * np.tensordot(residues, green, axes=1)
        blocks = site_matrices(reservoir.widths).reshape(-1, 2, 2)
        width = np.einsum("iab,ij->iajb", blocks, np.eye(len(blocks))).reshape(size, size)
        right += 2 * (filled @ width - width @ filled.conj().T)
    cayley = np.linalg.inv(3.0 * np.eye(size) + 1j * effective)
    step, rho = cayley @ (3.0 * np.eye(size) - 1j * effective), 6.0 * cayley @ (1j * right) @ cayley.conj().T
    for _ in range(16):
        rho, step = rho + step @ rho @ step.conj().T, step @ step
    components = np.einsum("kab,ibia->ik", SIGMA, rho.reshape(-1, 2, size // 2, 2).swapaxes(0, 0)).real
    state = ClosedFormSolver(system, 1e-9).solve(spins)
    assert np.abs(components[:, 0] - state.density.reshape(-1)).max() < 1e-7
    assert np.abs(components[:, 1:] - state.spin_density.reshape(-1, 3)).max() < 1e-7


@pytest.mark.parametrize(
    "name",
    ["square_random_6x4", "square_open_8x5", "square_polarized_lead_10x4", "square_three_mu_10x6", "triangular_8x6"],
)
def test_transmission_of_the_references(reference, name):
    content = reference(name)
    result = transmission(from_reference(content), content["spins"], content["energies"])
    assert np.abs(result[:, 1, 0] - content["transmission"]).max() < 1e-8


def test_landauer_currents():
    """I_r = sum_s ∫ de/2pi T_rs (f_r - f_s)."""
    system = driven("triangular", (4, 3), temperature=0.1, left=(1.0, -2.0), middle=(0.4, 0.4), bath=(0.2, 0.1))
    spins = random_spins(system, 1, seed=14)
    energies = np.linspace(-6.5, 5, 2001)
    occupied = 1 / (np.exp((energies[:, None] - system.potentials) / system.temperature) + 1)
    difference = occupied[:, :, None] - occupied[:, None, :]
    passed = transmission(system, spins[0], energies)
    current = np.sum(passed * difference, axis=(0, 2)) * (energies[1] - energies[0]) / (2 * np.pi)
    assert np.abs(current - RecursiveSolver(system, 1e-8).solve(spins).current[0]).max() < 1e-7


def test_an_equilibrium_field_is_conservative_and_a_driven_one_is_not():
    equilibrium = driven("square", (4, 3), temperature=0.1, left=(1.0, -1.0), bath=(0.05, -1.0))
    biased = driven("square", (4, 3), temperature=0.1, left=(1.0, -2.0), right=(1.0, 1.0), bath=(0.05, 0.0))
    spins = random_spins(equilibrium, 1, seed=15)[0]
    assert nonconservativity(ClosedFormSolver(equilibrium, 1e-9), spins) < 1e-5
    assert nonconservativity(ClosedFormSolver(biased, 1e-9), spins) > 0.05


def test_tangents_are_an_orthonormal_frame():
    spins = random_spins(driven(**DRIVEN), 1, seed=16)[0]
    frame = np.concatenate([tangents(spins), spins[..., None, :]], axis=-2)
    assert np.abs(frame @ frame.swapaxes(-1, -2) - np.eye(3)).max() < 1e-14
