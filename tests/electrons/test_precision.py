"""Single precision between the potentials: its cost is measured, certified, and refused where it is too much."""

from __future__ import annotations

import numpy as np
import pytest
from systems import driven, random_spins

from hpcspin.electrons import ClosedFormSolver, RecursiveSolver, make_solver
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_texture

WALL = driven("square", (12, 4), exchange=3.8, temperature=0.01, left=(1.0, -3.2), right=(1.0, 0.0), bath=(0.001, 0.0))
CASES = {
    "wall, weak bath": WALL,
    "triangular, both ends, polarised": driven(
        "triangular", (6, 4), left=(1.0, -2.0, (0, 0.6, 0)), right=(0.4, 0.9), bath=(0.02, 0.0)
    ),
    "electrode in the middle": driven("square", (6, 4), left=(1.0, 0.0), middle=(0.5, -2.0), bath=(0.02, 0.0)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tolerance", [1e-3, 5e-5])
def test_the_error_covers_single_precision(name, tolerance):
    system = CASES[name]
    spins = np.concatenate([random_spins(system, 1, seed=3), make_texture("wall", system.lattice, 1, position=3)[None]])
    exact = ClosedFormSolver(system, 1e-8).solve(spins)
    single = RecursiveSolver(system, tolerance, precision="complex64").solve(spins)
    true = np.abs(single.field - exact.field).max(axis=(1, 2, 3))
    assert np.all(true < single.error)
    assert np.all(single.error <= tolerance)
    assert np.abs(single.current - exact.current).max() < tolerance
    double = RecursiveSolver(system, tolerance).solve(spins)
    rounding = np.abs(single.field - double.field).max()
    assert 1e-10 < rounding < np.max(single.error)


def test_a_tolerance_below_single_precision_is_refused():
    with pytest.raises(HpcspinError, match="at least 5e-05, the least that complex64 can certify"):
        RecursiveSolver(WALL, 1e-6, precision="complex64")


def test_rounding_beyond_the_tolerance_is_refused(monkeypatch):
    monkeypatch.setattr("hpcspin.electrons.window.WindowIntegral._rounding", lambda *_: np.full((2, 1), 1e-3))
    spins = make_texture("wall", WALL.lattice, 1, position=6, tilt=0.1)[None]
    with pytest.raises(HpcspinError, match=r"in complex64 exceeds the tolerance 1\.0e-04.*precision=complex128"):
        RecursiveSolver(WALL, 1e-4, precision="complex64").solve(spins)


def test_the_closed_form_is_double():
    with pytest.raises(HpcspinError, match="closed_form cannot compute in complex64; choose complex128"):
        make_solver("closed_form", WALL, 1e-3, precision="complex64")
