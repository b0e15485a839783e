"""What is measured at each recorded frame, on rank 0; observers are registered by name.

The density, currents and error estimate of an electronic field are not observers: they come with the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator
from pydantic import Field as Entries

from hpcspin.dynamics import energies
from hpcspin.dynamics.fields import Field
from hpcspin.errors import HpcspinError, one_line, shown
from hpcspin.lattice import Lattice, domains, measures
from hpcspin.registry import Choice, Registry
from hpcspin.settings import Finite


@dataclass(frozen=True)
class Frame:
    """The whole lattice at one instant.

    Attributes
    ----------
    lattice : Lattice
        The lattice.
    spins, force : numpy.ndarray
        Spins and the field on them, shape (Lx, Ly, 3); the spins are NaN, and the field 0, at vacancies.
    time : float
        Time.
    source : Field
        The field that gave `force`.
    free : numpy.ndarray
        Sites whose spins move, bool, shape (Lx, Ly).
    electrons : object
        Electrons of the lattice, whatever the field comes from; None if there are none.
    shared : dict
        Results of one observer that others need.
    """

    lattice: Lattice
    spins: NDArray[np.float64]
    force: NDArray[np.float64]
    time: float
    source: Field
    free: NDArray[np.bool_]
    electrons: Any = None
    shared: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("spins", "force"):  # Observers share them, and the field is recorded.
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)


Measure = Callable[..., NDArray[np.float64] | float]
Shape = Callable[..., tuple[int, ...]]


@dataclass(frozen=True)
class Observer:
    """A measure ``measure(frame, **parameters)`` and the shape of its value, ``shape(lattice, **parameters)``."""

    measure: Measure
    shape: Shape


OBSERVERS: Registry[Observer] = Registry("dynamics.observers", given=1, call=attrgetter("measure"))


def _scalar(lattice: Lattice, **_: Any) -> tuple[int, ...]:
    return ()


def _vector(lattice: Lattice, **_: Any) -> tuple[int, ...]:
    return (3,)


def a_site(lattice: Lattice, **_: Any) -> tuple[int, ...]:
    """Shape of a number for each site."""
    return lattice.size


def observer(name: str, shape: Shape = _scalar) -> Callable[[Measure], Measure]:
    """Register a measure: a function of a frame, and of parameters of its own in the config.

    Raises HpcspinError if the name is none of a dataset, every trajectory has that dataset, or the shape is no
    function.
    """
    if not isinstance(name, str) or not name.isidentifier() or name in ("spins", "field", "step", "time"):
        raise HpcspinError(
            f"dynamics.observers: {shown(name)} cannot be the name of an observer's dataset; choose another"
        )
    if not callable(shape):
        raise HpcspinError(f"dynamics.observers: {name}: shape {shown(shape)} must be a function of the lattice")

    def register(measure: Measure) -> Measure:
        OBSERVERS.add(name, Observer(measure, shape))
        return measure

    return register


class ObserverSettings(Choice):
    """An observer by its name, or a section of its ``name`` and its parameters."""

    registry = OBSERVERS
    selector = "name"
    name: Annotated[str, AfterValidator(OBSERVERS.check)]

    def shape(self, lattice: Lattice) -> tuple[int, ...]:
        """Shape of its value on a lattice."""
        return OBSERVERS[self.name].shape(lattice, **self.parameters)

    def measure(self, frame: Frame) -> NDArray[np.float64]:
        """Its value at a frame.

        Raises
        ------
        HpcspinError
            If the observer fails, or its value is none of numbers or has another shape than the observer says.
        """
        try:
            # Masked values are unknown.
            value = np.asarray(np.ma.filled(OBSERVERS[self.name].measure(frame, **self.parameters), np.nan))
            value = value.astype(np.float64, casting="same_kind", copy=False)
        except HpcspinError:
            raise  # It says what to do.
        except Exception as failure:
            raise HpcspinError(f"dynamics.observers: {self.name}: {one_line(failure)}") from failure
        shape = self.shape(frame.lattice)
        if value.shape != tuple(shape):
            raise HpcspinError(
                f"dynamics.observers: {self.name} gives shape {value.shape} where it says {tuple(shape)}; correct "
                "the function, or the shape that it is registered with"
            )
        return value


def _of_spins(name: str, measure: Callable[[Lattice, NDArray[np.float64]], Any], shape: Shape = _scalar) -> None:
    """Register a measure of the lattice and the spins alone."""
    observer(name, shape)(lambda frame: measure(frame.lattice, frame.spins))


_of_spins("wall_position", measures.wall_position)
_of_spins("bond_map", measures.bond_map, a_site)
_of_spins("chirality", measures.scalar_chirality, a_site)
_of_spins("chirality_walls", domains.chirality_walls)
_of_spins("bond_fractions", measures.bond_fractions, lambda lattice: (2,))
_of_spins("topological_charge", measures.topological_charge)


@observer("magnetization", _vector)
def magnetization(frame: Frame) -> NDArray[np.float64]:
    """Mean spin."""
    return np.asarray(np.nanmean(frame.spins, axis=(0, 1)))


@observer("mean_bond")
def mean_bond(frame: Frame) -> float:
    """Mean of S_i·S_j over all bonds of nearest neighbours; -1 in the square antiferromagnet, +1 in a ferromagnet."""
    return measures.mean_of_known(measures.nearest_bonds(frame.lattice, frame.spins))


@observer("energy")
def energy(frame: Frame) -> float:
    """Energy of the field: Omega or F of closed electrons, E of classical terms and of learned fields."""
    return energies.energy(frame.source, frame.lattice, np.nan_to_num(frame.spins), frame.time)


@observer("spin_temperature")
def spin_temperature(frame: Frame) -> float:
    """Temperature of the spins under classical terms and closed electrons, from the spins' places."""
    spins = np.nan_to_num(frame.spins)
    return energies.spin_temperature(frame.source, frame.lattice, spins, frame.force, frame.free)


