"""The Chebyshev recursion on a CPU, in C: a few vectors at a time, which stay in cache where the lattice allows it."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_recursion import ScaledHamiltonian
from hpcspin.parallel.host_compiler import compiled

SOURCE = Path(__file__).with_name("kpm_stencil.c")
_WIDTH = 8
"""Vectors side by side: WIDTH of the source."""
_ALIGNMENT = 64

_Number, _Address = ctypes.c_int64, ctypes.c_void_p
Real = NDArray[np.float64]


class _Hamiltonian(ctypes.Structure):
    _fields_ = (
        *((name, _Number) for name in ("sites", "bonds", "plain")),
        *((name, _Address) for name in ("targets", "hopping", "on_site")),
    )


class _Probes(ctypes.Structure):
    _fields_ = (("count", _Number), *((name, _Address) for name in ("sites", "pairs", "phases")))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, compiled if need be; None where there is no C compiler or it fails."""
    found = compiled(SOURCE)
    if found is None:
        return None
    one, more = ctypes.POINTER(_Hamiltonian), ctypes.POINTER(_Probes)
    for name in ("local_moments", "total_moments"):
        getattr(found, f"hpcspin_{name}").argtypes = (one, more, _Number, _Address, _Address)
    found.hpcspin_gradient.argtypes = (one, _Number, *[_Address] * 5)
    for name in ("local_moments", "total_moments", "gradient"):
        getattr(found, f"hpcspin_{name}").restype = None
    return found


class HostRecursion:
    """The recursion by the kernels in C; see `hpcspin.electrons.kpm_recursion.Recursion`.

    Parameters
    ----------
    hamiltonian
        2 H~ of the snapshot.
    """

    pairs = _WIDTH // 2

    def __init__(self, hamiltonian: ScaledHamiltonian) -> None:
        kernels = library()
        assert kernels is not None
        self._kernels, self._sites = kernels, hamiltonian.sites
        self._kept = (
            np.ascontiguousarray(hamiltonian.targets),
            np.ascontiguousarray(hamiltonian.hopping),
            np.ascontiguousarray(hamiltonian.on_site),
        )
        terms = len(hamiltonian.hopping)
        addresses = (array.ctypes.data for array in self._kept)
        self._table = _Hamiltonian(self._sites, terms, hamiltonian.is_plain, *addresses)

    def local_moments(self, group: ProbeGroup, count: int) -> Real:
        """See `Recursion`."""
        moments = np.empty((count, len(group.sites), 4))
        self._call("local_moments", _probes(group), count, self._vectors(2), moments)
        return moments

    def total_moments(self, group: ProbeGroup, steps: int) -> tuple[Real, Any]:
        """See `Recursion`."""
        moments, vectors = np.empty(2 * steps), self._vectors(2)
        self._call("total_moments", _probes(group), steps, vectors, moments)
        return moments, vectors

    def gradient(self, start: Any, even: Real, odd: Real) -> Real:
        """See `Recursion`."""
        result = np.zeros((self._sites, 4))
        weights = (np.ascontiguousarray(even), np.ascontiguousarray(odd))
        self._call("gradient", len(even), *weights, start, self._vectors(2), result)
        return result

    def _call(self, name: str, *arguments: Any) -> None:
        """Run a kernel; arrays go by their addresses, and live on until it returns."""
        kernel = getattr(self._kernels, f"hpcspin_{name}")
        kernel(self._table, *(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))

    def _vectors(self, count: int) -> Real:
        """Room for so many arrays of vectors, where a vector register begins."""
        length = count * (self._sites + 1) * 4 * _WIDTH
        room = np.empty(length + _ALIGNMENT // 8)
        first = -room.ctypes.data % _ALIGNMENT // 8
        return room[first : first + length]


def _probes(group: ProbeGroup) -> _Probes:
    return _Probes(len(group.sites), *(array.ctypes.data for array in (group.sites, group.pairs, group.phases)))
