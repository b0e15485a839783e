"""Progress of long work: a bar with an estimate on a terminal, sparse lines in a batch job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hpcspin.parallel.world import World

_LINE_EVERY_SECONDS = 15.0
_open: list[Progress] = []
"""The bars on the terminal, the innermost last."""


class Bar:
    """What long work reports its progress to; this one shows nothing."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count n more units of work as done."""


class _Lines(Bar):
    """A line at the first unit, then at most one every few seconds, and one at the end."""

    def __init__(self, world: World, title: str, total: int | None, done: int) -> None:
        self._world, self._title, self._total = world, title, total
        self._first = self._done = done
        self._start = time.monotonic()
        self._next = self._start

    def advance(self, n: int = 1, note: str = "") -> None:
        self._done += n
        now = time.monotonic()
        if now < self._next and self._done != self._total:
            return
        self._next = now + _LINE_EVERY_SECONDS
        elapsed = now - self._start
        if self._total is None:
            self._world.log(f"{self._title}: {self._done} in {timedelta(seconds=round(elapsed))}, {note}")
            return
        left = timedelta(seconds=round(elapsed * (self._total - self._done) / max(self._done - self._first, 1)))
        end = f"{left} left, until {datetime.now() + left:%a %H:%M}" if self._done < self._total else "done"
        text = f"{self._title}: {self._done}/{self._total} in {timedelta(seconds=round(elapsed))}, {end}"
        self._world.log(f"{text}, {note}" if note else text)


class _Terminal(Bar):
    def __init__(self, progress: Progress, title: str, total: int | None, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, completed=done, note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=note)


@contextmanager
def progress(world: World, title: str, total: int | None, done: int = 0) -> Iterator[Bar]:
    """Report the progress of ``total`` units of work (None: unknown), ``done`` of which are done already, on rank 0."""
    if world.rank != 0 or not world.logs:
        yield Bar()
    elif not sys.stderr.isatty():
        yield _Lines(world, title, total, done)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        # Lines of the log appear above the bar, which replaces sys.stderr; results do not belong there.
        with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bars:
            _open.append(bars)
            try:
                yield _Terminal(bars, title, total, done)
            finally:
                _open.remove(bars)


def print_below_bars(line: str) -> None:
    """Close the bars and print a line on stderr; a signal handler may call it at any instant.

    A thread does the work, since the interrupted code may hold the locks of a bar or of stderr.
    """

    def close_and_print() -> None:
        for bars in reversed(_open):
            bars.stop()
        print(line, file=sys.stderr, flush=True)

    threading.Thread(target=close_and_print).start()
