"""Numbers of a reproduction: what both dynamics did, each with an error estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.training.metrics import autocorrelation_frames

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error; the error is None where one sample says nothing about it."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, samples: list[float]) -> Estimate:
        """Mean over independent runs."""
        values = np.asarray(samples)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error)


def wall_speed(time: Array, position: Array) -> tuple[float, float | None]:
    """Slope of the wall position, in columns a unit of time, with its standard error.

    A least-squares line. The residuals of a trajectory are correlated; their
    number is therefore reduced to the effective one by the integrated
    autocorrelation time.

    Parameters
    ----------
    time, position
        Shape (n,), n > 1.

    Returns
    -------
    tuple
        Slope and error; the error is None of two frames, through which a line always goes.
    """
    centred = time - time.mean()
    slope = float(centred @ position / (centred @ centred))
    residual = position - position.mean() - slope * centred
    if len(time) < 3:
        return slope, None
    effective = max(len(time) / autocorrelation_frames(residual), 3.0)
    scatter = float(residual @ residual)
    return slope, math.sqrt(scatter / ((effective - 2) * float(centred @ centred)))


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
