"""Memory and devices of a rank."""

import ctypes
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World

FAULTS = """
import resource, sys, torch
from hpcspin.parallel.devices import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()


def fill():
    torch.empty(1 << 26, dtype=torch.uint8).fill_(1)


for _ in range(16):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs the GNU C library")
def test_freed_memory_is_touched_for_the_first_time_only_once():
    """Page faults of four times 64 MB, when all has settled: at least one for 2 MB, or next to none."""

    def faults(how):
        result = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(result.stdout)

    assert faults("keep") < 32 < 4 * 32 <= faults("leave")


def test_a_stage_begins_without_what_libraries_keep_of_the_one_before(monkeypatch):
    """Both the memory that torch keeps and CuPy's, on the card of this rank."""
    done = []
    pool = SimpleNamespace(free_all_blocks=lambda: done.append("pool"))
    cuda = SimpleNamespace(Device=lambda number: done.append(f"card {number}") or nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))
    for name, answer in (("is_available", True), ("device_count", 4), ("set_device", None)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: done.append("torch"))
    assert pick_device(World(1, 4, 1, 4, "mpi")).index == 1
    assert done == ["torch", "card 1", "pool"]
