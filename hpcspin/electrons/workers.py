"""Threads that share the sweeps of a rank on a CPU.

Batched LAPACK of torch works through a batch on one thread, and the threads of
OpenMP wait for each other after every small operation. One sweep a thread
keeps every core busy from the first column to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from hpcspin.electrons.backend import Backend

Result = TypeVar("Result")


def workers(backend: Backend) -> int:
    """Sweeps that run at the same time: as many as torch has threads on a CPU, one on a GPU or over several ranks."""
    alone = backend.name != "torch" or backend.on_gpu or backend.one_sweep
    return 1 if alone else torch.get_num_threads()


def shares(backend: Backend, count: int, most: int) -> list[slice]:
    """Cut ``count`` items into near-equal slices of at most ``most``, as many for each worker."""
    if count == 0:
        return []
    threads = workers(backend)
    rounds = -(-count // (most * threads))
    edges = np.linspace(0, count, min(count, rounds * threads) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def each(backend: Backend, work: Callable[[slice], Result], parts: Sequence[slice]) -> list[Result]:
    """``work`` of every part, in their order, on as many threads as there are workers."""
    threads = min(workers(backend), len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    return list(_pool(threads).map(work, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: what they have freed is theirs to take again."""
    openmp = ThreadpoolController().select(user_api="openmp")
    return ThreadPoolExecutor(threads, initializer=_one_openmp_thread, initargs=(openmp,))


def _one_openmp_thread(openmp: ThreadpoolController) -> None:
    """Let torch's elementwise operations in this thread, and in this thread alone, not call others to help.

    Not by torch's own setting, which reaches beyond the thread: lowered and raised again, it makes MKL's LU of large
    matrices fail.
    """
    torch.get_num_threads()  # Sets the thread up; later it would undo the limit.
    openmp.limit(limits=1)
