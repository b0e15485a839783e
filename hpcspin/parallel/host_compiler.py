"""Kernels in C, compiled for the machine at their first use and, if that is possible, cached."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")


def compiled(source: Path, *options: str) -> ctypes.CDLL | None:
    """The kernels of a source file, with compiler ``options``; None where there is no C compiler or it fails."""
    found = attempt(source, *options)
    return None if isinstance(found, str) else found


def attempt(source: Path, *options: str) -> ctypes.CDLL | str:
    """The kernels of a source file, compiled if need be, or the reason why there are none."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        return "no C compiler: neither $CC nor cc, gcc or clang is there"
    try:
        with suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory, as in some containers.
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            return ctypes.CDLL(str(_library(source, compiler, options, cache / "hpcspin" / "kernels")))
        # Nothing can be kept there, or run from there: compile for this process alone.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return ctypes.CDLL(str(_library(source, compiler, options, Path(folder))))
    except (OSError, subprocess.SubprocessError) as failure:
        return " ".join(str(failure).split())


def _library(source: Path, compiler: str, options: tuple[str, ...], folder: Path) -> Path:
    """Path of the compiled kernels; ranks that need them at the same time each compile them, and the last one stays."""
    flags = *_FLAGS, *options
    machine = f"{platform.machine()} {processor()} {compiler} {' '.join(flags)}"
    texts = [file.read_bytes() for file in (source, *sorted(source.parent.glob("*.h")))]
    name = hashlib.sha256(b"".join([*texts, machine.encode()])).hexdigest()[:16]
    path = folder / f"{source.stem}-{name}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            library = Path(temporary) / path.name
            subprocess.run([compiler, *flags, "-o", library, source], check=True, capture_output=True, timeout=120)
            library.replace(path)
    return path


def processor() -> str:
    """Model of the processor: one home directory may serve machines of several kinds."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
