"""A file of equal frames that survives ``kill -9`` at any instant.

HDF5 has no journal: a process killed while it updates a file's metadata leaves a file nobody can open.
A :class:`FrameFile` therefore never updates metadata.  All datasets are laid out once, contiguous, at
their final length, in a file named ``NAME.partial`` that is itself made under a temporary name, when the
first frame is there: a run that fails before leaves nothing.  From
then on a frame is nothing but bytes written in place, followed, after a flush to the disk, by its entry
in one small *marker* dataset that was filled with NaN.  A kill can only leave a frame without marker,
which the next run writes again; the partial file is a plain HDF5 file at every instant, and rows
without marker are simply not there for the readers of this package. The last frame makes the file
whole, and only then does it take its real name.

Unwritten rows cost no disk space on file systems with sparse files.  The number of frames has to be
known at the start; a longer run lays out a longer file and copies once.  Considered and left: SWMR (a
killed writer leaves flags that plain readers refuse, and network file systems do not promise its
ordering) and one file a checkpoint interval (thousands of small files, and a second copy of everything
at the end).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import atomic_path, replace
from hpcspin.storage.hdf5 import write_attributes
from hpcspin.storage.opening import MARKER, count_frames, open_hdf5, real_dataset


class FrameFile:
    """Frames appended durably to ``path.partial``, which becomes `path` when the last one is written.

    Parameters
    ----------
    path
        Final name.
    kind
        ``labels`` or ``trajectory``, stored with the file.
    shapes
        Shape of one frame of each dataset; float64 unless named in `integers`.
    marker
        The scalar dataset that is finite for every complete frame.
    capacity
        Number of frames of the whole file, at least 1.
    attributes
        What to store with the file; see :func:`hpcspin.storage.hdf5.write_attributes`.
    keep
        Frames to keep of the partial file (or, if there is none, of the finished one); 0 starts anew.
    integers
        Datasets of int64.
    at_most
        Whether the file may be finished with fewer frames than its capacity.
    compression
        ``gzip`` or ``lzf``: the finished file is a compressed copy.  None: the partial file takes the name.

    Raises
    ------
    HpcspinError
        If fewer than `keep` complete frames are found, or the file there is unreadable or of other shapes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        kind: str,
        shapes: Mapping[str, tuple[int, ...]],
        marker: str,
        capacity: int,
        attributes: Mapping[str, Any],
        keep: int = 0,
        integers: Collection[str] = (),
        at_most: bool = False,
        compression: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(path)
        self.capacity = capacity
        self._marker = marker
        self._shapes = dict(shapes)
        self._integers = frozenset(integers)
        self._at_most, self._compression = at_most, compression
        self._kind, self._attributes = kind, attributes
        self._done = keep
        if keep and self.partial.exists() and self._laid_out_alike():
            self._forget_beyond(keep)
        elif keep:
            self._lay_out(keep)

    @property
    def done(self) -> int:
        """Number of complete frames."""
        return self._done

    def append(self, **frames: np.ndarray) -> None:
        """Write frames behind the complete ones; on return they outlive a crash.

        Parameters
        ----------
        **frames
            One array a dataset, of shape (k, ...) with the same k everywhere.
        """
        rows = slice(self._done, self._done + len(frames[self._marker]))
        if set(frames) != set(self._shapes) or rows.stop > self.capacity:
            raise ValueError(f"{self.path}: give {sorted(self._shapes)} for at most {self.capacity} frames")
        if self._done == 0:
            self._lay_out(0)
        with h5py.File(self.partial, "r+", locking=False) as file:
            for name, values in frames.items():
                if name != self._marker:
                    file[name][rows] = values
            _flush(file)
            file[self._marker][rows] = frames[self._marker]
            _flush(file)
        self._done = rows.stop

    def finish(self) -> None:
        """Give the complete file its real name.

        Raises
        ------
        HpcspinError
            If frames are missing.
        """
        if self._done < self.capacity and not self._at_most:
            raise HpcspinError(
                f"{self.partial}: holds {self._done} of {self.capacity} frames; run the same command again"
            )
        if self._done == self.capacity and self._compression is None:
            replace(self.partial, self.path)
            return
        with open_hdf5(self.partial) as old, atomic_path(self.path) as temporary, h5py.File(temporary, "w") as file:
            _pack(old, file, self._done, self._compression)
        self.partial.unlink()

    def _laid_out_alike(self) -> bool:
        with open_hdf5(self.partial) as file:
            found = {name: getattr(item, "shape", None) for name, item in file.items()}
        return found == {name: (self.capacity, *shape) for name, shape in self._shapes.items()}

    def _forget_beyond(self, keep: int) -> None:
        with open_hdf5(self.partial) as file:
            _require_frames(file, self.partial, keep)
        with h5py.File(self.partial, "r+", locking=False) as file:
            file[self._marker][keep:] = np.nan
            _flush(file)

    def _lay_out(self, keep: int) -> None:
        source = self.partial if self.partial.exists() else self.path
        with atomic_path(self.partial) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
            write_attributes(file, self._kind, self._attributes)
            file.attrs[MARKER] = self._marker
            for name, shape in self._shapes.items():
                _create(file, name, (self.capacity, *shape), integer=name in self._integers)
            file[self._marker][...] = np.nan
            if keep:
                self._copy(source, file, keep)

    def _copy(self, source: Path, file: h5py.File, keep: int) -> None:
        with open_hdf5(source) as old:
            _require_frames(old, source, keep)
            for name, shape in self._shapes.items():
                found = real_dataset(old, source, name)
                if found.shape[1:] != shape:
                    raise HpcspinError(f"{source}: has no /{name} of shape {shape} a frame; keep the settings")
                for frame in range(keep):
                    file[name][frame] = old[name][frame]


def partial_path(path: str | Path) -> Path:
    """Name under which an unfinished file is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial")


def _require_frames(file: h5py.File, path: Path, keep: int) -> None:
    found = count_frames(file, path)
    if found < keep:
        raise HpcspinError(
            f"{path}: holds {found} frames, the checkpoint knows of {keep}; restore it or start in another directory"
        )


def _create(file: h5py.File, name: str, shape: tuple[int, ...], *, integer: bool) -> None:
    # Early contiguous allocation is what makes later writes pure data: no index, no object header
    # changes any more.
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    kind = h5py.h5t.STD_I64LE if integer else h5py.h5t.IEEE_F64LE
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def _pack(source: h5py.File, target: h5py.File, frames: int, compression: str | None) -> None:
    """Copy complete frames, one chunk a frame of an array and one chunk a series of numbers."""
    for name, value in source.attrs.items():
        target.attrs[name] = value
    packed = {} if compression is None else {"compression": compression, "shuffle": True}
    for name, dataset in source.items():
        shape = dataset.shape[1:]
        chunks = (1, *shape) if shape else (frames,)
        copy = target.create_dataset(name, (frames, *shape), dataset.dtype, chunks=chunks, **packed)
        for frame in range(frames) if shape else [slice(0, frames)]:
            copy[frame] = dataset[frame]


def _flush(file: h5py.File) -> None:
    file.flush()
    os.fsync(file.id.get_vfd_handle())
