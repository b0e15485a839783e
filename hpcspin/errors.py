"""The one exception that a user is meant to read."""

import difflib
import errno
import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_WHERE_TO = "choose another --output or make it writable"
_ADVICE = {
    errno.EACCES: _WHERE_TO,
    errno.EPERM: _WHERE_TO,
    errno.EROFS: _WHERE_TO,
    errno.ENOSPC: "make room or choose another --output; the same command goes on",
    errno.EDQUOT: "make room or choose another --output; the same command goes on",
    errno.EFBIG: "larger than the file system or `ulimit -f` allows; raise the limit, and the same command goes on",
    errno.EIO: "the disk or its server has failed; repair it, and the same command goes on",
}
"""Advice for operating-system errors while writing; functions that read files report their own."""

_SHOWN = 60
"""Characters of a value that messages show."""
PLUGINS: set[str] = set()
"""Names of the user's own modules that have been loaded; what goes wrong in one of them is told with its place."""


class HpcspinError(Exception):
    """A failure whose message is one line: what is wrong, where, and how to correct it."""

    def __str__(self) -> str:
        # Names in files from outside may hold line breaks and terminal control sequences.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())


def one_line(failure: BaseException) -> str:
    """Describe a failure to the user in one line, with the place in a plugin where it arose unexpectedly."""
    if isinstance(failure, HpcspinError):
        return str(failure)
    if isinstance(failure, KeyboardInterrupt):
        return "interrupted; give the same command again to go on"
    if isinstance(failure, RuntimeError) and re.search("gloo/transport|ncclRemoteError", str(failure)):
        # torch.distributed has no exception of its own for this under gloo; the other rank reports its failure.
        return "another rank of the job has gone, or its network; give the same command again to go on"
    return _place_in_plugin(failure) + _in_words(failure)


def _in_words(failure: BaseException) -> str:
    message = " ".join(str(failure).split())
    # torch raises a RuntimeError, whose first sentences say which device is full.
    if isinstance(failure, MemoryError) or re.search("out of memory|can't allocate memory", message):
        message = ". ".join(message.split(". ")[:3])
        return (
            f"out of memory: {message}; make lattice.size or training.batch smaller, or share the lattice over more "
            "ranks and nodes"
        )
    if isinstance(failure, OSError) and failure.errno:
        advice = _ADVICE.get(failure.errno)
        return f"{_place(failure)}: {os.strerror(failure.errno)}{f'; {advice}' if advice else ''}"
    return f"unexpected {type(failure).__name__}: {message} (hpcspin --debug shows the traceback)"


def exit_code(failure: BaseException) -> int:
    """Exit code of a process that fails: 130 after Ctrl-C, as for any process that SIGINT ends."""
    return 130 if isinstance(failure, KeyboardInterrupt) else 1


def shown(value: Any) -> str:
    """A value in a message: what Python prints for it, but of an array, for example, only the beginning."""
    words = " ".join(repr(value).split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def nearest(name: str, names: Iterable[str]) -> str:
    """Advice for a name that is not among the valid ones."""
    near = difflib.get_close_matches(str(name), names := list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names) or 'none'}"


def _place_in_plugin(failure: BaseException) -> str:
    """Where in the user's own modules a failure arose; empty if it did elsewhere."""
    frames = traceback.walk_tb(failure.__traceback__)
    own = [(frame.f_code, line) for frame, line in frames if frame.f_globals.get("__name__") in PLUGINS]
    return "".join(f"{code.co_filename}, line {line}, in {code.co_name}: " for code, line in own[-1:])


def _place(failure: OSError) -> Path | str:
    """The file that a failure is about, or its directory where the file is a temporary one."""
    in_words = re.search(r"name = '([^']+)'", str(failure))  # HDF5 gives it only in the message.
    name = failure.filename or (in_words and in_words[1])
    if not name:
        return "input/output"
    path = Path(os.fsdecode(name))
    # Temporary files are hidden, and their names mean nothing to a user.
    return path.parent if path.name.startswith(".") else path
