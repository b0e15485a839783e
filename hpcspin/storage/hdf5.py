"""Opening HDF5 files with errors a user can act on, and the small vocabulary all our files share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from hpcspin.errors import HpcspinError

SCHEMA_VERSION = 1

UNITS = (
    "energy, field, potential: hopping t; time: hbar/t; length: lattice constant; spins: unit vectors; "
    "current: t/hbar particles out of the reservoir; hbar = k_B = e = gamma = 1"
)


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever HDF5 dislikes becomes one line that names the file.

    Parameters
    ----------
    path
        File to read.

    Yields
    ------
    h5py.File
        The open file, closed on leaving.

    Raises
    ------
    HpcspinError
        If the file is missing, truncated, of another format, or cannot be read within the block.
    """
    path = Path(path)
    if not path.is_file():
        raise HpcspinError(f"{path}: no such file; check the path")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise HpcspinError(
            f"{path}: cannot be read, it is truncated, corrupt or not HDF5 ({reason}); make it again"
        ) from error


def write_attributes(file: h5py.File, kind: str, attributes: Mapping[str, Any]) -> None:
    """Write the attributes that every hpcspin file carries, then the caller's (containers as JSON).

    Parameters
    ----------
    file
        Open file.
    kind
        What the file is: ``labels``, ``trajectory`` or ``checkpoint``.
    attributes
        The caller's; strings and numbers are stored as they are, mappings and sequences as JSON.
    """
    file.attrs["kind"] = kind
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["units"] = UNITS
    for name, value in attributes.items():
        file.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value)


def check_schema(file: h5py.File, path: Path) -> None:
    """Refuse a file of another schema version; one without any, a user's own, is read by its datasets.

    Raises
    ------
    HpcspinError
        If the file has another schema version than :data:`SCHEMA_VERSION`.
    """
    version = int(file.attrs.get("schema_version", SCHEMA_VERSION))
    if version != SCHEMA_VERSION:
        raise HpcspinError(f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}; make it again")
