"""Sites without electrons and spins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from systems import driven, random_spins

import hpcspin as hs
from hpcspin.electrons import (
    ClosedFormSolver,
    ClosedLattice,
    RecursiveSolver,
    grand_potential,
    make_solver,
    transmission,
)
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

DRIVEN = {"left": (1.0, -2.0, (0.3, 0.0, 0.4)), "right": (0.6, 0.4), "bath": (0.05, 0.1)}


def with_vacancies(system, *sites):
    return replace(system, vacancies=system.lattice.mask(sites))


def last_columns(system, count):
    return with_vacancies(system, *[(x, y) for x in range(5 - count, 5) for y in range(4)])


@pytest.mark.parametrize("solver", [ClosedFormSolver, RecursiveSolver])
@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_columns_of_vacancies_are_a_shorter_lattice(solver, kind):
    longer, shorter = (driven(kind, (x, 4), left=(1.0, -2.0), bath=(0.05, 0.1)) for x in (5, 3))
    cut = last_columns(longer, 2)
    spins = random_spins(cut, 1, seed=1)
    ours, theirs = solver(cut, 1e-8).solve(spins), solver(shorter, 1e-8).solve(spins[:, :3])
    for name in ("field", "density"):
        assert np.abs(getattr(ours, name)[:, :3] - getattr(theirs, name)).max() < 2e-8
        assert not getattr(ours, name)[:, 3:].any()
    assert np.abs(ours.current - theirs.current).max() < 1e-8
    assert replace(cut, vacancies=None).widths.sum() == pytest.approx(longer.widths.sum())
    energies = np.array([-1.0, 0.4])
    assert transmission(cut, spins[0], energies) == pytest.approx(
        transmission(shorter, spins[0, :3], energies), abs=1e-10
    )


@pytest.mark.parametrize("changes", [{}, {"rashba": 0.3}, {"hopping": (1.0, 0.2)}])
def test_both_solvers_see_the_same_holes_whatever_stands_there(changes):
    system = with_vacancies(replace(driven("square", (6, 4), **DRIVEN), **changes), (0, 1), (2, 2), (3, 2), (5, 0))
    spins, other = random_spins(system, 2, seed=2)
    other = np.where(system.occupied[..., None], spins, other)
    exact = ClosedFormSolver(system, 1e-9).solve(spins[None])
    recursive = RecursiveSolver(system, 1e-8).solve(other[None])
    assert np.abs(exact.field - recursive.field).max() < 2e-8
    assert np.abs(exact.current - recursive.current).max() < 1e-7
    assert np.abs(exact.current.sum()) < 1e-12


def test_a_hole_carries_no_current_and_both_continuities_hold_around_it():
    system = with_vacancies(driven("square", (5, 4), **DRIVEN), (2, 1), (0, 3))
    spins = random_spins(system, 1, seed=3)[0]
    found, state = system.transport(spins, [0.2]), system.solve(spins, solver="closed_form")
    from test_transport import inflow

    charge = inflow(system.lattice, system.hopping_terms, found.bond_current) + found.injected.sum(axis=0)
    spin = inflow(system.lattice, system.hopping_terms, found.bond_spin_current) + found.injected_spin.sum(axis=0)
    assert np.abs(charge).max() < 1e-10
    assert np.abs(spin - np.cross(spins, state.field)).max() < 1e-10
    for values in (found.bond_current, found.injected, found.ldos):
        assert not values[:, 2, 1].any()


@pytest.mark.parametrize("ensemble", [{"potential": -1.3}, {"filling": 0.7}])
def test_a_closed_lattice_with_holes_holds_its_electrons_and_its_field_is_a_gradient(ensemble):
    lattice = make_lattice("triangular", (4, 5), (True, True))
    system = with_vacancies(ClosedLattice(lattice, 1.0, 2.5, 0.05, **ensemble), (1, 1), (2, 4))
    spins = random_spins(system, 1, seed=4)
    state = system.solve(spins, 1e-9)
    if "filling" in ensemble:
        assert state.electrons[0] == pytest.approx(0.7 * 18, abs=1e-9)
    assert not state.density[0][system.vacancies].any()
    step, energies = 1e-4, []
    for sign in (1, -1):
        moved = spins.copy()
        moved[0, 1, 2, 0] += sign * step
        energies.append(make_solver("diagonalization", system, 1e-9).solve(moved).energy[0])
    assert state.field[0, 1, 2, 0] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)
    assert system.transport(spins[0]).bond_current.shape == (3, 4, 5)


def test_holes_have_no_part_in_the_grand_potential():
    longer, shorter = (driven("square", (x, 4), bath=(0.05, 0.1)) for x in (5, 3))
    spins = random_spins(longer, 1, seed=5)[0]
    assert grand_potential(last_columns(longer, 2), spins) == pytest.approx(
        grand_potential(shorter, spins[:3]), abs=1e-10
    )


def config(**electrons):
    reservoirs = [
        {"name": "left", "sites": "left", "width": 1.0, "potential": -1.0},
        {"name": "bath", "sites": "all", "width": 0.1, "potential": 0.0},
    ]
    return {
        "lattice": {"kind": "square", "size": [6, 4], "periodic": [False, True]},
        "electrons": {"exchange": 2.0, "temperature": 0.1, "reservoirs": reservoirs, **electrons},
    }


def test_a_config_and_its_system_say_the_same():
    system = hs.load_system(config(vacancies=[[0, 1], [3, 3]]))
    assert np.argwhere(system.vacancies).tolist() == [[0, 1], [3, 3]]
    stored = system.as_config()["electrons"]
    assert stored["vacancies"] == [[0, 1], [3, 3]]
    assert [reservoir["sites"] for reservoir in stored["reservoirs"]] == ["left", "all"]
    assert hs.load_system(system.as_config()).as_config() == system.as_config()


def test_spins_beside_holes_move_as_on_the_smaller_lattice_and_what_stands_in_a_hole_stays():
    holes = [[x, y] for x in (4, 5) for y in range(4)]
    settings = {"temperature": 0.0, "duration": 2.0, "step": 0.2, "record_interval": 5}
    settings["observers"] = ["magnetization", "mean_bond", "wall_position"]
    cut = hs.load_system(config(vacancies=holes, solver="closed_form"))
    whole = config(solver="closed_form")
    whole["lattice"]["size"] = [4, 4]
    spins = random_spins(cut, 1, seed=6)[0]
    from hpcspin.dynamics import DzyaloshinskiiMoriya, Heisenberg, Zeeman

    def run(system, spins):
        fields = [Heisenberg(-0.4), DzyaloshinskiiMoriya.bulk(system.lattice, 0.2), Zeeman((0.0, 0.1, 0.3))]
        return hs.simulate(system, [None, *fields], spins, **settings)

    ours, theirs = run(cut, spins), run(hs.load_system(whole), spins[:4])
    assert np.abs(ours.spins[:, :4] - theirs.spins).max() < 1e-9
    assert np.array_equal(ours.spins[-1, 4:], spins[4:])
    assert not ours.field[:, 4:].any()
    assert np.abs(ours.magnetization - theirs.magnetization).max() < 1e-9
    assert np.abs(ours.mean_bond - theirs.mean_bond).max() < 1e-9


@pytest.mark.parametrize(
    ("electrons", "message"),
    [
        ({"vacancies": "all"}, "must be a mask of"),
        ({"vacancies": "left"}, "reservoir 'left': touches only vacancies"),
        ({"vacancies": [[0, 9]]}, r"electrons\.vacancies: site \[0, 9\] lies outside"),
        ({"vacancies": [[1, 1]], "reservoirs": [], "potential": 0.0, "solver": "kpm"}, "kpm cannot leave sites out"),
    ],
)
def test_what_cannot_be_is_refused(electrons, message):
    with pytest.raises(HpcspinError, match=message):
        hs.load_system(config(**electrons)).solve(np.tile([0.0, 0.0, 1.0], (6, 4, 1)))


def test_sites_that_holes_cut_off_from_every_reservoir_are_refused():
    electrons = {"reservoirs": config()["electrons"]["reservoirs"][:1], "vacancies": {"columns": [2, 2]}}
    with pytest.raises(HpcspinError, match="no reservoir"):
        hs.load_system(config(**electrons))


def test_force_fields_refuse_holes():
    system = hs.load_system("configs/driven_sd.yaml", "electrons.vacancies=[[3, 4]]")
    with pytest.raises(HpcspinError, match=r"electrons\.vacancies: force fields cannot represent sites without a spin"):
        hs.load_model("driven_sd_fast").field(system.texture("ferromagnet"), system)
