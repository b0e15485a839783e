"""Sweeps shared by threads: the same labels, bit for bit, whatever the number of threads."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from systems import driven, random_spins

from hpcspin.electrons import make_solver
from hpcspin.electrons.backend import Backend, make_backend
from hpcspin.electrons.workers import equal_parts, map_parts, workers

CPU = make_backend("torch", "cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(count=st.integers(0, 200), most=st.integers(1, 30))
def test_shares_cover_everything_once_and_are_equal_to_one(count: int, most: int) -> None:
    parts = equal_parts(CPU, count, most)
    assert np.array_equal(np.concatenate([np.arange(count)[:0], *(np.arange(count)[p] for p in parts)]), range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@pytest.mark.usefixtures("threads")
def test_results_keep_their_order_and_a_failure_is_passed_on() -> None:
    torch.set_num_threads(3)
    assert workers(CPU) == 3
    parts = equal_parts(CPU, 20, 2)
    assert map_parts(CPU, lambda part: part.start, parts) == [part.start for part in parts]
    assert torch.get_num_threads() == 3

    def broken(part: slice) -> int:
        return 1 // part.start

    with pytest.raises(ZeroDivisionError):
        map_parts(CPU, broken, parts)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_a_label_does_not_depend_on_the_number_of_threads() -> None:
    system = driven("square", (8, 4), left=(1.0, -2.0), bath=(0.01, 0.0))
    spins = random_spins(system, 2, seed=1)
    fields = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        fields.append(make_solver("negf", system, 1e-6).solve(spins).field)
    assert np.array_equal(fields[0], fields[1])
    assert np.array_equal(fields[0], fields[2])


def test_large_matrices_can_be_inverted_after_a_label() -> None:
    """In a process of its own: with MKL the failure is an endless loop."""
    code = (
        "import torch\n"
        "from systems import driven, random_spins\n"
        "from hpcspin.electrons import make_solver\n"
        "system = driven('square', (8, 4), left=(1.0, -2.0), bath=(0.01, 0.0))\n"
        "make_solver('negf', system, 1e-4).solve(random_spins(system, 2, seed=1))\n"
        "matrices = torch.eye(600, dtype=torch.complex128) + 0.01 * torch.rand(3, 600, 600)\n"
        "print(float((torch.linalg.inv(matrices) @ matrices - torch.eye(600)).abs().max()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-9


class FakeStream:
    """Notes what happens to it, and who is inside."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def __enter__(self) -> FakeStream:
        self.log.append(f"enter {self.name}")
        return self

    def __exit__(self, *failure: object) -> None:
        self.log.append(f"leave {self.name}")

    def synchronize(self) -> None:
        self.log.append(f"wait for {self.name}")


@pytest.fixture
def gpu_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CuPy's streams and devices, played by something that writes down how they are used."""
    log: list[str] = []
    names = (f"stream {number}" for number in itertools.count())
    current = FakeStream(log, "the caller")
    cuda = SimpleNamespace(
        Device=lambda number=3: SimpleNamespace(id=number, use=lambda: log.append(f"device {number}")),
        Stream=lambda non_blocking: FakeStream(log, next(names)),
        get_current_stream=lambda: current,
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr("hpcspin.electrons.workers._mine", threading.local())
    return log


def test_sweeps_on_a_gpu_run_in_streams_of_their_own(gpu_log: list[str]) -> None:
    """Nothing starts before the caller's launches are done, and nothing is returned before it is computed."""
    gpu, meet = Backend("cupy", np), threading.Barrier(2, timeout=20)

    def work(part: slice) -> int:
        meet.wait()  # Both threads are inside at the same time.
        gpu_log.append(f"work {part.start}")
        return part.start

    parts = [slice(n, n + 1) for n in range(6)]
    assert workers(gpu) == 2
    assert map_parts(gpu, work, parts) == list(range(6))
    assert gpu_log[0] == "wait for the caller"
    assert gpu_log.count("device 3") == 2
    streams = {line.split(" ", 1)[1] for line in gpu_log if line.startswith("enter")}
    assert streams == {"stream 0", "stream 1"}
    for name in streams:
        mine = [line for line in gpu_log if line.endswith(name)]
        assert mine == [f"enter {name}", f"wait for {name}", f"leave {name}"] * (len(mine) // 3)


def test_a_failure_in_a_stream_is_passed_on(gpu_log: list[str]) -> None:
    def broken(part: slice) -> int:
        return 1 // part.start

    with pytest.raises(ZeroDivisionError):
        map_parts(Backend("cupy", np), broken, [slice(0, 1), slice(1, 2)])
    assert "leave stream 0" in gpu_log


def test_memory_and_other_ranks_limit_the_sweeps_at_the_same_time(gpu_log: list[str]) -> None:
    one = Backend("cupy", np, most_sweeps=1)
    assert workers(one) == 1
    assert map_parts(one, lambda part: part.start, [slice(0, 1), slice(1, 2)]) == [0, 1]
    assert gpu_log == []
