"""The electrode's block column in one CUDA kernel: one thread block per energy, no round trips between operations.

Batched routines read and write every block of every energy at each inversion, sum and product. The kernel `fused.cu`
keeps the block of one energy in registers and shared memory while it sweeps the columns of sites, and writes each u_x
of the recursion once. Its arithmetic and its barriers are tested on a CPU, where the same source is compiled with
emulated threads, and NVRTC compiles it for compute capabilities 8.0, 9.0 and 10.0; the kernel and the launch below have
never run on a GPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.hamiltonian import Coupling
from hpcspin.errors import one_line
from hpcspin.parallel.world import World

logger = logging.getLogger("hpcspin")

SOURCE = Path(__file__).with_name("fused.cu")
PANEL = 8
_NARROW = 24
"""Largest number of orbitals of a column for which 8 x 8 threads are used; wider columns use 16 x 16."""
_LARGEST_TILE = {np.dtype(np.complex128): 6, np.dtype(np.complex64): 8}
"""Largest edge of a thread's tile, in elements, that its 255 registers can hold."""
_OLDEST = 80
"""Oldest compute capability, without its point, with the warp reductions that the source uses."""
_AGREEMENT = {"complex128": 1e-8, "complex64": 1e-2}
"""Largest relative difference of two ways to sweep that rounding near sharp levels can explain."""


