"""Files of frames of equal shape, read frame by frame, and written so that they survive ``kill -9`` at any instant.

HDF5 has no journal: a process killed while it updates a file's metadata leaves a file that cannot be opened. A
:class:`FrameFile` therefore never updates metadata. Before the first frame is written, all datasets are laid out
contiguously at their final length in a file named ``NAME.partial``. Later frames are bytes written at their place in
each dataset and forced to the disk, followed by an entry in a small *marker* dataset, initially filled with NaN, which
is forced to the disk as well. A kill or a full disk can only leave a frame without a marker, which the next run writes
again. The partial file is a plain HDF5 file at every instant, and the readers of this package skip rows without a
marker. With the last frame the file takes its real name.

Disk space for all frames is reserved at the start if the file system supports it, so that a full disk ends a job in its
first minute; a file that may be finished with fewer frames grows with them. A longer run lays out a longer file and
copies once. Not used: SWMR (a killed writer leaves flags that plain readers refuse, and network file systems do not
guarantee its ordering) and one file per checkpoint interval (thousands of small files, and a second copy at the end).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import atomic_file, remove_temporaries, replace
from hpcspin.storage.datasets import describe_datasets, shapes_beside
from hpcspin.storage.disk import DiskFile, create_hdf5, file_errors
from hpcspin.storage.opening import (
    MARKER,
    attributes,
    check_schema,
    count_frames,
    open_hdf5,
    real_dataset,
    require_shape,
)
from hpcspin.storage.provenance import with_provenance, write_attributes

_CLOSED = "{}: has been closed; open it again, or read it before"


@dataclass(frozen=True)
class _Place:
    """Location of a dataset's frames in the file; `offset` is None for frames without numbers."""

    offset: int | None
    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> _Place:
        return cls(dataset.id.get_offset(), dataset.dtype, dataset.shape[1:])

    def write(self, disk: DiskFile, first: int, frames: ArrayLike) -> None:
        """Write frames from number `first` on."""
        values = np.ascontiguousarray(frames, dtype=self.dtype)
        if values.shape[1:] != self.shape:
            raise ValueError(f"a frame has shape {self.shape}, not {values.shape[1:]}")
        if self.offset is not None and values.size:
            size = self.dtype.itemsize * math.prod(self.shape)
            disk.write_at(self.offset + first * size, values.reshape(-1).view(np.uint8).data)


