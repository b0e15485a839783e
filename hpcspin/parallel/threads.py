"""Threads among which a rank shares out its work on a CPU, or its launches on a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    """A number of threads, each with one OpenMP thread; they are kept, and reuse the memory that they have freed."""
    openmp = ThreadpoolController().select(user_api="openmp")
    return ThreadPoolExecutor(threads, initializer=_one_openmp_thread, initargs=(openmp,))


def _one_openmp_thread(openmp: ThreadpoolController) -> None:
    """Limit torch's elementwise operations in this thread, and in this thread alone, to one OpenMP thread.

    Torch's own setting is global: lowered and raised again, it makes MKL's LU of large matrices fail.
    """
    torch.get_num_threads()  # Sets the thread up; later it would undo the limit.
    openmp.limit(limits=1)
