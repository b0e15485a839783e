"""Batches from free memory, from a laptop to a large GPU, without a knob."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
from systems import driven

from hpcspin.electrons.backend import Backend, make_backend
from hpcspin.electrons.memory import plan_batches
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

GIB = 2**30
CPU = make_backend("torch")


class Ranks(World):
    """Ranks that all see what this one sees, as many on each GPU as are given for one."""

    on_one = 1

    def allgather(self, value):
        if value == "mine":
            return ["mine"] * self.on_one + ["another's"] * (self.size - self.on_one)
        return [value] * self.size


def lattice(columns: int, rows: int):
    return driven("square", (columns, rows), left=(1.0, -3.2), bath=(0.001, 0.0))


@pytest.fixture
def free(monkeypatch):
    def fake(bytes_free: float, on_gpu: bool = False) -> None:
        monkeypatch.setattr(Backend, "free_memory", lambda self: int(bytes_free))
        monkeypatch.setattr(Backend, "on_gpu", property(lambda self: on_gpu))
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="mine"))

    return fake


def planned_bytes(system, batches) -> int:
    """Blocks of a sweep and of its snapshots, counted anew."""
    columns, rows = system.lattice.size
    return 16 * (2 * rows) ** 2 * columns * (batches.energies + 2 * batches.snapshots)


@pytest.mark.parametrize("gib", [0.25, 1, 4, 16, 80, 139])
@pytest.mark.parametrize("size", [(10, 4), (30, 24), (60, 48), (240, 24)])
def test_plans_fit_and_grow_with_memory(free, gib, size):
    system = lattice(*size)
    free(gib * GIB, on_gpu=True)
    batches = plan_batches(system, CPU)
    assert planned_bytes(system, batches) < gib * GIB
    assert batches.column_ranks == batches.sweeps == 1
    free(2 * gib * GIB, on_gpu=True)
    more = plan_batches(system, CPU)
    assert more.energies >= batches.energies
    assert more.energies == 8192 or planned_bytes(system, more) > 2 * gib * GIB / 32


@pytest.mark.parametrize("gib", [0.5, 4, 64])
def test_many_threads_do_not_take_more_memory_than_there_is(free, monkeypatch, gib):
    """Each runs a sweep of its own."""
    system = lattice(60, 48)
    free(gib * GIB)
    monkeypatch.setattr("torch.get_num_threads", lambda: 256)
    batches = plan_batches(system, CPU)
    sweeps = replace(batches, energies=batches.sweeps * batches.energies)
    assert planned_bytes(system, sweeps) < gib * GIB
    assert batches.sweeps == 256 or gib < 64


def test_a_laptop_labels_the_papers_lattice(free):
    free(4 * GIB)
    assert plan_batches(lattice(30, 24), CPU).energies >= 21


def test_ranks_on_one_device_share_its_memory(free, monkeypatch):
    system = lattice(60, 48)
    free(8 * GIB, on_gpu=True)
    alone = plan_batches(system, CPU).energies
    assert plan_batches(system, CPU, Ranks(0, 4, 0, 4, "mpi")).energies == alone
    monkeypatch.setattr(Ranks, "on_one", 4)
    assert plan_batches(system, CPU, Ranks(0, 16, 0, 16, "mpi")).energies in (alone // 4, alone // 8)


class Threads(World):
    """One of two ranks, each a thread of this process."""

    said: ClassVar[dict[int, object]] = {}
    together = threading.Barrier(2, timeout=20)

    def allgather(self, value):
        self.said[self.rank] = value
        self.together.wait()
        found = [self.said[0], self.said[1]]
        self.together.wait()
        return found


def test_ranks_with_different_numbers_of_threads_plan_the_same_batches(free, monkeypatch):
    """Those that share columns would wait for each other for ever: three ranks on two nodes have unequal cores."""
    system, own = lattice(60, 48), threading.local()
    free(2 * GIB)
    monkeypatch.setattr("torch.get_num_threads", lambda: own.number)

    def planned(rank: int):
        own.number = (1, 8)[rank]
        batches = plan_batches(system, CPU, Threads(rank, 2, rank, 2, "mpi"), column_ranks=2)
        return batches.energies, batches.snapshots

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(planned, range(2))
    assert one == other


def test_columns_are_divided_over_as_few_ranks_as_hold_them(free):
    system = lattice(256, 64)
    free(700 * 2**20, on_gpu=True)
    with pytest.raises(HpcspinError) as alone:
        plan_batches(system, CPU)
    enough = int(re.findall(r"or (\d+) ranks", str(alone.value))[0])
    assert 1 < enough < 64
    batches = plan_batches(system, CPU, Ranks(0, enough, 0, 1, "mpi"))
    assert batches.column_ranks == enough
    assert plan_batches(system, CPU, Ranks(0, 2 * enough, 0, 1, "mpi")).column_ranks == enough
    with pytest.raises(HpcspinError, match=f"each of {enough - 1} ranks has"):
        plan_batches(system, CPU, Ranks(0, enough - 1, 0, 1, "mpi"))
    free(100 * GIB, on_gpu=True)
    assert plan_batches(system, CPU, Ranks(0, 4, 0, 1, "mpi"), column_ranks=4).column_ranks == 4
    with pytest.raises(HpcspinError, match="4 ranks cannot form teams of 3"):
        plan_batches(system, CPU, Ranks(0, 4, 0, 1, "mpi"), column_ranks=3)


def test_a_column_that_does_not_fit_says_so(free):
    free(100 * 2**20)
    with pytest.raises(HpcspinError, match=r"needs [0-9.]+ GiB even with one column.*fewer sites along y"):
        plan_batches(lattice(8, 1024), CPU)
