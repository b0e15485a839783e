"""The steady state of driven electrons, and the base class of its solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.solver import Solver, State
from hpcspin.electrons.system import ElectronSystem
from hpcspin.errors import HpcspinError


@dataclass(frozen=True, repr=False)
class SteadyState(State):
    """Steady state of n snapshots; energies in t, currents in t/hbar.

    Attributes
    ----------
    field, density, spin_density, error
        As in every `State`.
    current
        Particle current out of each reservoir into the lattice, shape (n, reservoirs).
    """

    current: NDArray[np.float64]


def width_traces(system: DrivenLattice, components: NDArray[np.float64]) -> NDArray[np.float64]:
    """tr(2 Gamma_r M) of each reservoir, shape (..., reservoirs).

    ``components`` are the on-site blocks of M as tr(M_ii) and tr(sigma M_ii), shape (..., Lx, Ly, 4).
    """
    return 2 * np.einsum("rxyk,...xyk->...r", system.widths, components)


def reservoir_currents(
    system: DrivenLattice, filled: NDArray[np.float64], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Particle currents out of the reservoirs, I_r = tr[2 Gamma_r (∫ de/2pi f_r A - rho)], shape (..., reservoirs).

    This equals sum_s ∫ de/2pi T_rs (f_r - f_s); Y. Meir and N. S. Wingreen, Phys. Rev. Lett. 68, 2512 (1992),
    reference 57 of the paper.

    Parameters
    ----------
    system
        The driven lattice.
    filled
        tr(2 Gamma_r ∫ de/2pi f_r A), the occupation if all reservoirs were at r's potential, shape (..., reservoirs).
    components
        On-site blocks of rho as tr(rho_ii) and tr(sigma rho_ii), shape (..., Lx, Ly, 4). A common part
        ∫ de/2pi f_0 A of rho may be left out of both arguments.
    """
    return filled - width_traces(system, components)


class SteadyStateSolver(Solver[DrivenLattice, SteadyState]):
    """Base of the solvers of driven electrons; see `Solver`."""

    treats: ClassVar[type[ElectronSystem]] = DrivenLattice

    def _check(self, state: SteadyState) -> None:
        """Check conservation of particles in addition to the checks of every state."""
        infinite = np.flatnonzero(~np.isfinite(state.error))
        if len(infinite):
            raise HpcspinError(f"snapshot {infinite[0]}: the Green's function is singular at a real energy: {SINGULAR}")
        super()._check(state)
        leak = np.abs(state.current.sum(axis=1)).max()
        widths = 2 * self.system.widths[..., 0].sum()
        if leak > 4 * self.tolerance / self.scale * widths:
            raise HpcspinError(
                f"the currents of all reservoirs add up to {leak:.1e} instead of 0; "
                "the electronic state is wrong, lower electrons.tolerance and start again"
            )