@dataclass(frozen=True)
class Kernel:
    """One compilation of ``fused.cu``."""

    orbitals: int
    """m = 2 Ly."""
    precision: np.dtype[Any]
    """complex128 or complex64."""
    diagonal: bool
    """Whether W = 1 + P, where P connects site y to site y - 1 of the next column; otherwise W = 1."""
    periodic: bool
    """Whether the lattice is periodic along y."""
    flipped: bool
    """Whether P connects site y to site y + 1 instead."""

    @staticmethod
    def of(coupling: Coupling, orbitals: int, precision: Any = np.complex128) -> Kernel | None:
        """Kernel for a coupling; None if the source does not implement it."""
        if coupling.steps not in ((0,), (0, -1), (0, 1)):
            return None
        diagonal, flipped = len(coupling.steps) > 1, coupling.steps[-1] > 0
        return Kernel(orbitals, np.dtype(precision), diagonal, coupling.periodic, flipped)

    @property
    def side(self) -> int:
        """Edge of the square of threads in a thread block."""
        return 8 if self.orbitals <= _NARROW else 16

    @property
    def threads(self) -> int:
        """Number of threads in a thread block."""
        return self.side**2

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory of a thread block, laid out as ``Shared`` in the source."""
        m, padded = self.orbitals, -(-self.orbitals // self.side) * self.side
        return self.precision.itemsize * (m * (m + 1) + m * (PANEL + 1) + 3 * padded) + 8 * m

    def fits(self, shared_memory: int) -> bool:
        """Whether a block fits in the registers and in ``shared_memory`` bytes."""
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
    """The sweep of `EndSource` on the current CUDA device, which the kernel must fit, by CuPy.

    ``source`` is K, a host array of shape (m, k) with k <= m, or None for the identity; ``groups`` is the group of each
    column of K, shape (k,).
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
        self._resident = self._resident_blocks()

    def respond(self, blocks: Array, energies: Array, weights: Array, snapshots: Array | None) -> tuple[Array, Array]:
        """Components of sum_s w_s Y Y† and of i (u_0 - u_0†).

        Arguments are those of `Source.respond`, with the blocks in the order of the sweep. Returns float64 arrays of
        shape (batch, Lx, Ly, 4) and (batch, Ly, 4); not finite at a singular energy.
        """
        import cupy

        batch, (columns, m) = len(energies), blocks.shape[1:3]
        exact = self.kernel.precision
        blocks, energies = (cupy.ascontiguousarray(part, dtype=exact) for part in (blocks, energies))
        weights = cupy.ascontiguousarray(weights, dtype=np.float64)
        if snapshots is None:
            snapshots = cupy.arange(batch) % len(blocks)
        owners = cupy.ascontiguousarray(snapshots, dtype=np.int64)
        response, spectral = cupy.empty((batch, columns, m // 2, 4)), cupy.empty((batch, m // 2, 4))
        grid = min(batch, self._resident)
        work = cupy.empty((grid, columns, m, m), dtype=exact)
        self._function(
            (grid,),
            (self.kernel.threads,),
            (blocks, energies, owners, self._source, self._groups, weights, np.int32(weights.shape[1]),
             np.int32(columns), np.int32(batch), work, response, spectral),
            shared_mem=self.kernel.shared_bytes,
        )  # fmt: skip
        return response, spectral

    def _resident_blocks(self) -> int:
        """Number of thread blocks that run at the same time, each with its own u_x in device memory."""
        import cupy

        on_each = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            self._function.kernel.ptr, self.kernel.threads, self.kernel.shared_bytes
        )
        return int(cupy.cuda.Device().attributes["MultiProcessorCount"]) * max(1, int(on_each))


def fused_sweep(
    coupling: Coupling, precision: Any, orbitals: int, source: NDArray[Any] | None, groups: NDArray[np.int64]
) -> FusedSweep | None:
    """The fused sweep; None without CuPy, or if the device, the coupling or the compiler does not allow it."""
    if coupling.backend.name != "cupy" or len(groups) > orbitals:
        return None
    import cupy

    kernel, card = Kernel.of(coupling, orbitals, precision), cupy.cuda.Device()
    if kernel is None or int(card.compute_capability) < _OLDEST:
        return None
    if not kernel.fits(int(card.attributes["MaxSharedMemoryPerBlockOptin"])):
        return None
    try:
        return FusedSweep(kernel, source, groups)
    except (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError) as failure:
        logger.warning("the fused kernel is left out: %s", one_line(failure))
        return None


Sweep = Callable[[], tuple[Array, Array]]
"""Computes one batch of energies, with the results of `FusedSweep.respond`."""


_FASTER: dict[Hashable, bool] = {}
"""Whether the second way was faster, for every case that this process has timed."""


class Autotuned:
    """The faster of two ways to sweep; the first until `choose` has compared them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.use_second: dict[str, bool] = {}
        """Whether the second way is used, for each precision."""

    def __call__(self, precision: str, first: Sweep, second: Sweep) -> tuple[Array, Array]:
        """Compute one batch in the way chosen for this precision."""
        return second() if self.use_second.get(precision, False) else first()

    def choose(self, precision: str, first: Sweep, second: Sweep, case: Hashable, world: World) -> None:
        """Use the second way if it is faster and agrees with the first.

        A collective call: rank 0 decides for all ranks, because the results of the two ways differ by rounding. Each
        ``case``, a key of everything that the times depend on, is timed once in the life of the process.
        """
        if world.rank == 0 and case not in _FASTER:
            (slow, one), (fast, other) = self._timed(first), self._timed(second)
            _FASTER[case] = fast < slow and _agree(one, other, _AGREEMENT[precision])
        self.use_second[precision] = world.broadcast(_FASTER.get(case))

    def _timed(self, way: Sweep) -> tuple[float, list[NDArray[Any]]]:
        """Seconds after a warm-up, and the results; both end with a copy to the host: the device has finished."""
        for _ in range(2):
            start = time.perf_counter()
            results = [self._backend.to_numpy(part) for part in way()]
        return time.perf_counter() - start, results


def _agree(first: list[NDArray[Any]], second: list[NDArray[Any]], share: float) -> bool:
    """Whether two ways differ by no more than rounding near a sharp level can explain."""
    near = [np.abs(a - b).max() <= share * np.abs(a).max() for a, b in zip(first, second, strict=True)]
    if not all(near):
        logger.warning("the fused kernel disagrees with batched routines and is left out")
    return all(near)
