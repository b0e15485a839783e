"""The energy of spins and its slope, where the field of a config derives from an energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.analysis.minimise import Array, Minimum, minimise, require_progress
from hpcspin.analysis.path import Band, Evaluate, geodesic, relax
from hpcspin.assembly.fields import SolverField, build_field
from hpcspin.assembly.learned import LearnedField
from hpcspin.assembly.system import build_lattice, build_vacancies
from hpcspin.config import Config, DynamicsSection
from hpcspin.dynamics import Field, FieldEvaluator, WholeLatticeField
from hpcspin.dynamics.energies import Conservative, Energetic
from hpcspin.dynamics.fields import terms_of
from hpcspin.dynamics.step_bounds import drives_of
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, as_snapshots, one_snapshot, perpendicular
from hpcspin.lattice.settings import chosen_sites
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.settings import Count, NonNegative, Seed, checked
from hpcspin.storage import atomic_hdf5, check_spins, find_trajectory, open_hdf5, partial_path
from hpcspin.storage.datasets import describe_datasets
from hpcspin.storage.provenance import with_provenance, write_attributes

_SAME = 1e-9
"""Largest difference of a component of equal spins."""


class Landscape:
    """Energy of spins as a function of their directions, under a field that derives from an energy.

    Each process holds the whole lattice. The field is one of classical terms, of exact closed electrons, a learned one
    of kind conservative, or a sum of these. ``vacancies``, None for none, and ``pinned`` are masks, bool, shape (Lx,
    Ly). Raises HpcspinError if a term derives from no energy, changes with time, or comes from a solver that estimates
    it with noise.
    """

    def __init__(
        self, lattice: Lattice, field: Field, vacancies: NDArray[np.bool_] | None, pinned: NDArray[np.bool_]
    ) -> None:
        for term in terms_of(field):
            _require_energy(term)
        if any(drive.strength for drive in drives_of(field)):
            raise HpcspinError("dynamics.classical.drives: a field that depends on time has no minimum; remove it")
        self.lattice = lattice
        self.occupied = np.ones(lattice.size, dtype=bool) if vacancies is None else ~vacancies
        self.free = self.occupied & ~pinned
        present = None if vacancies is None else torch.as_tensor(self.occupied)[..., None]
        self._terms = [
            (term, FieldEvaluator(term, Domain.cut(lattice, World(), term.halo), present)) for term in terms_of(field)
        ]

    def __call__(self, spins: Array) -> tuple[float, Array]:
        """Energy of spins of shape (Lx, Ly, 3) in units of the hopping, and -dE/dS_i, zero where spins do not move."""
        spins = self._state(spins)
        energy, total, present = 0.0, np.zeros_like(spins), spins * self.occupied[..., None]
        for term, evaluate in self._terms:
            if isinstance(term, LearnedField):  # One forward pass gives both.
                own, force = term.energy_and_field(self.lattice, present)
            else:
                force = _numbers(evaluate, spins)
                own = _energy(term, self.lattice, present, force)
            energy, total = energy + own, total + force
        return energy, total * self.free[..., None]

    def field(self, spins: Array) -> Array:
        """-dE/dS_i on spins of shape (Lx, Ly, 3), zero where spins do not move."""
        spins = self._state(spins)
        total = sum((_numbers(evaluate, spins) for _, evaluate in self._terms), np.zeros_like(spins))
        return np.asarray(total * self.free[..., None])

    def images(self, images: Array) -> tuple[Array, Array]:
        """Energies, shape (m,), and -dE/dS_i of several states, shape (m, Lx, Ly, 3)."""
        found = [self(image) for image in as_snapshots(images, self.lattice.size)[0]]
        return np.array([energy for energy, _ in found]), np.stack([force for _, force in found])

    def slope(self, spins: Array) -> Array:
        """Slope dE/dS_i perpendicular to the spins, shape (Lx, Ly, 3)."""
        spins = self._state(spins)
        return -perpendicular(spins, self.field(spins))

    @checked(tolerance=NonNegative, most=Count)
    def minimise(self, spins: Array, tolerance: float = 1e-6, most: int = 10_000) -> Minimum:
        """Spins at rest; see `hpcspin.analysis.minimise`."""
        return minimise(self.field, self._state(spins), tolerance, most)

    @checked(images=Count, tolerance=NonNegative, tilt=NonNegative, seed=Seed, most=Count)
    def path(
        self,
        first: Array,
        last: Array,
        images: int = 9,
        tolerance: float = 1e-4,
        tilt: float = 0.1,
        seed: int = 1,
        most: int = 100_000,
    ) -> Band:
        """Minimum-energy path between two states at rest, from their geodesic; see `hpcspin.analysis.path`.

        Raises HpcspinError if the residual force is larger than `tolerance` after `most` evaluations of an image.
        """
        first, last = self.ends(first, last)
        for band in relax(self.images, geodesic(first, last, images, tilt, seed), tolerance):
            require_progress(float(band.force.max()), band.evaluations, tolerance, most)
        return band

    def ends(self, first: Array, last: Array) -> Array:
        """Both ends of a path, shape (2, Lx, Ly, 3), the same at sites without a spin and at pinned ones."""
        first, last = self._state(first), self._state(last)
        differ = np.abs(last - first).max(axis=-1) > _SAME  # A descent leaves their last bits to the normalisation.
        if (differ & self.occupied & ~self.free).any():
            raise HpcspinError("pinned spins differ between both ends of the path; give equal ones")
        return np.stack([first, np.where(self.free[..., None], last, first)])

    def _state(self, spins: Array) -> Array:
        return check_spins(one_snapshot(spins, self.lattice.size, "state"), None, "spins", vacancies=~self.occupied)


def _numbers(evaluate: FieldEvaluator, spins: Array) -> Array:
    return np.asarray(evaluate(torch.as_tensor(spins), 0.0).detach().cpu().double().numpy())


def _energy(term: Field, lattice: Lattice, spins: Array, force: Array) -> float:
    """Energy of a term whose field on these spins was just evaluated."""
    if isinstance(term, Conservative):
        return -float((spins * force).sum()) / term.degree
    assert isinstance(term, Energetic)
    if (own := term.energy(lattice, spins)) is None:
        raise _without_energy()
    return own


def _require_energy(term: Field) -> None:
    if isinstance(term, SolverField) and term.solver.is_random:
        raise HpcspinError(
            f"electrons.solver: {term.solver.name} estimates energies with noise; choose diagonalization"
        )
    if isinstance(term, LearnedField):
        has_energy = term.model.architecture.settings.kind == "conservative"
    elif isinstance(term, WholeLatticeField):
        has_energy = "energy" in term.observable_shapes
    else:
        has_energy = isinstance(term, Conservative | Energetic)
    if not has_energy:
        raise _without_energy()


def _without_energy() -> HpcspinError:
    return HpcspinError(
        "the field derives from no energy; minima and paths need closed electrons, a model of kind conservative, "
        "classical terms without slonczewski or fields of your own with a method energy"
    )


def build_landscape(config: Config, world: World) -> Landscape:
    """Landscape of a config's field; the ranks share exact labels."""
    dynamics, lattice = config.section(DynamicsSection), build_lattice(config.lattice)
    field = build_field(config, lattice, world, pick_device(world, config.device))
    pinned = chosen_sites(lattice, dynamics.pinned, "dynamics.pinned")
    return Landscape(lattice, field, build_vacancies(config, lattice), pinned)


