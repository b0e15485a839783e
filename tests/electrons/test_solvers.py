"""Promises of the solvers: honest errors, grids that are carried over, ranks, backends, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from systems import driven, random_spins

from hpcspin.electrons import ClosedFormSolver, DrivenLattice, RecursiveSolver, Reservoir, make_solver
from hpcspin.electrons.backend import Backend, make_backend
from hpcspin.electrons.fermi import psi, psi_of_sites
from hpcspin.electrons.hamiltonian import effective_hamiltonian, layer_blocks, make_coupling
from hpcspin.electrons.host_kernels import transfer
from hpcspin.electrons.memory import plan_batches
from hpcspin.electrons.model import site_matrices
from hpcspin.electrons.negf import touches_all_levels
from hpcspin.electrons.onsite import hermitian_sites, occupation
from hpcspin.electrons.quadrature import Integrand, integrate
from hpcspin.electrons.recursion import GroupedColumns, first_columns, right_connected
from hpcspin.electrons.rules import GAUSS, KRONROD, MORE_NODES, MORE_PATTERSON, NODES, PATTERSON
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World

WALL = driven("square", (10, 4), exchange=3.8, temperature=0.01, left=(1.0, -3.2), right=(1.0, 0.0), bath=(0.001, 0.0))


def wall_spins(seed: int = 1):
    return make_texture("wall", WALL.lattice, seed, position=5, tilt=0.1)[None]


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
def test_the_error_estimate_is_honest(tolerance):
    spins = np.concatenate([wall_spins(1), wall_spins(2), random_spins(WALL, 1, seed=3)])
    exact = ClosedFormSolver(WALL, 1e-9).solve(spins)
    state = RecursiveSolver(WALL, tolerance).solve(spins)
    true = np.abs(state.field - exact.field).max(axis=(1, 2, 3))
    assert np.all(true <= state.error + exact.error)
    assert np.all(state.error <= tolerance)


def level_behind_a_barrier(seed: int, bath: float):
    """One site whose levels tunnel to the electrodes, so that its peaks may fit between two energies."""
    draw = np.random.default_rng(seed)
    length = int(draw.integers(4, 9))
    lattice = make_lattice("square", (length, 1), (False, False))
    levels = np.zeros((length, 1))
    levels[1:-1] = draw.uniform(2, 8)
    levels[int(draw.integers(2, length - 1))] = draw.uniform(-3, -0.2)
    baths = [Reservoir("bath", lattice.mask("all"), bath, 0.0)] if bath else []
    ends = [Reservoir(end, lattice.mask(end), 1.0, mu) for end, mu in (("left", -3.2), ("right", 0.0))]
    return DrivenLattice(lattice, 1.0, 1.0, 0.01, (*ends, *baths), on_site=levels)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize("bath", [0.0, 1e-5, 1e-4, 1e-3])
def test_the_error_estimate_knows_of_levels_between_the_energies(bath, tolerance):
    for seed in range(8):
        system = level_behind_a_barrier(seed, bath)
        spins = random_spins(system, 1, seed=seed)
        exact = ClosedFormSolver(system, 1e-5).solve(spins)
        state = RecursiveSolver(system, tolerance).solve(spins)
        assert np.abs(state.field - exact.field).max() <= state.error[0] + exact.error[0]


def tip_contacts(**given):
    """A ferromagnet under two tips: levels with a node on their row touch neither of them."""
    lattice = make_lattice("square", (3, 4))
    tips = [Reservoir(f"tip {x}", lattice.mask([(x, 0)]), 0.5, mu) for x, mu in ((0, -1.0), (2, 1.0))]
    return DrivenLattice(lattice, 1.0, 1.0, 0.1, tuple(tips), **given)


def triangular_ferromagnet():
    """Its levels of transverse momentum pi have no hopping between the columns: inner ones touch no electrode."""
    return driven("triangular", (4, 4), periodic_y=True, left=(1.0, -1.0), right=(1.0, 1.0))


@pytest.mark.parametrize("solver", [RecursiveSolver, ClosedFormSolver])
@pytest.mark.parametrize("system", [tip_contacts(), triangular_ferromagnet()], ids=["tips", "triangular"])
def test_levels_that_no_reservoir_touches_are_refused_and_others_are_not(system, solver):
    ferromagnet, several = np.zeros((1, *system.lattice.size, 3)), random_spins(system, 2, seed=1)
    ferromagnet[..., 2] = 1
    with pytest.raises(HpcspinError, match="level is coupled to no reservoir"):
        solver(system, 1e-5).solve(np.concatenate([several, ferromagnet]))
    exact = ClosedFormSolver(system, 1e-9).solve(several)
    assert np.abs(solver(system, 1e-5).solve(several).density - exact.density).max() <= 1e-5


@pytest.mark.parametrize(
    ("kind", "rows", "periodic"),
    [("square", 1, False), ("square", 6, True), ("triangular", 6, False), ("triangular", 5, True)],
)
def test_electrodes_on_all_of_an_end_touch_all_levels(kind, rows, periodic):
    system = driven(kind, (4, rows), periodic_y=periodic, left=(1.0, -1.0), right=(0.0, 0.0))
    assert touches_all_levels(system, RecursiveSolver(system, 1e-6).columns)
    assert np.linalg.eigvals(effective_hamiltonian(system, np.zeros((4, rows, 3)))).imag.max() < -1e-6


def test_the_window_reaches_beyond_all_of_many_close_potentials():
    lattice = make_lattice("square", (40, 1), (False, False))
    baths = [Reservoir(f"bath {x}", lattice.mask([(x, 0)]), 0.1, 1.5e-4 * x) for x in range(40)]
    grid = RecursiveSolver(DrivenLattice(lattice, 1.0, 1.0, 0.01, tuple(baths)), 1e-6).windows[0].first_grid
    assert np.isclose(grid[-1] - baths[-1].potential, -grid[0])


def test_an_energy_interval_that_does_not_converge_is_named():
    system = driven(
        "square", (9, 4), exchange=6.0, temperature=0.01, periodic_y=True, left=(1.0, -5.0), bath=(1e-13, 0.0)
    )
    spins = make_texture("antiferromagnet", system.lattice, 1, tilt=0.0)
    spins[6:] = (1.0, 0.0, 0.0)
    with pytest.raises(HpcspinError, match=r"snapshot 0 does not converge between -?[0-9.]+ and -?[0-9.]+"):
        RecursiveSolver(system, 1e-9).solve(spins[None])


def test_a_discontinuity_is_found_where_it_is():
    step = Integrand(lambda x, _: np.sign(x - 0.3)[:, None], 1, 1, 1.0, 210)
    with pytest.raises(HpcspinError, match=r"between 0\.3 and 0\.3|between 0\.29999\d* and 0\.3"):
        integrate(step, [np.array([0.0, 1.0])], 1e-14, World(), make_backend("numpy"))


def test_rules_are_exact_to_their_degrees():
    all_nodes, patterson = np.concatenate([NODES, MORE_NODES]), np.concatenate([PATTERSON, MORE_PATTERSON])
    for nodes, weights, degree in ((NODES, GAUSS, 19), (NODES, KRONROD, 31), (all_nodes, patterson, 65)):
        powers = np.arange(degree + 1)
        exact = np.where(powers % 2, 0, 2 / (powers + 1))
        assert np.abs(weights @ nodes[:, None] ** powers - exact).max() < 1e-14
        # One degree more is not exact: the weights are those of these rules and of no longer one.
        assert abs(weights @ nodes ** (degree + 1) - 2 / (degree + 2)) > 1e-14 or degree == 65


def test_integrals_of_needles_are_certified_with_fewer_nodes_than_bisection(monkeypatch):
    """Lorentzians between two edges, against the arctangents they are the derivatives of."""
    centres, widths = np.array([-0.31, 0.123, 0.127, 0.8]), np.array([0.05, 0.002, 0.3, 0.01])
    lorentzians = Integrand(lambda x, _: widths / ((x[:, None] - centres) ** 2 + widths**2), 4, 4, 1.0, 210)
    edges = np.linspace(-1, 1, 5)
    exact = np.arctan((1 - centres) / widths) + np.arctan((1 + centres) / widths)
    found = integrate(lorentzians, [edges, edges], 1e-8, World(), make_backend("numpy"))
    assert np.abs(found.values - exact).max() < found.errors.min() < 1e-8
    assert set(found.intervals.points) == {21, 43}
    monkeypatch.setattr("hpcspin.electrons.quadrature._PROMISE", 0.0)
    halved = integrate(lorentzians, [edges, edges], 1e-8, World(), make_backend("numpy"))
    assert set(halved.intervals.points) == {21}
    assert found.evaluations < 0.85 * halved.evaluations


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-8])
def test_sums_of_components_have_errors_of_their_own(tolerance):
    widths, sums = np.array([0.02, 0.0201, 0.0202]), np.array([[1.0], [1.0], [1.0]])
    needles = Integrand(lambda x, _: widths / ((x[:, None] - 0.1) ** 2 + widths**2), 3, 3, 1.0, 210, derive=sums)
    exact = np.arctan(0.9 / widths) + np.arctan(1.1 / widths)
    found = integrate(needles, [np.array([-1.0, 1.0])], tolerance, World(), make_backend("numpy"))
    assert found.errors[0] <= tolerance
    assert np.abs((found.values - exact) @ sums).max() <= found.derived[0] <= 4 * found.errors[0]


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_sum_over_matsubara_frequencies_is_certified_at_any_temperature(temperature, tolerance):
    """In equilibrium nothing else contributes: against the closed form's digamma functions."""
    system = driven("square", (6, 3), temperature=temperature, left=(1.0, -0.3), right=(0.6, -0.3), bath=(0.01, -0.3))
    spins = random_spins(system, 2, seed=21)
    found, exact = RecursiveSolver(system, tolerance).solve(spins), ClosedFormSolver(system, 1e-10).solve(spins)
    assert np.all(np.abs(found.field - exact.field).max(axis=(1, 2, 3)) < found.error + 1e-11)
    assert np.all(found.error < tolerance)


