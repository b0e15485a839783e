"""Batch sizes from the free memory."""

from __future__ import annotations

from dataclasses import dataclass

from hpcspin.electrons.backend import Backend
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.workers import workers
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_SHARE = 0.5
"""Fraction of the free memory that is used for planning; the rest is for copies that libraries make."""
_CPU_BATCH = 3 * 2**19
"""Bytes of one block for all energies of a sweep on a CPU; more would not fit in the cache (measured, m = 16, 48)."""
_GPU_ENERGIES = 8192
_MOST_SNAPSHOTS = 64
_INTERVALS = 256
"""Number of intervals of one snapshot whose integrals, by two rules, are kept until it has converged."""


@dataclass(frozen=True)
class Batches:
    """Energies in a sweep, simultaneous sweeps, snapshots refined together, and ranks that share the columns."""

    energies: int
    sweeps: int
    snapshots: int
    column_ranks: int = 1


def _block(system: DrivenLattice) -> int:
    """Bytes of a block of one column of sites."""
    return 16 * (2 * system.lattice.size[1]) ** 2


def _needs(system: DrivenLattice, ranks: int) -> tuple[int, int]:
    """Bytes of an energy and of a snapshot on each of the ``ranks`` devices that together hold the columns."""
    sites, block, columns = system.lattice.num_sites, _block(system), -(-system.lattice.size[0] // ranks)
    # The corner blocks of all slabs, isolated and connected.
    corners = 8 * ranks if ranks > 1 else 0
    return block * (2 * columns + 8 + corners) + 128 * sites, 2 * block * columns + 64 * sites * _INTERVALS


def plan_batches(
    system: DrivenLattice, backend: Backend, world: World | None = None, column_ranks: int | None = None
) -> Batches:
    """Batch sizes that fit the device, rounded down to powers of two so that they rarely change; a collective call.

    Of the ranks the one with the least memory decides, and ranks on the same device share its memory. ``column_ranks``
    ranks share the columns of sites; None for as few as can hold them. HpcspinError says what would help.
    """
    world = world or World()
    sharing = backend.ranks_on_device(world)
    free = _SHARE * min(world.allgather(backend.free_memory() // sharing))
    if column_ranks and world.size % column_ranks:
        raise HpcspinError(
            f"{world.size} ranks cannot form teams of {column_ranks}; start a multiple of {column_ranks}"
        )
    choices = [column_ranks] if column_ranks else [c for c in range(1, world.size + 1) if world.size % c == 0]
    columns = system.lattice.size[0]
    fitting = [c for c in choices if c <= columns and sum(_needs(system, c)) <= free]
    if not fitting:
        raise HpcspinError(_advice(system, free, world.size))
    an_energy, a_snapshot = _needs(system, fitting[0])
    most = _GPU_ENERGIES if backend.on_gpu else max(1, _CPU_BATCH // _block(system))
    fit = int((free - a_snapshot) / 2 / an_energy) or 1
    sweeps = min(workers(backend), fit)
    energies = min(most, fit // sweeps)
    snapshots = min(_MOST_SNAPSHOTS, int((free - sweeps * energies * an_energy) / a_snapshot) or 1)
    # Ranks that share columns compute the same batches, also where they have different numbers of threads.
    energies, snapshots = (min(mine) for mine in zip(*world.allgather((energies, snapshots)), strict=True))
    return Batches(_power_of_two(energies), sweeps, _power_of_two(snapshots), fitting[0])


def _advice(system: DrivenLattice, free: float, ranks: int) -> str:
    """One line that says how much memory is missing and what would help."""
    columns, rows = system.lattice.size
    lattice = f"one energy of a lattice of {columns} x {rows}"
    has = f"each of {ranks} ranks has {_gib(free)} free" if ranks > 1 else f"{_gib(free)} are free"
    enough = next((c for c in range(2, columns + 1) if sum(_needs(system, c)) <= free), None)
    if enough:
        return (
            f"{lattice} needs {_gib(sum(_needs(system, 1)))} and {has}; use a device with more memory, or "
            f"{enough} ranks (or a multiple) with as much each, over which the columns of sites are then divided"
        )
    return (
        f"{lattice} needs {_gib(sum(_needs(system, columns)))} even with one column of sites a rank, and {has}; "
        "use devices with more memory or fewer sites along y"
    )


def _gib(planned: float) -> str:
    return f"{planned / _SHARE / 2**30:.3g} GiB"


def _power_of_two(count: int) -> int:
    return 1 << (count.bit_length() - 1)
