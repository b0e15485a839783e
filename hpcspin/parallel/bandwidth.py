"""Measures how fast ranks communicate and compute, for `hpcspin doctor` and `check`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from itertools import groupby

import torch
import torch.distributed as dist

from hpcspin.lattice import SquareLattice
from hpcspin.parallel.devices import require_own_gpu
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

_BLOCK = (16, 4096)
"""Sites of a rank; the block is thin, so that little is copied besides what is sent."""
_HALO = (8, 0)
_REPEATS = 10
_REDUCED = 1 << 22
"""Length of the array of an all-reduce: 16 MB in single precision, like the gradients of a large network."""
_MATRIX = {"cpu": 384, "cuda": 4096}
"""Rows of a complex matrix, by device type: some milliseconds of work."""


def cores() -> str:
    """The cores that this process may use, as in ``0-3,8``."""
    numbers = sorted(os.sched_getaffinity(0))
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def halo_exchange(world: World, device: torch.device) -> tuple[float, int]:
    """Seconds of a halo exchange on two sides, on the slowest rank, and bytes that a rank receives; collective."""
    if world.comm is None:
        require_own_gpu(world, device)
    domain = Domain(SquareLattice((_BLOCK[0] * world.size, _BLOCK[1]), (True, True)), world, (world.size, 1))
    block = torch.ones((*domain.shape, 3), dtype=torch.float64, device=device)
    exchange = domain.exchange(block, _HALO)
    seconds = seconds_of(lambda: domain.extend(block, _HALO), device)
    return max(world.allgather(seconds)), exchange.messages.received_bytes


def all_reduce(world: World, device: torch.device) -> tuple[float, int]:
    """Seconds of an all-reduce, as in training, on the slowest rank, and its bytes; NCCL on GPUs; collective."""
    require_own_gpu(world, device)
    world.torch_group(device.type)
    numbers = torch.ones(_REDUCED, dtype=torch.float32, device=device)
    seconds = seconds_of(lambda: dist.all_reduce(numbers), device)
    return max(world.allgather(seconds)), numbers.nbytes


def matrix_rate(device: torch.device) -> tuple[float, float]:
    """Floating-point operations per second of complex double-precision products, and slowest over fastest repeat."""
    rows = _MATRIX[device.type]
    matrix = torch.ones((rows, rows), dtype=torch.complex128, device=device)
    seconds = _repeated(lambda: matrix @ matrix, device)
    return 8 * rows**3 / statistics.median(seconds), max(seconds) / min(seconds)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Median seconds of some work on a device over several repeats, after a first one to warm up."""
    return statistics.median(_repeated(work, device))


def seconds_once(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of some work on a device, until the device has done it."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _repeated(work: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of each repeat of some work, after a first one to warm up."""
    return [seconds_once(work, device) for _ in range(1 + _REPEATS)][1:]
