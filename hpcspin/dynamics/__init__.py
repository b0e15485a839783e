"""Landau–Lifshitz–Gilbert dynamics of classical spins under any field, with Langevin noise, on any number of ranks."""

from hpcspin.dynamics.classical import Anisotropy, DzyaloshinskiiMoriya, Heisenberg, Slonczewski, Zeeman
from hpcspin.dynamics.corrected import CorrectedField
from hpcspin.dynamics.energies import energy
from hpcspin.dynamics.fields import Field, FieldEvaluator, Observed, Stateful, SumField
from hpcspin.dynamics.integrators import INTEGRATORS, Integrator, integrator, make_integrator
from hpcspin.dynamics.interrupt import EXIT_REQUEUE
from hpcspin.dynamics.observers import OBSERVERS, Frame, Observer, ObserverSettings, observer
from hpcspin.dynamics.settings import CLOSED_OBSERVERS, DynamicsSettings
from hpcspin.dynamics.simulation import CHECKPOINTING, Outcome, Simulation
from hpcspin.dynamics.terms import TERMS, ClassicalSettings
from hpcspin.dynamics.thermostat import Thermostat
from hpcspin.dynamics.waveforms import WAVEFORMS, Waveform, make_waveform, waveform
from hpcspin.dynamics.whole_lattice import WholeLatticeField

__all__ = [
    "CHECKPOINTING", "CLOSED_OBSERVERS", "EXIT_REQUEUE", "INTEGRATORS", "OBSERVERS", "TERMS", "WAVEFORMS", "Anisotropy",
    "ClassicalSettings", "CorrectedField", "DynamicsSettings", "DzyaloshinskiiMoriya", "Field", "FieldEvaluator",
    "Frame", "Heisenberg", "Integrator", "Observed", "Observer", "ObserverSettings", "Outcome", "Simulation",
    "Slonczewski", "Stateful", "SumField", "Thermostat", "Waveform", "WholeLatticeField", "Zeeman", "energy",
    "integrator", "make_integrator", "make_waveform", "observer", "waveform",
]  # fmt: skip
