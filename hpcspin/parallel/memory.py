"""Memory of this machine that is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be allocated without swapping or exceeding the limit of a control group, read below ``root``.

    The kernel's estimate includes caches that it can release, and ignores control groups (version 2), by which batch
    systems and containers restrict a job.
    """
    return min([psutil.virtual_memory().available, *_control_groups(root)])


def _control_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group that contains this process."""
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
