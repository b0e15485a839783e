"""The kernel polynomial solver: tolerances kept, energies whose gradient the fields are, keys of the random phases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from systems import random_spins
from test_closed import STATES, reference

import hpcspin as hs
from hpcspin.electrons import ClosedLattice, KpmSolver, make_solver
from hpcspin.electrons import kpm as module
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.kpm_estimates import Probing
from hpcspin.electrons.kpm_host import HostRecursion, library
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases, unit_colouring
from hpcspin.electrons.kpm_recursion import ArrayRecursion, scaled_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, spectral_interval
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World


def metal(size=(12, 12), kind="square", **given):
    parameters = {"hopping": 1.0, "exchange": 6.0, "temperature": 0.05, "filling": 0.97, **given}
    if "potential" in given:
        del parameters["filling"]
    return ClosedLattice(make_lattice(kind, size, (True, True)), **parameters)


def probing(system, spins, world=None):
    hamiltonian = scaled_hamiltonian(system, spins, spectral_interval(system))
    recursion = HostRecursion(hamiltonian) if library() else ArrayRecursion(hamiltonian, make_backend("torch"))
    return Probing(system, recursion, world or World())


def groups(probes, coloured, number=0):
    phases = random_phases(probes.system.lattice.num_sites, 0, number, 0)
    return probe_groups(coloured, phases, probes.recursion.pairs)


def expansion(system, count, kernel="none"):
    return Expansion(spectral_interval(system), system.temperature, count, kernel)


def perpendicular(field, spins):
    """Root mean square of the components of a field, shape (sites, 3), that are perpendicular to the spins."""
    flat = spins.reshape(-1, 3)
    return np.sqrt(np.mean((field - (field * flat).sum(axis=1, keepdims=True) * flat) ** 2))


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-8])
def test_reference_states(path, tolerance):
    data, system = reference(path)
    found = replace(system, solver="kpm").solve(data.spins, tolerance=tolerance)
    assert found.error <= tolerance
    assert np.abs(found.field - data.field).max() <= found.error
    assert np.abs(found.density - data.density).max() <= tolerance
    expected = data.omega if system.filling is None else data.free_energy
    assert abs(found.energy - expected) <= tolerance * system.lattice.num_sites
    assert abs(found.electrons - data.electrons) <= tolerance * system.lattice.num_sites


@pytest.mark.parametrize("estimate", ["densities", "gradient"])
def test_unit_vectors_and_1024_moments_are_exact(estimate):
    system = metal((8, 8))
    spins = random_spins(system, 1, seed=1)[0]
    exact, probes = system.solve(spins), probing(system, spins)
    units = probe_groups(unit_colouring(system.lattice), np.tile([1.0, 0.0], (64, 1)), probes.recursion.pairs)
    if estimate == "densities":
        found = probes.densities(probes.local_moments(units, 1024, 64), expansion(system, 1024))
    else:
        found = probes.gradient(units, expansion(system, 1024))
    assert perpendicular(6 * found.components[:, 1:] - exact.field.reshape(-1, 3), spins) < 1e-9
    assert np.abs(found.components[:, 0] - exact.density.reshape(-1)).max() < 1e-9
    assert found.energy == pytest.approx(exact.energy, abs=1e-9)
    assert found.potential == pytest.approx(exact.chemical_potential, abs=1e-8)


@pytest.mark.parametrize(
    "system",
    [
        metal(),
        metal(potential=-3.7),
        metal((14, 13), "triangular", exchange=3.0, filling=1.2, temperature=0.1),
        metal(hopping=(1.0, 0.2), rashba=0.3, on_site=np.linspace(-1, 1, 144).reshape(12, 12)),
    ],
    ids=["filling", "potential", "sides that fit no distance", "every term"],
)
def test_the_errors_bound_the_field_and_tell_that_of_the_energy(system):
    """On few random vectors, for several sets of phases; neither is an exaggeration."""
    spins = random_spins(system, 1, seed=3)
    exact = make_solver("diagonalization", system, 1e-9).solve(spins)
    solver, bounded, ratios, energies = KpmSolver(system, 0.1), 0, [], []
    for number in range(8):
        solver.reset()
        solver.number = number
        found = solver.solve(spins)
        actual = np.abs(found.field - exact.field).max()
        bounded += actual <= found.error[0]
        ratios.append(found.error[0] / actual)
        energies.append((found.energy_error[0], found.energy[0] - exact.energy[0]))
    assert bounded >= 7
    assert np.median(ratios) < 12
    claimed, deviation = np.sqrt(np.mean(np.square(energies), axis=0))
    assert deviation / 3 < claimed < 3 * deviation


@pytest.mark.parametrize(("tilt", "size"), [(0.2, (12, 12)), (0.3, (16, 16))], ids=["unit vectors", "random vectors"])
def test_the_error_of_the_energy_includes_what_the_series_leaves_out(tilt, size):
    """In a gap, where Jackson's kernel broadens levels: the noise alone is ten times smaller, or zero."""
    system = metal(size, "triangular", exchange=3.0, filling=0.5, temperature=0.02)
    spins = make_texture("tetrahedral", system.lattice, seed=1, tilt=tilt)[None]
    found = KpmSolver(system, 0.03).solve(spins)
    deviation = abs(found.energy[0] - make_solver("diagonalization", system, 1e-9).solve(spins).energy[0])
    assert 0.5 * deviation < found.energy_error[0] < 15 * deviation


