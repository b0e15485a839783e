"""Memory of the host: how much this process may still take, and what it keeps."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

# glibc's names of the parameters of mallopt, in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def available(root: Path = Path("/")) -> int:
    """Bytes that can be allocated without swapping or passing the limit of a control group.

    The kernel's own estimate counts caches that it would give up, which are
    most of the memory on a machine that has read files for a while. Batch
    systems and containers limit a job by a control group (version 2), whose
    limit the estimate does not know.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are mounted.
    """
    return min([_machine(root), *_control_groups(root)])


def keep_freed() -> None:
    """Let glibc keep freed blocks for the next allocation instead of giving them back to the system.

    A sweep allocates and frees tens of megabytes in pieces of a few hundred kilobytes. Returned to the system, every
    piece comes back as page faults, a fifth of the time of a label of 30x24. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((_TRIM_THRESHOLD, 2**30), (_MMAP_THRESHOLD, 2**25)):
        mallopt(parameter, value)


def _machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _control_groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    top = root / "sys/fs/cgroup"
    for line in lines:
        if line.startswith("0::"):
            group = top / line[3:].strip("/")
            yield from (left for folder in (group, *group.parents) if (left := _left(folder)) is not None)


def _left(folder: Path) -> int | None:
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        kinds = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or its limit is the word "max"
        return None
    return max(0, limit - used + int(kinds.get("inactive_file", 0)))