def test_grids_of_the_previous_snapshot_change_cost_and_not_results():
    solver = RecursiveSolver(WALL, 1e-7)
    solver.solve(wall_spins(1))
    first = solver.evaluations
    spins = wall_spins(1) + 0.01 * np.random.default_rng(0).standard_normal(wall_spins(1).shape)
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    warm = solver.solve(spins)
    assert solver.evaluations - first < first
    cold = RecursiveSolver(WALL, 1e-7).solve(spins)
    assert np.abs(warm.field - cold.field).max() <= (warm.error + cold.error)[0]


def test_a_restored_solver_repeats_the_uninterrupted_one_bit_for_bit():
    solver = RecursiveSolver(WALL, 1e-6)
    solver.solve(wall_spins(1))
    restored = RecursiveSolver(WALL, 1e-6)
    restored.set_state(solver.get_state())
    assert np.array_equal(solver.solve(wall_spins(2)).field, restored.solve(wall_spins(2)).field)
    fresh = RecursiveSolver(WALL, 1e-6).solve(wall_spins(2))
    solver.reset()
    assert np.array_equal(solver.solve(wall_spins(2)).field, fresh.field)


def test_snapshots_solved_together_equal_snapshots_solved_alone():
    spins = np.concatenate([wall_spins(1), random_spins(WALL, 1, seed=3), wall_spins(2)])
    together = RecursiveSolver(WALL, 1e-7).solve(spins)
    for i in range(3):
        alone = RecursiveSolver(WALL, 1e-7).solve(spins[i : i + 1])
        assert np.abs(alone.field[0] - together.field[i]).max() < 1e-10
        assert np.abs(alone.current[0] - together.current[i]).max() < 1e-10


