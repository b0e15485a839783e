"""Steady states of electrons that reservoirs drive: exchange fields, densities, currents."""

from hpcspin.electrons.closed_form import ClosedFormSolver
from hpcspin.electrons.model import DrivenLattice, Reservoir
from hpcspin.electrons.negf import RecursiveSolver
from hpcspin.electrons.steady_state import SOLVERS, SteadyState, SteadyStateSolver, make_solver

__all__ = [
    "SOLVERS",
    "ClosedFormSolver",
    "DrivenLattice",
    "RecursiveSolver",
    "Reservoir",
    "SteadyState",
    "SteadyStateSolver",
    "make_solver",
]
