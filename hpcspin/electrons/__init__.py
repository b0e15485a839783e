"""Steady states of electrons that reservoirs drive: exchange fields, densities, currents."""

from hpcspin.electrons.closed_form import ClosedFormSolver
from hpcspin.electrons.grand_potential import grand_potential
from hpcspin.electrons.labelling import label_snapshots
from hpcspin.electrons.model import DrivenLattice, Reservoir
from hpcspin.electrons.negf import RecursiveSolver
from hpcspin.electrons.nonconservativity import (
    DrivenDistance,
    estimate_nonconservativity,
    nonconservativity,
    tangent_jacobian,
)
from hpcspin.electrons.steady_state import SOLVERS, SteadyState, SteadyStateSolver, make_solver
from hpcspin.electrons.transmission import transmission

__all__ = [
    "SOLVERS",
    "ClosedFormSolver",
    "DrivenDistance",
    "DrivenLattice",
    "RecursiveSolver",
    "Reservoir",
    "SteadyState",
    "SteadyStateSolver",
    "estimate_nonconservativity",
    "grand_potential",
    "label_snapshots",
    "make_solver",
    "nonconservativity",
    "tangent_jacobian",
    "transmission",
]
