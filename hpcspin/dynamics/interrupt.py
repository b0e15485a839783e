"""Stopping a run from outside: SIGTERM, SIGUSR1 (what SLURM sends before the time limit), Ctrl-C, or a STOP file."""

from __future__ import annotations

import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np

from hpcspin.parallel.progress import print_below_bars
from hpcspin.parallel.world import World

EXIT_REQUEUE = 75
"""Exit code of a run that was stopped with a checkpoint, to be started again (EX_TEMPFAIL)."""

_ASK_SECONDS = 0.2
"""Seconds between two exchanges of requests among the ranks."""
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals:
    """Notes the signals that ask for a stop while it is open, in place of their ending the process.

    What is opened within another one shares what that has noted. A second Ctrl-C ends the run without a checkpoint.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._signalled = False
        self._before: dict[int, Any] = {}
        self._outer: StopSignals | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
            before = getattr(self._before[signal.SIGTERM], "__self__", None)
            self._outer = before if isinstance(before, StopSignals) else None
            self._signalled = self._outer is not None and self._outer._signalled
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def code(self, code: int | None) -> int:
        """An exit code, or `EXIT_REQUEUE` in place of 0 if any rank has noted a signal; all ranks call it."""
        return code or EXIT_REQUEUE * any(self._world.allgather(self._signalled))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._signalled:
                raise KeyboardInterrupt
            if self._world.rank == 0 and self._world.logs:
                print_below_bars("stopping with a checkpoint; Ctrl-C again ends at once")
        noting: StopSignals | None = self
        while noting is not None:
            noting._signalled, noting = True, noting._outer


class StopRequest(StopSignals):
    """Listens for a request to stop, by a signal or by the file; the ranks agree on the step at which they stop.

    They exchange their requests a few times per second, not at every step. When ``minutes`` have passed by rank 0's
    clock, ``overdue`` is true after the next call of `requested`, which also restarts the clock.
    """

    def __init__(self, stop_file: Path, world: World, minutes: float | None = None) -> None:
        super().__init__(world)
        self._file = stop_file
        self._seconds, self._since = math.inf if minutes is None else 60 * minutes, time.monotonic()
        self.overdue = False
        self._interval = self._steps_left = 1
        self._asked_at = -math.inf

    def requested(self) -> bool:
        """Whether to stop now; all ranks call it in each step and get the same answer."""
        self.overdue = False
        self._steps_left -= 1
        if self._steps_left > 0:
            return False
        first = self._world.rank == 0
        filed = first and self._file.exists()
        overdue = first and time.monotonic() - self._since > self._seconds
        interval = self._next_interval() if first else 0
        asked = self._world.sum(np.array([self._signalled or filed, overdue, interval], dtype=np.int64))
        if filed:
            self._file.unlink(missing_ok=True)
        if overdue:
            self._since = time.monotonic()
        self.overdue = bool(asked[1])
        self._interval = self._steps_left = int(asked[2])
        return bool(asked[0])

    def _next_interval(self) -> int:
        """Steps until the ranks ask again: at most twice as many as last time, since steps differ in length."""
        if self._world.size == 1:  # There is no rank to wait for.
            return 1
        before, self._asked_at = self._asked_at, time.monotonic()
        return max(1, min(2 * self._interval, int(self._interval * _ASK_SECONDS / max(self._asked_at - before, 1e-9))))
