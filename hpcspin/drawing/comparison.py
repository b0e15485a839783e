"""Numbers of a reproduction: results of both dynamics, each with an error estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.drawing.series import some_frames
from hpcspin.errors import HpcspinError
from hpcspin.potential import PredictedFields

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ComparedRun:
    """One recorded trajectory, or some of its frames, whose first axis is that of all arrays."""

    time: Array
    """Times, shape (n,)."""
    spins: Array
    field: Array
    """Like the spins of shape (n, Lx, Ly, 3)."""
    density: Array | None = None
    """Electrons on each site, shape (n, Lx, Ly); None where not recorded."""
    energy: Array | None = None
    """Energy of the whole lattice, shape (n,); None where not recorded."""

    def known(self, name: str) -> Array:
        """The ``density`` or ``energy`` of a run that has recorded it."""
        found = getattr(self, name)
        if found is None:
            raise HpcspinError(f"a trajectory has no /{name}, as closed electrons record; run its stage again")
        return np.asarray(found)

    def at(self, time: Array) -> ComparedRun:
        """The frames at some of its times."""
        frames = np.isin(self.time, time)
        return ComparedRun(**{name: array[frames] for name, array in vars(self).items() if array is not None})


@dataclass(frozen=True)
class Compared:
    """A test run under both fields, from the same spins with the same noise."""

    exact: ComparedRun
    learned: ComparedRun
    predicted: PredictedFields
    """Predictions of the force field for the exact frames."""

    @property
    def times(self) -> Array:
        """Times of the frames that both have recorded."""
        return np.intersect1d(self.exact.time, self.learned.time)


_SHOWN = 5
"""Times at which maps of a run are drawn."""


def shown_times(run: Compared) -> Array:
    """Some of the times that both dynamics have recorded, equally spaced, the first and the last among them."""
    both = run.times
    return both[some_frames(len(both), _SHOWN)]


def near_wall(position: Array, size: tuple[int, int], reach: float = 2.0) -> NDArray[np.bool_]:
    """Sites within ``reach`` columns of the wall, bool, shape (n, Lx, Ly), from its position in each of n frames."""
    columns = np.abs(np.arange(size[0])[None, :] - position[:, None]) <= reach
    return np.broadcast_to(columns[:, :, None], (len(position), *size))
