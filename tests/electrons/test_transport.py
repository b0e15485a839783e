"""Laws of the flows of charge and spin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from systems import driven, random_spins

from hpcspin.electrons import ClosedFormSolver, ClosedLattice, transmission
from hpcspin.electrons.transport import transport
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

DRIVEN = {"left": (1.0, -2.0, (0.3, 0.0, 0.4)), "right": (0.6, 0.4), "bath": (0.05, 0.1)}


def _changed(lattice, on_site):
    """A driven lattice with an exchange and an energy of each site, second neighbours and Rashba coupling."""
    random = np.random.default_rng(4)
    return replace(
        driven(lattice, (5, 4), **DRIVEN),
        hopping=(1.0, 0.3),
        rashba=0.4 if on_site else 0.0,
        exchange=random.uniform(1, 3, (5, 4)),
        on_site=random.uniform(-1, 1, (5, 4)) if on_site else 0.0,
    )


def _closed(rashba=0.0, **ensemble):
    lattice = make_lattice("triangular", (4, 5), (True, True))
    return ClosedLattice(lattice, 1.0, 2.5, 0.05, rashba=rashba, **ensemble)


SYSTEMS = {
    "square": driven("square", (5, 4), **DRIVEN),
    "triangular, closed along x": driven("triangular", (5, 4), periodic_x=True, **DRIVEN),
    "second neighbours": _changed("square", on_site=False),
    "Rashba, energies of sites": _changed("triangular", on_site=True),
    "closed at a potential": _closed(potential=-1.3),
    "closed at a filling": _closed(filling=0.7, rashba=0.3),
}
every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def inflow(lattice, terms, along):
    """What the bonds carry into each site, from flows of shape (bonds, Lx, Ly, ...)."""
    total = np.zeros((lattice.num_sites, *along.shape[3:]))
    for term, flow in zip(terms, along.reshape(len(along), lattice.num_sites, *along.shape[3:]), strict=True):
        target = lattice.shift(term.offset)[:, 0]
        np.add.at(total, target[target >= 0], flow[target >= 0])
        total -= flow
    return total.reshape(*lattice.size, *along.shape[3:])


@every_system
def test_no_charge_gathers_on_a_site(system):
    found = system.transport(random_spins(system, 1, seed=1)[0])
    gathered = inflow(system.lattice, system.hopping_terms, found.bond_current) + found.injected.sum(axis=0)
    assert np.abs(gathered).max() < found.flow_error < 1e-10
    assert np.abs(found.bond_current).max() > 1e-2


@every_system
def test_spin_that_comes_in_and_does_not_go_out_is_the_torque(system):
    spins = random_spins(system, 1, seed=2)[0]
    found, state = system.transport(spins), system.solve(spins, solver=_dense(system))
    arrives = inflow(system.lattice, system.hopping_terms, found.bond_spin_current) + found.injected_spin.sum(axis=0)
    torque = np.cross(spins, state.field)
    assert np.abs(torque).max() > 1e-2
    assert np.abs(arrives + found.spin_orbit_torque - torque).max() < 1e-10


def _dense(system):
    return "diagonalization" if isinstance(system, ClosedLattice) else "closed_form"


def test_what_reservoirs_inject_adds_up_to_their_currents():
    system = SYSTEMS["second neighbours"]
    spins = random_spins(system, 1, seed=3)
    state = ClosedFormSolver(system, 1e-8).solve(spins)
    assert transport(system, spins[0]).injected.sum(axis=(1, 2)) == pytest.approx(state.current[0], abs=1e-12)


@pytest.mark.parametrize("distance", [1e-3, 1e-7, 1e-11])
def test_the_error_of_the_flows_covers_rounding_near_an_exceptional_point(distance):
    """Two sites in a row, whose widths differ by 2 t: both levels and their vectors nearly coincide."""
    system = driven("square", (2, 1), periodic_y=False, left=(2.3 + distance, -1.0), right=(0.3, 1.0))
    spins = system.texture("ferromagnet", tilt=0)
    found, exact = replace(system, tolerance=1e-3).transport(spins), system.solve(spins, 1e-10)
    assert abs(found.bond_current[0, 0, 0] - exact.current[0]) < found.flow_error + exact.current_error


def test_spin_flows_turn_with_the_spins_and_charge_does_not_see_it():
    system = driven("square", (4, 3), left=(1.0, -1.0), right=(0.6, 0.4), bath=(0.05, 0.1))
    spins, rotation = random_spins(system, 1, seed=5)[0], Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    before, after = system.transport(spins), system.transport(spins @ rotation.T)
    assert np.abs(after.bond_current - before.bond_current).max() < 1e-11
    assert np.abs(after.bond_spin_current - before.bond_spin_current @ rotation.T).max() < 1e-11


def test_a_spiral_carries_spin_without_a_voltage_and_a_ferromagnet_none():
    system = _closed(potential=-1.3)
    angle = 2 * np.pi * np.arange(4)[:, None] / 4 + np.zeros(5)
    spiral = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    along_x = system.transport(spiral).bond_spin_current[0]
    assert np.abs(along_x[..., 2]).min() > 1e-2
    assert np.abs(along_x - along_x[0, 0]).max() < 1e-11
    assert np.abs(system.transport(system.texture("ferromagnet", tilt=0)).bond_spin_current).max() < 1e-11


@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_transmissions_are_those_of_the_recursion(kind):
    system, energies = driven(kind, (5, 3), **DRIVEN), [-2.3, 0.1, 1.7]
    spins = random_spins(system, 1, seed=6)[0]
    found = system.transport(spins, energies).transmission
    assert found == pytest.approx(transmission(system, spins, np.array(energies)), abs=1e-11)


def test_states_of_all_energies_hold_what_all_electrons_hold():
    system = driven("square", (4, 3), left=(1.0, 0.2), bath=(0.4, 0.2))
    spins, step = random_spins(system, 1, seed=7)[0], 0.02
    energies = np.arange(-200, 0.2, step) + step / 2
    # At T far below the widths the states below mu are filled.
    cold = replace(system, temperature=1e-4)
    filled = step * cold.transport(spins, energies).ldos.sum(axis=0)
    # Of the width Gamma on a site 2 Gamma / (pi |e|) states lie below an energy e far below the band.
    filled += 2 * system.widths[..., 0].sum(axis=0) / (np.pi * 200)
    assert filled == pytest.approx(cold.solve(spins, solver="closed_form").density, abs=1e-4)


def test_a_probe_sees_all_states_of_a_closed_lattice():
    system, step = _closed(potential=0.0), 0.02
    ldos = system.transport(random_spins(system, 1, seed=8)[0], np.arange(-12, 12, step)).ldos
    assert step * ldos.sum(axis=0) == pytest.approx(np.full((4, 5), 2.0), abs=1e-6)


def test_snapshots_are_those_one_by_one():
    system = SYSTEMS["square"]
    spins = random_spins(system, 3, seed=9)
    found = system.transport(spins, [0.3])
    assert found.ldos.shape == (3, 1, 5, 4)
    assert np.array_equal(found.bond_spin_current[2], system.transport(spins[2]).bond_spin_current)


def test_an_energy_that_is_no_number_is_refused():
    with pytest.raises(HpcspinError, match="must be a list of finite numbers"):
        SYSTEMS["square"].transport(random_spins(SYSTEMS["square"], 1, seed=9)[0], [0.0, float("nan")])
