"""State of the electrons and base class of its solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.system import A_NUMBER, ElectronSystem, are_finite, array_of, is_number
from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Results
from hpcspin.parallel.world import World
from hpcspin.registry import Registry

FINEST_TOLERANCE = 1e-11

SOLVERS: Registry[type[Solver[Any, Any]]] = Registry("electrons.solver")


@dataclass(frozen=True, repr=False)
class State(Results):
    """State of the electrons for n snapshots; energies in t.

    Attributes
    ----------
    field
        Exchange field H_i = J_i tr(sigma rho_ii), shape (n, Lx, Ly, 3).
    density
        Electrons on each site, tr rho_ii, shape (n, Lx, Ly).
    spin_density
        tr(sigma rho_ii), shape (n, Lx, Ly, 3).
    error
        Estimate of the largest error of a field component, shape (n,).
    """

    field: NDArray[np.float64]
    density: NDArray[np.float64]
    spin_density: NDArray[np.float64]
    error: NDArray[np.float64]

    @classmethod
    def from_components(
        cls, system: ElectronSystem, components: NDArray[np.float64], error: NDArray[np.float64], **others: Any
    ) -> Self:
        """State from tr(rho_ii) and tr(sigma rho_ii), shape (n, Lx, Ly, 4), and the fields of a subclass."""
        components = components * system.occupied[..., None]
        density, spin_density = (np.ascontiguousarray(part) for part in (components[..., 0], components[..., 1:]))
        return cls(exchange_field(system, spin_density), density, spin_density, error, **others)


def exchange_field(system: ElectronSystem, spin_density: NDArray[np.float64]) -> NDArray[np.float64]:
    """H_i = -<dH_sd/dS_i> = J_i tr(sigma rho_ii), Eq. 7 of arXiv:2112.12124, from tr(sigma rho_ii), shape (..., 3).

    The paper writes it as an integral of the lesser Green's function: rho_ii = -i ∫ de/2pi G^<_ii(e).
    """
    return np.asarray(system.exchange)[..., None] * spin_density


SystemT = TypeVar("SystemT", bound=ElectronSystem)
StateT = TypeVar("StateT", bound=State)


class Solver(ABC, Generic[SystemT, StateT]):
    """Base of the solvers for the state of the electrons on a lattice of spins.

    Parameters
    ----------
    system
        The lattice of electrons.
    tolerance
        Largest error of a field component; a state that misses it is an error.
    world
        Ranks that share the work; every rank calls `solve` with the same spins.
    device
        ``"cpu"``, ``"cuda"`` or a torch device.
    precision
        ``"complex128"``, or ``"complex64"`` if the solver supports it.

    Raises
    ------
    HpcspinError
        If the solver cannot handle the system, the tolerance or the precision.
    """

    name: ClassVar[str]
    treats: ClassVar[type[ElectronSystem]] = ElectronSystem
    """Class of the systems that it can solve."""
    is_random: ClassVar[bool] = False
    """Whether its fields depend on random vectors, and thus on `seed` and `number`."""
    finest: ClassVar[dict[str, float]] = {"complex128": FINEST_TOLERANCE}
    """Least tolerance that each precision can certify."""
    remedy: ClassVar[str] = "raise electrons.tolerance"
    """What to do where the tolerance is missed."""

    def __init_subclass__(cls) -> None:
        if "solve" in cls.__dict__:
            raise HpcspinError(
                f"the solver {cls.__name__} overrides solve, which checks states; override _solve instead"
            )
        if "name" in cls.__dict__:
            SOLVERS.add(cls.name, cls)

    def __init__(
        self,
        system: SystemT,
        tolerance: float,
        world: World | None = None,
        device: Any = "cpu",
        precision: str = "complex128",
    ) -> None:
        if not isinstance(system, self.treats):
            raise HpcspinError(
                f"electrons.solver: {self.name} is for {self.treats.described}, and this is {system.described}; "
                f"choose {system.default_solver}"
            )
        if precision not in self.finest:
            raise HpcspinError(
                f"electrons.precision: {self.name} cannot compute in {precision}; choose {' or '.join(self.finest)}"
            )
        if not (is_number(tolerance) and tolerance >= self.finest[precision]):
            raise HpcspinError(
                f"electrons.tolerance: {shown(tolerance)} must be {A_NUMBER}, and at least {self.finest[precision]:g}, "
                f"the least that {precision} can certify"
            )
        self.precision = precision
        self.system = system
        self.tolerance = float(tolerance)
        self.world = world or World()
        self.device = device
        self.seed = 0
        """Seed of the random vectors of a solver that uses them, together with `number`; 32 bits."""
        self.number = 0
        """Number of the next call's first snapshot in its file, or of the time step in dynamics: part of the key of the
        random vectors of a solver that uses them."""
        self._prepare()

    def _prepare(self) -> None:
        """Prepare what a solver keeps besides its arguments, which are checked already."""
        return

    @classmethod
    def ranks_needed(cls, system: SystemT, world: World, device: Any) -> int:
        """Number of ranks that must work on one lattice together because one rank cannot hold it; a collective call."""
        return 1

    def solve(self, spins: NDArray[np.float64]) -> StateT:
        """State of the electrons for some snapshots.

        Parameters
        ----------
        spins
            Unit vectors, shape (n, Lx, Ly, 3).

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice, the tolerance is missed, or a sum rule is violated.
        """
        checked = self.system.check_spins(spins)
        state = self._solve(checked.copy())  # A solver of one's own may change them in place.
        self._require_form(state, len(checked))
        self._check(state)
        return state

    @abstractmethod
    def _solve(self, spins: NDArray[np.float64]) -> StateT:
        """State for checked spins, including the error estimate."""

    def reset(self) -> None:
        """Forget everything adapted to earlier snapshots, so that the next one is solved like the first."""
        return

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything adapted to earlier snapshots, such as energy grids, as arrays for a checkpoint."""
        return {}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore the arrays that `get_state` returned."""
        return

    def _require_form(self, state: StateT, count: int) -> None:
        """Refuse a state without the arrays of the system's states; a solver of one's own may return anything."""
        vectors = dict.fromkeys(("field", "spin_density"), (*self.system.lattice.size, 3))
        for name, shape in {**self.system.result_shapes, **vectors}.items():
            values = array_of(getattr(state, name, None))
            fits = values.shape == (count, *shape) and values.dtype.kind == "f"
            if not fits or (name == "field" and not are_finite(values)):
                raise HpcspinError(
                    f"electrons.solver: {self.name} gives a {name} of shape {values.shape} and type {values.dtype}; it "
                    f"must have shape {(count, *shape)} and finite real numbers"
                )

    def _check(self, state: StateT) -> None:
        """Check the tolerance, and that occupations lie between 0 and 1."""
        missed = np.flatnonzero(~(state.error <= self.tolerance))
        if len(missed):
            single = self.precision != "complex128"
            raise HpcspinError(
                f"snapshot {missed[0]}: the field's error {state.error[missed[0]]:.1e} in {self.precision} exceeds the "
                f"tolerance {self.tolerance:.1e}; {self.remedy}"
                + (" or set electrons.precision=complex128" if single else "")
                + " and start again"
            )
        slack = self.tolerance / self.system.scale
        polarized = np.linalg.norm(state.spin_density, axis=-1)
        lowest, highest = (state.density - polarized) / 2, (state.density + polarized) / 2
        if not (lowest.min() >= -4 * slack and highest.max() <= 1 + 4 * slack):  # True of NaN, too.
            raise HpcspinError(
                f"occupations between {lowest.min():.3g} and {highest.max():.12g} leave [0, 1] by more than the "
                "tolerance; the electronic state is wrong, lower electrons.tolerance and start again"
            )


def make_solver(
    name: str,
    system: ElectronSystem,
    tolerance: float,
    world: World | None = None,
    device: Any = "cpu",
    precision: str = "complex128",
) -> Solver[Any, Any]:
    """Solver by its registered name: ``"negf"``, ``"closed_form"``, ``"diagonalization"``, ``"kpm"`` or another one.

    Raises
    ------
    HpcspinError
        If the name is unknown or the solver cannot handle the system, the tolerance or the precision.
    """
    return SOLVERS[name](system, tolerance, world, device, precision)
