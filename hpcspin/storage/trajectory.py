"""Trajectory files: spins and fields frame by frame, with time, step, wall position and observables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hpcspin.errors import HpcspinError
from hpcspin.storage.frames import FrameFile, partial_path

TRAJECTORY = "trajectory.h5"
"""Name of the trajectory in the directory of a simulation."""
MINIMUM, PATH = "minimum.h5", "path.h5"
"""Names of the files of states in the directories of `hpcspin minimise` and `hpcspin path`."""


def find_trajectory(directory: str | Path) -> Path:
    """The trajectory in a directory, or its states at rest or along a path; unfinished if there is no finished file."""
    finished = [Path(directory) / name for name in (TRAJECTORY, MINIMUM, PATH)]
    both = [path for one in finished for path in (one, partial_path(one))]
    return next((path for path in both if path.exists()), both[1])


def trajectory_file(source: str | Path) -> Path:
    """The file of frames that a path means: a file itself, of a directory what `find_trajectory` finds there."""
    source = Path(source)
    if not source.is_dir():
        return source
    path = find_trajectory(source)
    if not path.exists():
        raise HpcspinError(f"{source}: no trajectory is in this directory; give the directory of a simulation")
    return path


class TrajectoryWriter(FrameFile):
    """Append frames durably to ``PATH.partial``; PATH appears with the last frame.

    It is a plain HDF5 file at every instant of the run, however the run ends; see `FrameFile`. The ``observables`` have
    the shape of each dataset except `/spins`, `/field`, `/time` and `/step`; a learned or classical field has no
    `/density`, `/current` or `/error`. Frames of a killed run after the checkpoint, which counts ``keep``, are dropped.
    """

    kind, marker, integers = "trajectory", "time", frozenset({"step"})

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
        shapes = {"spins": (*size, 3), "field": (*size, 3), "step": (), **observables, "time": ()}
        super().__init__(path, shapes, capacity, attributes, keep, at_most, compression)

    def append(self, **frame: ArrayLike) -> None:
        """Append one frame, an array or number for each dataset; on return it survives a crash."""
        self.write(**{name: np.asarray(values)[None] for name, values in frame.items()})
