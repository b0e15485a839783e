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
from hpcspin.lattice import Lattice, bond_map
from hpcspin.lattice import wall_position as texture_wall_position


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
    """

    lattice: Lattice
    spins: NDArray[np.float64]
    force: NDArray[np.float64]
    time: float
    source: fields.Field


Measure = Callable[[Frame], NDArray[np.float64] | float]


@dataclass(frozen=True)
class Observer:
    """A named measure with the shape of its value."""

    name: str
    shape: tuple[int, ...]
    measure: Measure


OBSERVERS: dict[str, Observer] = {}


def observer(name: str, shape: tuple[int, ...] = ()) -> Callable[[Measure], Measure]:
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
            raise HpcspinError(f"observer {name!r} is unknown; choose from {', '.join(sorted(OBSERVERS))}")
    return tuple(OBSERVERS[name] for name in names)


@observer("wall_position")
def wall_position(frame: Frame) -> NDArray[np.float64]:
    """Position of the ferromagnet–antiferromagnet wall, in columns."""
    return texture_wall_position(frame.lattice, frame.spins)


@observer("magnetization", (3,))
def magnetization(frame: Frame) -> NDArray[np.float64]:
    """Mean spin."""
    return frame.spins.mean(axis=(0, 1))


@observer("mean_bond")
def mean_bond(frame: Frame) -> float:
    """Mean of S_i·S_j over the sites' bonds; -1 in the square antiferromagnet, +1 in a ferromagnet."""
    return float(np.nanmean(bond_map(frame.lattice, frame.spins)))


@observer("energy")
def energy(frame: Frame) -> float:
    """Energy of conservative classical fields."""
    return fields.energy(frame.source, frame.lattice, frame.spins, frame.time)
