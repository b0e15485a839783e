"""What a solver of the driven electrons returns, and what every solver is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR
from hpcspin.electrons.model import DrivenLattice
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.registry import Registry

FINEST_TOLERANCE = 1e-11

SOLVERS: Registry[type[SteadyStateSolver]] = Registry("electrons.solver")


@dataclass(frozen=True)
class SteadyState:
    """Steady state of n snapshots; energies in t, currents in t/hbar.

    Attributes
    ----------
    field
        Exchange field H_i = J tr(sigma rho_ii), shape (n, Lx, Ly, 3).
    density
        Electrons on each site, tr rho_ii, shape (n, Lx, Ly).
    spin_density
        tr(sigma rho_ii), shape (n, Lx, Ly, 3).
    current
        Particle current out of each reservoir into the lattice, shape (n, reservoirs).
    error
        Estimate of the largest error of a field component, shape (n,).
    """

    field: NDArray[np.float64]
    density: NDArray[np.float64]
    spin_density: NDArray[np.float64]
    current: NDArray[np.float64]
    error: NDArray[np.float64]

    @staticmethod
    def from_components(
        system: DrivenLattice,
        components: NDArray[np.float64],
        current: NDArray[np.float64],
        error: NDArray[np.float64],
    ) -> SteadyState:
        """Steady state from tr(rho_ii) and tr(sigma rho_ii), shape (n, Lx, Ly, 4)."""
        spin_density = np.ascontiguousarray(components[..., 1:])
        density = np.ascontiguousarray(components[..., 0])
        return SteadyState(exchange_field(system, spin_density), density, spin_density, current, error)

    @staticmethod
    def joined(states: Sequence[SteadyState]) -> SteadyState:
        """The snapshots of several steady states, one after the other."""
        return SteadyState(*(np.concatenate([getattr(s, f.name) for s in states]) for f in fields(SteadyState)))

    def map(self, function: Callable[[NDArray[np.float64]], Any]) -> SteadyState:
        """The same with a function of each array in its place."""
        return SteadyState(*(function(getattr(self, f.name)) for f in fields(self)))


def exchange_field(system: DrivenLattice, spin_density: NDArray[np.float64]) -> NDArray[np.float64]:
    """H_i = -<dH_sd/dS_i> = J tr(sigma rho_ii), Eq. 7 of arXiv:2112.12124, from tr(sigma rho_ii), shape (..., 3).

    The paper integrates the lesser function there: rho_ii = -i ∫ de/2pi G^<_ii(e).
    """
    return system.exchange * spin_density


def width_traces(system: DrivenLattice, components: NDArray[np.float64]) -> NDArray[np.float64]:
    """tr(2 Gamma_r M) of each reservoir from the on-site blocks of M as tr(M_ii) and tr(sigma M_ii).

    Shape (..., Lx, Ly, 4) to (..., reservoirs).
    """
    return 2 * np.einsum("rxyk,...xyk->...r", system.widths, components)


def reservoir_currents(
    system: DrivenLattice, filled: NDArray[np.float64], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Particle currents out of the reservoirs, I_r = tr[2 Gamma_r (∫ de/2pi f_r A - rho)], shape (..., reservoirs).

    Equal to sum_s ∫ de/2pi T_rs (f_r - f_s); Y. Meir and N. S. Wingreen, Phys. Rev. Lett. 68, 2512 (1992), the paper's
    reference 57.

    Parameters
    ----------
    system
        The driven lattice.
    filled
        tr(2 Gamma_r ∫ de/2pi f_r A), what reservoir r would fill if it were alone, shape (..., reservoirs).
    components
        On-site blocks of rho as tr(rho_ii) and tr(sigma rho_ii), shape (..., Lx, Ly, 4). Any part of rho that is
        ∫ de/2pi f_0 A with one f_0 may be left out of both.
    """
    return filled - width_traces(system, components)


