"""The whole solver as it runs on a card: CuPy's arrays, batched routines or the fused kernel, streams, copies."""

from __future__ import annotations

import numpy as np
import pytest
from pretend_cupy import Card
from systems import driven, from_reference, random_spins

from hpcspin.electrons import ClosedLattice, RecursiveSolver, transmission
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.diagonalization import DiagonalizationSolver
from hpcspin.electrons.fused import Autotuned
from hpcspin.electrons.hamiltonian import layer_blocks
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

SYSTEMS = {
    "square": driven("square", (6, 4), left=(0.7, -2.9), right=(0.4, 0.3), bath=(0.02, 0.3)),
    "both ends, polarised": driven(
        "square", (5, 3), left=(1.0, 1.0, (0.6, 0, 0.5)), right=(0.8, -1.0, (0, -1, 0)), bath=(0.02, 0.0)
    ),
    "triangular": driven("triangular", (5, 3), periodic_y=False, left=(1.0, -2.0), right=(0.6, 1.0), bath=(0.05, 0.0)),
    "two potentials on one column": driven(
        "square", (5, 4), left=(1.0, -1.0), corner=(0.6, 1.0, (0.9, 0, 0)), bath=(0.05, 0.0)
    ),
    "electrode in the middle": driven("square", (5, 3), left=(1.0, 0.0), middle=(0.5, -2.0), bath=(0.05, 0.0)),
}
SQUARE = SYSTEMS["square"]


