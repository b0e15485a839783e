"""Spins from files: defines valid spin configurations and the files that can contain them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import sha256
from hpcspin.storage.opening import (
    attributes,
    check_schema,
    count_frames,
    describe,
    open_hdf5,
    read_rows,
    real_dataset,
    require_file,
    require_shape,
)
from hpcspin.storage.ovf import read_ovf
from hpcspin.storage.trajectory import find_trajectory

LENGTH_TOLERANCE = 1e-6
SPINS = ("n", "Lx", "Ly", 3)
"""Shape of spin configurations."""
_NUMBERS_AT_ONCE = 3_000_000
"""Amount of numbers read at a time when a whole file is checked: 24 MB."""

_UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, TokenError, RecursionError, OverflowError, MemoryError)
"""Exceptions that NumPy raises if the header of an array, a Python expression, is damaged."""

Frames = int | slice | None
Places = NDArray[np.float64] | None


def check_spins(
    spins: ArrayLike,
    size: Sequence[int] | None,
    where: str,
    frames: range | None = None,
    vacancies: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Check that an array, shape (..., Lx, Ly, 3), contains unit vectors of the given lattice.

    Returns it as contiguous float64, with z at the ``vacancies``, a mask (Lx, Ly), where it holds zeros. Raises
    HpcspinError if the size is not (Lx, Ly), a spin is not finite, or its length differs from 1 by more than 1e-6. The
    message names ``where``, a file or a config key, and numbers the first axis by ``frames``, or from 0 for None.
    """
    try:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(spins, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HpcspinError(f"{where}: spins are not real numbers; give shape (n, Lx, Ly, 3)") from error
    if array.ndim < 3 or array.shape[-1] != 3 or array.size == 0:
        raise HpcspinError(f"{where}: spins have shape {array.shape}; give shape (n, Lx, Ly, 3) with n > 0")
    if size is not None and array.shape[-3:-1] != tuple(size):
        given, wanted = ("{} x {}".format(*pair) for pair in (array.shape[-3:-1], size))
        raise HpcspinError(f"{where}: spins are on {given} sites, the lattice has {wanted}; correct lattice.size")
    if vacancies is not None:
        array = np.where((vacancies & ~array.any(axis=-1))[..., None], (0.0, 0.0, 1.0), array)
    with np.errstate(over="ignore"):
        length = np.linalg.norm(array, axis=-1)
    if not np.isfinite(length).all():
        place = _place_of_first(~np.isfinite(length), frames)
        raise HpcspinError(f"{where}: spin {place} holds NaN, infinity or a number without bounds; correct the data")
    wrong = np.abs(length - 1) > LENGTH_TOLERANCE
    if wrong.any():
        first = length[wrong][0]
        remedy = "normalise the spins" if first else "only the sites of electrons.vacancies can lack a spin"
        raise HpcspinError(f"{where}: spin {_place_of_first(wrong, frames)} has length {first:.6g}, not 1; {remedy}")
    return array


class SpinsFile:
    """Spin configurations given by a user, read a few at a time; ``count`` of them, in the ``files``.

    The path is an HDF5 file with `/spins` of shape (n, Lx, Ly, 3), finished or partial; an OVF 2.0 file; a NumPy array
    (.npy) of shape (n, Lx, Ly, 3) or (Lx, Ly, 3); the directory of a simulation, for its trajectory; or a directory of
    OVF files of one quantity, in the order of their names. The points of an OVF file are identified by the ``places``
    of the sites, as in `read_ovf`. The config of an HDF5 file must not name another ``kind`` of lattice. Zero vectors
    are read at the ``vacancies`` alone, see `check_spins`. Raises HpcspinError if the path is none of these, unreadable
    or without configurations.
    """

    def __init__(
        self,
        path: str | Path,
        size: Sequence[int] | None,
        places: Places = None,
        kind: str | None = None,
        vacancies: NDArray[np.bool_] | None = None,
    ) -> None:
        self._size, self._kind, self._vacancies = size, kind, vacancies
        self.files = _files(Path(path))
        self._where = str(self.files[0] if len(self.files) == 1 else path)
        self.count, self._rows = self._reader(places)
        if not self.count:
            raise HpcspinError(f"{self._where}: holds no frames; make it again or choose another file")

    def read(self, frames: Frames = None) -> NDArray[np.float64]:
        """Read and check configurations, shape (n, Lx, Ly, 3): one index (-1 is the last), a slice, or None for all."""
        rows = frame_slice(self.count, frames, self._where)
        numbers = range(rows.start, rows.stop, rows.step)
        return check_spins(self._rows(rows), self._size, self._where, numbers, self._vacancies)

    def check(self) -> None:
        """Check all configurations without keeping them in memory; HpcspinError names the first invalid one."""
        step = max(1, _NUMBERS_AT_ONCE // self.read(0).size)
        for start in range(0, self.count, step):
            self.read(slice(start, start + step))

    def sha256(self) -> str:
        """Hexadecimal SHA-256 digest of the file, or of the digests of several."""
        return sha256(*self.files)

    def _reader(self, places: Places) -> tuple[int, Callable[[slice], NDArray[np.float64]]]:
        """Number of configurations, and a function that reads rows of them."""
        path = self.files[0]
        what = describe(require_file(path))
        if what == "an OVF file":
            return len(self.files), lambda rows: np.stack([read_ovf(file, places) for file in self.files[rows]])
        if what == "a NumPy array (.npy)":
            array = _numpy_array(path)
            return len(array), lambda rows: np.array(array[rows], dtype=np.float64)

        def rows_of_hdf5(rows: slice) -> NDArray[np.float64]:
            with open_hdf5(path) as file:
                return read_rows(real_dataset(file, path, "spins", SPINS), path, rows)

        with open_hdf5(path, "give HDF5 with /spins (n, Lx, Ly, 3), OVF 2.0 or .npy") as file:
            check_schema(file, path)
            stored = (attributes(file, path).get("config", {}).get("lattice") or {}).get("kind", self._kind)
            if self._kind not in (None, stored):
                raise HpcspinError(
                    f"{path}: its spins are on a lattice of kind {stored}, and lattice.kind is {self._kind}; "
                    "correct it, or give the spins as .npy"
                )
            return count_frames(file, path), rows_of_hdf5


def read_spins(path: str | Path, size: Sequence[int] | None, frames: Frames = None) -> NDArray[np.float64]:
    """Read and check spin configurations from a file; see `SpinsFile`."""
    return SpinsFile(path, size).read(frames)


def frame_slice(count: int, frames: Frames, where: str) -> slice:
    """Translate a selection from ``count`` complete frames into rows of the datasets; HpcspinError if it is empty."""
    if isinstance(frames, int):
        if not -count <= frames < count:
            raise HpcspinError(f"{where}: has {count} frames, not frame {frames}; choose another")
        return slice(frames % count, frames % count + 1, 1)
    rows = slice(*(frames or slice(None)).indices(count))
    if not len(range(rows.start, rows.stop, rows.step)):
        raise HpcspinError(f"{where}: holds no frames to read; make it again or choose other frames")
    return rows


def _files(path: Path) -> list[Path]:
    """The trajectory or the OVF files of a directory; for a file, the file itself."""
    if not path.is_dir():
        return [path]
    trajectory = find_trajectory(path)
    if trajectory.exists():
        return [trajectory]
    series: dict[str, list[Path]] = {}
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() in (".ovf", ".omf")):
        series.setdefault(re.sub(r"\d", "", file.name), []).append(file)
    chosen = series.get("spins_.ovf") or (next(iter(series.values())) if len(series) == 1 else None)
    if chosen is None:
        content = f"the OVF files of {len(series)} quantities" if series else "neither trajectory.h5 nor OVF files"
        raise HpcspinError(
            f"{path}: is a directory with {content}; give that of a simulation, of OVF files of one quantity, or a file"
        )
    return chosen


def _numpy_array(path: Path) -> NDArray[np.generic]:
    """An array that stays on the disk, with an axis of configurations."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise HpcspinError(f"{path}: is no intact .npy file of numbers ({reason}); save it again") from error
    if array.dtype.kind not in "fiu":
        raise HpcspinError(f"{path}: holds {array.dtype}; give real numbers, such as float64")
    array = array[None] if array.ndim == 3 else array
    require_shape(array.shape, SPINS, f"{path}: the array")
    return array


def _place_of_first(mask: NDArray[np.bool_], frames: range | None) -> tuple[int, ...]:
    place = [int(index) for index in np.argwhere(mask)[0]]
    if frames is not None:
        place[0] = frames[place[0]]
    return tuple(place)