def images_of_teams(landscape: Landscape, number: int, teams: int, team: World, world: World) -> Evaluate:
    """Function for the energies and fields of images, which teams of ranks share; every rank gets all, in order."""

    def evaluate(images: Array) -> tuple[Array, Array]:
        mine = [landscape(image) for image in images[number::teams]]
        parts = [part for part in world.allgather(mine if team.rank == 0 else None) if part is not None]
        found = [parts[image % teams][image // teams] for image in range(len(images))]
        return np.array([energy for energy, _ in found]), np.stack([force for _, force in found])

    return evaluate


def write_states(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any], *, finished: bool) -> None:
    """Write states of the spins, unfinished ones under the name ``PATH.partial``."""
    with atomic_hdf5(path if finished else partial_path(path)) as file:
        for name, values in arrays.items():
            file[name] = values
        write_attributes(file, path.stem, with_provenance(about))
        describe_datasets(file, about)
    if finished:
        partial_path(path).unlink(missing_ok=True)


def require_own(path: Path) -> None:
    """Refuse a directory for states with the name `path` that holds a trajectory, or states of another verb."""
    found = find_trajectory(path.parent)
    if found.exists() and found not in (path, partial_path(path)):
        raise HpcspinError(f"{found}: is the result of another verb; choose another --output")


def stored_states(path: Path, read: Callable[[Any, Mapping[str, Any]], Any]) -> Any:
    """What a function finds in states with the name `path`, finished or not, and their attributes; None of none."""
    found = next((one for one in (path, partial_path(path)) if one.exists()), None)
    if found is None:
        return None
    with open_hdf5(found) as file:
        try:
            return read(file, file.attrs)
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise HpcspinError(f"{found}: does not hold such states ({reason}); choose another --output") from error
