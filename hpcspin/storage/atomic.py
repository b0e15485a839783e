"""Files that are either complete or absent: temporary name in the same directory, fsync, rename, directory fsync."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from hpcspin.errors import HpcspinError
from hpcspin.storage.disk import DiskFile, create_hdf5, file_errors

_RANDOM = 8
"""Number of random characters in the name of a temporary file."""


def replace(source: str | Path, target: str | Path) -> None:
    """Rename durably: the content first, then the name."""
    with DiskFile(source, target) as file:
        file.sync()
    _rename(source, target)


def _rename(source: str | Path, target: str | Path) -> None:
    with file_errors(target):
        os.replace(source, target)
        descriptor = os.open(Path(target).parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: str | Path) -> Path:
    """Create a directory for output, with its parents; raises HpcspinError if it cannot be created."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise HpcspinError(f"{path}: cannot be made a directory ({reason}); choose another output") from error
    return path


def require_output(path: str | Path, *inputs: str | Path) -> None:
    """Refuse, before anything is computed, an output file that could not be written or would replace an input."""
    path = Path(path)
    if path.is_dir():
        raise HpcspinError(f"{path}: is a directory; give the name of a file")
    if path.exists() and any(path.samefile(given) for given in inputs):
        raise HpcspinError(f"{path}: is read by this command and would be overwritten; choose another output")
    make_directory(path.parent)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise HpcspinError(f"{path}: cannot be written there ({error.strerror}); choose another output") from error


def require_absent(*paths: Path, force: bool) -> None:
    """Refuse, before anything is computed, to replace files that are there, unless ``force`` says so."""
    if not force and (there := [path for path in paths if path.is_file()]):
        raise HpcspinError(f"{there[0]}: exists already; choose another --output, or replace it by --force")


@contextmanager
def all_or_none(files: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """Remove all files that a block has created if it fails; ``files`` lists those that exist, before and after."""
    before = set(files())
    try:
        yield
    except BaseException:
        for path in {*files()} - before:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_file(path: str | Path, keep: str | Path | None = None) -> Iterator[DiskFile]:
    """Yield an empty file with a temporary name in the directory of `path`; missing parent directories are created.

    The file takes its real name once the block has succeeded and everything has reached the disk; otherwise it is
    removed. With ``keep`` the file that it replaces is renamed to that name; between the two renamings there is no file
    at `path`. Raises HpcspinError, one line that names `path`, if something cannot be written.
    """
    path = Path(path)
    make_directory(path.parent)
    # The same suffix, by which readers and `remove_temporaries` recognise its type.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(_RANDOM // 2)}{path.suffix}")
    try:
        with DiskFile(temporary, path, create=True) as file:
            yield file
            file.sync()
        if keep is not None and path.exists():
            _rename(path, keep)
        _rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_hdf5(path: str | Path, keep: str | Path | None = None) -> Iterator[h5py.File]:
    """Yield an HDF5 file to write, which takes its real name as described in `atomic_file`."""
    with atomic_file(path, keep) as disk, create_hdf5(disk) as file:
        yield file


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a complete file, or leave the old one unchanged."""
    with atomic_file(path) as file:
        file.write_at(0, content)


def write_text(path: str | Path, text: str) -> None:
    """Write a complete file in UTF-8, or leave the old one unchanged."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write readable JSON, or leave the old file unchanged."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a file. On return it survives a crash; a crash before may leave a part of it."""
    with DiskFile(path, create=True) as file:
        file.write_at(file.size, f"{line}\n".encode())
        file.sync()


def remove_temporaries(path: str | Path) -> None:
    """Remove temporary files that killed runs have left for `path`, whose only writer must be the caller."""
    path = Path(path)
    mark = "?" * _RANDOM
    for file in path.parent.glob(f".{glob.escape(path.stem)}.{mark}{glob.escape(path.suffix)}"):
        with file_errors(file):
            file.unlink(missing_ok=True)


def sha256(*paths: str | Path) -> str:
    """Hexadecimal SHA-256 digest of a file, or of the digests of several."""
    digests = []
    for path in paths:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
