"""Files that are either whole or absent: temporary name in the same directory, fsync, rename."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcspin.errors import HpcspinError


def sync(path: str | Path) -> None:
    """Force a file's (or directory's) content to the disk, so that it outlives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(source: str | Path, target: str | Path) -> None:
    """Rename durably: the content first, then the name."""
    sync(source)
    os.replace(source, target)
    sync(Path(target).parent)


def make_directory(path: str | Path) -> Path:
    """Make a directory for output, with its parents.

    Raises
    ------
    HpcspinError
        If something that is not a directory is in the way, or it may not be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise HpcspinError(f"{path}: cannot be made a directory ({reason}); choose another output") from error
    return path


def require_output(path: str | Path, *inputs: str | Path) -> None:
    """Refuse, before anything is computed, an output file that could not be written, or would replace an input.

    Parameters
    ----------
    path
        File to write in the end; missing parent directories are made.
    inputs
        What the command reads.

    Raises
    ------
    HpcspinError
        If it is a directory, one of the inputs, or in a place where no file can be made.
    """
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


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; it takes the real name if the block succeeds, and vanishes if not.

    Parameters
    ----------
    path
        Final name; missing parent directories are made.

    Yields
    ------
    pathlib.Path
        Temporary name with the same suffix, so that libraries which look at it behave.
    """
    path = Path(path)
    make_directory(path.parent)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
