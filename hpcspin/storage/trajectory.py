"""Trajectory files: spins and fields frame by frame, with time, step, wall position and observables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hpcspin.storage.frames import FrameFile, partial_path

TRAJECTORY = "trajectory.h5"
"""Name of the trajectory in the directory of a simulation."""
MINIMUM, PATH = "minimum.h5", "path.h5"
"""Names of the states in the directories of `hpcspin minimise` and `hpcspin path`."""


def find_trajectory(directory: str | Path) -> Path:
    """The trajectory of a simulation's directory, or states at rest or along a path; unfinished ones where none are."""
    finished = [Path(directory) / name for name in (TRAJECTORY, MINIMUM, PATH)]
    both = [path for one in finished for path in (one, partial_path(one))]
    return next((path for path in both if path.exists()), both[1])


class TrajectoryWriter(FrameFile):
    """Append frames durably to ``PATH.partial``; PATH appears with the last frame.

    A plain HDF5 file at every instant of the run, whatever kills it; see :mod:`hpcspin.storage.frames` for how.

    Parameters
    ----------
    path, attributes, capacity, at_most, compression
        As of `FrameFile`.
    size
        Lattice size (Lx, Ly).
    observables
        Shape of each dataset other than `/spins`, `/field`, `/time` and `/step`.  A dataset exists only where the run
        defines the quantity: a learned or classical field has no `/density`, `/current` or `/error`.
    keep
        Frames that the checkpoint counts; frames behind them, of a killed run, are dropped.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        attributes: Mapping[str, Any],
        capacity: int,
        observables: Mapping[str, tuple[int, ...]],
        keep: int = 0,
        at_most: bool = False,
        compression: str | None = None,
    ) -> None:
        super().__init__(
            path,
            kind="trajectory",
            shapes={"spins": (*size, 3), "field": (*size, 3), "step": (), **observables, "time": ()},
            marker="time",
            capacity=capacity,
            attributes=attributes,
            keep=keep,
            integers=("step",),
            at_most=at_most,
            compression=compression,
        )

    def append(self, **frame: ArrayLike) -> None:
        """Append one frame, an array or number for each dataset; on return it outlives a crash."""
        self.write(**{name: np.asarray(values)[None] for name, values in frame.items()})
