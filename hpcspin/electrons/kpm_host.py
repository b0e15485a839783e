"""The Chebyshev recursion on a CPU, in C: a few vectors at a time, which stay in cache if the lattice is small enough.

On a strip the border lines are sent while the interior lines are computed.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_recursion import ArrayRecursion, ScaledHamiltonian
from hpcspin.parallel.host_compiler import compiled
from hpcspin.parallel.threads import threaded

SOURCE = Path(__file__).with_name("kpm_stencil.c")
_ALIGNMENT = 64

_Number, _Address = ctypes.c_int64, ctypes.c_void_p
Real = NDArray[np.float64]


class _Hamiltonian(ctypes.Structure):
    _fields_ = (
        *((name, _Number) for name in ("sites", "across", "rows", "bonds", "plain")),
        *((name, _Address) for name in ("targets", "hopping", "on_site")),
    )


class _Part(ctypes.Structure):
    _fields_ = tuple((name, _Number) for name in ("first_step", "last_step", "first_line", "last_line"))


class _Probes(ctypes.Structure):
    _fields_ = (
        *((name, _Number) for name in ("count", "first", "stride")),
        *((name, _Address) for name in ("sites", "pairs", "phases")),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, compiled if necessary; None if there is no C compiler or it fails."""
    found = compiled(SOURCE)
    if found is None:
        return None
    table, part, probes = (ctypes.POINTER(kind) for kind in (_Hamiltonian, _Part, _Probes))
    found.hpcspin_start.argtypes = (table, probes, _Address)
    found.hpcspin_local_moments.argtypes = (table, part, probes, *[_Address] * 3)
    found.hpcspin_products.argtypes = (table, part, _Number, _Address, _Address)
    found.hpcspin_gradient.argtypes = (table, part, *[_Address] * 5)
    for name in ("start", "local_moments", "products", "gradient"):
        getattr(found, f"hpcspin_{name}").restype = None
    found.hpcspin_width.restype = _Number
    return found


@functools.cache
def host_pairs() -> int:
    """Pairs of vectors that the kernels process side by side, depending on the processor; requires `library`."""
    kernels = library()
    assert kernels is not None
    return int(kernels.hpcspin_width()) // 2


class HostRecursion:
    """The recursion by the C kernels; see `ArrayRecursion`."""

    on_gpu = False

    def __init__(self, hamiltonian: ScaledHamiltonian) -> None:
        kernels = library()
        assert kernels is not None
        self._kernels, self.strip, self.pairs = kernels, hamiltonian.strip, host_pairs()
        self._kept = (
            np.ascontiguousarray(hamiltonian.targets),
            np.ascontiguousarray(hamiltonian.hopping),
            np.ascontiguousarray(hamiltonian.on_site),
        )
        terms = len(hamiltonian.hopping)
        addresses = (array.ctypes.data for array in self._kept)
        sizes = (hamiltonian.sites, self.strip.across, self.strip.rows, terms, hamiltonian.is_plain)
        self._table = _Hamiltonian(*sizes, *addresses)

    def local_moments(self, groups: Sequence[ProbeGroup], count: int, kept: Sequence[slice]) -> list[tuple[Real, Real]]:
        """See `ArrayRecursion`."""
        vectors = [self._start(group) for group in groups]
        found = [
            (np.empty((count, len(group.sites[part]), 4)), np.zeros((count, self.strip.lines)))
            for group, part in zip(groups, kept, strict=True)
        ]
        runs = [
            partial(self._call, "local_moments", _probes(group, part), *(v, *arrays))
            for group, part, v, arrays in zip(groups, kept, vectors, found, strict=True)
        ]
        self._walk(range(count), vectors, runs)
        return found

    def products(self, groups: Sequence[ProbeGroup], steps: int) -> list[tuple[Real, Any]]:
        """See `ArrayRecursion`."""
        vectors = [self._start(group) for group in groups]
        sums = [np.empty((self.strip.lines, 2 * steps)) for _ in groups]
        runs = [partial(self._call, "products", steps, *arrays) for arrays in zip(vectors, sums, strict=True)]
        self._walk(range(steps), vectors, runs)
        return list(zip(sums, vectors, strict=True))

    def gradients(self, starts: Sequence[Any], even: Real, odd: Real) -> list[Real]:
        """See `ArrayRecursion`."""
        steps, sites = len(even), self._table.sites
        weights = (np.ascontiguousarray(even), np.ascontiguousarray(odd))
        reverses, found, runs = [], [np.zeros((sites, 4)) for _ in starts], []
        near = (steps - 1) % 2
        for start, result in zip(starts, found, strict=True):
            reverse = self._vectors()
            reverse[:] = 0
            np.multiply(odd[-1], start[near, :sites], out=reverse[near, :sites])
            reverses.append(reverse)
            runs.append(partial(self._call, "gradient", *weights, start, reverse, result))
        self._walk(range(steps)[::-1], [*starts, *reverses], runs)
        return found

    def _walk(self, steps: range, vectors: Sequence[Real], runs: Sequence[Callable[[_Part], None]]) -> None:
        """Run all steps on all lines; on a strip one message carries the borders of all vectors that a step reads."""
        lines, border = self.strip.lines, self.strip.border

        def run(*part: int) -> None:
            threaded(lambda one: one(_Part(*part)), runs)

        if not border:
            return run(0, len(steps), 0, lines)
        near = [[torch.from_numpy(both[parity]) for both in vectors] for parity in (0, 1)]
        exchange = self.strip.exchange(near[0])
        for n in steps:
            exchange.start(near[n % 2])
            run(n, n + 1, border, lines - border)
            exchange.finish(near[n % 2])
            run(n, n + 1, 0, border)
            run(n, n + 1, max(border, lines - border), lines)

    def _start(self, group: ProbeGroup) -> Real:
        vectors = self._vectors()
        self._kernels.hpcspin_start(self._table, _probes(group), vectors.ctypes.data)
        return vectors

    def _call(self, name: str, *arguments: Any) -> None:
        """Run a kernel on a part, the last argument. Arrays are passed by address and kept alive until it returns."""
        *arrays, part = (a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments)
        getattr(self._kernels, f"hpcspin_{name}")(self._table, part, *arrays)

    def _vectors(self) -> Real:
        """Storage for two arrays of vectors, shape (2, rows, 8 pairs), aligned to a vector register."""
        width = 4 * 2 * self.pairs
        length = 2 * self.strip.rows * width
        room = np.empty(length + _ALIGNMENT // 8)
        first = -room.ctypes.data % _ALIGNMENT // 8
        return room[first : first + length].reshape(2, self.strip.rows, width)


Recursion = ArrayRecursion | HostRecursion


def _probes(group: ProbeGroup, kept: slice = slice(0, None, 1)) -> _Probes:
    arrays = (group.sites, group.pairs, group.phases)
    return _Probes(len(group.sites), kept.start, kept.step, *(array.ctypes.data for array in arrays))
