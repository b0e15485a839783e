"""Numbers of a reproduction: what both dynamics did, each with an error estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.potential import PredictedFields

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One recorded trajectory, or some of its frames, whose first axis is that of all arrays.

    Attributes
    ----------
    time : ndarray
        Times, shape (n,).
    spins, field : ndarray
        Shape (n, Lx, Ly, 3).
    density, energy : ndarray or None
        Electrons on each site, shape (n, Lx, Ly), and energy of the lattice, shape (n,); None where not recorded.
    """

    time: Array
    spins: Array
    field: Array
    density: Array | None = None
    energy: Array | None = None

    def known(self, name: str) -> Array:
        """The ``density`` or ``energy`` of a run that has recorded it."""
        found = getattr(self, name)
        if found is None:
            raise HpcspinError(f"a trajectory has no /{name}, as closed electrons record; run its stage again")
        return np.asarray(found)

    def at(self, time: Array) -> Run:
        """The frames at some of its times."""
        frames = np.isin(self.time, time)
        return Run(**{name: array[frames] for name, array in vars(self).items() if array is not None})


@dataclass(frozen=True)
class Compared:
    """A test run under both fields, from the same spins with the same noise.

    Attributes
    ----------
    exact, learned : Run
        Of either field.
    predicted : PredictedFields
        What the force field says about the exact frames.
    """

    exact: Run
    learned: Run
    predicted: PredictedFields

    @property
    def times(self) -> Array:
        """Of the frames that both have recorded."""
        return np.intersect1d(self.exact.time, self.learned.time)


_SHOWN = 5
"""Times at which maps of a run are drawn."""


def shown_times(run: Compared) -> Array:
    """Some of the times that both dynamics have recorded, equally spaced, the first and the last among them."""
    both = run.times
    return both[np.unique(np.linspace(0, len(both) - 1, _SHOWN).round().astype(int))]


def near_wall(position: Array, size: tuple[int, int], reach: float = 2.0) -> NDArray[np.bool_]:
    """Sites within ``reach`` columns of the wall, for each frame.

    Parameters
    ----------
    position
        Wall position of each frame, shape (n,).
    size
        Lattice size (Lx, Ly).
    reach
        Distance in columns.

    Returns
    -------
    ndarray
        Boolean, shape (n, Lx, Ly).
    """
    columns = np.abs(np.arange(size[0])[None, :] - position[:, None]) <= reach
    return np.broadcast_to(columns[:, :, None], (len(position), *size))
