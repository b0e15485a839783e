"""Provenance recorded in every file: kind, schema and units, version and commit of the code, and the libraries."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py

from hpcspin import __version__

SCHEMA_VERSION = 1
UNITS = (
    "energy, field, potential: hopping t; time: hbar/t; length: lattice constant; spins: unit vectors; "
    "current: t/hbar particles out of the reservoir; hbar = k_B = e = gamma = 1"
)

_LONGEST, _MORE = 60_000, "#"
"""Largest number of characters of an attribute, and the mark before the number of each further piece."""
LIBRARIES = (
    "numpy", "scipy", "torch", "numba", "h5py", "mpi4py", "array-api-compat", "cupy-cuda13x", "torch-scatter",
)  # fmt: skip


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        result = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


@functools.cache
def code_version() -> str:
    """Package version, with the git commit (and ``.modified``) if the code runs from its own checkout."""
    # An installed copy may lie inside another repository: only a tracked file proves that the repository is ours.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return __version__
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return __version__
    modified = _git("status", "--porcelain", "--untracked-files=no", "--", "..")
    return f"{__version__}+{commit}" + (".modified" if modified else "")


@functools.cache
def provenance() -> dict[str, str]:
    """``code_version``, ``python`` and the version of each installed numerical library; the same on all hosts."""
    versions = {"code_version": code_version(), "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def with_provenance(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Add the code's version and the libraries to a file's attributes."""
    origin = provenance()
    return {**attributes, "code_version": origin["code_version"], "provenance": origin}


def write_attributes(file: h5py.File, kind: str, attributes: Mapping[str, Any]) -> None:
    """Write the attributes that every hpcspin file carries, then the caller's, to an open file.

    Strings and numbers are stored as they are, mappings and sequences as JSON. Text that exceeds the length of an HDF5
    attribute continues in ``NAME#1``, ``NAME#2`` and so on.
    """
    file.attrs["kind"] = kind
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["units"] = UNITS
    for name, value in attributes.items():
        if isinstance(value, int | float):
            file.attrs[name] = value
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        file.attrs[name] = text[:_LONGEST]
        for start in range(_LONGEST, len(text), _LONGEST):
            file.attrs[f"{name}{_MORE}{start // _LONGEST}"] = text[start : start + _LONGEST]


def stored_attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes as they were given to `write_attributes`, with texts in several pieces joined."""
    values = {name: file.attrs[name] for name in file.attrs if _MORE not in name}
    for name in values:
        number = 1
        while (more := f"{name}{_MORE}{number}") in file.attrs:
            values[name] += file.attrs[more]
            number += 1
    return values
