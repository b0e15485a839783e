"""Figures of every kind of failure; a module of its own, since the worker's process imports it."""

from __future__ import annotations

import os
import signal
import time

import gpu_worker
from gpu_figures import Bench, LeftOut


def passes(bench: Bench) -> None:
    bench.check("small", 1e-12, 1e-10)


def measures(bench: Bench) -> None:
    bench.numbers["seconds"] = 1.0


def misses(bench: Bench) -> None:
    bench.check("small", 1e-12, 1e-10)
    bench.check("not a number", float("nan"), 1e-10)


def raises(bench: Bench) -> None:
    bench.require("begun", True)
    raise ValueError("a wrong\nvalue")


def cannot(bench: Bench) -> None:
    raise LeftOut("there is no such thing here")


def dies(bench: Bench) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(bench: Bench) -> None:
    # As in a call that does not return to Python.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)


def is_slow(bench: Bench) -> None:
    bench.require("begun", True)
    time.sleep(60)


def ruins(bench: Bench) -> None:
    """Ruin the process, as a kernel does that reads beyond its memory, after a result."""
    bench.require("begun", True)
    gpu_worker._free = lambda pretend: False


def is_ruined(bench: Bench) -> None:
    bench.require("in a process that nothing has ruined", gpu_worker._free(True))


class OutOfMemoryError(Exception):
    pass


def needs_much(bench: Bench) -> None:
    bench.check("small", 1e-12, 1e-10)
    raise OutOfMemoryError
