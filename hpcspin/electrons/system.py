"""Lattices of itinerant electrons: hopping along bonds, exchange with the spins, temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Lattice, as_snapshots, make_texture
from hpcspin.settings import WIDEST
from hpcspin.storage import check_spins

if TYPE_CHECKING:
    from hpcspin.electrons.transport import Transport

SIGMA = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
"""Identity and Pauli matrices, shape (4, 2, 2)."""
VACANT = 1e12
"""On-site energy of a vacancy in units of t; its effect on the neighbours, t / VACANT, is below any tolerance."""


Solved = TypeVar("Solved", default=Any)
"""What `ElectronSystem.solve` gives: a SteadyState or an EquilibriumState."""
A_NUMBER = f"a finite number of size at most {WIDEST:.0e}"


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that nobody can change, so that what has been checked of a system remains true."""
    kept = array.copy()
    kept.flags.writeable = False
    return kept


def array_of(values: Any) -> NDArray[Any]:
    """The values as an array; masked ones, and lists of different lengths, as an empty one, which fits nothing."""
    try:
        return np.empty(0, dtype=object) if np.ma.is_masked(values) else np.asarray(values)
    except ValueError:
        return np.empty(0, dtype=object)


def are_finite(values: Any) -> bool:
    """Whether a value is `A_NUMBER`, or an array of such."""
    array = array_of(values)
    return array.dtype.kind in "fiu" and bool((np.abs(array) <= WIDEST).all())


def is_number(value: Any) -> bool:
    """Whether a value is one such number."""
    return are_finite(value) and np.ndim(value) == 0


def _in_short(value: Any) -> Any:
    """The value of a parameter; of one for each site the smallest and the largest, of a mask the number of sites."""
    if not isinstance(value, np.ndarray):
        return value
    return f"on {value.sum()} sites" if value.dtype == bool else f"from {value.min():g} to {value.max():g}"


@dataclass(frozen=True)
class HoppingTerm:
    """sum_i c†_i T c_{i + offset} + h.c.: hopping along one direction of bonds."""

    offset: tuple[int, int]
    """Lattice offset (dx, dy)."""
    matrix: NDArray[np.complex128]
    """T in spin space, shape (2, 2)."""


