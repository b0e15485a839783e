"""What is measured at each recorded frame, on rank 0; observers are registered by name.

The density, currents and error estimate of an electronic field are not observers: they come with the field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.dynamics import fields
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, measures

WaveVectors = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Frame:
    """The whole lattice at one instant.

    Attributes
    ----------
    lattice : Lattice
        The lattice.
    spins, force : numpy.ndarray
        Spins and the field on them, shape (Lx, Ly, 3).
    time : float
        Time.
    source : Field
        What the field comes from.
    wave_vectors : tuple
        Where the structure factor is asked for.
    """

    lattice: Lattice
    spins: NDArray[np.float64]
    force: NDArray[np.float64]
    time: float
    source: fields.Field
    wave_vectors: WaveVectors = ()


Measure = Callable[[Frame], NDArray[np.float64] | float]
Shape = Callable[[Lattice, WaveVectors], tuple[int, ...]]


@dataclass(frozen=True)
class Observer:
    """A named measure; `shape(lattice, wave_vectors)` is that of its value."""

    name: str
    shape: Shape
    measure: Measure


OBSERVERS: dict[str, Observer] = {}


def _scalar(lattice: Lattice, wave_vectors: WaveVectors) -> tuple[int, ...]:
    return ()


def _vector(lattice: Lattice, wave_vectors: WaveVectors) -> tuple[int, ...]:
    return (3,)


def _map(lattice: Lattice, wave_vectors: WaveVectors) -> tuple[int, ...]:
    return lattice.size


def _spectrum(lattice: Lattice, wave_vectors: WaveVectors) -> tuple[int, ...]:
    return (len(wave_vectors),)


def observer(name: str, shape: Shape = _scalar) -> Callable[[Measure], Measure]:
    """Register a measure."""

    def register(measure: Measure) -> Measure:
        OBSERVERS[name] = Observer(name, shape, measure)
        return measure

    return register


def make_observers(names: Sequence[str]) -> tuple[Observer, ...]:
    """Look up observers.

    Raises
    ------
    HpcspinError
        If a name is unknown.
    """
    for name in names:
        if name not in OBSERVERS:
            raise HpcspinError(f"dynamics.observers: {name!r} is unknown; choose from {', '.join(sorted(OBSERVERS))}")
    return tuple(OBSERVERS[name] for name in names)


@observer("wall_position")
def wall_position(frame: Frame) -> NDArray[np.float64]:
    """Position of the ferromagnet–antiferromagnet wall, in columns."""
    return measures.wall_position(frame.lattice, frame.spins)


@observer("magnetization", _vector)
def magnetization(frame: Frame) -> NDArray[np.float64]:
    """Mean spin."""
    return frame.spins.mean(axis=(0, 1))


@observer("mean_bond")
def mean_bond(frame: Frame) -> float:
    """Mean of S_i·S_j over the sites' bonds; -1 in the square antiferromagnet, +1 in a ferromagnet."""
    return float(np.nanmean(measures.bond_map(frame.lattice, frame.spins)))


@observer("energy")
def energy(frame: Frame) -> float:
    """Energy of conservative classical fields."""
    return fields.energy(frame.source, frame.lattice, frame.spins, frame.time)


@observer("spin_temperature")
def spin_temperature(frame: Frame) -> float:
    """Temperature of conservative classical fields, from the spins' places."""
    return fields.spin_temperature(frame.source, frame.spins, frame.force)


@observer("bond_map", _map)
def bond_map(frame: Frame) -> NDArray[np.float64]:
    """Mean of S_i·S_j over the bonds of each site towards +x and +y."""
    return measures.bond_map(frame.lattice, frame.spins)


@observer("chirality", _map)
def chirality(frame: Frame) -> NDArray[np.float64]:
    """Scalar chirality of each cell; NaN beyond open edges."""
    return measures.scalar_chirality(frame.lattice, frame.spins)


@observer("mean_chirality")
def mean_chirality(frame: Frame) -> float:
    """Mean scalar chirality of the triangles."""
    return float(np.nanmean(measures.scalar_chirality(frame.lattice, frame.spins)))


@observer("topological_charge")
def topological_charge(frame: Frame) -> float:
    """Skyrmion number."""
    return measures.topological_charge(frame.lattice, frame.spins)


@observer("structure_factor", _spectrum)
def structure_factor(frame: Frame) -> NDArray[np.float64]:
    """Static structure factor at the chosen wave vectors."""
    return measures.structure_factor(frame.lattice, frame.spins, frame.wave_vectors)
