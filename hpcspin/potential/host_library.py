"""Kernels in C for force fields on a CPU, in each precision, compiled for the machine at their first use and cached.

Without a C compiler PyTorch computes the same, up to rounding.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcspin.parallel.host_compiler import compiled
from hpcspin.parallel.threads import thread_pool

SOURCE, POTENTIALS = (Path(__file__).with_name(f"host_{name}.c") for name in ("layers", "potentials"))
BLOCK = 12
"""Number of sites that a kernel computes together; a call starts at a multiple of it."""
_SHARE = 10 * BLOCK
"""Fewest sites for which it is worthwhile to start a thread."""
_OPTIONS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
"""Compiler options for each precision."""
_ADDRESS, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_FUNCTIONS: dict[Path, dict[str, tuple[Any, ...]]] = {
    SOURCE: {
        "project": (None, *[_ADDRESS] * 2, *[_NUMBER] * 3, _ADDRESS),
        "layer": (None, *[_ADDRESS] * 7, _NUMBER, _NUMBER, ctypes.c_int32, *[_ADDRESS] * 3, _NUMBER, _ADDRESS),
        "layer_adjoint": (None, *[_ADDRESS] * 8, *[_NUMBER] * 5, *[_ADDRESS] * 8),
        "sums": (None, *[_ADDRESS] * 4, _NUMBER, _NUMBER, *[_ADDRESS] * 3),
        **{name: (_NUMBER, _ADDRESS) for name in ("layer_scratch", "adjoint_scratch", "record")},
        "lanes": (_NUMBER,),
        "same": (_NUMBER, *[_ADDRESS] * 3, _NUMBER),
    },
    POTENTIALS: {
        "potentials": (None, *[_ADDRESS] * 3, _NUMBER, *[_ADDRESS] * 2, *[_NUMBER] * 4, *[_ADDRESS] * 3),
        "potentials_scratch": (_NUMBER, _ADDRESS),
        "rows": (_NUMBER,),
        "wide": (_NUMBER,),
    },
}
"""Types of the result and of the arguments of each function of the kernels, without the ``hpcspin_`` of its name."""


@functools.cache
def library(dtype: torch.dtype, source: Path = SOURCE) -> ctypes.CDLL | None:
    """The kernels of a precision, compiled if needed; None if there is no C compiler or it fails."""
    kernels = compiled(source, *_OPTIONS[dtype])
    for name, (result, *given) in _FUNCTIONS[source].items() if kernels else ():
        function = getattr(kernels, f"hpcspin_{name}")
        function.restype, function.argtypes = result, given
    return kernels


def loaded(dtype: torch.dtype, source: Path = SOURCE) -> ctypes.CDLL:
    """The kernels of a precision that is known to be `usable`."""
    kernels = library(dtype, source)
    assert kernels is not None
    return kernels


def usable(dtype: torch.dtype, device: torch.device, source: Path = SOURCE) -> bool:
    """Whether the kernels support this precision on this device."""
    return dtype in _OPTIONS and device.type == "cpu" and library(dtype, source) is not None


class Numbers:
    """A copy of the numbers in some tensors, by which changes that PyTorch does not count are found, as by ``.data``.

    It compares numbers on a CPU, which takes half a percent of a field's time; elsewhere it sees the counted changes.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._places, self._versions = tuple(map(Tensor.data_ptr, tensors)), _versions(tensors)
        self._copies = [tensor.detach().clone() for tensor in tensors]
        self._kernels = library(torch.float32) if self._versions is None else None
        arrays, sizes = ctypes.c_void_p * len(tensors), (ctypes.c_int64 * len(tensors))
        copies = arrays(*map(Tensor.data_ptr, self._copies))
        self._given = arrays(*self._places), copies, sizes(*(one.nbytes for one in tensors)), len(tensors)

    def are_in(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these tensors are those of before, and hold the same numbers."""
        if tuple(map(Tensor.data_ptr, tensors)) != self._places:
            return False
        if self._kernels is not None:
            return bool(self._kernels.hpcspin_same(*self._given))
        if self._versions is not None:
            return _versions(tensors) == self._versions
        return all(map(torch.equal, tensors, self._copies))


def _versions(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    return None if tensors[0].device.type == "cpu" else tuple(tensor._version for tensor in tensors)


def share_out(work: Callable[[int, int], None], number: int, block: int = BLOCK) -> None:
    """Call ``work(first, last)`` for nearly equal ranges of whole blocks, on at most as many threads as torch has."""
    parts = max(1, min(torch.get_num_threads(), number // _SHARE))
    if parts == 1:
        work(0, number)
    else:
        bounds = [*(part * number // parts // block * block for part in range(parts)), number]
        list(thread_pool(parts).map(work, bounds[:-1], bounds[1:]))