class SteadyStateSolver(ABC):
    """Solver of the steady state of driven electrons.

    Parameters
    ----------
    system
        The driven lattice.
    tolerance
        Largest error of a field component; a state that misses it is an error.
    world
        Ranks that share the work; every rank calls `solve` with the same spins.
    device
        ``"cpu"``, ``"cuda"`` or a torch device.
    precision
        ``"complex128"``, or ``"complex64"`` where the solver has it.
    """

    name: ClassVar[str]
    finest: ClassVar[dict[str, float]] = {"complex128": FINEST_TOLERANCE}
    """Least tolerance that each precision can certify."""

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            SOLVERS.add(cls.name, cls)

    def __init__(
        self,
        system: DrivenLattice,
        tolerance: float,
        world: World | None = None,
        device: Any = "cpu",
        precision: str = "complex128",
    ) -> None:
        if precision not in self.finest:
            raise HpcspinError(
                f"electrons.precision: {self.name} cannot compute in {precision}; choose {' or '.join(self.finest)}"
            )
        if not tolerance >= self.finest[precision]:
            raise HpcspinError(
                f"electrons.tolerance: {tolerance} must be at least {self.finest[precision]:g}, "
                f"the least that {precision} can certify"
            )
        self.precision = precision
        self.system = system
        self.tolerance = float(tolerance)
        self.world = world or World()
        self.device = device

    @property
    def scale(self) -> float:
        """From an error of an on-site component to one of the field; densities count even where J is small."""
        return max(abs(self.system.exchange), self.system.hopping)

    @classmethod
    def ranks_needed(cls, system: DrivenLattice, world: World, device: Any) -> int:
        """Ranks of ``world`` that must work together because one cannot hold the lattice; a collective call."""
        return 1

    def solve(self, spins: NDArray[np.float64]) -> SteadyState:
        """Steady state of some snapshots.

        Parameters
        ----------
        spins
            Unit vectors, shape (n, Lx, Ly, 3).

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice, the tolerance is missed, or a sum rule is violated.
        """
        state = self._solve(self.system.check_spins(spins))
        self._check(state)
        return state

    @abstractmethod
    def _solve(self, spins: NDArray[np.float64]) -> SteadyState:
        """Steady state of checked spins, with its error estimate."""

    def reset(self) -> None:
        """Forget what earlier snapshots taught."""
        return

    def get_state(self) -> dict[str, NDArray[Any]]:
        """What earlier snapshots taught, as arrays that a checkpoint can hold."""
        return {}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue as the solver whose state this was."""
        return

    def _check(self, state: SteadyState) -> None:
        """Tolerance, occupations between 0 and 1, and conservation of particles."""
        infinite = np.flatnonzero(~np.isfinite(state.error))
        if len(infinite):
            raise HpcspinError(f"snapshot {infinite[0]}: the Green's function is singular at a real energy: {SINGULAR}")
        missed = np.flatnonzero(~(state.error <= self.tolerance))
        if len(missed):
            single = self.precision != "complex128"
            raise HpcspinError(
                f"snapshot {missed[0]}: the field's error {state.error[missed[0]]:.1e} in {self.precision} exceeds the "
                f"tolerance {self.tolerance:.1e}; raise electrons.tolerance"
                + (" or set electrons.precision=complex128" if single else "")
                + " and begin anew"
            )
        slack = self.tolerance / self.scale
        polarized = np.linalg.norm(state.spin_density, axis=-1)
        lowest, highest = (state.density - polarized) / 2, (state.density + polarized) / 2
        if lowest.min() < -4 * slack or highest.max() > 1 + 4 * slack:
            raise HpcspinError(
                f"occupations between {lowest.min():.3g} and {highest.max():.12g} leave [0, 1] by more than the "
                "tolerance; the electronic state is wrong, lower electrons.tolerance and begin anew"
            )
        leak = np.abs(state.current.sum(axis=1)).max()
        widths = 2 * self.system.widths[..., 0].sum()
        if leak > 4 * slack * widths:
            raise HpcspinError(
                f"the currents of all reservoirs add up to {leak:.1e} instead of 0; "
                "the electronic state is wrong, lower electrons.tolerance and begin anew"
            )


def make_solver(
    name: str,
    system: DrivenLattice,
    tolerance: float,
    world: World | None = None,
    device: Any = "cpu",
    precision: str = "complex128",
) -> SteadyStateSolver:
    """Solver of a registered name: ``"negf"`` or ``"closed_form"``.

    Raises
    ------
    HpcspinError
        If the name is unknown or the solver cannot treat the system.
    """
    return SOLVERS[name](system, tolerance, world, device, precision)
