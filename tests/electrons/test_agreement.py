"""Independent routes to the same steady state: references, closed form, recursion, brute quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from systems import KINDS, OWN_KINDS, driven, from_reference, random_spins

from hpcspin.electrons import ClosedFormSolver, DrivenLattice, RecursiveSolver, Reservoir
from hpcspin.electrons.hamiltonian import retarded_green, sd_hamiltonian, self_energy
from hpcspin.electrons.system import SIGMA
from hpcspin.electrons.transport import transmission
from hpcspin.errors import HpcspinError

REFERENCES = [
    "square_random_6x4",
    "equilibrium_10x6",
    "square_open_8x5",
    "square_polarized_lead_10x4",
    "square_three_mu_10x6",
    "triangular_8x6",
    "square_wall_18x8",
]
LARGE = pytest.param("square_wall_30x24", marks=pytest.mark.slow)


@pytest.mark.parametrize("solver", [ClosedFormSolver, RecursiveSolver])
@pytest.mark.parametrize("name", [*REFERENCES, LARGE])
def test_references_are_met_to_1e_7(reference, name, solver):
    content = reference(name)
    state = solver(from_reference(content), 1e-8).solve(content["spins"][None])
    for key, value in (("field", state.field), ("density", state.density), ("currents", state.current)):
        assert np.abs(value[0] - content[key]).max() < 1e-7
    assert np.abs(state.spin_density[0] - content["spin_density"]).max() < 1e-7
    assert state.error[0] <= 1e-8


SYSTEMS = {
    "wall with three unlike widths": driven("square", (6, 4), left=(0.7, -2.9), right=(0.4, 0.3), bath=(0.01, 0.3)),
    "polarised at both ends": driven(
        "square", (5, 3), left=(1.0, 1.0, (0.6, 0, 0.5)), right=(0.8, -1.0, (0, -1, 0)), bath=(0.02, -1.0)
    ),
    "three potentials": driven("square", (6, 4), left=(1.0, -1.5), right=(0.5, 0.9), bath=(0.03, 0.1)),
    "no bath": driven("square", (5, 4), left=(1.0, -1.0), right=(0.5, 0.5)),
    "triangular, open y": driven(
        "triangular", (6, 4), periodic_y=False, left=(1.0, -2.0), right=(0.6, 0.0), bath=(0.02, 0.0)
    ),
    "triangular, both ends driven": driven("triangular", (5, 3), left=(1.0, -2.0), right=(0.6, 1.0), bath=(0.02, 0.0)),
    "electrode in the middle": driven(
        "square", (6, 4), left=(1.0, 0.0), middle=(0.5, -2.0, (0, 0, 0.7)), bath=(0.02, 0.0)
    ),
    "triangular, electrode in the middle": driven(
        "triangular", (6, 3), left=(1.0, 0.5), middle=(0.5, -2.0), right=(0.3, 0.5), bath=(0.02, 0.0)
    ),
    "two potentials on one column": driven(
        "square", (5, 4), left=(1.0, -1.0), corner=(0.6, 1.0, (0.9, 0, 0)), bath=(0.02, 0.0)
    ),
    "hopping other than 1": driven("square", (6, 4), hopping=0.7, left=(1.0, -2.0), right=(0.3, 0.4), bath=(0.02, 0.0)),
    "hopping other than 1, middle": driven(
        "triangular", (5, 3), hopping=1.6, left=(1.0, 0.5), middle=(0.5, -2.0), bath=(0.02, 0.0)
    ),
    "magnetised bath": driven("square", (5, 3), left=(1.0, -2.0), bath=(0.05, 0.0, (0, 0.5, 0.3))),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_recursion_equals_closed_form(name):
    system = SYSTEMS[name]
    spins = random_spins(system, 2, seed=11)
    exact = ClosedFormSolver(system, 1e-9).solve(spins)
    state = RecursiveSolver(system, 1e-8).solve(spins)
    deviation = np.abs(state.field - exact.field).max(axis=(1, 2, 3))
    assert np.all(deviation < 1e-8)
    assert np.all(deviation <= state.error + exact.error)
    assert np.abs(state.density - exact.density).max() < 1e-8
    deviation = np.abs(state.current - exact.current).max(axis=1)
    assert np.all(deviation <= state.current_error + exact.current_error)
    assert np.all(state.current_error < 1e-7)
    assert np.all(exact.current_error < 1e-9)


SHAPES = [(4, 1, False), (3, 2, False), (4, 4, False), (4, 3, True)]


@pytest.mark.parametrize(("columns", "rows", "periodic_y"), SHAPES)
@pytest.mark.parametrize("kind", [*KINDS, *OWN_KINDS])
def test_every_lattice_has_one_steady_state(kind, columns, rows, periodic_y):
    """Recursion, closed form and quadrature of the dense inverse, with electrodes on the ends and one in the middle."""
    for middle in ({}, {"middle": (0.2, -0.7, (0, 0, 0.7))}):
        system = driven(
            kind, (columns, rows), periodic_y=periodic_y, temperature=0.1,
            left=(1.0, -1.0, (0.3, 0.2, 0)), right=(0.6, 0.5), bath=(0.2, 0.0), **middle,
        )  # fmt: skip
        spins = random_spins(system, 1, seed=rows)
        exact = ClosedFormSolver(system, 1e-9).solve(spins)
        state = RecursiveSolver(system, 1e-8).solve(spins)
        assert np.abs(state.field - exact.field).max() <= state.error[0] + exact.error[0] < 1e-8
        assert np.abs(state.density - exact.density).max() < 1e-8
        assert np.abs(state.current - exact.current).max() < 1e-7
        inverse = _transmission_of_the_dense_inverse(system, spins[0], 0.3)
        assert np.abs(transmission(system, spins[0], np.array([0.3]))[0] - inverse).max() < 1e-12
    components = _brute_components(system, spins[0])
    assert np.abs(state.density[0] - components[..., 0]).max() < 1e-6
    assert np.abs(state.spin_density[0] - components[..., 1:]).max() < 1e-6


def test_hamiltonian_and_self_energy_of_two_sites_by_hand():
    """H = -t sum c†c - J S·sigma and Sigma = -i g (1 + p·sigma), written out."""
    system = driven("square", (2, 1), periodic_y=False, hopping=0.7, exchange=2.5, left=(0.6, 0.0, (0, 1, 0)))
    spins = np.array([[[1.0, 0, 0]], [[0, 0, 1.0]]])
    by_hand = [[0, -2.5, -0.7, 0], [-2.5, 0, 0, -0.7], [-0.7, 0, -2.5, 0], [0, -0.7, 0, 2.5]]
    assert np.array_equal(sd_hamiltonian(system, spins), by_hand)
    assert np.array_equal(self_energy(system)[0, 0], [[-0.6j, -0.6], [0.6, -0.6j]])
    assert not self_energy(system)[1].any()
    green = retarded_green(system, spins, np.array([0.3]))[0]
    sigma = np.zeros((4, 4), dtype=complex)
    sigma[:2, :2] = [[-0.6j, -0.6], [0.6, -0.6j]]
    assert np.abs(green @ (0.3 * np.eye(4) - by_hand - sigma) - np.eye(4)).max() < 1e-14


def test_a_bond_past_the_next_column_is_refused_unless_the_lattice_is_too_short_for_it():
    system = driven("next_column_but_one", (4, 3), left=(1.0, -1.0), bath=(0.1, 0.0))
    with pytest.raises(HpcspinError, match=r"the bond \(2, 0\) of the lattice 'next_column_but_one' reaches past"):
        RecursiveSolver(system, 1e-8)
    short = driven("next_column_but_one", (2, 3), left=(1.0, -1.0), bath=(0.1, 0.0))
    spins = random_spins(short, 1, seed=4)
    exact = ClosedFormSolver(short, 1e-9).solve(spins)
    assert np.abs(RecursiveSolver(short, 1e-8).solve(spins).field - exact.field).max() < 1e-8


def test_sites_that_no_bond_leads_to_a_reservoir_are_refused():
    with pytest.raises(HpcspinError, match="to no reservoir"):
        driven("rows", (4, 3), corner=(1.0, 0.0))


def _transmission_of_the_dense_inverse(system: DrivenLattice, spins, energy: float):
    """tr[2 Gamma_r G 2 Gamma_s G†] of one energy."""
    green = retarded_green(system, spins, energy)
    widths = [2 * _width_matrix(reservoir) for reservoir in system.reservoirs]
    return np.array([[np.trace(r @ green @ s @ green.conj().T).real for s in widths] for r in widths])


def _width_matrix(reservoir: Reservoir):
    """Gamma_r of the whole lattice."""
    blocks = np.einsum("xyk,kab->xyab", reservoir.widths, SIGMA).reshape(-1, 2, 2)
    return np.einsum("iab,ij->iajb", blocks, np.eye(len(blocks))).reshape(2 * len(blocks), -1)


def _brute_components(system: DrivenLattice, spins):
    """Components of sum_r ∫ de/2pi f_r G 2 Gamma_r G† on every site, on a tan-stretched midpoint grid."""
    rho, sites = 0, system.lattice.num_sites
    angle = (np.arange(4000) + 0.5) / 4000 * np.pi - np.pi / 2
    for theta in np.array_split(angle, 20):
        energy = 4 * np.tan(theta)
        green = retarded_green(system, spins, energy)
        measure = 4 / np.cos(theta) ** 2 * np.pi / len(angle) / (2 * np.pi)
        for reservoir in system.reservoirs:
            occupation = 1 / (np.exp(np.clip((energy - reservoir.potential) / system.temperature, -700, 700)) + 1)
            left = green * (measure * occupation)[:, None, None]
            rho = rho + (left @ (2 * _width_matrix(reservoir)) @ green.conj().swapaxes(1, 2)).sum(axis=0)
    blocks = np.einsum("iaib->iab", rho.reshape(sites, 2, sites, 2))
    return np.einsum("kab,iba->ik", SIGMA, blocks).real.reshape(*system.lattice.size, 4)
