"""Kernels in C for single precision on a CPU, compiled for the machine at their first use and kept.

Without a C compiler, PyTorch does the same, to rounding.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from hpcspin.parallel.threads import thread_pool

_SOURCE = Path(__file__).with_name("host_layers.c")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
_SHARE = 120
"""Sites below which a thread is not worth its start."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, compiled if need be; None where there is no C compiler or it fails."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        return None
    try:
        found = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError):
        return None
    found.hpcspin_layer.restype = None
    found.hpcspin_layer_adjoint.restype = found.hpcspin_sums.restype = None
    for name in ("layer_scratch", "adjoint_scratch", "lanes"):
        getattr(found, f"hpcspin_{name}").restype = ctypes.c_int64
    address, number = ctypes.c_void_p, ctypes.c_int64
    found.hpcspin_layer.argtypes = (*[address] * 5, number, number, ctypes.c_int32, *[address] * 3)
    found.hpcspin_layer_adjoint.argtypes = (*[address] * 6, *[number] * 5, *[address] * 7)
    found.hpcspin_sums.argtypes = (*[address] * 4, number, number, *[address] * 3)
    found.hpcspin_layer_scratch.argtypes = found.hpcspin_adjoint_scratch.argtypes = (address,)
    return found


def loaded() -> ctypes.CDLL:
    """The kernels where they are known to be usable."""
    kernels = library()
    assert kernels is not None
    return kernels


def _compiled(compiler: str) -> Path:
    """Where the compiled kernels lie; ranks that come at the same time each compile them, and the last one stays."""
    machine = f"{platform.machine()} {_processor()} {compiler} {' '.join(_FLAGS)}"
    name = hashlib.sha256(_SOURCE.read_bytes() + machine.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hpcspin" / "kernels"
    path = folder / f"potential-{name}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = Path(temporary) / path.name
            subprocess.run([compiler, *_FLAGS, "-o", made, _SOURCE], check=True, capture_output=True, timeout=120)
            made.replace(path)
    return path


def _processor() -> str:
    """Model of the processor: a home directory serves machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2] for line in lines if line.startswith(("model name", "CPU part"))), "")


def usable(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels compute numbers of this precision there."""
    return dtype == torch.float32 and device.type == "cpu" and library() is not None


def share_out(work: Callable[[int, int], None], number: int, threads: int) -> None:
    """Call ``work(first, last)`` for all of a number of sites, in equal shares of at most so many threads."""
    parts = max(1, min(threads, number // _SHARE))
    if parts == 1:
        work(0, number)
    else:
        bounds = [part * number // parts for part in range(parts + 1)]
        list(thread_pool(parts).map(work, bounds[:-1], bounds[1:]))
