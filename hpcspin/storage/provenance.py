"""Where a file comes from: the code's version and commit, and the libraries that computed it."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from hpcspin import __version__

LIBRARIES = (
    "numpy", "scipy", "torch", "numba", "h5py", "mpi4py", "array-api-compat", "cupy-cuda13x", "torch-scatter",
)  # fmt: skip


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        result = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


@functools.cache
def code_version() -> str:
    """Package version, with the git commit (and ``.modified``) where the code runs from its own checkout."""
    # An installed copy may lie inside somebody else's repository: only a tracked file proves that it is ours.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return __version__
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return __version__
    modified = _git("status", "--porcelain", "--untracked-files=no", "--", "..")
    return f"{__version__}+{commit}" + (".modified" if modified else "")


@functools.cache
def _libraries() -> dict[str, str]:
    found = {name: _version(name) for name in LIBRARIES}
    return {name: version for name, version in found.items() if version is not None}


def provenance() -> dict[str, str]:
    """Describe code and libraries, independent of the host: the same installation gives the same dict.

    Returns
    -------
    dict
        ``code_version``, ``python`` and the version of each installed numerical library.
    """
    return {"code_version": code_version(), "python": platform.python_version(), **_libraries()}


def with_provenance(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Add the code's version and the libraries to a file's attributes."""
    origin = provenance()
    return {**attributes, "code_version": origin["code_version"], "provenance": origin}
