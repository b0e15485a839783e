"""Numbers of time series and of several runs: means with standard errors, velocities, first passages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.training.metrics import autocorrelation_frames

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error; the error is None for a single sample, which does not determine it."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, samples: list[float]) -> Estimate:
        """Mean over independent runs."""
        values = np.asarray(samples)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error)

    def __str__(self) -> str:
        return f"{self.mean:.3g}" + ("" if self.error is None else f" ± {self.error:.2g}")


def velocity(time: Array, position: Array) -> tuple[float, float | None]:
    """Slope of a position against time, both of shape (n,), n > 1, with its standard error.

    The slope is that of a least-squares line. The residuals of a trajectory are correlated; their number is therefore
    reduced to the effective one by the integrated autocorrelation time. The error is None for two frames, which a line
    always fits.
    """
    centred = time - time.mean()
    slope = float(centred @ position / (centred @ centred))
    residual = position - position.mean() - slope * centred
    if len(time) < 3:
        return slope, None
    effective = max(len(time) / autocorrelation_frames(residual), 3.0)
    scatter = float(residual @ residual)
    return slope, math.sqrt(scatter / ((effective - 2) * float(centred @ centred)))


def first_passage(time: Array, values: Array, level: float) -> float | None:
    """First time at which a series passes above a level, interpolated; None if it never does or starts above."""
    above = np.flatnonzero(values > level)
    if not len(above) or above[0] == 0:
        return None
    after = int(above[0])
    part = (level - values[after - 1]) / (values[after] - values[after - 1])
    return float(time[after - 1] + part * (time[after] - time[after - 1]))