@observer("mean_chirality")
def mean_chirality(frame: Frame) -> float:
    """Mean scalar chirality of the triangles."""
    return measures.mean_of_known(measures.scalar_chirality(frame.lattice, frame.spins))


@observer("chirality_correlation", lambda lattice: (domains.correlation_bins(lattice),))
def chirality_correlation(frame: Frame) -> NDArray[np.float64]:
    """Correlation of the scalar chirality at distances 0, 1, 2, ... up to half of the shorter side; 1 at distance 0."""
    return domains.chirality_correlation(frame.lattice, frame.spins)[1]


@observer("chirality_length")
def chirality_length(frame: Frame) -> float:
    """Distance at which the correlation of the chirality has fallen to 1/2; NaN where one domain fills the lattice."""
    return domains.correlation_length(*domains.chirality_correlation(frame.lattice, frame.spins))


@observer("puddles", _vector)
def puddles(frame: Frame) -> NDArray[np.float64]:
    """Number of ferromagnetic puddles, their mean size and the largest one's, in sites; 0 where there is none."""
    sizes = domains.puddle_sizes(frame.lattice, frame.spins)
    return np.array([len(sizes), sizes.mean(), sizes[0]] if len(sizes) else [0.0, 0.0, 0.0])


WaveVectors = Annotated[tuple[tuple[Finite, Finite], ...], Entries(min_length=1)]


@observer("structure_factor", lambda lattice, wave_vectors: (len(wave_vectors),))
def structure_factor(frame: Frame, wave_vectors: WaveVectors) -> NDArray[np.float64]:
    """Static structure factor at wave vectors in units of the reciprocal vectors; see `measures.structure_factor`."""
    share = float(np.mean(np.isfinite(frame.spins)))
    return measures.structure_factor(frame.lattice, np.nan_to_num(frame.spins), wave_vectors) / share