@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_numpy_and_torch_agree(kind):
    system = driven(
        kind, (5, 3), periodic_y=False, left=(1.0, -2.0), right=(0.4, 0.3), middle=(0.3, 1.0), bath=(0.02, 0.0)
    )
    spins = random_spins(system, 2, seed=4)
    one, other = (RecursiveSolver(system, 1e-7, backend=name).solve(spins) for name in ("numpy", "torch"))
    assert np.abs(one.field - other.field).max() < 1e-11
    assert np.abs(one.current - other.current).max() < 1e-11


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_gpu_equals_cpu(name):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    if name == "cupy":
        pytest.importorskip("cupy", reason="CuPy is not installed")
    for middle in ({}, {"middle": (0.3, 1.0)}):
        system = driven("triangular", (6, 4), left=(1.0, -2.0), right=(0.4, 0.3), bath=(0.02, 0.0), **middle)
        spins = random_spins(system, 2, seed=4)
        device = RecursiveSolver(system, 1e-7, device="cuda", backend=name).solve(spins)
        host = RecursiveSolver(system, 1e-7).solve(spins)
        assert np.abs(device.field - host.field).max() < 1e-10


@pytest.mark.mpi
def test_ranks_do_not_change_results(on_ranks):
    alone, many = on_ranks("ranks_script", 3)
    assert all(np.abs(many[key] - alone[key]).max() < 1e-12 for key in alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bath": (-0.1, 0.0)}, "reservoir 'bath': width -0.1"),
        ({"bath": (float("nan"), 0.0)}, "reservoir 'bath': width nan"),
        ({"left": (1.0, -2.0, (0.8, 0.8, 0))}, "reservoir 'left': polarization"),
        ({"left": (1.0, float("inf"))}, "reservoir 'left': potential inf"),
        ({"left": (1.0, -2000.0)}, "window would be absurd"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"hopping": 0.0}, "hopping 0.0"),
        ({"exchange": float("nan")}, "exchange nan"),
        ({"left": (0.0, 0.0), "bath": (0.0, 0.0)}, "no reservoir has a width"),
    ],
)
def test_bad_systems_are_refused_in_one_line(change, message):
    with pytest.raises(HpcspinError, match=message) as failure:
        driven(**{"left": (1.0, -2.0), "bath": (0.01, 0.0), **change})
    assert "\n" not in str(failure.value)


