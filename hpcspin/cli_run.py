"""Running a verb from the command line: on all ranks, with a one-line message if it fails, its log and its results."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcspin.errors import exit_code, one_line

if TYPE_CHECKING:
    from hpcspin.config import Config
    from hpcspin.parallel.world import World


def read_config(path: Path, overrides: list[str] | None) -> Config:
    """Read the config of a verb; see `hpcspin.config.load_config`."""
    from hpcspin.config import load_config  # Loads all packages; shell completion must not wait.

    return load_config(path, overrides)


def run(verb: Callable[[World], int | None], *, stops: bool = False) -> None:
    """Run a verb on all ranks.

    A verb that ``stops`` with a checkpoint does so in its next stage that can, also if a signal comes in another one.
    """
    with reported():
        from hpcspin.parallel.world import World

        world = World.detect()
        noted: AbstractContextManager[Any] = nullcontext()
        if stops:
            from hpcspin.dynamics.interrupt import StopSignals

            noted = StopSignals(world)
        with world.abort_on_failure(), noted:
            code = verb(world)
            world.leave(code or 0)
    raise typer.Exit(code or 0)


@contextmanager
def reported() -> Iterator[None]:
    """Turn a failure into one line and a non-zero exit code, on every rank."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as failure:
        if logging.getLogger("hpcspin").isEnabledFor(logging.DEBUG):
            raise
        with suppress(OSError):  # The log may lie on the disk that is full.
            typer.echo(f"hpcspin: {one_line(failure)}", err=True)
        raise typer.Exit(exit_code(failure)) from None


def show_mistake(mistake: Any) -> None:
    """Print a mistake on the command line, an exception of Typer's parser, as one line."""
    message = " ".join(mistake.format_message().replace("Value error, ", "").split())
    if not message:  # Nothing was asked for, and the help is on the screen.
        return
    verb = mistake.ctx.command_path if mistake.ctx else "hpcspin"
    typer.echo(f"{verb}: {message} (see {verb} --help)", err=True)


class _LogLines(logging.Handler):
    """Writes lines to the current ``sys.stdout`` or ``sys.stderr``, which a progress bar replaces."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=getattr(sys, self._name), flush=True)
        except BrokenPipeError:
            # The reader, such as head, has seen enough; the work goes on, as its results are in files.
            os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, self._name).fileno())
        except OSError:
            # A lost result is a failure; a lost log line is not: the log may lie on the disk that is full.
            if self._name == "stdout":
                raise


def write_logs(*, debug: bool) -> None:
    """Send the log to stderr, with debug messages on request, and the results of a command to stdout."""
    log, results = logging.getLogger("hpcspin"), logging.getLogger("hpcspin.results")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.handlers, results.handlers = [_LogLines("stderr")], [_LogLines("stdout")]
    results.propagate = False
