"""Memory of the host that this process may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


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
