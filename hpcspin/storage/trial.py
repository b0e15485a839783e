"""Trials of whether a directory is suitable for results: speed, locks, HDF5."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np

from hpcspin.errors import HpcspinError
from hpcspin.storage.disk import DiskFile, create_hdf5
from hpcspin.storage.lock import OutputLock

_BYTES = 1 << 25
_SMALL = 4096
_SYNCS = 5
_FILTERS = ("gzip", "lzf")


def write_speed(folder: Path) -> tuple[float, float]:
    """Bytes per second that reach the disk, and seconds until a small write does, in a folder for this trial only.

    Raises HpcspinError if a write fails.
    """
    with DiskFile(folder / "bytes", create=True) as file:
        start = time.perf_counter()
        file.write_at(0, bytes(_BYTES))
        file.sync()
        rate = _BYTES / (time.perf_counter() - start)
        start = time.perf_counter()
        for number in range(_SYNCS):
            file.write_at(number * _SMALL, b"1" * _SMALL)
            file.sync()
        return rate, (time.perf_counter() - start) / _SYNCS


def holds_lock(folder: Path) -> bool:
    """Whether a lock on a folder, held by another process or by another object in this one, is respected here."""
    lock = OutputLock(folder, lambda message: None)
    try:
        lock.acquire()
    except HpcspinError:
        return True
    lock.release()
    return False


def hdf5_filters(folder: Path) -> str:
    """Write and read an HDF5 file with each filter that trajectories can use; returns the names of the filters.

    Raises HpcspinError if a filter is missing, or the data read differ from those written.
    """
    numbers = np.arange(4096.0)
    for name in _FILTERS:
        path = folder / f"{name}.h5"
        with DiskFile(path, create=True) as disk, create_hdf5(disk) as file:
            file.create_dataset("numbers", data=numbers, compression=name, shuffle=True)
        with h5py.File(path) as file:
            if not np.array_equal(file["numbers"][()], numbers):
                raise HpcspinError(f"{folder}: numbers written by HDF5 with {name} are read back as different ones")
    return ", ".join(_FILTERS)
