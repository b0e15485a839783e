"""Kernels in C for force fields on a CPU, in each precision, compiled for the machine at their first use and cached.

Without a C compiler PyTorch computes the same, up to rounding.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch

from hpcspin.parallel.host_compiler import compiled
from hpcspin.parallel.threads import thread_pool

SOURCE, POTENTIALS = (Path(__file__).with_name(f"host_{name}.c") for name in ("layers", "potentials"))
BLOCK = 12
"""Number of sites that a kernel computes together; a call starts at a multiple of it."""
_SHARE = 10 * BLOCK
"""Fewest sites for which it is worthwhile to start a thread."""


_OPTIONS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
"""Compiler options for each precision."""


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels of a precision, compiled if needed; None if there is no C compiler or it fails."""
    kernels = compiled(SOURCE, *_OPTIONS[dtype])
    if kernels is None:
        return None
    kernels.hpcspin_layer.restype = None
    for name in ("project", "layer_adjoint", "sums"):
        getattr(kernels, f"hpcspin_{name}").restype = None
    for name in ("layer_scratch", "adjoint_scratch", "record", "lanes"):
        getattr(kernels, f"hpcspin_{name}").restype = ctypes.c_int64
    address, number = ctypes.c_void_p, ctypes.c_int64
    kernels.hpcspin_project.argtypes = (*[address] * 2, *[number] * 3, address)
    kernels.hpcspin_layer.argtypes = (*[address] * 7, number, number, ctypes.c_int32, *[address] * 3, number, address)
    kernels.hpcspin_layer_adjoint.argtypes = (*[address] * 8, *[number] * 5, *[address] * 8)
    kernels.hpcspin_sums.argtypes = (*[address] * 4, number, number, *[address] * 3)
    for name in ("layer_scratch", "adjoint_scratch", "record"):
        getattr(kernels, f"hpcspin_{name}").argtypes = (address,)
    return kernels


@functools.cache
def potentials(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernel of potentials of descriptors; None as in `library`."""
    kernels = compiled(POTENTIALS, *_OPTIONS[dtype])
    if kernels is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    kernels.hpcspin_potentials.restype = None
    kernels.hpcspin_potentials.argtypes = (*[address] * 3, number, *[address] * 2, *[number] * 4, *[address] * 3)
    for name in ("potentials_scratch", "rows", "wide"):
        getattr(kernels, f"hpcspin_{name}").restype = number
    kernels.hpcspin_potentials_scratch.argtypes = (address,)
    return kernels


def loaded(dtype: torch.dtype) -> ctypes.CDLL:
    """The kernels of a precision that is known to be `usable`."""
    kernels = library(dtype)
    assert kernels is not None
    return kernels


def usable(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels support this precision on this device."""
    return dtype in _OPTIONS and device.type == "cpu" and library(dtype) is not None


def share_out(work: Callable[[int, int], None], number: int, block: int = BLOCK) -> None:
    """Call ``work(first, last)`` for nearly equal ranges of whole blocks, on at most as many threads as torch has."""
    parts = max(1, min(torch.get_num_threads(), number // _SHARE))
    if parts == 1:
        work(0, number)
    else:
        bounds = [*(part * number // parts // block * block for part in range(parts)), number]
        list(thread_pool(parts).map(work, bounds[:-1], bounds[1:]))
