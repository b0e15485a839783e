"""Spins from files: the one place that decides what a valid spin configuration is."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.errors import HpcspinError
from hpcspin.storage.frames import count_frames
from hpcspin.storage.hdf5 import check_schema, open_hdf5

LENGTH_TOLERANCE = 1e-6

Frames = int | slice | None


def check_spins(spins: ArrayLike, size: tuple[int, int] | None, where: str) -> NDArray[np.float64]:
    """Check that an array holds unit vectors on the given lattice.

    Parameters
    ----------
    spins
        Array of shape (..., Lx, Ly, 3).
    size
        (Lx, Ly), or None for any lattice.
    where
        What the error names: a file, a config key.

    Returns
    -------
    numpy.ndarray
        The spins as contiguous float64.

    Raises
    ------
    HpcspinError
        If the shape is another, or a spin is not finite, or its length differs from 1 by more than 1e-6.
    """
    try:
        array = np.ascontiguousarray(spins, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HpcspinError(f"{where}: spins are not real numbers; give shape (n, Lx, Ly, 3)") from error
    if array.ndim < 3 or array.shape[-1] != 3 or array.size == 0:
        raise HpcspinError(f"{where}: spins have shape {array.shape}; give shape (n, Lx, Ly, 3) with n > 0")
    if size is not None and array.shape[-3:-1] != tuple(size):
        found, wanted = ("{} x {}".format(*pair) for pair in (array.shape[-3:-1], size))
        raise HpcspinError(f"{where}: spins are on {found} sites, the lattice has {wanted}; mend lattice.size")
    length = np.linalg.norm(array, axis=-1)
    if not np.isfinite(length).all():
        raise HpcspinError(f"{where}: spin {_first(~np.isfinite(length))} holds NaN or infinity; mend the data")
    wrong = np.abs(length - 1) > LENGTH_TOLERANCE
    if wrong.any():
        found = f"{length[wrong][0]:.6g}"
        raise HpcspinError(f"{where}: spin {_first(wrong)} has length {found}, not 1; normalise the spins")
    return array


def read_spins(path: str | Path, size: tuple[int, int] | None, frames: Frames = None) -> NDArray[np.float64]:
    """Read and check spin configurations from a spins, label or trajectory file, finished or partial.

    Parameters
    ----------
    path
        HDF5 file with `/spins` of shape (n, Lx, Ly, 3).
    size
        Lattice size the spins must have, or None.
    frames
        Which frames: None for all, an index (-1 is the last) or a slice.

    Returns
    -------
    numpy.ndarray
        Shape (n, Lx, Ly, 3), float64; n = 1 for an index.

    Raises
    ------
    HpcspinError
        If the file is unreadable, holds no frames, lacks the frame asked for, or the spins are invalid.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        check_schema(file, path)
        rows = frame_rows(file, path, frames)
        return check_spins(read_rows(file, "spins", rows), size, str(path))


def frame_rows(file: h5py.File, path: Path, frames: Frames) -> slice:
    """Translate a choice of frames into rows of the datasets, counting complete frames only.

    Raises
    ------
    HpcspinError
        If no frame is left.
    """
    count = count_frames(file, path)
    if isinstance(frames, int):
        if not -count <= frames < count:
            raise HpcspinError(f"{path}: has {count} frames, not frame {frames}; choose another")
        return slice(frames % count, frames % count + 1)
    rows = slice(*(frames or slice(None)).indices(count))
    if not len(range(rows.start, rows.stop, rows.step)):
        raise HpcspinError(f"{path}: holds no frames to read; make it again or choose other frames")
    return rows


def read_rows(file: h5py.File, name: str, rows: slice) -> NDArray[np.float64]:
    """Read rows of one dataset as float64."""
    return np.asarray(file[name][rows], dtype=np.float64)


def _first(mask: ArrayLike) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(mask)[0])
