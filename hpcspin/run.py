"""The result of a simulation: the frames of its trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.storage import FrameReader


class Run:
    """The recorded frames of a trajectory; each dataset is an attribute, such as ``run.spins``.

    Attributes
    ----------
    time : ndarray
        Times of the frames in ħ/t, shape (n,).
    spins, field : ndarray
        Spins and the field on them, shape (n, Lx, Ly, 3).
    wall_position : ndarray
        In columns, shape (n,), if recorded; likewise every other observer and observable of the field.
    finished : bool
        False if the run was stopped from outside; the same call then continues it.
    """

    def __init__(self, path: Path, finished: bool, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._path, self.finished, self._arrays = path, finished, arrays

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._arrays is None:
            with FrameReader(self._path) as frames:
                return np.asarray(getattr(frames, name))
        if name not in self._arrays:
            raise AttributeError(f"the run has no {name!r}; it has {', '.join(self._arrays)}")
        return self._arrays[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the datasets."""
        if self._arrays is not None:
            return tuple(self._arrays)
        with FrameReader(self._path) as frames:
            return tuple(frames.names)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.names]  # For completion in notebooks.

    def __repr__(self) -> str:
        where = "" if self._arrays is not None else f" in {self._path}"
        state = "finished" if self.finished else "stopped"
        return f"<{state} run of {len(self.time)} frames{where}: {', '.join(self.names)}>"
