"""The fields that a config can name, in the form that the dynamics uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.assembly.agreement import require_electrons
from hpcspin.assembly.learned import CheckedField, LearnedField
from hpcspin.assembly.system import build_system, solver_of
from hpcspin.config import Config, DynamicsSection
from hpcspin.dynamics import CorrectedField, Field, SumField, WholeLatticeField, Zeeman
from hpcspin.electrons import ClosedLattice, ElectronSystem, Solver
from hpcspin.electrons.diagonalization import field_and_divergence
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_force
from hpcspin.storage import config_differences, describe_differences


def build_field(config: Config, lattice: Lattice, world: World, device: torch.device) -> Field:
    """Field of the section ``dynamics``: electronic, learned, corrected or none, plus the classical terms."""
    dynamics, terms = config.section(DynamicsSection), list[Field]()
    if dynamics.field == "electrons":
        terms.append(exact_field(build_system(config), dynamics, world, device))
    if dynamics.field in ("learned", "corrected"):
        terms.append(_learned(config, dynamics, lattice, world, device))
    terms.extend(dynamics.classical.terms(lattice))
    if not terms:  # free spins: only the noise moves them
        terms.append(Zeeman((0.0, 0.0, 0.0)))
    return terms[0] if len(terms) == 1 else SumField(terms)


_NUMBER = "number"


class SolverField(WholeLatticeField):
    """The exact field of a solver, in the form that the dynamics uses."""

    def __init__(self, solver: Solver[Any, Any]) -> None:
        super().__init__(solver.solve, solver.system.result_shapes)
        self.solver = solver

    def start_step(self, step: int) -> bool:
        """Key the solver's random vectors, if any, by the step; return whether this changes its field."""
        self.solver.number = step
        return self.solver.is_random

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """State that the solver keeps from step to step."""
        return {**self.solver.get_state(), _NUMBER: np.array(self.solver.number)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return the solver to a state."""
        arrays = dict(state)
        self.solver.number = int(arrays.pop(_NUMBER))
        self.solver.set_state(arrays)

    def response(self, spins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """See `hpcspin.dynamics.energies.Responsive`; None for driven electrons, which are not in equilibrium."""
        if not isinstance(self.solver.system, ClosedLattice):
            return None
        assert self.last_field is not None
        exact, divergence = field_and_divergence(self.solver.system, spins)
        return exact - self.last_field, divergence


def exact_field(system: ElectronSystem, dynamics: DynamicsSection, world: World, device: torch.device) -> SolverField:
    """The exact field of a system's electrons, by the solver that it names."""
    return SolverField(solver_of(system, dynamics.seed, world, device))


def learned_field(
    model: ForceField | Committee, system: ElectronSystem, dynamics: DynamicsSection, world: World, device: torch.device
) -> Field:
    """The field of a model on electrons that it knows, corrected or checked by exact labels as the section asks."""
    model, drive, lattice = model.to(device).eval(), model.drive(system), system.lattice
    if dynamics.exact_interval is not None:
        exact = exact_field(system, dynamics, world, device)
        return CorrectedField(LearnedField(model, drive), exact, lattice.size, dynamics.exact_interval)
    if dynamics.check_interval is None:
        return LearnedField(model, drive)
    solver = solver_of(system, dynamics.seed, world, device)
    return CheckedField(model, drive, lattice, solver, dynamics.check_interval * dynamics.record_interval, world)


def _learned(config: Config, dynamics: DynamicsSection, lattice: Lattice, world: World, device: torch.device) -> Field:
    if dynamics.model is None:
        raise HpcspinError(
            "dynamics.model: field: learned needs the path of a saved force field (.safetensors or committee)"
        )
    model = load_force(dynamics.model, dynamics.model_precision)
    model.require(lattice, dynamics.model)
    _require_potential(config, model, dynamics)
    names = (dynamics.model, "the config")
    require_electrons(config.model_dump(mode="json"), model.card, names, dynamics.allow, world)
    return learned_field(model, build_system(config), dynamics, world, device)


def _require_potential(config: Config, model: ForceField | Committee, dynamics: DynamicsSection) -> None:
    """Refuse a model other than the one that the section ``potential`` describes, up to ``model_precision``."""
    if config.potential is None:
        return
    described = config.potential.model_dump(mode="json")
    if dynamics.model_precision is not None:
        described["precision"] = dynamics.model_precision
    differences = config_differences(model.architecture.settings.model_dump(mode="json"), described)
    if differences:
        raise HpcspinError(
            f"{dynamics.model}: the model is not the one that the section potential describes: "
            f"{describe_differences(differences)}; correct the section, or give potential=null"
        )
