"""Spins driven by exact electrons, against a trajectory computed elsewhere with steps of 0.05 of fourth order."""

import numpy as np
import pytest
from laws import evolve, fitted_order, single_domain

from hpcspin.dynamics import INTEGRATORS, WholeLatticeField
from hpcspin.electrons import DrivenLattice, Reservoir, make_solver


def driven_field(meta, lattice):
    """The electrons of a reference file."""
    left, right, everywhere = (np.zeros(lattice.size, dtype=bool) for _ in range(3))
    left[0], right[-1], everywhere[:] = True, True, True
    reservoirs = (
        Reservoir("left", left, meta["gamma_left"], meta["mu_left"], tuple(meta["left_polarization"])),
        Reservoir("right", right, meta["gamma_right"], meta["mu_right"]),
        Reservoir("bath", everywhere, meta["gamma_bath"], meta["mu_bath"]),
    )
    system = DrivenLattice(lattice, 1.0, meta["J"], meta["T"], reservoirs)
    return WholeLatticeField(make_solver("closed_form", system, 1e-8).solve, system.result_shapes)


CASES = [("heun", (20, 40, 80)), ("depondt_mertens", (20, 40)), ("sib", (20, 40)), ("rk4", (10, 20))]


@pytest.mark.parametrize(("name", "steps"), CASES)
def test_converges_to_the_reference_with_its_order(reference, name, steps):
    data = reference("trajectory_square_10x4")
    meta = data["meta"]
    domain = single_domain((meta["lx"], meta["ly"]), (False, meta["periodic_y"]))
    field = driven_field(meta, domain.lattice)
    duration = float(data["time"][1])
    errors = []
    for count in steps:
        spins = evolve(
            field,
            data["spins"][0],
            duration / count,
            count,
            damping=meta["damping"],
            integrator=name,
            domain=domain,
        )
        errors.append(np.abs(spins - data["spins"][1]).max())
    assert fitted_order(duration / np.array(steps), errors) == pytest.approx(INTEGRATORS[name].order, abs=0.15)
    assert errors[-1] < 1e-4


def test_reaches_the_end_of_the_reference(reference):
    """Four times as long as above: rk4 at a step of 0.2 agrees to 1e-6."""
    data = reference("trajectory_square_10x4")
    meta = data["meta"]
    domain = single_domain((meta["lx"], meta["ly"]), (False, meta["periodic_y"]))
    spins = evolve(
        driven_field(meta, domain.lattice),
        data["spins"][0],
        0.2,
        round(float(data["time"][-1]) / 0.2),
        damping=meta["damping"],
        integrator="rk4",
        domain=domain,
    )
    assert np.abs(spins - data["spins"][-1]).max() < 1e-6
