"""Where a command's log and results are written."""

from __future__ import annotations

import logging
import sys


class _Lines(logging.Handler):
    """Writes lines to what ``sys.stdout`` or ``sys.stderr`` is at the time: a progress bar takes their place."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=getattr(sys, self._name), flush=True)
        except OSError:
            # Results that do not arrive are a failure; the log may lie on the disk that is full.
            if self._name == "stdout":
                raise


def write_logs(*, debug: bool) -> None:
    """Write the log to stderr, with its details where asked for, and what a command is run for to stdout."""
    log, results = logging.getLogger("hpcspin"), logging.getLogger("hpcspin.results")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.handlers, results.handlers = [_Lines("stderr")], [_Lines("stdout")]
    results.propagate = False
