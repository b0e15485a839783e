"""Settings of the electrons and of the solver for their state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from hpcspin.electrons.closed import ClosedLattice, wrong_ensemble
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.solver import SOLVERS
from hpcspin.electrons.system import ElectronSystem
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.lattice.settings import Columns, Sites, SiteValues, chosen_sites
from hpcspin.settings import WIDEST, Energy, Finite, NonNegative, Positive, PositiveEnergy, Section, Vector


class ReservoirSettings(Section):
    """A wide-band reservoir of electrons."""

    name: str
    sites: Sites
    """Sites that the reservoir touches: ``left`` (column 0), ``right`` (column Lx - 1), ``all``, another registered
    shape, ``{columns: [from, to]}``, a list of sites [x, y], or ``{file: FILE.h5, dataset: NAME}`` for the sites where
    the dataset is not 0."""
    width: Annotated[NonNegative, Field(le=WIDEST)]
    """Level width g of a site. The width matrix is g(1 + p·sigma), and the self-energy is -i times this matrix."""
    potential: Energy
    """Chemical potential mu in units of the hopping."""
    polarization: Vector = (0.0, 0.0, 0.0)
    """Polarisation p of a magnetised electrode, |p| <= 1."""

    @model_validator(mode="after")
    def _positive(self) -> ReservoirSettings:
        if math.hypot(*self.polarization) > 1 + 1e-12:
            raise ValueError("polarization is longer than 1; the width matrix would not be positive")
        return self


class RegionSettings(Section):
    """Sites with their own exchange or on-site energy."""

    sites: Sites
    """In the same forms as the sites of a reservoir."""
    exchange: Energy | None = None
    on_site: Energy | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> RegionSettings:
        if self.exchange is None and self.on_site is None:
            raise ValueError("has neither exchange nor on_site; give one of them, or leave the region out")
        return self


class ElectronsSettings(Section):
    """The electrons of the s-d model, driven by reservoirs or closed, and the solver for their state."""

    hopping: PositiveEnergy | Annotated[tuple[Energy, ...], Field(min_length=1)] = 1.0
    """t of nearest neighbours, or [t1, t2, ...], one hopping for each shell of neighbours."""
    exchange: SiteValues = 3.8
    """J: one number, or a map of shape (Lx, Ly), ``{file: FILE.h5, dataset: NAME}``, with one for each site."""
    on_site: SiteValues = 0.0
    """Energy of an electron on a site, in the same forms."""
    regions: tuple[RegionSettings, ...] = ()
    """Groups of sites with their own exchange or on-site energy; the last region that contains a site decides."""
    temperature: PositiveEnergy = 0.01
    tolerance: Positive = ElectronSystem.tolerance
    """Largest allowed error of a field component; a label that misses it is an error."""
    solver: Annotated[str, AfterValidator(SOLVERS.check)] = ""
    """For driven lattices ``negf`` (recursive Green's functions, any size; the default) or ``closed_form`` (one dense
    eigenproblem); for closed lattices ``diagonalization`` (exact; the default) or ``kpm`` (kernel polynomials, cost
    linear in the number of sites); or another registered solver."""
    precision: Literal["complex128", "complex64"] = ElectronSystem.precision  # type: ignore[assignment]
    """Precision of the Green's functions at energies between the potentials. The rounding error of complex64 is
    measured and included in the error estimate."""
    vacancies: Sites = ()
    """Sites without an electron and without a spin, in the same forms as the sites of regions. Force fields refuse
    vacancies."""
    transport: tuple[Energy, ...] | None = None
    """Energies at which labels store the density of states and the transmissions. Any list, including the empty one
    [], makes them also store the currents along bonds and those injected by the reservoirs; null stores none of these.
    Transport costs one more dense eigenproblem for each label."""
    rashba: Energy = 0.0
    """Rashba spin-orbit coupling of nearest neighbours. Force fields refuse labels computed with it."""
    reservoirs: tuple[ReservoirSettings, ...] = ()
    """Electrodes and baths of a driven lattice; leave out for a closed lattice, which is in equilibrium."""
    potential: Energy | None = None
    """Chemical potential of a closed lattice, whose fields then derive from the grand potential."""
    filling: Finite | None = None
    """Electrons per site of a closed lattice, 0 to 2; its fields then derive from the free energy."""

    def on(self, lattice: Lattice) -> ElectronsSettings:
        """These settings for one lattice, with regions and columns resolved into values and lists of sites."""
        changed: dict[str, Any] = {}
        if any(isinstance(reservoir.sites, Columns) for reservoir in self.reservoirs):
            changed["reservoirs"] = tuple(_with_sites(reservoir, lattice) for reservoir in self.reservoirs)
        if self.vacancies:
            empty = np.argwhere(chosen_sites(lattice, self.vacancies, "electrons.vacancies")).tolist()
            changed["vacancies"] = tuple(map(tuple, empty))
        if self.regions:
            masks = [chosen_sites(lattice, region.sites, "electrons.regions") for region in self.regions]
            for name in ("exchange", "on_site"):
                values = np.array(getattr(self, name))
                if values.shape not in ((), lattice.size):
                    raise HpcspinError(
                        f"electrons.{name}: a map of {values.shape} does not fit {lattice.size} sites; correct the map"
                    )
                for region, mask in zip(self.regions, masks, strict=True):
                    if getattr(region, name) is not None:
                        values = np.where(mask, getattr(region, name), values)
                changed[name] = tuple(map(tuple, values.tolist())) if np.ptp(values) else float(values.flat[0])
            changed["regions"] = ()
        return self.model_copy(update=changed) if changed else self

    @property
    def system(self) -> type[ElectronSystem]:
        """Class of the system that these settings describe."""
        return DrivenLattice if self.reservoirs else ClosedLattice

    @model_validator(mode="before")
    @classmethod
    def _default_solver(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("solver"):
            return {**given, "solver": (DrivenLattice if given.get("reservoirs") else ClosedLattice).default_solver}
        return given

    @model_validator(mode="after")
    def _one_system(self) -> ElectronsSettings:
        names = [reservoir.name for reservoir in self.reservoirs]
        if len(set(names)) != len(names):
            raise ValueError("two reservoirs carry the same name")
        given = [name for name in ("potential", "filling") if getattr(self, name) is not None]
        if self.reservoirs and given:
            raise ValueError(
                f"reservoirs have potentials of their own; leave {' and '.join(given)} out, or the reservoirs"
            )
        message = None if self.reservoirs else wrong_ensemble(self.potential, self.filling)
        if message:
            raise ValueError(message + ("" if given else "; or give reservoirs, for a driven one"))
        treats = SOLVERS[self.solver].treats
        if not issubclass(self.system, treats):
            raise ValueError(
                f"solver {self.solver} is for {treats.described}, and this is {self.system.described}; "
                f"choose {self.system.default_solver}"
            )
        return self


def _with_sites(reservoir: ReservoirSettings, lattice: Lattice) -> ReservoirSettings:
    """The same reservoir with columns as a list of sites."""
    if not isinstance(reservoir.sites, Columns):
        return reservoir
    where = f"electrons.reservoirs: {reservoir.name!r}"
    sites = np.argwhere(chosen_sites(lattice, reservoir.sites, where)).tolist()
    return reservoir.model_copy(update={"sites": tuple(map(tuple, sites))})
