"""The Chebyshev recursion on an NVIDIA GPU: one launch per step for all vectors of a group.

The source `kpm_stencil.cu` is tested on a CPU, and NVRTC compiles it for compute capabilities 8.0, 9.0 and 10.0; it has
never run on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.kpm_recursion import ArrayRecursion, ScaledHamiltonian, Weights

SOURCE = Path(__file__).with_name("kpm_stencil.cu")
_THREADS = 256


def options(width: int, terms: int, plain: bool) -> tuple[str, ...]:
    """Compiler options of ``kpm_stencil.cu``."""
    return ("-std=c++17", f"-DWIDTH={width}", f"-DTERMS={terms}", f"-DPLAIN={int(plain)}")


class CudaRecursion(ArrayRecursion):
    """The recursion with CUDA kernels, by CuPy; see `ArrayRecursion`."""

    def __init__(self, hamiltonian: ScaledHamiltonian, backend: Backend, pairs: int = ArrayRecursion.pairs) -> None:
        super().__init__(hamiltonian, backend, pairs)
        import cupy

        flags = options(2 * pairs, len(hamiltonian.hopping), hamiltonian.is_plain)
        module = cupy.RawModule(code=SOURCE.read_text(), options=flags)
        self._kernels = {name: module.get_function(name) for name in ("advance", "reverse")}
        self._table = tuple(cupy.ascontiguousarray(a) for a in (self._targets, self._matrices, self._on_site))

    def _launch(self, name: str, *arguments: Any) -> None:
        threads = self._sites * 2 * self.pairs
        self._kernels[name]((-(-threads // _THREADS),), (_THREADS,), (*self._table, np.int64(self._sites), *arguments))

    def _advance(self, near: Array, far: Array, scale: float) -> Array:
        self._launch("advance", np.float64(scale), near, far)
        return far

    def _zero_sums(self) -> Array:
        return self._backend.asarray(np.zeros((self._sites, 4, 2 * self.pairs)))

    def _reverse(
        self, near: Array, far: Array, later: Array, latest: Array, sums: Array, weights: Weights
    ) -> tuple[Array, Array, Array]:
        self._launch("reverse", *(np.float64(weight) for weight in weights), near, far, later, latest, sums)
        return far, latest, sums
