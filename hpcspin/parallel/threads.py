"""Threads that share a rank's work on a CPU, or its kernel launches on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded(work: Callable[[Item], Result], items: Sequence[Item], most: int | None = None) -> list[Result]:
    """Apply ``work`` to every item, on ``most`` threads or as many as torch has; results in the order of the items."""
    threads = min(most or torch.get_num_threads(), len(items))
    return list(thread_pool(threads).map(work, items)) if threads > 1 else [work(item) for item in items]


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads with one OpenMP thread each; they are kept, and reuse the memory that they have freed."""
    openmp = ThreadpoolController().select(user_api="openmp")
    return ThreadPoolExecutor(threads, initializer=_one_openmp_thread, initargs=(openmp,))


def _one_openmp_thread(openmp: ThreadpoolController) -> None:
    """Limit torch's elementwise operations in this thread, and in this thread alone, to one OpenMP thread.

    Torch's own setting is global: lowering and raising it again makes MKL's LU of large matrices fail.
    """
    torch.get_num_threads()  # Initialises torch in the thread; done later, that would undo the limit.
    openmp.limit(limits=1)
