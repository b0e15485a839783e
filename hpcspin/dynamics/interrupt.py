"""Stopping a run from outside: SIGTERM, SIGUSR1 (what SLURM sends before the time limit), or a STOP file."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np

from hpcspin.parallel.world import World

EXIT_REQUEUE = 75
"""Exit code of a run that was stopped with a checkpoint and wants to be started again (EX_TEMPFAIL)."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Listens for a stop while it is open; the ranks agree on the step at which they stop.

    A signal to any one rank counts, and so does the file, which is removed when it has been heeded.

    Parameters
    ----------
    stop_file
        Name of the file.
    world
        The ranks.
    """

    def __init__(self, stop_file: Path, world: World) -> None:
        self._file, self._world = stop_file, world
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
        filed = self._world.rank == 0 and self._file.exists()
        stop = bool(self._world.sum(np.array([self._signalled or filed], dtype=np.int64))[0])
        if filed:
            self._file.unlink(missing_ok=True)
        return stop

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
