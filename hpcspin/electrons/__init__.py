"""Electrons on lattices of spins, driven by reservoirs or closed: exchange fields, densities, currents, energies."""

from hpcspin.electrons.closed import ClosedLattice, EquilibriumState
from hpcspin.electrons.closed_form import ClosedFormSolver, grand_potential
from hpcspin.electrons.diagonalization import DiagonalizationSolver
from hpcspin.electrons.hamiltonian import effective_hamiltonian, retarded_green, sd_hamiltonian, self_energy
from hpcspin.electrons.kpm import KpmSolver
from hpcspin.electrons.labelling import label_snapshots
from hpcspin.electrons.model import DrivenLattice, Reservoir, SteadyState, SteadyStateSolver, reservoir_currents
from hpcspin.electrons.negf import RecursiveSolver
from hpcspin.electrons.nonconservativity import DrivenDistance, estimate_nonconservativity, nonconservativity
from hpcspin.electrons.solver import SOLVERS, Solver, State, exchange_field, make_solver
from hpcspin.electrons.sources import split_lesser
from hpcspin.electrons.system import ElectronSystem
from hpcspin.electrons.transport import Transport, transmission

__all__ = [
    "SOLVERS", "ClosedFormSolver", "ClosedLattice", "DiagonalizationSolver", "DrivenDistance", "DrivenLattice",
    "ElectronSystem", "EquilibriumState", "KpmSolver", "RecursiveSolver", "Reservoir", "Solver", "State", "SteadyState",
    "SteadyStateSolver", "Transport", "effective_hamiltonian", "estimate_nonconservativity", "exchange_field",
    "grand_potential", "label_snapshots", "make_solver", "nonconservativity", "reservoir_currents", "retarded_green",
    "sd_hamiltonian", "self_energy", "split_lesser", "transmission",
]  # fmt: skip
