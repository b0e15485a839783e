"""The driven system: a lattice, its Hamiltonian's parameters and the reservoirs that drive it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from hpcspin.errors import HpcspinError
from hpcspin.lattice import SHAPES, Lattice, as_snapshots, make_texture
from hpcspin.storage import check_spins

if TYPE_CHECKING:
    from hpcspin.electrons.steady_state import SteadyState

WIDEST_BIAS = 1e3
"""Largest difference of chemical potentials, in hoppings, that is taken for intended."""

SIGMA = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
"""Identity and Pauli matrices, shape (4, 2, 2)."""


@dataclass(frozen=True)
class Reservoir:
    """A wide-band reservoir of electrons.

    Parameters
    ----------
    name
        What errors and files call it.
    sites
        Sites it touches, bool, shape (Lx, Ly).
    width
        Level width g of a touched site: its width matrix is g (1 + p·sigma) and
        its self-energy -i times that, in units of energy.
    potential
        Chemical potential.
    polarization
        Polarisation p of a magnetised electrode, |p| <= 1.

    Raises
    ------
    HpcspinError
        If the width matrix would not be positive, or no site is touched.
    """

    name: str
    sites: NDArray[np.bool_]
    width: float
    potential: float
    polarization: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        where = f"reservoir {self.name!r}"
        if not (math.isfinite(self.width) and self.width >= 0):
            raise HpcspinError(f"{where}: width {self.width} must be a finite number >= 0")
        if not math.isfinite(self.potential):
            raise HpcspinError(f"{where}: potential {self.potential} must be a finite number")
        if not math.hypot(*self.polarization) <= 1 + 1e-12:
            raise HpcspinError(
                f"{where}: polarization {self.polarization} must have a length of at most 1, "
                "else the width matrix is not positive"
            )
        if not np.any(self.sites):
            raise HpcspinError(f"{where}: it touches no site of the lattice; give it at least one")

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width matrix of each site as coefficients of (1, sigma), shape (Lx, Ly, 4)."""
        return self.width * self.sites[..., None] * np.array([1.0, *self.polarization])


