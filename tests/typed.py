"""What type checkers know of the public interface: mypy reads this file, and nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

import hpcspin as hs
from hpcspin.electrons import EquilibriumState, SteadyState


def states(closed: hs.ClosedLattice, left: hs.Reservoir, spins: Any) -> None:
    """Each kind of lattice has its own; what a config describes is not known."""
    driven = hs.DrivenLattice(closed.lattice, 1.0, 1.0, 0.1, reservoirs=[left])
    assert_type(closed.solve(spins), EquilibriumState)
    assert_type(driven.solve(spins), SteadyState)
    system = hs.load_system("driven.yaml")
    assert_type(system.solve(spins), Any)
    assert isinstance(system, hs.ClosedLattice)
    assert_type(system.solve(spins), EquilibriumState)
