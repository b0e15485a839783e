"""Threads that share the sweeps of a rank.

torch's batched LAPACK processes a batch on one thread, and OpenMP threads wait for each other after every small
operation. One sweep per thread keeps every core busy from the first column to the last. On a GPU with CuPy each thread
launches into its own stream: while Python prepares the operations of one sweep, the device works on another. This has
not run on a GPU; the order of launches and waits is tested without one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from hpcspin.electrons.backend import Backend
from hpcspin.parallel.threads import threaded

Result = TypeVar("Result")


_STREAMS = 2
"""Number of sweeps that launch on a GPU at the same time."""


def workers(backend: Backend) -> int:
    """Number of sweeps that run at the same time: threads of torch, streams of CuPy, at most `most_sweeps`."""
    if backend.on_gpu:
        threads = _STREAMS if backend.name == "cupy" else 1
    else:
        threads = torch.get_num_threads() if backend.name == "torch" else 1
    return min(threads, backend.most_sweeps)


def equal_parts(backend: Backend, count: int, most: int) -> list[slice]:
    """Cut ``count`` items into nearly equal slices of at most ``most`` items, the same number for each worker."""
    if count == 0:
        return []
    threads = workers(backend)
    rounds = -(-count // (most * threads))
    edges = np.linspace(0, count, min(count, rounds * threads) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def map_parts(backend: Backend, work: Callable[[slice], Result], parts: Sequence[slice]) -> list[Result]:
    """Results of ``work`` on every part, in order, computed on as many threads as there are workers."""
    several = min(workers(backend), len(parts)) > 1
    return threaded(_in_stream(work) if several and backend.on_gpu else work, parts, workers(backend))


_mine = threading.local()
"""The stream of each thread; CuPy reuses freed memory only in the stream that allocated it."""


def _in_stream(work: Callable[[slice], Result]) -> Callable[[slice], Result]:
    """``work`` in the calling thread's own stream; the stream has finished when it returns."""
    import cupy

    device = cupy.cuda.Device().id
    # The input of the parts was launched in the stream of this thread and may not have been computed yet.
    cupy.cuda.get_current_stream().synchronize()

    def finished(part: slice) -> Result:
        if not hasattr(_mine, "stream"):
            cupy.cuda.Device(device).use()
            _mine.stream = cupy.cuda.Stream(non_blocking=True)
        with _mine.stream as stream:
            result = work(part)
            stream.synchronize()
        return result

    return finished
