"""Independent routes to the same steady state: references, closed form, recursion, brute quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from systems import driven, from_reference, random_spins

from hpcspin.electrons import ClosedFormSolver, DrivenLattice, RecursiveSolver
from hpcspin.electrons.hamiltonian import effective_hamiltonian
from hpcspin.electrons.model import SIGMA

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
    assert np.abs(state.current - exact.current).max() < 1e-7


def test_closed_form_equals_brute_quadrature_of_the_dense_inverse():
    system = driven("triangular", (3, 3), temperature=0.1, left=(1.0, -1.0, (0.3, 0, 0)), bath=(0.3, 0.5))
    spins = random_spins(system, 1, seed=2)
    rho = _brute_density(system, spins[0])
    blocks = np.einsum("iaib->iab", rho.reshape(9, 2, 9, 2))
    components = np.einsum("kab,iba->ik", SIGMA, blocks).real.reshape(3, 3, 4)
    state = ClosedFormSolver(system, 1e-9).solve(spins)
    assert np.abs(state.density[0] - components[..., 0]).max() < 1e-6
    assert np.abs(state.spin_density[0] - components[..., 1:]).max() < 1e-6


def _brute_density(system: DrivenLattice, spins):
    """sum_r ∫ de/2pi f_r G 2 Gamma_r G† on a tan-stretched midpoint grid."""
    effective = effective_hamiltonian(system, spins)
    angle = (np.arange(40000) + 0.5) / 40000 * np.pi - np.pi / 2
    rho = np.zeros_like(effective)
    for theta in np.array_split(angle, 40):
        energy = 4 * np.tan(theta)
        green = np.linalg.inv(energy[:, None, None] * np.eye(len(effective)) - effective)
        for reservoir in system.reservoirs:
            width = np.einsum("xyk,kab->xyab", reservoir.widths, SIGMA).reshape(-1, 2, 2)
            full = np.einsum("iab,ij->iajb", 2 * width, np.eye(9)).reshape(18, 18)
            occupation = 1 / (np.exp(np.clip((energy - reservoir.potential) / system.temperature, -700, 700)) + 1)
            weight = occupation * 4 / np.cos(theta) ** 2 * np.pi / 40000 / (2 * np.pi)
            rho += np.einsum("e,eij,jk,elk->il", weight, green, full, green.conj(), optimize=True)
    return rho