@dataclass(frozen=True)
class DrivenLattice:
    """Electrons of the s-d model on a lattice coupled to reservoirs.

    H = -t sum c†c - J sum S_i · c†_i sigma c_i.

    Parameters
    ----------
    lattice
        Sites and bonds.
    hopping
        t > 0.
    exchange
        J.
    temperature
        Electron temperature T > 0.
    reservoirs
        At least one with a width; their order is the order of all currents.
    solver, tolerance, precision
        How `solve` finds the steady state: a registered solver, the largest error of a field component, and
        ``"complex128"`` or ``"complex64"``.

    Raises
    ------
    HpcspinError
        If a parameter makes no sense.
    """

    lattice: Lattice
    hopping: float
    exchange: float
    temperature: float
    reservoirs: tuple[Reservoir, ...]
    solver: str = "negf"
    tolerance: float = 1e-6
    precision: str = "complex128"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reservoirs", tuple(self.reservoirs))
        for name in ("hopping", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise HpcspinError(f"electrons: {name} {value} must be a finite number > 0")
        if not math.isfinite(self.exchange):
            raise HpcspinError(f"electrons: exchange {self.exchange} must be a finite number")
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
        if not self._all_sites_reached():
            raise HpcspinError(
                "electrons: bonds lead from some sites to no reservoir; their occupation is undefined, add a bath"
            )
        if self.bias > WIDEST_BIAS * self.hopping:
            raise HpcspinError(
                f"electrons: potentials differ by {self.bias:g}, over {WIDEST_BIAS:g} hoppings; "
                "the energy window would be absurd, check their units"
            )

    def texture(self, kind: str, *, seed: int = 1, **parameters: float) -> NDArray[np.float64]:
        """Spins of a registered texture on this lattice, shape (Lx, Ly, 3).

        Parameters
        ----------
        kind
            ``"wall"``, ``"antiferromagnet"``, ``"ferromagnet"``, ``"random"`` or another registered name.
        seed
            Of the random tilts.
        **parameters
            Those of the texture, such as ``position`` and ``tilt`` of a wall.

        Raises
        ------
        HpcspinError
            If the texture is unknown or has no such parameter.
        """
        return make_texture(kind, self.lattice, seed, **parameters)

    def solve(
        self,
        spins: Any,
        tolerance: float | None = None,
        *,
        solver: str | None = None,
        precision: str | None = None,
        device: str = "auto",
    ) -> SteadyState:
        """Exchange fields H_i = J tr(sigma rho_ii), densities and currents of the steady state (the paper's Eq. 7).

        Under a launcher all ranks call together, with the same spins, and share the work.

        Parameters
        ----------
        spins
            Unit vectors, shape (Lx, Ly, 3) or (n, Lx, Ly, 3), NumPy or torch.
        tolerance
            Largest error of a field component, in hoppings; None for the system's.
        solver, precision
            As of the system; None for its own.
        device
            ``"auto"``, ``"cpu"`` or ``"cuda"``.

        Returns
        -------
        SteadyState
            ``.field``, ``.density``, ``.current`` and ``.error``, of one snapshot without the first axis where one
            was given; torch tensors where the spins were one.

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice or are no unit vectors, or the tolerance is missed.
        """
        from hpcspin.electrons.labelling import solve  # It needs torch, which a system does not.
        from hpcspin.parallel.world import World

        system = replace(
            self,
            tolerance=self.tolerance if tolerance is None else tolerance,
            solver=solver or self.solver,
            precision=precision or self.precision,
        )
        snapshots, restore = as_snapshots(spins, self.lattice.size)
        return solve(system, check_spins(snapshots, None, "spins"), World.current(), device).map(restore)

    def as_config(self) -> dict[str, Any]:
        """Sections ``lattice`` and ``electrons`` of a config of this system, as JSON values."""
        lattice = self.lattice
        return {
            "lattice": {"kind": lattice.kind, "size": list(lattice.size), "periodic": list(lattice.periodic)},
            "electrons": {
                **{name: getattr(self, name) for name in ("hopping", "exchange", "temperature")},
                **{name: getattr(self, name) for name in ("solver", "tolerance", "precision")},
                "reservoirs": [
                    {
                        "name": reservoir.name,
                        "sites": _sites_in_words(reservoir.sites, lattice),
                        "width": reservoir.width,
                        "potential": reservoir.potential,
                        "polarization": list(reservoir.polarization),
                    }
                    for reservoir in self.reservoirs
                ],
            },
        }

    @property
    def bias(self) -> float:
        """Largest minus smallest chemical potential of the reservoirs."""
        potentials = [reservoir.potential for reservoir in self.reservoirs]
        return max(potentials) - min(potentials)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width matrices as coefficients of (1, sigma), shape (reservoirs, Lx, Ly, 4)."""
        return np.stack([reservoir.widths for reservoir in self.reservoirs])

    @property
    def potentials(self) -> NDArray[np.float64]:
        """Chemical potentials, shape (reservoirs,)."""
        return np.array([reservoir.potential for reservoir in self.reservoirs])

    @property
    def band_edge(self) -> float:
        """Bound on the magnitude of the lattice's energies, |J| + t times the coordination number."""
        return abs(self.exchange) + 2 * len(self.lattice.bonds) * self.hopping

    def _all_sites_reached(self) -> bool:
        """Whether every connected part of the lattice touches a reservoir with a width."""
        origin, bond = np.nonzero((targets := self.lattice.shift(self.lattice.bonds)) >= 0)
        sites = self.lattice.num_sites
        bonds = csr_array((np.ones(len(origin)), (origin, targets[origin, bond])), shape=(sites, sites))
        parts, part = connected_components(bonds, directed=False)
        touched = self.widths[..., 0].any(axis=0).reshape(-1)
        return len(np.unique(part[touched])) == parts

    def check_spins(self, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Snapshots of this lattice as float64, shape (n, Lx, Ly, 3).

        Raises
        ------
        HpcspinError
            If the shape is another one, or a component is not finite.
        """
        spins = np.asarray(spins, dtype=np.float64)
        if spins.ndim != 4 or len(spins) == 0 or spins.shape[1:] != (*self.lattice.size, 3):
            raise HpcspinError(
                f"spins of shape {spins.shape} do not fit a lattice of {self.lattice.size}; "
                f"give (n, {self.lattice.size[0]}, {self.lattice.size[1]}, 3)"
            )
        if not np.isfinite(spins).all():
            snapshot = int(np.argwhere(~np.isfinite(spins))[0, 0])
            raise HpcspinError(f"spins: snapshot {snapshot} has components that are not finite")
        return spins


def _sites_in_words(sites: NDArray[np.bool_], lattice: Lattice) -> str | list[list[int]]:
    named = (name for name in SHAPES if np.array_equal(sites, lattice.mask(name)))
    return next(named, np.argwhere(sites).tolist())


@dataclass(frozen=True)
class Group:
    """Reservoirs at one potential that act as one: their indices and summed widths, shape (Lx, Ly, 4)."""

    potential: float
    members: list[int]
    widths: NDArray[np.float64]


def merge_potentials(reservoirs: Iterable[Reservoir]) -> list[Group]:
    """Reservoirs that have a width as one group a potential, in order of appearance."""
    merged: dict[float, Group] = {}
    for index, reservoir in enumerate(reservoirs):
        if reservoir.width > 0:
            before = merged.get(reservoir.potential, Group(reservoir.potential, [], np.zeros_like(reservoir.widths)))
            merged[reservoir.potential] = Group(
                reservoir.potential, [*before.members, index], before.widths + reservoir.widths
            )
    return list(merged.values())


def site_matrices(coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
    """2x2 matrices from coefficients of (1, sigma), shape (..., 4) to (..., 2, 2)."""
    return np.einsum("...k,kab->...ab", coefficients, SIGMA)