class FrameFile:
    """Frames appended durably to ``path.partial``, which becomes `path` when the last one is written.

    ``shapes`` are those of one frame of each dataset, float64 unless named in `integers`; ``capacity`` is the number of
    frames of the complete file. ``keep`` frames are kept from the partial file or, if there is none, from the finished
    one; 0 starts a new one. With ``at_most`` the file may be finished with fewer frames; with the ``compression``
    ``gzip`` or ``lzf`` the finished file is a compressed copy. Raises HpcspinError if fewer than ``keep`` complete
    frames are found, or the existing file is unreadable or has other shapes.
    """

    kind: ClassVar[str]
    """``labels`` or ``trajectory``, stored with the file."""
    marker: ClassVar[str]
    """The scalar dataset that is finite for every complete frame."""
    integers: ClassVar[frozenset[str]] = frozenset()
    """Names of the datasets of type int64."""

    def __init__(
        self,
        path: str | Path,
        shapes: Mapping[str, tuple[int, ...]],
        capacity: int,
        attributes: Mapping[str, Any],
        keep: int = 0,
        at_most: bool = False,
        compression: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.partial = partial_path(path)
        self.capacity = capacity
        self._shapes = dict(shapes)
        self._at_most, self._compression = at_most, compression
        self._attributes = with_provenance(attributes)
        self._done = keep
        self._places: dict[str, _Place] = {}
        if keep and self.partial.exists() and self._layout_matches():
            with open_hdf5(self.partial) as file:
                _require_frames(file, self.partial, keep)
            with DiskFile(self.partial) as disk:
                self._mark_unwritten(disk, keep)
                disk.sync()
        elif keep:
            self._lay_out(keep)

    @property
    def done(self) -> int:
        """Number of complete frames."""
        return self._done

    def write(self, **frames: np.ndarray) -> None:
        """Append frames, an array (k, ...) for each dataset, from one thread at a time; on return they survive."""
        stop = self._done + len(frames[self.marker])
        lengths = {name: len(values) for name, values in frames.items()}
        if lengths != dict.fromkeys(self._shapes, stop - self._done) or stop > self.capacity:
            raise ValueError(f"{self.path}: give {sorted(self._shapes)} for at most {self.capacity} frames")
        if self._done == 0:
            self._lay_out(0)
        with DiskFile(self.partial) as disk:
            for name, values in frames.items():
                if name != self.marker:
                    self._places[name].write(disk, self._done, values)
            disk.sync()
            self._places[self.marker].write(disk, self._done, frames[self.marker])
            disk.sync()
        self._done = stop

    def finish(self) -> None:
        """Give the complete file its real name; raises HpcspinError if frames are missing."""
        if self._done < self.capacity and not self._at_most:
            raise HpcspinError(
                f"{self.partial}: holds {self._done} of {self.capacity} frames; run the same command again"
            )
        if self._done == self.capacity and self._compression is None:
            replace(self.partial, self.path)
            return
        remove_temporaries(self.path)
        with atomic_file(self.path) as disk, create_hdf5(disk) as file, open_hdf5(self.partial) as old:
            _pack(old, file, disk, self._done, self._compression)
        with file_errors(self.partial):
            self.partial.unlink()

    def _layout_matches(self) -> bool:
        with open_hdf5(self.partial) as file:
            if not all(isinstance(dataset, h5py.Dataset) for dataset in file.values()):
                return False
            self._places = {name: _Place.of(dataset) for name, dataset in file.items()}
            layout = {name: (dataset.shape, dataset.dtype) for name, dataset in file.items()}
        wanted = {name: ((self.capacity, *shape), self._dtype(name)) for name, shape in self._shapes.items()}
        return layout == wanted and all(place.offset is not None or 0 in place.shape for place in self._places.values())

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype("<i8" if name in self.integers else "<f8")

    def _mark_unwritten(self, disk: DiskFile, keep: int) -> None:
        self._places[self.marker].write(disk, keep, np.full(self.capacity - keep, np.nan))

    def _lay_out(self, keep: int) -> None:
        source = self.partial if self.partial.exists() else self.path
        remove_temporaries(self.partial)
        with atomic_file(self.partial) as disk:
            with create_hdf5(disk, libver="earliest") as file:
                write_attributes(file, self.kind, self._attributes)
                file.attrs[MARKER] = self.marker
                for name, shape in self._shapes.items():
                    _create(file, name, (self.capacity, *shape), self._dtype(name))
                describe_datasets(file, self._attributes)
                self._places = {name: _Place.of(dataset) for name, dataset in file.items()}
            if not self._at_most:
                disk.reserve()
            self._mark_unwritten(disk, keep)
            if keep:
                self._copy(source, disk, keep)

    def _copy(self, source: Path, disk: DiskFile, keep: int) -> None:
        with open_hdf5(source) as old:
            _require_frames(old, source, keep)
            for name, shape in self._shapes.items():
                if name not in old:
                    raise HpcspinError(
                        f"{source}: has no /{name}, which this version of hpcspin writes too; go on with the version "
                        "that began it, or choose another --output"
                    )
                dataset = real_dataset(old, source, name)
                if dataset.shape[1:] != shape:
                    raise HpcspinError(f"{source}: has no /{name} of shape {shape} a frame; keep the settings")
                for frame in range(keep):
                    self._places[name].write(disk, frame, old[name][frame : frame + 1])


class FrameReader:
    """Frames of a label file or a trajectory, finished or not, read when they are indexed.

    Each dataset is an attribute that is indexed like an array: ``frames.spins[3]``, ``frames.field[-10:]``; ``names``
    are those with one row for each frame, and ``attributes`` those of the file, decoded from JSON. It is a context
    manager; arrays that were read stay valid after the file is closed. Raises HpcspinError if the file cannot be read,
    contains no spins, or a dataset of hpcspin has a wrong shape.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        with ExitStack() as stack:
            self._file: h5py.File = stack.enter_context(open_hdf5(path))
            check_schema(self._file, self._path)
            self._frames = count_frames(self._file, self._path)
            self.names = tuple(self._of_frames())
            self._opened = stack.pop_all()
        self.attributes = attributes(self._file, self._path)

    def _of_frames(self) -> Iterator[str]:
        spins = self._file["spins"].shape
        shapes = shapes_beside(spins)
        for name, item in self._file.items():
            if not isinstance(item, h5py.Dataset):
                continue
            if name in shapes:
                require_shape(item.shape, shapes[name], f"{self._path}: /{name}")
            if (item.shape or ())[:1] == spins[:1]:
                yield name

    def __len__(self) -> int:
        return self._frames

    def __repr__(self) -> str:
        return f"<{self._frames} frames in {self._path}: {', '.join(self.names)}>"

    def __getattr__(self, name: str) -> _Rows:
        if name.startswith("_"):  # Nor has a reader its own attributes while `copy` makes it.
            raise AttributeError(name)
        if name not in self.names:
            raise AttributeError(f"{self._path}: has no dataset {name!r}; it has {', '.join(self.names)}")
        if not self._file:
            raise HpcspinError(_CLOSED.format(self._path))
        return _Rows(real_dataset(self._file, self._path, name), self)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Rows:
    """The complete frames of one dataset; their reader stays open as long as they are used."""

    def __init__(self, dataset: h5py.Dataset, reader: FrameReader, start: int = 0, stop: int | None = None) -> None:
        self._dataset, self._reader, self._start = dataset, reader, start
        self._name = dataset.name
        self._frames = (len(reader) if stop is None else stop) - start
        self.shape, self.dtype = (self._frames, *dataset.shape[1:]), dataset.dtype

    def __repr__(self) -> str:
        return f"<{self._reader._path}: {self._name}, shape {self.shape}>"

    def between(self, start: int, stop: int) -> _Rows:
        """The frames from ``start`` to before ``stop``, read when they are indexed."""
        return _Rows(self._dataset, self._reader, self._start + start, self._start + min(stop, self._frames))

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, which: Any) -> Any:
        if not self._dataset:
            raise HpcspinError(_CLOSED.format(self._reader._path))
        first, *others = which if isinstance(which, tuple) else (which,)
        if first is Ellipsis:
            first, others = slice(None), [first, *others]
        if isinstance(first, slice) and (first.step is None or first.step > 0):
            start, stop, step = first.indices(self._frames)
            first = slice(self._start + start, self._start + stop, step)
        elif isinstance(first, int | np.integer):
            if not -self._frames <= first < self._frames:
                raise IndexError(f"frame {first} of {self._frames}")
            first = self._start + first % self._frames
        else:  # Frames in any order, or a mask: HDF5 reads each once and in increasing order.
            rows, order = np.unique(np.arange(self._frames)[first], return_inverse=True)
            return self._read((self._start + rows, *others))[order]
        return self._read((first, *others))

    def _read(self, which: tuple[Any, ...]) -> Any:
        try:
            return self._dataset[which]
        except OSError as error:
            raise HpcspinError(f"{self._reader._path}: {self._name} is damaged ({error}); make it again") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)


def partial_path(path: str | Path) -> Path:
    """Name under which an unfinished file is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial")


def _require_frames(file: h5py.File, path: Path, keep: int) -> None:
    count = count_frames(file, path)
    if count < keep:
        raise HpcspinError(
            f"{path}: holds {count} frames, the checkpoint counts {keep}; restore it or start in another directory"
        )


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    # With early contiguous allocation later writes are pure data: neither an index nor an object header
    # changes.
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    kind = h5py.h5t.py_create(dtype)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def _pack(source: h5py.File, target: h5py.File, disk: DiskFile, frames: int, compression: str | None) -> None:
    """Copy complete frames, with one chunk for each frame of arrays and one chunk for each series of numbers."""
    target.attrs.update(source.attrs)
    packed = {} if compression is None else {"compression": compression, "shuffle": True}
    for name, dataset in source.items():
        shape = dataset.shape[1:]
        chunks = (1, *shape) if shape else (frames,)
        copy = target.create_dataset(name, (frames, *shape), dataset.dtype, chunks=chunks, **packed)
        copy.attrs.update(dataset.attrs)
        for frame in range(frames) if shape else [slice(0, frames)]:
            copy[frame] = dataset[frame]
            disk.check()
