"""Production solver: recursive Green's functions, poles and an adaptive window integral.

For any reference potential mu_0

    rho = ∫ de/2pi f_0 A + sum_s ∫ de/2pi (f_s - f_0) G 2 Gamma_s G†,

because the widths of all reservoirs add up to the spectral function A. The
first term is a sum over poles, the second lives between the potentials.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Backend, make_backend
from hpcspin.electrons.equilibrium import EquilibriumPart
from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.sources import partition
from hpcspin.electrons.steady_state import SteadyState, SteadyStateSolver
from hpcspin.electrons.window import WindowIntegral
from hpcspin.parallel.world import World

_EQUILIBRIUM_SHARE = 0.2
"""Part of the tolerance that the equilibrium part may use; the window integrals share the rest."""


class RecursiveSolver(SteadyStateSolver):
    """Nonequilibrium Green's functions, linear in Lx; open along x.

    Parameters
    ----------
    system, tolerance, world, device
        As for every solver.
    backend
        Array library, see `make_backend`.
    """

    name: ClassVar[str] = "negf"

    def __init__(
        self,
        system: DrivenLattice,
        tolerance: float,
        world: World | None = None,
        device: Any = "cpu",
        backend: str = "auto",
    ) -> None:
        super().__init__(system, tolerance, world, device)
        self.backend: Backend = make_backend(backend, device)
        self.coupling = make_coupling(system, self.backend)
        parts = partition(system, self.coupling)
        share = _EQUILIBRIUM_SHARE if parts.sources else 1.0
        batch = _energies_per_sweep(system, self.backend)
        self.equilibrium = EquilibriumPart(
            system, parts.reference, self.coupling, self.scale, share * self.tolerance, batch
        )
        self.windows = [
            WindowIntegral(
                source,
                parts.reference,
                system.temperature,
                self.scale,
                (1 - share) * self.tolerance / len(parts.sources),
                batch,
            )
            for source in parts.sources
        ]
        self.evaluations = 0
        """Energies at which windows were evaluated, by all ranks, since the solver was made."""

    def _solve(self, spins: NDArray[np.float64]) -> SteadyState:
        blocks = layer_blocks(self.system, spins, self.backend)
        components, error = self.equilibrium.solve(blocks, spins, self.world)
        current = np.zeros((len(spins), len(self.system.reservoirs)))
        injected = np.zeros_like(components)
        for window in self.windows:
            result = window.integrate(blocks, [window.first_grid] * len(spins), self.world)
            self.evaluations += 21 * result.evaluated
            members = len(window.source.members)
            injected += result.values[:, :-members].reshape(components.shape)
            current[:, window.source.members] += result.values[:, -members:]
            error = error + result.errors + window.truncation
        current -= 2 * np.einsum("rxyk,nxyk->nr", self.system.widths, injected)
        return SteadyState.from_components(self.system, components + injected, current, error)


def _energies_per_sweep(system: DrivenLattice, backend: Backend) -> int:
    """How many energies one sweep may hold: all its columns, their inverses and the on-site results."""
    columns, rows = system.lattice.size
    m = 2 * rows
    bytes_each = 16 * m * m * (columns + 8) + 8 * 16 * columns * rows
    most = int(0.5 * backend.free_memory() // bytes_each)
    return max(1, min(most, 128 if not backend.on_gpu else 4096))