def deviation(system, solver: RecursiveSolver) -> float:
    """Largest difference of a field, density or current of two snapshots from the CPU's in double precision."""
    spins = random_spins(system, 2, seed=4)
    found, expected = solver.solve(spins), RecursiveSolver(system, solver.tolerance).solve(spins)
    return max(np.abs(getattr(found, key) - getattr(expected, key)).max() for key in ("field", "density", "current"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_batched_routines_on_a_card_give_the_labels_of_the_cpu(card: Card, name: str) -> None:
    solver = RecursiveSolver(SYSTEMS[name], 1e-9, device="cuda:0")
    assert solver.backend.name == "cupy"
    assert deviation(SYSTEMS[name], solver) < 1e-10


SMALL = {
    "square": driven("square", (3, 3), temperature=0.2, left=(1.0, -0.5), right=(0.5, 0.6), bath=(0.4, 0.0)),
    "two potentials on one column": driven(
        "square", (3, 3), temperature=0.2, left=(1.0, -0.5, (0.6, 0, 0.8)), corner=(0.6, 0.5), bath=(0.4, 0.0)
    ),
}


def on_kernels(system, tolerance: float, precision: str, monkeypatch) -> RecursiveSolver:
    """A solver whose windows all take the fused kernel, whatever is faster."""
    monkeypatch.setattr(Autotuned, "choose", lambda self, kind, first, second, case, world: None)
    monkeypatch.setattr(Autotuned, "__call__", lambda self, kind, first, second: second())
    solver = RecursiveSolver(system, tolerance, device="cuda:0", precision=precision)
    assert solver.windows
    assert all(list(window.source._fused) == [precision] for window in solver.windows)
    return solver


@pytest.mark.parametrize("name", SMALL)
def test_the_fused_kernel_gives_the_labels_of_the_cpu(kernels: Card, name: str, monkeypatch) -> None:
    solver = on_kernels(SMALL[name], 1e-4, "complex128", monkeypatch)
    assert deviation(SMALL[name], solver) < 1e-10


def test_single_precision_on_a_card_stays_within_its_estimate(kernels: Card, monkeypatch) -> None:
    solver = on_kernels(SMALL["square"], 1e-3, "complex64", monkeypatch)
    assert 1e-9 < deviation(SMALL["square"], solver) < 1e-3


@pytest.mark.parametrize("vacancies", [None, (2, 1)])
def test_closed_lattices_are_diagonalised_on_a_card_several_at_a_time(card: Card, vacancies) -> None:
    lattice = make_lattice("square", (4, 3), (True, True))
    missing = None if vacancies is None else np.arange(12).reshape(4, 3) == 3 * vacancies[0] + vacancies[1]
    system = ClosedLattice(lattice, 1.0, 3.0, 0.1, filling=0.8, vacancies=missing)
    spins = random_spins(system, 3, seed=4)
    solver, host = (DiagonalizationSolver(system, 1e-6, device=device) for device in ("cuda:0", "cpu"))
    assert solver.backend.name == "cupy"
    assert solver._at_once > 1
    found, expected = solver.solve(spins), host.solve(spins)
    for key in ("field", "density", "energy", "chemical_potential"):
        assert np.abs(getattr(found, key) - getattr(expected, key)).max() < 1e-10


def test_a_card_meets_the_reference(reference, card: Card) -> None:
    content = reference("square_random_6x4")
    state = RecursiveSolver(from_reference(content), 1e-8, device="cuda:0").solve(content["spins"][None])
    for key, value in (("field", state.field), ("density", state.density), ("currents", state.current)):
        assert np.abs(value[0] - content[key]).max() < 1e-7


def test_a_singular_energy_between_the_potentials_is_named(card: Card) -> None:
    """CuPy gives a matrix that is not finite instead of an error."""
    solver = RecursiveSolver(SQUARE, 1e-6, device="cuda:0")
    solver.equilibrium.solve = lambda blocks, spins, world: (np.zeros((2, 6, 4, 4)), np.zeros(2))
    card.singular = 200
    with pytest.raises(HpcspinError, match=r"snapshot [01] is singular between -?[0-9.]+ and .* no reservoir; add"):
        solver.solve(random_spins(SQUARE, 2, seed=4))


def test_rounding_that_is_not_finite_is_not_taken_for_an_error(card: Card, monkeypatch) -> None:
    monkeypatch.setattr("hpcspin.electrons.window.WindowIntegral._rounding", lambda *_: np.array([[0.0, np.nan]] * 2))
    solver = RecursiveSolver(SQUARE, 1e-3, device="cuda:0", precision="complex64")
    with pytest.raises(HpcspinError, match="snapshot 1: the Green's function is singular"):
        solver.solve(random_spins(SQUARE, 2, seed=4))


@pytest.mark.parametrize("name", ["square", "triangular", "electrode in the middle"])
def test_transmissions_on_a_card_are_those_of_the_cpu(card: Card, name: str) -> None:
    system, energies = SYSTEMS[name], np.linspace(-2, 1, 5)
    spins = random_spins(system, 1, seed=3)[0]
    found = transmission(system, spins, energies, device="cuda:0")
    assert np.abs(found - transmission(system, spins, energies)).max() < 1e-12
    card.singular = 3
    with pytest.raises(HpcspinError, match=r"singular at the energy -?[0-9.]+: .* add a bath"):
        transmission(system, spins, energies, device="cuda:0")


def test_a_green_function_that_is_not_finite_in_equilibrium_is_named(card: Card) -> None:
    solver = RecursiveSolver(SQUARE, 1e-6, device="cuda:0")
    card.singular = 5
    with pytest.raises(HpcspinError, match="not finite at the Matsubara frequencies"):
        solver.solve(random_spins(SQUARE, 2, seed=4))


def test_the_equilibrium_part_leaves_the_card_once(card: Card) -> None:
    """Three vectors of components a snapshot, and the errors of intervals; in few calls a column."""
    solver = RecursiveSolver(SQUARE, 1e-6, device="cuda:0")
    spins = random_spins(SQUARE, 2, seed=4)
    blocks = layer_blocks(SQUARE, spins, solver.backend)
    card.calls = card.downloaded = 0
    solver.equilibrium.solve(blocks, spins, solver.world)
    assert card.downloaded < 8 * (3 * len(spins) * 4 * SQUARE.lattice.num_sites + 100)
    assert card.calls <= 264


@pytest.mark.parametrize(("place", "number"), [("cuda:2", 2), ("cuda", 1)])
def test_cupy_computes_on_the_card_of_torch(card: Card, monkeypatch, place: str, number: int) -> None:
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert make_backend("auto", place).device == number
    assert card.used[-1] == number