def test_bad_reservoirs_are_refused():
    lattice = make_lattice("square", (4, 3))
    with pytest.raises(HpcspinError, match="touches no site"):
        Reservoir("lost", np.zeros((4, 3), bool), 1.0, 0.0)
    bath = Reservoir("bath", np.ones((4, 3), bool), 0.1, 0.0)
    with pytest.raises(HpcspinError, match="same name"):
        DrivenLattice(lattice, 1.0, 1.0, 0.1, (bath, bath))
    with pytest.raises(HpcspinError, match="mask has shape"):
        DrivenLattice(make_lattice("square", (5, 3)), 1.0, 1.0, 0.1, (bath,))


def test_bad_calls_are_refused():
    with pytest.raises(HpcspinError, match=r"electrons.tolerance: 'abc' must be a finite number"):
        make_solver("closed_form", WALL, "abc")
    with pytest.raises(HpcspinError, match="do not fit a lattice"):
        RecursiveSolver(WALL, 1e-6).solve(np.zeros((1, 4, 4, 3)))
    spins = wall_spins()
    spins[0, 2, 1, 0] = np.nan
    with pytest.raises(HpcspinError, match="not finite"):
        RecursiveSolver(WALL, 1e-6).solve(spins)
    with pytest.raises(HpcspinError, match="tolerance"):
        RecursiveSolver(WALL, 0.0)
    with pytest.raises(HpcspinError, match="'magic' is unknown"):
        make_solver("magic", WALL, 1e-6)
    with pytest.raises(HpcspinError, match=r"temperature: at 300 the .*check the unit.*solver=closed_form"):
        make_solver("negf", replace(WALL, temperature=300.0), 1e-6)  # Kelvin; hours of energies, without a message.
    ring = driven("square", (4, 3), periodic_x=True, bath=(0.1, 0.0))
    with pytest.raises(HpcspinError, match="closed_form"):
        make_solver("negf", ring, 1e-6)
    assert make_solver("closed_form", ring, 1e-6).solve(random_spins(ring, 1, seed=1)).error[0] < 1e-6


def test_the_closed_form_names_an_exceptional_point():
    # Of two sites the level [0, -1; -1, -2i] is twofold, with one eigenvector.
    lattice, spins = make_lattice("square", (2, 1), (False, False)), np.zeros((1, 2, 1, 3))
    spins[..., 2] = 1
    states = []
    for width in (2.0, 2.001):
        system = DrivenLattice(lattice, 1.0, 1.0, 0.1, [Reservoir("left", lattice.mask("left"), width, 0.0)])
        states.append(make_solver("negf", system, 1e-6).solve(spins))
        if width == 2.0:
            with pytest.raises(HpcspinError, match=r"exceptional point\), .* set electrons\.solver=negf"):
                make_solver("closed_form", system, 1e-6).solve(spins)
    np.testing.assert_allclose(states[1].field, make_solver("closed_form", system, 1e-6).solve(spins).field, atol=1e-6)
    np.testing.assert_allclose(states[0].field, states[1].field, atol=1e-3)


