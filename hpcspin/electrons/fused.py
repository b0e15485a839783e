"""The electrode's column in one CUDA kernel: an energy a thread block, no round trips between operations.

Batched routines read and write every block of every energy at each inversion,
sum and product. The kernel `fused.cu` keeps the block of one energy in
registers and shared memory while it sweeps the columns of sites, and writes
the recursion's u_x once. Its arithmetic is tested on a CPU, where the same
source is compiled with emulated threads, and the source is compiled for
compute capability 9.0 where there is a CUDA compiler; the kernel and the
launch below have never run on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array
from hpcspin.electrons.hamiltonian import Coupling
from hpcspin.errors import HpcspinError

SOURCE = Path(__file__).with_name("fused.cu")
PANEL = 8
_NARROW = 24
"""Orbitals of a column up to which 8 x 8 threads have enough to do."""
_LARGEST_TILE = {np.dtype(np.complex128): 6, np.dtype(np.complex64): 8}
"""Elements along an edge of a thread's tile that its 255 registers can hold."""
_WORK_SHARE = 0.25
"""Part of the free memory for the connected blocks of the energies in flight."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kernel:
    """One compilation of ``fused.cu``.

    Attributes
    ----------
    orbitals
        m = 2 Ly.
    precision
        complex128 or complex64.
    diagonal, periodic, flipped
        W, see `Coupling`.
    """

    orbitals: int
    precision: np.dtype[Any]
    diagonal: bool
    periodic: bool
    flipped: bool

    @staticmethod
    def of(coupling: Coupling, orbitals: int, precision: Any = np.complex128) -> Kernel:
        """Kernel for a coupling."""
        return Kernel(orbitals, np.dtype(precision), coupling.diagonal, coupling.periodic, coupling.flipped)

    @property
    def side(self) -> int:
        """Edge of the square of threads."""
        return 8 if self.orbitals <= _NARROW else 16

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.side**2

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a thread block; the layout of ``Shared`` in the source."""
        m, padded = self.orbitals, -(-self.orbitals // self.side) * self.side
        return self.precision.itemsize * (m * (m + 1) + m * (PANEL + 1) + 3 * padded) + 8 * m

    def fits(self, shared_memory: int) -> bool:
        """Whether registers and ``shared_memory`` bytes hold a block."""
        tile = -(-self.orbitals // self.side)
        return tile <= _LARGEST_TILE[self.precision] and self.shared_bytes <= shared_memory

    @property
    def options(self) -> tuple[str, ...]:
        """Compiler options."""
        values = {
            "REAL": "double" if self.precision == np.complex128 else "float",
            "M": self.orbitals,
            "SIDE": self.side,
            "PANEL": PANEL,
            "TRIANGULAR": int(self.diagonal),
            "PERIODIC": int(self.periodic),
            "FLIPPED": int(self.flipped),
        }
        return ("-std=c++17", *(f"-D{name}={value}" for name, value in values.items()))


class FusedSweep:
    """`EndSource`'s sweep on the current CUDA device, by CuPy.

    Parameters
    ----------
    kernel
        What to compile; it must fit the device.
    source
        K, host array of shape (m, k) with k <= m; None for the identity.
    groups
        Group of each column of K, shape (k,).
    """

    def __init__(self, kernel: Kernel, source: NDArray[Any] | None, groups: NDArray[np.int64]) -> None:
        import cupy

        m = kernel.orbitals
        padded = np.zeros((m, m), dtype=kernel.precision)
        padded[:, : len(groups)] = np.eye(m) if source is None else source
        self.kernel = kernel
        self._source = cupy.asarray(padded)
        self._groups = cupy.asarray(np.concatenate([groups, np.zeros(m - len(groups))]).astype(np.int32))
        module = cupy.RawModule(code=SOURCE.read_text(), options=kernel.options)
        self._function = module.get_function("sweep")
        self._function.max_dynamic_shared_size_bytes = kernel.shared_bytes

    @staticmethod
    def fits(kernel: Kernel) -> bool:
        """Whether the current device can run the kernel."""
        import cupy

        return kernel.fits(int(cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]))

    def respond(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Components of sum_s w_s Y Y† and of i (u_0 - u_0†).

        Parameters
        ----------
        blocks, energies, snapshots
            As for `recursion.right_connected`, in the order of the sweep.
        weights
            w_s, real, shape (batch, groups).

        Returns
        -------
        tuple
            float64 arrays of shape (batch, Lx, Ly, 4) and (batch, Ly, 4).
        """
        import cupy

        batch, (columns, m) = len(energies), blocks.shape[1:3]
        exact = self.kernel.precision
        blocks, energies = (cupy.ascontiguousarray(part, dtype=exact) for part in (blocks, energies))
        weights = cupy.ascontiguousarray(weights, dtype=np.float64)
        owners = cupy.zeros(batch, dtype=np.int64) if snapshots is None else snapshots.astype(np.int64)
        response, spectral = cupy.empty((batch, columns, m // 2, 4)), cupy.empty((batch, m // 2, 4))
        singular = cupy.empty(batch, dtype=np.int32)
        grid = self._resident_blocks(batch, columns)
        work = cupy.empty((grid, columns, m, m), dtype=exact)
        self._function(
            (grid,),
            (self.kernel.threads,),
            (blocks, energies, owners, self._source, self._groups, weights, np.int32(weights.shape[1]),
             np.int32(columns), np.int32(batch), work, response, spectral, singular),
            shared_mem=self.kernel.shared_bytes,
        )  # fmt: skip
        if bool(singular.any()):
            raise HpcspinError(
                "the Green's function is singular at a real energy: a level is coupled to no reservoir; add a bath"
            )
        return response, spectral

    def _resident_blocks(self, batch: int, columns: int) -> int:
        """Thread blocks that run at the same time, each with its own u_x in device memory."""
        import cupy

        device = cupy.cuda.Device()
        kernel, limits = self.kernel, device.attributes
        by_registers = limits["MaxRegistersPerMultiprocessor"] // (self._function.num_regs * kernel.threads)
        by_shared = limits["MaxSharedMemoryPerMultiprocessor"] // (kernel.shared_bytes + 1024)
        resident = limits["MultiProcessorCount"] * max(1, min(by_registers, by_shared))
        work = columns * kernel.orbitals**2 * kernel.precision.itemsize
        return max(1, min(batch, resident, int(_WORK_SHARE * device.mem_info[0] / work)))


class Fastest:
    """The faster of several ways to compute one thing, found out at first use.

    Parameters
    ----------
    finish
        Waits until all work of the device is done.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self.chosen: dict[Hashable, str] = {}
        """Name of the way that was taken, for each kind of problem."""

    def __call__(self, kind: Hashable, ways: dict[str, Callable[[], Result]]) -> Result:
        """Result of the faster way; at the first problem of its kind each way is timed after a warm-up."""
        if kind not in self.chosen:
            self.chosen[kind] = (
                min(ways, key=lambda name: self._seconds(ways[name])) if len(ways) > 1 else next(iter(ways))
            )
        return ways[self.chosen[kind]]()

    def _seconds(self, way: Callable[[], Any]) -> float:
        way()
        self._finish()
        start = time.perf_counter()
        way()
        self._finish()
        return time.perf_counter() - start