@dataclass(frozen=True, eq=False, repr=False)
class ElectronSystem(Generic[Solved]):
    """Electrons of the s-d model on a lattice of classical spins; base of driven and of closed lattices.

    H = -sum_ij t_ij c†_i c_j - sum_i J_i S_i · c†_i sigma c_i + sum_i e_i c†_i c_i + H_Rashba,

    the paper's Eq. 6 with one hopping t and one exchange J.

    Parameters
    ----------
    lattice
        Sites and bonds.
    hopping
        t > 0 of nearest neighbours, or (t1, t2, ...), one hopping for each shell of neighbours.
    exchange
        J, one number, or one for each site, shape (Lx, Ly).
    temperature
        Electron temperature T > 0.
    on_site
        Energy e_i, one number, or one for each site, shape (Lx, Ly).
    rashba
        Spin-orbit coupling of nearest neighbours, H_Rashba = i rashba sum_<ij> c†_i (sigma x d_ij)_z c_j + h.c. with
        the unit vector d_ij from i to j.
    vacancies
        Sites without an electron and without a spin, bool, shape (Lx, Ly); None if there are no vacancies. Their
        entries in arrays of spins have no meaning.
    solver, tolerance, precision
        How `solve` computes the electronic state: a registered solver, the largest error of a field component, and
        ``"complex128"`` or ``"complex64"``.

    Raises
    ------
    HpcspinError
        If a parameter is invalid.
    """

    lattice: Lattice
    hopping: float | tuple[float, ...]
    exchange: float | NDArray[np.float64]
    temperature: float
    on_site: float | NDArray[np.float64] = field(default=0.0, kw_only=True)
    rashba: float = field(default=0.0, kw_only=True)
    vacancies: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    solver: str = field(default="", kw_only=True)
    tolerance: float = field(default=1e-6, kw_only=True)
    precision: str = field(default="complex128", kw_only=True)

    default_solver: ClassVar[str]
    described: ClassVar[str]
    """Description of such a system in messages."""

    def __post_init__(self) -> None:
        if not isinstance(self.lattice, Lattice):
            raise HpcspinError(
                f"electrons: {shown(self.lattice)} is no lattice; make_lattice('square', (12, 6)) makes one"
            )
        for name in ("solver", "precision"):
            if not isinstance(value := getattr(self, name), str | None):
                raise HpcspinError(f"electrons: {name} {shown(value)} must be a name")
        object.__setattr__(self, "solver", self.solver or self.default_solver)
        hoppings = np.asarray(self.hopping, dtype=np.float64) if are_finite(self.hopping) else np.empty(0)
        if hoppings.ndim > 1 or not hoppings.size:
            given = shown(self.hopping)
            raise HpcspinError(f"electrons: hopping {given} must be {A_NUMBER}, or one of each shell")
        object.__setattr__(self, "hopping", tuple(hoppings.tolist()) if hoppings.ndim else float(hoppings))
        for name in ("nearest_hopping", "temperature"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                key = name.removeprefix("nearest_")
                raise HpcspinError(f"electrons: {key} {shown(value)} must be {A_NUMBER}, and > 0")
        if not is_number(self.rashba):
            raise HpcspinError(f"electrons: rashba {shown(self.rashba)} must be {A_NUMBER}")
        for name in ("exchange", "on_site"):
            if not are_finite(getattr(self, name)):
                given = shown(getattr(self, name))
                raise HpcspinError(f"electrons: {name} {given} must be {A_NUMBER}, or one for each site (Lx, Ly)")
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape not in ((), self.lattice.size):
                raise HpcspinError(f"electrons: {name} of shape {values.shape} does not fit {self.lattice.size} sites")
            if values.ndim:
                object.__setattr__(self, name, read_only(values))
        if self.vacancies is not None:
            object.__setattr__(self, "vacancies", read_only(array_of(self.vacancies).astype(bool)))
            if self.vacancies.shape != self.lattice.size or self.vacancies.all():
                raise HpcspinError(f"electrons: vacancies must be a mask of {self.lattice.size} sites and leave one")

    def __repr__(self) -> str:
        given: list[tuple[str, Any, Any]] = [(one.name, getattr(self, one.name), one.default) for one in fields(self)]
        parts = [f"{name} {_in_short(value)}" for name, value, default in given if not np.array_equal(value, default)]
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    def texture(self, kind: str, *, seed: int = 1, **parameters: float) -> NDArray[np.float64]:
        """Spins of a registered texture on this lattice, shape (Lx, Ly, 3).

        Parameters
        ----------
        kind
            ``"wall"``, ``"antiferromagnet"``, ``"ferromagnet"``, ``"random"`` or another registered name.
        seed
            Seed of the random tilts.
        **parameters
            Parameters of the texture, such as ``position`` and ``tilt`` of a wall.

        Raises
        ------
        HpcspinError
            If the texture is unknown or has no such parameter.
        """
        return make_texture(kind, self.lattice, seed, self.vacancies, **parameters)

    def solve(
        self,
        spins: Any,
        tolerance: float | None = None,
        *,
        solver: str | None = None,
        precision: str | None = None,
        device: str = "auto",
    ) -> Solved:
        """Exchange fields H_i = J tr(sigma rho_ii) (Eq. 7), densities and the rest of the electronic state.

        Under a launcher all ranks make the same call, with the same spins, and share the work.

        Parameters
        ----------
        spins
            Unit vectors, shape (Lx, Ly, 3) or (n, Lx, Ly, 3), NumPy or torch.
        tolerance
            Largest error of a field component, in the unit of J; None for the system's tolerance.
        solver, precision
            As for the system; None for the system's own.
        device
            ``"auto"``, ``"cpu"`` or ``"cuda"``.

        Returns
        -------
        SteadyState or EquilibriumState
            ``.field``, ``.density``, ``.error``; for a driven lattice also ``.current`` and ``.current_error``, for a
            closed one ``.energy``, ``.energy_error``, ``.electrons`` and ``.chemical_potential``. The axis of the
            snapshots is missing if one snapshot was given; the arrays are torch tensors if the spins were one.

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice or are not unit vectors, or the tolerance is missed.
        """
        from hpcspin.electrons.labelling import label_snapshots  # Needs torch, which a system alone does not.
        from hpcspin.parallel.world import World

        given: dict[str, Any] = {"tolerance": tolerance, "solver": solver, "precision": precision}
        system = replace(self, **{name: value for name, value in given.items() if value is not None})
        snapshots, restore = as_snapshots(spins, self.lattice.size)
        checked = check_spins(snapshots, None, "spins", vacancies=self.vacancies)
        world, count = World.current(), len(checked)
        labels = label_snapshots(system, lambda n: checked[n : n + 1], count, world, device)
        states = [state for _, state, _ in labels]
        found = world.broadcast(type(states[0]).joined(states) if states else None)
        solved: Solved = found.map(restore)
        return solved

    def transport(self, spins: Any, energies: Sequence[float] = ()) -> Transport:
        """Currents of charge and spin along every bond and from every reservoir, density of states, transmission.

        Under a launcher all ranks make the same call, with the same spins, and share the snapshots.

        Parameters
        ----------
        spins
            As for `solve`.
        energies
            Energies of the density of states and the transmissions.

        Returns
        -------
        Transport
            The axis of the snapshots is missing if one snapshot was given; the arrays are torch tensors if the spins
            were one.

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice or are not unit vectors, an energy is not finite, a level is coupled to
            no reservoir, or the tolerance is missed.
        """
        from hpcspin.electrons.transport import Transport, transport  # Needs torch, which a system alone does not.
        from hpcspin.parallel.world import World

        snapshots, restore = as_snapshots(spins, self.lattice.size)
        checked = check_spins(snapshots, None, "spins", vacancies=self.vacancies)
        world, count = World.current(), len(checked)
        mine = {n: transport(self, checked[n], energies) for n in range(world.rank, count, world.size)}
        found = {n: part for several in world.allgather(mine) for n, part in several.items()}
        return Transport.joined([found[n].map(lambda one: one[None]) for n in range(count)]).map(restore)

    def as_config(self) -> dict[str, Any]:
        """Sections ``lattice`` and ``electrons`` of a config that describes this system, as JSON values."""
        lattice = self.lattice
        shared = ("hopping", "exchange", "temperature", "on_site", "rashba", "solver", "tolerance", "precision")
        given = {name: np.asarray(getattr(self, name)).tolist() for name in shared}
        given["vacancies"] = np.argwhere(~self.occupied).tolist()
        return {
            "lattice": {"kind": lattice.kind, "size": list(lattice.size), "periodic": list(lattice.periodic)},
            "electrons": {**given, **self._own_config()},
        }

    def _own_config(self) -> dict[str, Any]:
        """Keys of the section ``electrons`` that only this class has."""
        raise NotImplementedError

    @property
    def result_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each result for one snapshot except the field, in the order of the files."""
        raise NotImplementedError

    @property
    def bias(self) -> float:
        """Largest minus smallest chemical potential of the reservoirs that have a width; 0 in equilibrium."""
        return 0.0

    @property
    def nearest_hopping(self) -> float:
        """Hopping t of nearest neighbours, the unit of energy."""
        return self.hopping[0] if isinstance(self.hopping, tuple) else self.hopping

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """Mask of the sites that are not vacancies, shape (Lx, Ly)."""
        return np.ones(self.lattice.size, dtype=bool) if self.vacancies is None else ~self.vacancies

    @property
    def site_levels(self) -> NDArray[np.float64]:
        """Energy of each site; that of a vacancy is so high that the vacancy is empty and does not affect the rest."""
        levels = np.asarray(self.on_site)
        return levels if self.vacancies is None else np.where(self.vacancies, VACANT * self.nearest_hopping, levels)

    @property
    def largest_exchange(self) -> float:
        """Largest magnitude of J."""
        return float(np.abs(self.exchange).max())

    @property
    def scale(self) -> float:
        """Factor from an error of an on-site component to one of the field; as densities count too, at least t."""
        return max(self.largest_exchange, self.nearest_hopping)

    @property
    def hopping_terms(self) -> tuple[HoppingTerm, ...]:
        """The hopping along half of the bonds; the other half are the Hermitian conjugates."""
        shells = self.hopping if isinstance(self.hopping, tuple) else (self.hopping,)
        terms = []
        for number, hopping in enumerate(shells, 1):
            for offset in self.lattice.bonds if number == 1 else self.lattice.shell(number):
                matrix = -hopping * SIGMA[0]
                if number == 1 and self.rashba:
                    x, y = self.lattice.cartesian(offset) / np.linalg.norm(self.lattice.cartesian(offset))
                    matrix = matrix + 1j * self.rashba * (SIGMA[1] * y - SIGMA[2] * x)
                terms.append(HoppingTerm(offset, matrix))
        return tuple(terms)

    @property
    def band_edge(self) -> float:
        """Upper bound on the magnitude of H: |J| + |e| plus twice the norm of every hopping term."""
        hoppings = sum(2 * float(np.linalg.norm(term.matrix, 2)) for term in self.hopping_terms)
        return self.largest_exchange + float(np.abs(self.on_site).max()) + hoppings

    def check_spins(self, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Snapshots of this lattice as float64, shape (n, Lx, Ly, 3), 0 at vacancies; HpcspinError if they are none."""
        spins = np.asarray(spins, dtype=np.float64)
        if spins.ndim != 4 or len(spins) == 0 or spins.shape[1:] != (*self.lattice.size, 3):
            raise HpcspinError(
                f"spins of shape {spins.shape} do not fit a lattice of {self.lattice.size}; "
                f"give (n, {self.lattice.size[0]}, {self.lattice.size[1]}, 3)"
            )
        if not np.isfinite(spins).all():
            snapshot = int(np.argwhere(~np.isfinite(spins))[0, 0])
            raise HpcspinError(f"spins: snapshot {snapshot} has components that are not finite")
        return spins if self.vacancies is None else spins * self.occupied[..., None]