def test_a_lattice_that_does_not_fit_says_what_would(monkeypatch):
    monkeypatch.setattr(Backend, "free_memory", lambda self: 10**6)
    with pytest.raises(HpcspinError, match=r"needs [0-9.]+ GiB"):
        plan_batches(WALL, make_backend("numpy"))


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5, 0.0])
def test_matrix_function_of_nearly_defective_sites(size):
    """psi(a + b·sigma) is continuous where b·b -> 0 and the site has one eigenvector only."""
    rng = np.random.default_rng(5)
    scalar = -0.3 - 0.5j
    vector = np.array([0.3, 0.3j, 0.0]) + size * (rng.standard_normal(3) + 1j * rng.standard_normal(3)) * 0.1
    mean, slope = psi_of_sites(np.array([scalar]), vector[None], 0.1, 0.05)
    contour = 0.4 * np.exp(2j * np.pi * np.arange(4000) / 4000)
    matrix = site_matrices(np.array([0, 0, 0, 0])) + scalar * np.eye(2)
    matrix = matrix + np.einsum("k,kab->ab", vector, site_matrices(np.eye(4)[1:]))
    resolvent = np.linalg.inv((scalar + contour)[:, None, None] * np.eye(2) - matrix)
    exact = np.mean(psi(scalar + contour, 0.1, 0.05)[:, None, None] * resolvent * contour[:, None, None], axis=0)
    built = mean[0] * np.eye(2) + slope[0] * np.einsum("k,kab->ab", vector, site_matrices(np.eye(4)[1:]))
    assert np.abs(built - exact).max() < 1e-9


class OnGpu(Backend):
    """A backend whose array-API code path is taken, as on a GPU."""

    on_gpu = True


