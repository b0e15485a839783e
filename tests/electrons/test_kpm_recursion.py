"""The recursion, by kernels in C and by array libraries, against dense matrices."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from systems import random_spins

from hpcspin.electrons import ClosedLattice, sd_hamiltonian
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.kpm_host import HostRecursion, library
from hpcspin.electrons.kpm_probes import Colouring, colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_recursion import ArrayRecursion, adjoint_weights, moments_of_products, scaled_hamiltonian
from hpcspin.electrons.kpm_series import spectral_interval
from hpcspin.electrons.system import SIGMA
from hpcspin.lattice import make_lattice

COUNT = 10
STEP = 1e-3
EVERY = slice(0, None, 1)
SYSTEMS = {
    "square": ("square", (True, True), {"hopping": 1.0}),
    "triangular, a shell more": ("triangular", (True, False), {"hopping": (1.0, 0.3)}),
    "triangular, spin-orbit": ("triangular", (False, True), {"hopping": (1.0, -0.2), "rashba": 0.3}),
}


def host(hamiltonian):
    if library() is None:
        pytest.skip("there is no C compiler, or it fails")
    return HostRecursion(hamiltonian)


WAYS = {
    "host": host,
    "numpy": lambda hamiltonian: ArrayRecursion(hamiltonian, make_backend("numpy"), 5),
    "torch": lambda hamiltonian: ArrayRecursion(hamiltonian, make_backend("torch"), 3),
}


@pytest.fixture(params=SYSTEMS)
def problem(request):
    """A snapshot, its probing vectors and their moments from dense matrices."""
    kind, periodic, parameters = SYSTEMS[request.param]
    rng = np.random.default_rng(1)
    exchange, on_site = rng.normal(size=(2, 6, 5))
    lattice = make_lattice(kind, (6, 5), periodic)
    system = ClosedLattice(lattice, exchange=exchange, temperature=0.1, potential=0.0, on_site=on_site, **parameters)
    spins, interval = random_spins(system, 1, seed=2)[0], spectral_interval(system)
    sites, coloured, phases = 30, colouring(lattice, 3), random_phases(30, 0, 5, 1)
    vectors = np.zeros((sites, 2, coloured.count, 2), dtype=complex)
    for site in range(sites):
        vectors[site, :, coloured.colours[site]] = np.eye(2) * (phases[site, 0] + 1j * phases[site, 1])
    scaled = (sd_hamiltonian(system, spins) - interval.centre * np.eye(60)) / interval.half_width
    return SimpleNamespace(
        hamiltonian=scaled_hamiltonian(system, spins, interval),
        scaled=scaled,
        vectors=vectors.reshape(60, -1),
        coloured=coloured,
        phases=phases,
        weights=rng.normal(size=COUNT),
    )


def chebyshev(matrix, vectors):
    found = [vectors, matrix @ vectors]
    while len(found) < COUNT:
        found.append(2 * matrix @ found[-1] - found[-2])
    return found


def total(matrix, problem):
    moments = [np.vdot(problem.vectors, part).real for part in chebyshev(matrix, problem.vectors)]
    return np.array(moments)


@pytest.mark.parametrize("way", WAYS)
def test_moments_and_their_derivative_are_those_of_dense_matrices(problem, way):
    recursion = WAYS[way](problem.hamiltonian)
    local, moments, gradient = np.zeros((COUNT, 30, 4)), 0.0, 0.0
    for group in probe_groups(problem.coloured, problem.phases, recursion.pairs):
        ((local[:, group.sites], traces),) = recursion.local_moments([group], COUNT, [EVERY])
        np.testing.assert_allclose(traces.sum(axis=1), local[:, group.sites, 0].sum(axis=1), atol=1e-13)
        ((products, start),) = recursion.products([group], COUNT // 2)
        moments = moments + moments_of_products(products.sum(axis=0))
        gradient = gradient + recursion.gradients([start], *adjoint_weights(problem.weights))[0]
    np.testing.assert_allclose(moments, total(problem.scaled, problem), atol=1e-12)
    for n, part in enumerate(chebyshev(problem.scaled, problem.vectors)):
        blocks = np.einsum("iar,ibr->iab", part.reshape(30, 2, -1), problem.vectors.conj().reshape(30, 2, -1))
        expected = np.einsum("kab,iba->ik", SIGMA, blocks).real
        np.testing.assert_allclose(local[n], expected, atol=1e-13)
    for site in (0, 13):
        for component in range(4):
            change = np.zeros((60, 60), dtype=complex)
            change[2 * site : 2 * site + 2, 2 * site : 2 * site + 2] = STEP * SIGMA[component]
            values = [problem.weights @ total(problem.scaled + k * change, problem) for k in (-2, -1, 1, 2)]
            slope = np.array([1, -8, 8, -1]) @ values / (12 * STEP)
            assert gradient[site, component] == pytest.approx(slope, abs=1e-8)


def test_the_numbers_of_a_vector_do_not_depend_on_its_company(problem):
    """Else results would depend on how many ranks share the vectors."""
    recursion = host(problem.hamiltonian)
    together = probe_groups(problem.coloured, problem.phases, recursion.pairs)[0]
    ((found, _),) = recursion.local_moments([together], COUNT, [EVERY])
    for colour in range(recursion.pairs):
        colours = np.where(problem.coloured.colours == colour, 0, recursion.pairs)
        alone = probe_groups(Colouring(colours, 1), problem.phases, recursion.pairs)[0]
        ((lonely, _),) = recursion.local_moments([alone], COUNT, [EVERY])
        assert np.array_equal(lonely, found[:, np.isin(together.sites, alone.sites)])


def test_one_step_is_enough_for_two_moments(problem):
    for way in WAYS.values():
        recursion = way(problem.hamiltonian)
        groups = probe_groups(problem.coloured, problem.phases, recursion.pairs)
        found = recursion.products(groups, 1)
        np.testing.assert_allclose(
            sum(products.sum(axis=0) for products, _ in found), total(problem.scaled, problem)[:2], atol=1e-12
        )
        weights = adjoint_weights(np.array([0.3, 2.0]))
        gradient = sum(recursion.gradients([start for _, start in found], *weights))
        np.testing.assert_allclose(gradient, np.tile([4.0, 0, 0, 0], (30, 1)), atol=1e-13)


def test_moments_of_few_sites_take_no_memory_for_all_of_them():
    """On a GPU the moments of all sites would take more memory than the vectors."""
    lattice, count = make_lattice("square", (24, 24), (True, True)), 512
    system = ClosedLattice(lattice, 1.0, 2.0, 0.3, filling=0.8)
    hamiltonian = scaled_hamiltonian(system, random_spins(system, 1, seed=2)[0], spectral_interval(system))
    recursion = ArrayRecursion(hamiltonian, make_backend("numpy"), 4)
    groups = probe_groups(colouring(lattice, 2), random_phases(576, 0, 5, 1), 4)
    tracemalloc.start()
    ((local, lines),) = recursion.local_moments(groups, count, [slice(0, None, 64)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert local.shape == (count, 9, 4)
    assert lines.shape == (count, 24)
    assert most < 8 * count * 576  # A number for each moment and site.
