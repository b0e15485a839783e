"""Closed lattices: electrons in equilibrium at a given chemical potential or a given number of electrons per site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.solver import SOLVERS, Solver, State
from hpcspin.electrons.system import A_NUMBER, ElectronSystem, is_number
from hpcspin.errors import HpcspinError, shown

_WHOLE = 1e-9
"""Distance from a whole number of electrons that is due to the rounding of a filling given as a decimal."""


@dataclass(frozen=True, eq=False, repr=False)
class ClosedLattice(ElectronSystem["EquilibriumState"]):
    """Electrons of the s-d (Kondo) model on a lattice without reservoirs, in equilibrium.

    Parameters
    ----------
    lattice, hopping, exchange, temperature, on_site, rashba, vacancies, solver, tolerance, precision
        As for `ElectronSystem`.
    potential
        Chemical potential mu; the fields then derive from the grand potential Omega.
    filling
        Electrons per site, 0 to 2, vacancies not counted; the fields then derive from the free energy
        F = Omega + mu N.

    Raises
    ------
    HpcspinError
        If a parameter is invalid, or not exactly one of potential and filling is given.
    """

    potential: float | None = None
    filling: float | None = None

    default_solver: ClassVar[str] = "diagonalization"
    described: ClassVar[str] = "a closed lattice, without reservoirs"

    def __post_init__(self) -> None:
        super().__post_init__()
        message = wrong_ensemble(self.potential, self.filling)
        if message:
            raise HpcspinError(f"electrons: {message}")

    def _own_config(self) -> dict[str, Any]:
        return {name: np.asarray(getattr(self, name)).tolist() for name in ("potential", "filling")}

    @property
    def fixed_electrons(self) -> float | None:
        """Number of electrons that corresponds to the filling; None at a fixed potential."""
        if self.filling is None:
            return None
        electrons = self.filling * int(self.occupied.sum())
        # In a gap mu follows from how far this is from a whole number, and 0.57 * 100 is just below 57.
        whole = round(electrons)
        return float(whole) if abs(electrons - whole) < _WHOLE else electrons

    @property
    def result_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `ElectronSystem`."""
        numbers = ["energy", "electrons", "chemical_potential", "error"]
        if SOLVERS[self.solver].is_random:
            numbers.append("energy_error")
        return {"density": self.lattice.size, **dict.fromkeys(numbers, ())}


def wrong_ensemble(potential: float | None, filling: float | None) -> str | None:
    """Message that says what is wrong with the pair; None if exactly one is given and its value is possible."""
    if (potential is None) == (filling is None):
        return (
            "a system without reservoirs needs exactly one of potential (the chemical potential) and filling "
            "(electrons a site)"
        )
    if potential is not None and not is_number(potential):
        return f"potential {shown(potential)} must be {A_NUMBER}"
    if filling is not None and not (is_number(filling) and 0 <= filling <= 2):
        return f"filling {shown(filling)} must lie between 0 and 2 electrons a site"
    return None


@dataclass(frozen=True, repr=False)
class EquilibriumState(State):
    """Equilibrium of n snapshots; energies in t.

    Attributes
    ----------
    field, density, spin_density, error
        As in every `State`; H_i = -dE/dS_i, where E is the energy below.
    energy
        Energy of the whole lattice, Omega at a fixed potential or F = Omega + mu N at a fixed filling, shape (n,).
    energy_error
        Error of the energy from random vectors and truncated series, shape (n,); 0 for diagonalization.
    electrons
        Number of electrons N, shape (n,).
    chemical_potential
        mu, shape (n,). In a gap at low temperature any value in the gap gives the same field, density and F.
    """

    energy: NDArray[np.float64]
    energy_error: NDArray[np.float64]
    electrons: NDArray[np.float64]
    chemical_potential: NDArray[np.float64]

    @classmethod
    def of(cls, system: ClosedLattice, components: NDArray[np.float64], numbers: NDArray[np.float64]) -> Self:
        """Equilibrium from components, as for `from_components`, and from energy, its error, mu and error, (n, 4)."""
        energy, uncertain, potential, error = numbers.T
        electrons = (components[..., 0] * system.occupied).sum(axis=(-2, -1))
        others = {"energy": energy, "energy_error": uncertain, "electrons": electrons, "chemical_potential": potential}
        return cls.from_components(system, components, error, **others)


class EquilibriumSolver(Solver[ClosedLattice, EquilibriumState]):
    """Base of the solvers of closed lattices; see `Solver`."""

    treats: ClassVar[type[ElectronSystem]] = ClosedLattice