@pytest.mark.parametrize("kind", [Backend, OnGpu])
@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
def test_groups_of_columns_share_an_inversion_and_change_nothing(length, library, kind):
    """Against the recursion with one inversion a column, at energies inside and outside of the band."""
    spins = np.concatenate([wall_spins(1), random_spins(WALL, 1, seed=2)])
    backend = kind(**vars(make_backend(library)))
    xp, coupling = backend.xp, make_coupling(WALL, backend)
    blocks = layer_blocks(WALL, spins, backend)
    energies = backend.asarray(np.array([-3.1, -0.4, 0.7, 2.0, 9.0]) + 0j)
    snapshots = backend.asarray(np.array([0, 1, 1, 0, 1]))
    source = backend.asarray(np.random.default_rng(2).standard_normal((blocks.shape[-1], 3)) + 0j)
    weights = backend.asarray(np.random.default_rng(3).standard_normal((5, 2)))
    connected = right_connected(blocks, energies, coupling, snapshots)
    grouped = GroupedColumns(blocks, energies, coupling, snapshots, length)
    groups = grouped.connect()
    for start, stops in ((None, np.array([0, 4, 8])), (source, np.array([0, 1, 3]))):
        columns = first_columns(connected, coupling, start)
        plain = xp.stack([occupation(xp, column, stops, weights) for column in columns], axis=1)
        found = grouped.occupations(groups, start, stops, weights)
        assert float(xp.max(xp.abs(found - plain))) < 1e-15 * 12**length * float(xp.max(xp.abs(plain)))
    assert float(xp.max(xp.abs(groups[0].first - connected[0]))) < 1e-15 * 12**length
    assert len(groups) == -(-blocks.shape[1] // length)


@pytest.mark.parametrize(("rows", "periodic"), [(1, False), (2, False), (5, False), (3, True), (6, True)])
def test_transfer_through_layers_of_any_width(rows, periodic):
    """The kernel's neighbours along y are those of the layer blocks."""
    system = driven("square", (4, rows), periodic_y=periodic, left=(1.0, -1.0), right=(0.5, 0.6), bath=(0.3, 0.0))
    backend = make_backend("numpy")
    blocks = layer_blocks(system, random_spins(system, 1, seed=4), backend)
    energies = np.array([-0.9, 0.1, 0.4 + 0j])
    beyond = np.random.default_rng(5).standard_normal((3, 2 * rows, 2 * rows)) + 0j
    near, far = np.eye(2 * rows), beyond
    for x in (3, 2, 1):
        near, far = (blocks[0, x] - energies[:, None, None] * np.eye(2 * rows)) @ near - far, near
    first, before = transfer(blocks[:, 1:], np.zeros(3, dtype=np.int64), energies, periodic, beyond)
    assert np.abs(first - far).max() < 1e-12
    assert np.abs(before - near).max() < 1e-12


@pytest.mark.parametrize("tolerance", [1e-9, 1e-6, 1e-4])
def test_rounding_in_groups_stays_within_its_part_of_the_tolerance(tolerance):
    """On metal, where it is largest; against one column a group."""
    system = driven("square", (24, 4), left=(1.0, -3.2), right=(1.0, 0.0), bath=(0.001, 0.0))
    spins = make_texture("ferromagnet", system.lattice, 1, tilt=0.1)[None]
    solver, plain = (RecursiveSolver(system, tolerance) for _ in range(2))
    for window in plain.windows:
        window.source._group = 1
    assert solver.windows[0].source._group >= 3
    assert np.abs(solver.solve(spins).field - plain.solve(spins).field).max() < 0.01 * tolerance


@pytest.mark.parametrize(
    ("columns", "tolerance", "bath"), [(26, 0.1, 1e-3), (24, 1e-2, 1e-3), (20, 1e-4, 1e-3), (8, 1e-2, 0.0)]
)
def test_rounding_in_groups_takes_no_more_energies(columns, tolerance, bath):
    """On metal with a weak bath, where the error estimate multiplies all that the energies see; one column a group."""
    reservoirs = {"left": (1.0, -3.2), "right": (1.0, 0.0), "bath": (bath, 0.0)}
    system = driven("square", (columns, 4), exchange=3.8, temperature=0.02, **reservoirs)
    spins = make_texture("ferromagnet", system.lattice, 1, tilt=0.1)[None]
    solver, plain = (RecursiveSolver(system, tolerance) for _ in range(2))
    plain.windows[0].source._group = 1
    for one in (solver, plain):
        one.solve(spins)
    assert solver.evaluations <= 1.1 * plain.evaluations


@pytest.mark.parametrize("width", [1e-3, 1e-6, 1e-9])
def test_groups_of_columns_at_levels_as_sharp_as_weak_reservoirs(width):
    """Nearly singular: on top of the sharpest levels, where the Green's function is as large as 1 / width.

    Against the dense inverse, whose own error grows as the condition of the matrix.
    """
    system = driven("square", (8, 4), exchange=3.8, left=(width, -3.2), bath=(width, 0.0))
    spins = make_texture("antiferromagnet", system.lattice, 1, tilt=0.1)[None]
    matrix = effective_hamiltonian(system, spins[0])
    levels = np.linalg.eigvals(matrix)
    energies = levels[np.argsort(-levels.imag)[:4]].real + 0j
    dense = np.linalg.inv(energies[:, None, None] * np.eye(len(matrix)) - matrix)
    backend = make_backend("torch")
    grouped = GroupedColumns(
        layer_blocks(system, spins, backend), backend.asarray(energies), make_coupling(system, backend), None, 4
    )
    ones = backend.asarray(np.ones((4, 1)))
    found = grouped.occupations(grouped.connect(), None, np.array([0, 8]), ones).numpy()
    exact = hermitian_sites(np, dense[:, :, :8] @ dense[:, :, :8].conj().swapaxes(1, 2)).reshape(found.shape)
    condition = np.linalg.cond(energies[:, None, None] * np.eye(len(matrix)) - matrix)
    assert condition.max() > 0.1 / width
    relative = np.abs(found - exact).max(axis=(1, 2, 3)) / np.abs(exact).max(axis=(1, 2, 3))
    assert np.all(relative < 1e-13 * condition)
