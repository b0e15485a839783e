"""Checked writes: every file of hpcspin is written through this module.

A write is complete when the operating system has accepted all of it, and a file when its flush to the disk and its
closing have succeeded; any failure (a full disk, a quota, a limit, a broken server) becomes one line that names the
file.

HDF5 does not handle a full disk: a handle whose cache cannot be written fails when it is closed, where h5py can only
print, and the library crashes when it tries again at the end of the process. HDF5 therefore writes files through a
`DiskFile` that hides failures from it and raises them afterwards (`create_hdf5`).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from hpcspin.errors import HpcspinError, one_line

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def file_errors(path: str | Path) -> Iterator[None]:
    """Raise an OSError in the block as an HpcspinError, one line that names a file."""
    try:
        yield
    except OSError as error:
        raise HpcspinError(one_line(OSError(error.errno, error.strerror, str(path)))) from error


class DiskFile:
    """An open file that is written at given offsets; each method raises HpcspinError if it fails.

    Messages use ``name`` if the path is only a temporary name; ``create`` creates the file if it does not exist. The
    first ``failure`` is stored and hidden from HDF5.
    """

    def __init__(self, path: str | Path, name: str | Path | None = None, *, create: bool = False) -> None:
        self._name = path if name is None else name
        self.failure: HpcspinError | None = None
        with file_errors(self._name):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)

    @property
    def size(self) -> int:
        """Length in bytes."""
        with file_errors(self._name):
            return os.fstat(self._descriptor).st_size

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all bytes at an offset."""
        left = memoryview(data)
        with file_errors(self._name):
            while left:
                written = os.pwrite(self._descriptor, left, offset)
                left, offset = left[written:], offset + written

    def read_at(self, offset: int, target: memoryview) -> None:
        """Fill a buffer with the bytes from an offset on, and with zeros beyond the end of the file."""
        with file_errors(self._name):
            while target and (count := os.preadv(self._descriptor, [target], offset)):
                target, offset = target[count:], offset + count
        target[:] = bytes(len(target))

    def resize(self, length: int) -> None:
        """Set the length; an extension takes no space on the disk yet."""
        with file_errors(self._name):
            os.ftruncate(self._descriptor, length)

    def reserve(self) -> None:
        """Reserve disk space for the whole length, so that a full disk is noticed now; not all file systems can."""
        with file_errors(self._name):
            failed = _fallocate(self._descriptor, os.fstat(self._descriptor).st_size)
            if failed and failed not in _UNSUPPORTED:
                raise OSError(failed, os.strerror(failed))

    def sync(self) -> None:
        """Force everything to the disk, so that it survives a power failure."""
        with file_errors(self._name):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; a network file system may report only then that it is full."""
        with file_errors(self._name):
            os.close(self._descriptor)

    def check(self) -> None:
        """Raise the failure that was hidden from HDF5."""
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> DiskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def create_hdf5(disk: DiskFile, **options: Any) -> Iterator[h5py.File]:
    """Yield an HDF5 file that is written to an empty ``disk`` file; raises HpcspinError on leaving if this failed."""
    try:
        with h5py.File(_ErrorsDeferred(disk), "w", **options) as file:
            yield file
    finally:
        disk.check()


class _ErrorsDeferred:
    """File object for h5py that never raises: after a first failure, which the `DiskFile` stores, it drops all data."""

    def __init__(self, disk: DiskFile) -> None:
        self._disk, self._place, self._end = disk, 0, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (self._end if whence == os.SEEK_END else 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        target = bytearray(size)
        self.readinto(memoryview(target))
        return bytes(target)

    def readinto(self, target: memoryview) -> int:
        target[:] = bytes(len(target))
        self._attempt(lambda: self._disk.read_at(self._place, target))
        return len(target)

    def write(self, data: memoryview) -> int:
        self._end = max(self._end, self._place + len(data))
        self._attempt(lambda: self._disk.write_at(self._place, data))
        return len(data)

    def truncate(self, size: int) -> int:
        self._end = size
        self._attempt(lambda: self._disk.resize(size))
        return size

    def flush(self) -> None:
        """Do nothing: the operating system has all data already, and `DiskFile.sync` does the rest."""

    def _attempt(self, act: Callable[[], None]) -> None:
        if self._disk.failure is not None:
            return
        try:
            act()
        except HpcspinError as failure:
            self._disk.failure = failure


def _fallocate(descriptor: int, length: int) -> int:
    """Error number of Linux's fallocate, 0 for success.

    posix_fallocate of the standard library writes a byte into every block if the file system has no such call, which
    takes hours on a network.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if call is None:
        return errno.ENOSYS
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while length and call(descriptor, 0, 0, length):
        if ctypes.get_errno() != errno.EINTR:
            return ctypes.get_errno()
    return 0