def test_the_error_of_the_energy_is_no_smaller_where_two_series_happen_to_agree():
    system = metal((5, 4), temperature=0.1)
    spins = random_spins(system, 24, seed=3)
    found, exact = (make_solver(name, system, 0.1).solve(spins) for name in ("kpm", "diagonalization"))
    ratios = found.energy_error / np.abs(found.energy - exact.energy)
    assert ratios.min() > 1
    assert np.median(ratios) < 20


@pytest.mark.parametrize("temperature", [0.035, 0.05, 0.08])
def test_few_levels_on_which_two_series_happen_to_agree_have_no_smaller_error(temperature):
    """A ferromagnet of 6x6 sites has nine levels for each spin; the error was claimed up to 800 times too small."""
    system = metal((6, 6), exchange=1.0, temperature=temperature, filling=0.94)
    spins = system.texture("ferromagnet", tilt=0.0)[None]
    exact = make_solver("diagonalization", system, 1e-9).solve(spins)
    for tolerance in (1e-3, 1e-5):
        found = KpmSolver(system, tolerance).solve(spins)
        assert np.abs(found.field - exact.field).max() <= found.error[0] <= tolerance


@pytest.mark.parametrize(
    ("kind", "size", "periodic", "given", "tolerance"),
    [
        ("triangular", (3, 4), (False, False), {"exchange": 3.4, "temperature": 0.0105, "potential": 4.406}, 5e-3),
        ("triangular", (4, 2), (True, False), {"exchange": 1.95, "temperature": 0.036, "potential": -1.277}, 9e-6),
        ("square", (3, 4), (True, True), {"exchange": 2.62, "temperature": 0.039, "potential": 4.4236}, 2e-3),
        ("triangular", (6, 5), (True, True), {"exchange": 0.45, "temperature": 0.017, "filling": 1.053}, 1e-2),
    ],
)
def test_a_level_that_jacksons_kernel_does_not_resolve_from_mu_counts_in_the_error(
    kind, size, periodic, given, tolerance
):
    """Few levels, of ferromagnets; the error was claimed up to 50 times too small."""
    system = ClosedLattice(make_lattice(kind, size, periodic), hopping=1.0, **given)
    spins = system.texture("ferromagnet", tilt=0.0)[None]
    exact = make_solver("diagonalization", system, 1e-9).solve(spins)
    found = KpmSolver(system, tolerance).solve(spins)
    assert np.abs(found.field - exact.field).max() <= found.error[0] <= tolerance


