"""How far a driven state is from any energy: random probes against the exact Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
from systems import driven, random_spins

from hpcspin.electrons import ClosedFormSolver, RecursiveSolver, nonconservativity
from hpcspin.electrons.model import SteadyState, SteadyStateSolver
from hpcspin.electrons.nonconservativity import estimate_nonconservativity
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_texture


def wall(bath: float, voltage: float = 3.2):
    reservoirs = {"left": (1.0, -voltage), "right": (1.0, 0.0), "bath": (bath, 0.0)}
    system = driven("square", (12, 4), exchange=3.8, temperature=0.01, **reservoirs)
    return system, make_texture("wall", system.lattice, 1, position=6, tilt=0.1)


@pytest.mark.parametrize(("bath", "least", "most"), [(0.001, 0.01, 0.05), (0.1, 0.1, 0.25)])
def test_probes_agree_with_the_exact_jacobian_of_a_wall(bath, least, most):
    system, spins = wall(bath)
    solver = ClosedFormSolver(system, 1e-8)
    exact = nonconservativity(solver, spins)
    assert least < exact < most
    estimate = estimate_nonconservativity(solver, spins, rounds=12, seed=3)
    assert abs(estimate.ratio - exact) < 3 * estimate.error
    assert estimate.error < 0.3 * exact
    assert estimate.resolution < 0.01 * exact


class Linear(SteadyStateSolver):
    """A field that is a linear function of the spins, H = M S."""

    def __init__(self, system, matrix):
        super().__init__(system, 1e-9)
        self.matrix = matrix

    def _solve(self, spins):
        field = (spins.reshape(len(spins), -1) @ self.matrix.T).reshape(spins.shape)
        none = np.zeros(spins.shape[:3])
        nothing = np.zeros(len(spins))
        return SteadyState(field, none + 1, 0 * field, error=nothing, current=nothing[:, None], current_error=nothing)


def test_probes_are_unbiased_and_on_site_blocks_do_not_count():
    system = driven("square", (5, 3), bath=(0.1, 0.0))
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((45, 45))
    matrix = (matrix + matrix.T) / 2 + 0.1 * rng.standard_normal((45, 45))
    spins = random_spins(system, 1, seed=5)[0]
    solvers = [Linear(system, matrix), Linear(system, matrix + 100 * np.eye(45))]
    exact = [nonconservativity(solver, spins) for solver in solvers]
    found = [estimate_nonconservativity(solver, spins, rounds=400) for solver in solvers]
    assert exact[1] == pytest.approx(exact[0], rel=1e-6)
    assert found[1].ratio == pytest.approx(found[0].ratio, rel=1e-6)
    assert found[0].error < 0.02 * exact[0]
    assert abs(found[0].ratio - exact[0]) < 3 * found[0].error


def test_equilibrium_is_conservative_to_the_tolerance():
    system, spins = wall(0.01, voltage=0.0)
    estimate = estimate_nonconservativity(RecursiveSolver(system, 1e-9), spins, rounds=2, probes=2, step=2e-4)
    assert estimate.ratio < estimate.resolution < 1e-4


def test_an_estimate_without_an_error_bar_is_refused():
    system, spins = wall(0.1)
    with pytest.raises(HpcspinError, match="no error bar"):
        estimate_nonconservativity(ClosedFormSolver(system, 1e-8), spins, rounds=1)


@pytest.mark.parametrize("measure", [nonconservativity, estimate_nonconservativity])
def test_a_single_site_is_refused(measure):
    system = driven("square", (1, 1), periodic_y=False, bath=(0.1, 0.0))
    with pytest.raises(HpcspinError, match="one site alone"):
        measure(ClosedFormSolver(system, 1e-8), random_spins(system, 1, seed=1)[0])
