"""One step of the Landau–Lifshitz–Gilbert equation: field, noise and integrator together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import Field, FieldEvaluator
from hpcspin.dynamics.integrators import largest_on
from hpcspin.dynamics.observers import Frame
from hpcspin.dynamics.settings import DynamicsSettings
from hpcspin.dynamics.step_bounds import drives_of
from hpcspin.dynamics.thermostat import Thermostat
from hpcspin.dynamics.torque import angular_velocity, cross
from hpcspin.errors import HpcspinError
from hpcspin.lattice.settings import chosen_sites
from hpcspin.parallel.domain import Domain


class Motion:
    """Moves the spins of my block, which is cut for the field's halo, from step to step.

    ``evaluate`` is the field on my block, ``advance`` the integrator, ``sites`` are the global indices of my sites,
    which key the noise, ``occupied`` and ``free`` say which sites of the lattice have a spin and which spins may move,
    bool, shape (Lx, Ly) like the ``vacancies``. Raises HpcspinError if the settings contradict each other.
    """

    def __init__(
        self,
        field: Field,
        domain: Domain,
        settings: DynamicsSettings,
        device: torch.device,
        vacancies: NDArray[np.bool_] | None = None,
    ) -> None:
        self._settings, self._lattice = settings, domain.lattice
        self.occupied = np.ones(domain.lattice.size, dtype=bool) if vacancies is None else ~vacancies
        self.free = self.occupied & ~chosen_sites(domain.lattice, settings.pinned, "dynamics.pinned")
        occupied, may_move = (
            None if sites.all() else torch.as_tensor(sites[domain.slices], device=device)[..., None]
            for sites in (self.occupied, self.free)
        )
        self.evaluate = FieldEvaluator(field, domain, occupied)
        self.sites = torch.as_tensor(domain.sites, device=device)
        self._may_move = may_move
        self.advance = settings.stepper(largest_on(domain.world), drives_of(field))
        self._thermostat = Thermostat(settings.temperature, settings.damping, settings.step, settings.seed)

    def __call__(self, spins: Tensor, step: int) -> Tensor:
        """Spins of my block, (nx, ny, 3), a step later; ``step`` determines time and noise; all ranks call it."""
        noise = self._thermostat.field(self.sites, step, spins.dtype)
        dt = self._settings.step
        moved = self.advance(spins, step * dt, dt, lambda spins, time: self._turning(spins, time, noise))
        if not isinstance(moved, Tensor) or moved.shape != spins.shape or moved.dtype != spins.dtype:
            raise HpcspinError(
                f"dynamics.integrator: {self._settings.integrator} must return the spins after the step, a tensor of "
                "their shape and type"
            )
        # A scheme that normalises may change the last bit of a spin that does not turn.
        return moved if self._may_move is None else torch.where(self._may_move, moved, spins)

    def frame(self, spins: NDArray[np.float64], field: NDArray[np.float64], time: float, electrons: Any) -> Frame:
        """What observers see of the whole lattice: spins and the field on them, shape (Lx, Ly, 3)."""
        seen = np.where(self.occupied[..., None], spins, np.nan)
        return Frame(self._lattice, seen, field, time, self.evaluate.field, self.free, electrons)

    def velocity(self, spins: Tensor) -> Tensor:
        """dS/dt of my spins at time zero without noise, shape (nx, ny, 3); 0 where a spin is pinned or missing."""
        return cross(self._turning(spins, 0.0, None), spins)

    def _turning(self, spins: Tensor, time: float, noise: Tensor | None) -> Tensor:
        field = self.evaluate(spins, time)
        turning = angular_velocity(spins, field if noise is None else field + noise, self._settings.damping)
        return turning if self._may_move is None else turning * self._may_move
