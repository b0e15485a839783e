"""Stopping a run from outside: SIGTERM, SIGUSR1 (what SLURM sends before the time limit), Ctrl-C, or a STOP file."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np

from hpcspin.parallel.world import World

EXIT_REQUEUE = 75
"""Exit code of a run that was stopped with a checkpoint and wants to be started again (EX_TEMPFAIL)."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Listens for a stop while it is open; the ranks agree on the step at which they stop.

    A signal to any one rank counts, and so does the file, which is removed when it has been heeded.
    Who presses Ctrl-C again does not want to wait for the checkpoint.

    Parameters
    ----------
    stop_file
        Name of the file.
    world
        The ranks.
    minutes
        After how many a checkpoint is overdue by rank 0's clock; None: never.

    Attributes
    ----------
    overdue : bool
        Whether it was when the ranks asked last; the clock then started again.
    """

    def __init__(self, stop_file: Path, world: World, minutes: float | None = None) -> None:
        self._file, self._world = stop_file, world
        self._seconds, self._since = math.inf if minutes is None else 60 * minutes, time.monotonic()
        self.overdue = False
        self._signalled = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self) -> bool:
        """Whether to stop now; all ranks ask together and get the same answer."""
        first = self._world.rank == 0
        filed = first and self._file.exists()
        overdue = first and time.monotonic() - self._since > self._seconds
        asked = self._world.sum(np.array([self._signalled or filed, overdue], dtype=np.int64))
        if filed:
            self._file.unlink(missing_ok=True)
        if overdue:
            self._since = time.monotonic()
        self.overdue = bool(asked[1])
        return bool(asked[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._signalled:
                raise KeyboardInterrupt
            if self._world.rank == 0 and self._world.speaks:
                # The signal may have come in the midst of a print, which must not be entered again.
                os.write(2, b"stopping with a checkpoint; Ctrl-C again ends at once\n")
        self._signalled = True
