"""Deterministic Landau–Lifshitz–Gilbert dynamics against what can be solved by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import OPEN, evolve, fitted_order, random_spins, single_domain

from hpcspin.dynamics import (
    INTEGRATORS,
    Anisotropy,
    DzyaloshinskiiMoriya,
    Heisenberg,
    Slonczewski,
    SumField,
    Zeeman,
    energy,
)
from hpcspin.dynamics.integrators import cayley, make_integrator, rotate
from hpcspin.dynamics.torque import angular_velocity, cross
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice

every_integrator = pytest.mark.parametrize("name", sorted(INTEGRATORS))


def precession(theta, phi, h, damping, time):
    """Exact spin in a field h z: tan(theta/2) decays, phi advances."""
    rate = h / (1 + damping**2)
    theta = 2 * np.arctan(np.tan(theta / 2) * np.exp(-damping * rate * time))
    phi = phi + rate * time
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)


@every_integrator
def test_damped_precession_converges_with_its_order(name):
    theta, phi = np.array([[0.4, 2.5]]), np.array([[0.3, -1.0]])
    start, end = (precession(theta, phi, 1.3, 0.2, time) for time in (0.0, 4.0))
    counts = np.array([80, 160, 320])
    found = [evolve(Zeeman((0, 0, 1.3)), start, 4.0 / n, n, damping=0.2, integrator=name) for n in counts]
    errors = [np.abs(spins - end).max() for spins in found]
    assert fitted_order(4.0 / counts, errors) == pytest.approx(INTEGRATORS[name].order, abs=0.08)


@every_integrator
def test_length_is_conserved_to_rounding(name):
    field = SumField([Heisenberg(1.0), Anisotropy(0.5), Zeeman((0.3, 0, 0.1)), Slonczewski((0.2, 0, 0))])
    # Iterations converge where dt times the field's change is small.
    dt, steps = (0.1, 200) if INTEGRATORS[name].implicit else (0.3, 500)
    spins = evolve(field, random_spins((4, 5)), dt, steps, damping=0.1, integrator=name)
    assert np.abs(np.linalg.norm(spins, axis=-1) - 1).max() < 4 * np.finfo(float).eps


def test_precession_is_counterclockwise_about_the_field_and_damping_pulls_towards_it():
    start = np.array([[[1.0, 0.0, 0.0]]])
    spins = evolve(Zeeman((0, 0, 1.0)), start, 0.01, 10, damping=0.5)
    x, y, z = spins[0, 0]
    assert y > 0
    assert z > 0
    assert x > 0


def test_gilbert_form_and_landau_lifshitz_form_agree():
    """dS/dt = -S x H + alpha S x dS/dt holds for dS/dt = Omega x S."""
    spins, field = (torch.as_tensor(random_spins((3, 4), seed)) for seed in (1, 2))
    slope = cross(angular_velocity(spins, field, 0.3), spins)
    gilbert = -cross(spins, field) + 0.3 * cross(spins, slope)
    assert torch.allclose(slope, gilbert, atol=1e-15)


def test_slonczewski_torque():
    """Without damping dS/dt = -S x (S x p): the spin turns towards p."""
    spins = evolve(Slonczewski((0, 0, 1.0)), random_spins((3, 3)), 0.02, 1500, damping=0.0)
    assert np.allclose(spins[..., 2], 1.0)
    start = torch.as_tensor(random_spins((3, 3)))
    p = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).expand_as(start)
    slope = cross(angular_velocity(start, cross(start, p), 0.0), start)
    assert torch.allclose(slope, -cross(start, cross(start, p)), atol=1e-15)


@every_integrator
def test_two_exchange_coupled_spins_precess_about_their_sum(name):
    """E = -J S1·S2: both turn about S1 + S2 with angular velocity J (S1 + S2); sum and energy are conserved."""
    start = np.array([[[1.0, 0, 0]], [[0, 0.6, 0.8]]])
    total = start.sum(axis=0)[0]
    time, steps = 5.0, 1000
    field = Heisenberg(0.7)
    spins = evolve(field, start, time / steps, steps, damping=0.0, integrator=name)
    exact = rotate(torch.as_tensor(start), torch.as_tensor(0.7 * time * total).expand(2, 1, 3)).numpy()
    assert np.abs(spins - exact).max() < 1e-5
    assert np.abs(spins.sum(axis=0)[0] - total).max() < 1e-5
    lattice = make_lattice("square", (2, 1), OPEN)
    assert energy(field, lattice, spins) == pytest.approx(energy(field, lattice, start), abs=1e-6)
    assert energy(field, lattice, start) == pytest.approx(-0.7 * start[0, 0] @ start[1, 0])


@every_integrator
def test_damping_lowers_the_energy_to_the_ground_state(name):
    lattice = make_lattice("square", (4, 4), OPEN)
    field, energies = SumField([Heisenberg(1.0), Zeeman((0, 0, 0.5))]), []
    evolve(
        field,
        random_spins((4, 4)),
        0.1,
        400,
        damping=0.5,
        integrator=name,
        visit=lambda step, spins: energies.append(energy(field, lattice, spins)),
    )
    assert np.diff(energies).max() < 1e-12
    assert energies[-1] == pytest.approx(-24 - 8, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(0, 100))
def test_rotations_conserve_length_and_axis(angle, seed):
    spins = torch.as_tensor(random_spins((2, 2), seed))
    vector = torch.tensor(angle, dtype=torch.float64).expand_as(spins)
    for turned in (rotate(spins, vector), cayley(spins, vector)):
        assert torch.allclose(turned.norm(dim=-1), torch.ones(2, 2, dtype=torch.float64), atol=1e-14)
        assert torch.allclose((turned * vector).sum(-1), (spins * vector).sum(-1), atol=1e-13)


class Radial:
    """A field along each spin."""

    halo = (0, 0)

    def bind(self, domain):
        return lambda spins, time: 4.0 * spins


@every_integrator
def test_a_field_along_the_spins_moves_nothing(name):
    """H and H + c S are the same field: learned ones leave c open, electronic ones have a large one."""
    start, field = random_spins((4, 3)), SumField([Heisenberg(0.5), Zeeman((0, 0.2, 0.3))])
    plain, shifted = (
        evolve(force, start, 0.25, 40, damping=0.2, integrator=name) for force in (field, SumField([field, Radial()]))
    )
    assert np.allclose(plain, shifted, atol=1e-12, rtol=0)


def test_rotation_by_a_quarter_turn():
    x = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)
    quarter = torch.tensor([[[0.0, 0.0, np.pi / 2]]], dtype=torch.float64)
    assert torch.allclose(rotate(x, quarter), torch.tensor([[[0.0, 1.0, 0.0]]], dtype=torch.float64), atol=1e-15)


def test_the_midpoint_rule_runs_backwards_to_where_it_came_from():
    """Its map of a step -dt is the inverse of that of dt, to rounding; no explicit scheme here has that."""
    domain = single_domain((4, 5))
    field = SumField([Heisenberg(1.0), Anisotropy(0.5), DzyaloshinskiiMoriya.bulk(domain.lattice, 0.4)])
    start, errors = random_spins((4, 5)), {}
    for name in ("midpoint", "sib"):
        there = evolve(field, start, 0.1, 100, damping=0.0, integrator=name, domain=domain)
        back = evolve(field, there, -0.1, 100, damping=0.0, integrator=name, domain=domain)
        errors[name] = np.abs(back - start).max()
    assert errors["midpoint"] < 1e-11 < 1e-4 < errors["sib"]


@pytest.mark.parametrize("grain", [1e-10, 1e-6])  # The second one is coarser than a field in single precision.
def test_an_implicit_step_takes_the_precision_that_the_field_has(grain):
    """A field that is known to its grain only lets iterations come no nearer than that; the step ends all the same."""

    class Grainy:
        halo = (0, 0)

        def bind(self, domain):
            generator = torch.Generator().manual_seed(1)

            def evaluate(spins, time):
                noise = torch.randn(spins.shape, generator=generator, dtype=spins.dtype)
                return torch.stack([spins[..., 2], spins[..., 0], 1 + spins[..., 1]], dim=-1) + grain * noise

            return evaluate

    start = random_spins((3, 3))
    there = evolve(Grainy(), start, 0.1, 20, damping=0.0, integrator="midpoint")
    back = evolve(Grainy(), there, -0.1, 20, damping=0.0, integrator="midpoint")
    assert 1e-2 * grain < np.abs(back - start).max() < 100 * grain


def test_an_implicit_step_that_is_too_long_is_refused():
    with pytest.raises(HpcspinError, match="midpoint does not converge at time"):
        evolve(Heisenberg(1.0), random_spins((6, 6)), 1.5, 20, damping=0.0, integrator="midpoint")


def test_unknown_and_unsuitable_integrators_are_refused():
    with pytest.raises(HpcspinError, match=f"choose one of {', '.join(sorted(INTEGRATORS))}"):
        make_integrator("euler", noise=False)
    with pytest.raises(HpcspinError, match="rk4 is not a scheme for Langevin noise"):
        make_integrator("rk4", noise=True)
