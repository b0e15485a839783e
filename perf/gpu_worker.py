"""Figures in a process that may die.

A kernel that reads beyond its memory ruins every later call of its process, and
one that never ends cannot be interrupted. The process is then ended, the figure
recorded as failed, and the next figure begins in a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from contextlib import suppress
from typing import Any

import torch
from gpu_figures import Bench, Figure, LeftOut, Work

GRACE = 8.0
"""Seconds beyond its own time after which a figure's process is ended; Python is interrupted after half of them."""


class OutOfTime(BaseException):
    """The seconds of a figure are over; what it has found so far counts."""


def run(work: Work, pretend: bool, seconds: float) -> dict[str, Any]:
    """Result of one figure in this process, whatever it does.

    Returns
    -------
    dict
        ``result`` is passed, measured (without a check), failed or left out.
    """
    start = time.monotonic()
    bench = Bench(torch.device("cpu") if pretend else torch.device("cuda", 0), pretend, start + seconds)
    message = cut = None

    def over(*_: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE / 2)
    try:
        work(bench)
        result = "passed" if bench.checks else "measured"
    except LeftOut as why:
        result, message = "left out", str(why)
    except OutOfTime:
        cut = f"its {seconds:.0f} s were over"
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch and CuPy have one each
            cut = "the memory of the card is full"
        else:
            result, message = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            bench.numbers["traceback"] = traceback.format_exc().splitlines()[-12:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if cut:
        result = "passed" if bench.checks else "measured" if bench.numbers else "left out"
        bench.skip("the rest", cut)
    if not all(check["passed"] for check in bench.checks):
        result = "failed"
    results = {"result": result, "seconds": time.monotonic() - start, "checks": bench.checks, "numbers": bench.numbers}
    if bench.left_out:
        results["left_out"] = bench.left_out
    return results | ({"message": message} if message else {})


def _free(pretend: bool) -> bool:
    """Give cached memory back to the card; whether the card still answers."""
    if pretend:
        return True
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        with suppress(ImportError):
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()
        return bool(torch.ones(1, device="cuda").item() == 1)
    except Exception:  # whatever it says, this process is of no more use
        return False


def _serve(connection: Any, figures: dict[str, Figure], pretend: bool) -> None:
    """Run figures as they are asked for, until the connection ends; each result with whether the card still answers."""
    os.setpgrp()
    with suppress(EOFError):
        while True:
            name, seconds = connection.recv()
            results = run(figures[name].work, pretend, seconds)
            connection.send((results, _free(pretend)))


class Worker:
    """A process that runs figures, replaced where it has died or does not return.

    Parameters
    ----------
    figures
        What it can run; their functions must be importable.
    pretend
        See `Bench`.
    """

    def __init__(self, figures: dict[str, Figure], pretend: bool) -> None:
        self._figures, self._pretend = figures, pretend
        self._process: Any = None

    def run(self, name: str, seconds: float, most: float) -> dict[str, Any]:
        """Result of a figure that is told to take ``seconds`` and ended after ``most``."""
        start = time.monotonic()
        try:
            if self._process is None or not self._process.is_alive():
                self._start()
            self._connection.send((name, seconds))
            if not self._connection.poll(most):
                why = f"did not return within {most:.0f} s and was ended"
            else:
                results: dict[str, Any]
                results, answers = self._connection.recv()
                if not answers:
                    self.stop()
                return results
        except (EOFError, OSError):
            self._process.join(2)
            why = f"its process died with exit code {self._process.exitcode}"
        self.stop()
        return {
            "result": "failed", "seconds": time.monotonic() - start, "checks": [], "numbers": {}, "message": why,
        }  # fmt: skip

    def stop(self) -> None:
        """End the process and what it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            # It leads a group of its own, and may not have come so far.
            if os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._figures, self._pretend), daemon=True)
        self._process.start()
        theirs.close()