def test_a_tolerance_is_reached_by_more_colours():
    system = metal()
    spins = random_spins(system, 1, seed=3)
    exact = make_solver("diagonalization", system, 1e-9).solve(spins)
    for tolerance in (0.1, 0.01, 1e-6):
        found = KpmSolver(system, tolerance).solve(spins)
        assert np.abs(found.field - exact.field).max() <= found.error[0] <= tolerance


def test_the_gradient_is_better_than_the_densities_of_a_metal():
    """Perpendicular components of the field; several times better with as many vectors."""
    system = metal()
    spins = random_spins(system, 1, seed=3)[0]
    exact, probes = system.solve(spins), probing(system, spins)
    vectors, series = groups(probes, colouring(system.lattice, 6)), expansion(system, 512)

    def error(estimate):
        return perpendicular(6 * estimate.components[:, 1:] - exact.field.reshape(-1, 3), spins)

    densities = probes.densities(probes.local_moments(vectors, 512, 144), series)
    assert error(probes.gradient(vectors, series)) < error(densities) / 2


@pytest.mark.parametrize("ensemble", [{"filling": 0.97}, {"potential": -4.6}])
@pytest.mark.parametrize("kernel", ["none", "jackson"])
def test_the_field_is_the_gradient_of_the_estimated_energy(ensemble, kernel):
    """However few vectors and moments there are."""
    system = metal((6, 7), **ensemble)
    spins, series, step = random_spins(system, 1, seed=5)[0], expansion(system, 64, kernel), 1e-3

    def estimate(spins):
        probes = probing(system, spins)
        return probes.gradient(groups(probes, colouring(system.lattice, 3)), series)

    field = 6 * estimate(spins).components[:, 1:].reshape(6, 7, 3)
    for site, axis in (((0, 0), 2), ((4, 3), 0), ((5, 6), 1)):
        change = np.zeros_like(spins)
        change[(*site, axis)] = step
        energies = [estimate(spins + k * change).energy for k in (-2, -1, 1, 2)]
        assert -np.array([1, -8, 8, -1]) @ energies / (12 * step) == pytest.approx(field[(*site, axis)], abs=1e-8)


def test_rotated_spins_have_rotated_fields():
    """Both spins of a site have one phase, so that noise breaks no symmetry."""
    system = metal()
    spins, rotation = random_spins(system, 1, seed=3), Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    found, turned = (KpmSolver(system, 0.1).solve(s).field for s in (spins, spins @ rotation.T))
    np.testing.assert_allclose(turned, found @ rotation.T, atol=1e-10)


def test_phases_are_keyed_by_seed_and_number():
    def field(seed, number):
        solver = KpmSolver(metal(), 0.1)
        solver.seed, solver.number = seed, number
        return solver.solve(random_spins(metal(), 1, seed=3)).field

    first = field(0, 7)
    assert np.array_equal(field(0, 7), first)
    for key in ((0, 8), (1, 7)):
        assert 1e-6 < np.abs(field(*key) - first).max() < 0.2


def test_snapshots_of_a_call_are_numbered_on():
    spins = np.repeat(random_spins(metal(), 1, seed=3), 2, axis=0)
    solver, second = KpmSolver(metal(), 0.1), KpmSolver(metal(), 0.1)
    both = solver.solve(spins)
    second.solve(spins[:1])
    second.number = 1
    assert np.array_equal(second.solve(spins[1:]).field[0], both.field[1])
    assert not np.array_equal(*both.field)


def test_a_solver_goes_on_from_its_state_and_forgets_it():
    system = metal()
    spins = random_spins(system, 1, seed=3)
    solver, other = KpmSolver(system, 0.02), KpmSolver(system, 0.02)
    first = solver.solve(spins)
    other.set_state(solver.get_state())
    second = solver.solve(spins)
    assert np.array_equal(other.solve(spins).field, second.field)
    solver.reset()
    assert np.array_equal(solver.solve(spins).field, first.field)
    for wrong in ([1, 256], [6, 300], [6, 1 << 20]):
        with pytest.raises(ValueError, match="does not belong to the solver kpm"):
            solver.set_state({"plan": np.array(wrong)})


