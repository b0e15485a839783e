"""Memory that is free: what the kernel estimates, and what the control group leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hpcspin.parallel.memory import available_memory


def test_the_control_group_limits_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=32_000_000 * 1024))
    group = tmp_path / "sys/fs/cgroup/job/step"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    assert available_memory(tmp_path) == 32_000_000 * 1024
    for folder, limit in ((group, "max"), (group.parent, "4000000000")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("1500000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    assert available_memory(tmp_path) == 3_000_000_000
