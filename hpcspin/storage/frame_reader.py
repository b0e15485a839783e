"""Label files and trajectories read frame by frame, as a script or a notebook does."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

from hpcspin.errors import HpcspinError
from hpcspin.storage.opening import check_schema, count_frames, open_hdf5, read_attributes, real_dataset


class FrameReader:
    """Frames of a label file or a trajectory, read where they are asked for.

    Each dataset is an attribute that is indexed like an array: ``frames.spins[3]``, ``frames.field[-10:]``. A
    context manager; what is read stays valid when it is left.

    Parameters
    ----------
    path
        HDF5 file, finished or partial.

    Attributes
    ----------
    names : tuple of str
        Names of the datasets.
    attributes : dict
        The file's attributes, JSON decoded.

    Raises
    ------
    HpcspinError
        If the file cannot be read, or holds no spins.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.attributes = read_attributes(path)
        self._opened = open_hdf5(path)
        self._file: h5py.File = self._opened.__enter__()
        try:
            check_schema(self._file, self._path)
            self._frames = count_frames(self._file, self._path)
        except BaseException:
            self.close()
            raise
        self.names = tuple(name for name in self._file if isinstance(self._file[name], h5py.Dataset))

    def __len__(self) -> int:
        return self._frames

    def __getattr__(self, name: str) -> _Rows:
        if name.startswith("_") or name not in self.names:
            raise AttributeError(f"{self._path}: has no dataset {name!r}; it has {', '.join(self.names)}")
        return _Rows(real_dataset(self._file, self._path, name), self._path, self._frames)

    def close(self) -> None:
        """Close the file."""
        self._opened.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Rows:
    """The complete frames of one dataset."""

    def __init__(self, dataset: h5py.Dataset, path: Path, frames: int) -> None:
        self._dataset, self._path, self._frames = dataset, path, frames
        self.shape, self.dtype = (frames, *dataset.shape[1:]), dataset.dtype

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, which: Any) -> Any:
        first, *others = which if isinstance(which, tuple) else (which,)
        if isinstance(first, slice):
            first = slice(*first.indices(self._frames))
        elif isinstance(first, int):
            if not -self._frames <= first < self._frames:
                raise IndexError(f"frame {first} of {self._frames}")
            first %= self._frames
        try:
            return self._dataset[(first, *others)]
        except OSError as error:
            raise HpcspinError(f"{self._path}: {self._dataset.name} is damaged ({error}); make it again") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        found = self[:]
        return found if dtype is None else found.astype(dtype)
