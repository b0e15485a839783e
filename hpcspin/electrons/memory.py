"""How much is computed at once: batch sizes from the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass

from hpcspin.electrons.backend import Backend
from hpcspin.electrons.model import DrivenLattice
from hpcspin.errors import HpcspinError

_SHARE = 0.5
"""Part of the free memory that is planned with; the rest is for copies that libraries make."""
_CPU_BATCH = 3 * 2**20
"""Bytes of one block for every energy of a sweep on a CPU: more would leave the cache (measured, m = 12 and 48)."""
_GPU_ENERGIES = 8192
_MOST_SNAPSHOTS = 64
_INTERVALS = 512
"""Intervals of one snapshot whose integrals are kept until it has converged."""


@dataclass(frozen=True)
class Batches:
    """Energies in one sweep, and snapshots that are refined together."""

    energies: int
    snapshots: int


def plan_batches(system: DrivenLattice, backend: Backend) -> Batches:
    """Batch sizes that fit the device, rounded down to powers of two so that they rarely change.

    Raises
    ------
    HpcspinError
        If not even one energy fits; it says how much would be needed.
    """
    columns, rows = system.lattice.size
    block = 16 * (2 * rows) ** 2
    an_energy = block * (2 * columns + 8) + 128 * columns * rows
    a_snapshot = 2 * block * columns + 32 * columns * rows * _INTERVALS
    free = _SHARE * backend.free_memory()
    if an_energy + a_snapshot > free:
        raise HpcspinError(
            f"one energy of a lattice of {columns} x {rows} needs {(an_energy + a_snapshot) / _SHARE / 2**30:.1f} GiB "
            f"and {free / _SHARE / 2**30:.1f} GiB are free; use a device with more memory or fewer sites along y"
        )
    most = _GPU_ENERGIES if backend.on_gpu else max(1, _CPU_BATCH // block)
    energies = min(most, int((free - a_snapshot) / 2 / an_energy) or 1)
    snapshots = min(_MOST_SNAPSHOTS, int((free - energies * an_energy) / a_snapshot) or 1)
    return Batches(_power_of_two(energies), _power_of_two(snapshots))


def _power_of_two(count: int) -> int:
    return 1 << (count.bit_length() - 1)
