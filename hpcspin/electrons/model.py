"""The driven system: lattice, parameters of its Hamiltonian, reservoirs that drive it; and its steady state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR
from hpcspin.electrons.solver import Solver, State
from hpcspin.electrons.system import A_NUMBER, SIGMA, ElectronSystem, are_finite, array_of, is_number, read_only
from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import SHAPES, Lattice

WIDEST_BIAS = 1e3
"""Largest difference of chemical potentials, in hoppings, that is accepted as intended."""


@dataclass(frozen=True, eq=False, repr=False)
class Reservoir:
    """A wide-band reservoir of electrons.

    Parameters
    ----------
    name
        Name in messages and files.
    sites
        Mask of the sites that it touches, bool, shape (Lx, Ly).
    width
        Level width g of a touched site, an energy. The width matrix is g (1 + p·sigma), and the self-energy is -i
        times this matrix.
    potential
        Chemical potential.
    polarization
        Polarisation p of a magnetised electrode, |p| <= 1.

    Raises
    ------
    HpcspinError
        If the width or the potential is not a finite number, the width matrix is not positive, the sites are not a
        mask, or no site is touched.
    """

    name: str
    sites: NDArray[np.bool_] = field(repr=False)
    width: float
    potential: float
    polarization: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise HpcspinError(f"reservoir {shown(self.name)}: its name must be a text")
        where = f"reservoir {self.name!r}"
        if not (is_number(self.width) and self.width >= 0):
            raise HpcspinError(f"{where}: width {shown(self.width)} must be {A_NUMBER}, and >= 0")
        if not is_number(self.potential):
            raise HpcspinError(f"{where}: potential {shown(self.potential)} must be {A_NUMBER}")
        if not (are_finite(self.polarization) and np.shape(self.polarization) == (3,)):
            raise HpcspinError(f"{where}: polarization {shown(self.polarization)} must be three finite numbers")
        if not math.hypot(*self.polarization) <= 1 + 1e-12:
            raise HpcspinError(
                f"{where}: polarization {self.polarization} must have a length of at most 1, "
                "else the width matrix is not positive"
            )
        mask = array_of(self.sites)
        if mask.dtype != bool or mask.ndim != 2:
            raise HpcspinError(
                f"{where}: its sites must be a mask, bool of shape (Lx, Ly); lattice.mask makes one of a name, as "
                "'left', or of pairs (x, y)"
            )
        object.__setattr__(self, "sites", read_only(mask))
        if not mask.any():
            raise HpcspinError(f"{where}: it touches no site of the lattice; give it at least one")

    def __repr__(self) -> str:
        polarized = f", polarization {tuple(self.polarization)}" if any(self.polarization) else ""
        touched = f"on {np.count_nonzero(self.sites)} sites"
        return f"<Reservoir {self.name} {touched}: width {self.width}, potential {self.potential}{polarized}>"

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width matrix of each site as coefficients of (1, sigma), shape (Lx, Ly, 4)."""
        return self.width * self.sites[..., None] * np.array([1.0, *self.polarization])