@pytest.mark.parametrize(("size", "temperature"), [((1, 1), 0.1), ((2, 1), 0.1), ((4, 3), 30.0)])
def test_lattices_shorter_than_the_hopping_and_hot_electrons(size, temperature):
    lattice = make_lattice("triangular", size, (False, False))
    system = ClosedLattice(lattice, (1.0, 0.3, 0.2), 3.0, temperature, filling=0.7)
    spins = random_spins(system, 1, seed=3)
    exact = make_solver("diagonalization", system, 1e-9).solve(spins)
    found = KpmSolver(system, 1e-6).solve(spins)
    assert max(np.abs(part).max() for part in (found.field - exact.field, found.density - exact.density)) <= 1e-6


def test_electrons_that_see_no_spins_have_no_noise():
    system = metal(exchange=0.0, temperature=0.2)
    spins = random_spins(system, 1, seed=3)
    found, exact = KpmSolver(system, 0.1).solve(spins), make_solver("diagonalization", system, 1e-9).solve(spins)
    assert not found.field.any()
    assert np.abs(found.density - exact.density).max() < 0.1


def test_threads_do_not_change_results(monkeypatch):
    spins = random_spins(metal(), 1, seed=3)
    alone = KpmSolver(metal(), 0.1).solve(spins)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert np.array_equal(KpmSolver(metal(), 0.1).solve(spins).field, alone.field)


def test_without_a_compiler_arrays_compute(monkeypatch):
    system = metal((7, 6), temperature=0.2)
    spins = random_spins(system, 1, seed=3)
    compiled = KpmSolver(system, 0.1).solve(spins)
    monkeypatch.setattr(module, "library", lambda: None)
    found = KpmSolver(system, 0.1).solve(spins)
    np.testing.assert_allclose(found.field, compiled.field, atol=1e-9)


def test_temperatures_that_no_series_resolves_are_refused(monkeypatch):
    with pytest.raises(HpcspinError, match=r"electrons.temperature: 1e-05 needs more than \d+ Chebyshev moments"):
        KpmSolver(metal(temperature=1e-5), 1e-3)
    monkeypatch.setattr(module, "MOST_MOMENTS", 1024)
    cold = metal((4, 4), temperature=0.01)
    with pytest.raises(HpcspinError, match=r"0.01 needs more than 1024 .*; raise .* or choose diagonalization"):
        KpmSolver(cold, 1e-6).solve(random_spins(cold, 1, seed=3))


def test_driven_lattices_are_refused():
    with pytest.raises(HpcspinError, match="kpm is for a closed lattice"):
        KpmSolver(SimpleNamespace(described="a driven lattice", default_solver="negf"), 1e-3)


def test_dynamics_key_the_phases_by_seed_and_step_and_go_on_with_the_same_bits(monkeypatch, tmp_path):
    """All stages of a step have the same phases; a run in two parts has the bits of one that was not interrupted."""
    system = metal(temperature=0.2, solver="kpm", tolerance=0.2)
    keys, solve = [], KpmSolver.solve

    def noted(self, spins):
        keys.append((self.seed, self.number))
        return solve(self, spins)

    monkeypatch.setattr(KpmSolver, "solve", noted)
    given = {"spins": random_spins(system, 1, seed=3)[0], "damping": 0.5, "step": 0.5, "seed": 5, "integrator": "heun"}
    whole = hs.simulate(system, duration=1.5, path=tmp_path / "whole", **given)
    assert set(keys) == {(5, 0), (5, 1), (5, 2), (5, 3)}
    assert [keys.count((5, step)) for step in range(3)] == [2, 2, 2]
    for duration in (1.0, 1.5):
        parted = hs.simulate(system, duration=duration, path=tmp_path / "parts", **given)
    assert np.array_equal(parted.spins, whole.spins)
    assert np.array_equal(parted.energy, whole.energy)
    assert np.array_equal(parted.energy_error, whole.energy_error)
    assert np.all(whole.energy_error > 0)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_do_not_change_results(on_ranks, ranks):
    alone, many = on_ranks("kpm_script", ranks)
    assert all(np.array_equal(many[key], alone[key]) for key in alone)