@dataclass(frozen=True, eq=False, repr=False)
class DrivenLattice(ElectronSystem["SteadyState"]):
    """Electrons of the s-d model on a lattice coupled to reservoirs.

    H = -t sum c†c - J sum S_i · c†_i sigma c_i.

    Parameters
    ----------
    lattice, hopping, exchange, temperature, on_site, rashba, vacancies, solver, tolerance, precision
        As for `ElectronSystem`.
    reservoirs
        At least one must have a width. All currents are in the order of the reservoirs. Reservoirs do not touch
        vacancies.

    Raises
    ------
    HpcspinError
        If a parameter is invalid.
    """

    reservoirs: Sequence[Reservoir]

    default_solver: ClassVar[str] = "negf"
    described: ClassVar[str] = "a driven lattice, with reservoirs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.reservoirs, list | tuple):
            raise HpcspinError(
                f"electrons: reservoirs {shown(self.reservoirs)} are no list; give [Reservoir(...), ...]"
            )
        object.__setattr__(self, "reservoirs", tuple(self.reservoirs))
        for reservoir in self.reservoirs:
            if not isinstance(reservoir, Reservoir):
                raise HpcspinError(f"electrons: {shown(reservoir)} is no reservoir; give Reservoir(name, sites, ...)")
        if not any(reservoir.width > 0 for reservoir in self.reservoirs):
            raise HpcspinError("electrons: no reservoir has a width; a steady state needs at least one")
        names = [reservoir.name for reservoir in self.reservoirs]
        if len(set(names)) < len(names):
            raise HpcspinError(f"electrons: two reservoirs carry the same name among {', '.join(names)}")
        for reservoir in self.reservoirs:
            if reservoir.sites.shape != self.lattice.size:
                raise HpcspinError(
                    f"reservoir {reservoir.name!r}: its site mask has shape {reservoir.sites.shape} "
                    f"on a lattice of {self.lattice.size}"
                )
            if not self.occupied[reservoir.sites].any():
                raise HpcspinError(f"reservoir {reservoir.name!r}: touches only vacancies; give it other sites")
        if not self._all_sites_reached():
            raise HpcspinError(
                "electrons: some sites are connected to no reservoir; their occupation is undefined, add a bath"
            )
        if self.bias > WIDEST_BIAS * self.nearest_hopping:
            raise HpcspinError(
                f"electrons: potentials differ by {self.bias:g}, over {WIDEST_BIAS:g} hoppings; "
                "the energy window would be absurd, check their units"
            )

    def _own_config(self) -> dict[str, Any]:
        return {
            "reservoirs": [
                {"name": one.name, "sites": _sites_in_words(one.sites, self.lattice)}
                | {name: np.asarray(getattr(one, name)).tolist() for name in ("width", "potential", "polarization")}
                for one in self.reservoirs
            ]
        }

    @property
    def result_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `ElectronSystem`."""
        return {"density": self.lattice.size, "current": (len(self.reservoirs),), "error": (), "current_error": ()}

    @property
    def bias(self) -> float:
        """Largest minus smallest chemical potential of the reservoirs that have a width; the others drive nothing."""
        potentials = [reservoir.potential for reservoir in self.reservoirs if reservoir.width]
        return max(potentials) - min(potentials)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width matrices as coefficients of (1, sigma), shape (reservoirs, Lx, Ly, 4); 0 at vacancies."""
        return np.stack([reservoir.widths for reservoir in self.reservoirs]) * self.occupied[..., None]

    @property
    def potentials(self) -> NDArray[np.float64]:
        """Chemical potentials, shape (reservoirs,)."""
        return np.array([reservoir.potential for reservoir in self.reservoirs])

    def _all_sites_reached(self) -> bool:
        """Whether every connected part of the lattice touches a reservoir with a width."""
        touched = self.widths[..., 0].any(axis=0).reshape(-1)
        if touched.all():
            return True
        # The import takes a third of a second, and lattices with a bath on all sites do not need it.
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        origin, bond = np.nonzero((targets := self.lattice.shift([term.offset for term in self.hopping_terms])) >= 0)
        sites = self.lattice.num_sites
        occupied = self.occupied.reshape(-1)
        there = occupied[origin] & occupied[targets[origin, bond]]
        origin, bond = origin[there], bond[there]
        bonds = csr_array((np.ones(len(origin)), (origin, targets[origin, bond])), shape=(sites, sites))
        parts, part = connected_components(bonds, directed=False)
        return len(np.unique(part[touched])) == parts - np.sum(~occupied)


def _sites_in_words(sites: NDArray[np.bool_], lattice: Lattice) -> str | list[list[int]]:
    named = (name for name in SHAPES if np.array_equal(sites, lattice.mask(name)))
    return next(named, np.argwhere(sites).tolist())


@dataclass(frozen=True)
class Group:
    """Reservoirs at the same potential, which act as one: their indices and summed widths, shape (Lx, Ly, 4)."""

    potential: float
    members: list[int]
    widths: NDArray[np.float64]


def merge_potentials(system: DrivenLattice) -> list[Group]:
    """Reservoirs with a width, in one group for each potential, in order of appearance."""
    merged: dict[float, Group] = {}
    for index, (potential, widths) in enumerate(zip(system.potentials.tolist(), system.widths, strict=True)):
        if widths.any():
            before = merged.get(potential, Group(potential, [], np.zeros_like(widths)))
            merged[potential] = Group(potential, [*before.members, index], before.widths + widths)
    return list(merged.values())


def site_matrices(coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
    """2x2 matrices, shape (..., 2, 2), from coefficients of (1, sigma), shape (..., 4)."""
    return np.einsum("...k,kab->...ab", coefficients, SIGMA)


@dataclass(frozen=True, repr=False)
class SteadyState(State):
    """Steady state of n snapshots; energies in t, currents in t/hbar.

    Attributes
    ----------
    field, density, spin_density, error
        As in every `State`.
    current
        Particle current out of each reservoir into the lattice, shape (n, reservoirs).
    current_error
        Estimate of the largest error of a current, shape (n,).
    """

    current: NDArray[np.float64]
    current_error: NDArray[np.float64]


def width_traces(system: DrivenLattice, components: NDArray[np.float64]) -> NDArray[np.float64]:
    """tr(2 Gamma_r M), shape (..., reservoirs), from the on-site components of M, shape (..., Lx, Ly, 4)."""
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
        if leak > 4 * self.tolerance / self.system.scale * widths:
            raise HpcspinError(
                f"the currents of all reservoirs add up to {leak:.1e} instead of 0; "
                "the electronic state is wrong, lower electrons.tolerance and start again"
            )
