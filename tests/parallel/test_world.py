"""The World says the same under every launcher, and no rank outlives another's failure."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from hpcspin.parallel.world import World

Launch = Callable[..., subprocess.CompletedProcess[str]]

COLLECTIVES = """
import numpy as np
from hpcspin.parallel.world import World
world = World.detect()
with world.abort_on_failure():
    assert world.broadcast({"from": world.rank}) == {"from": 0}
    assert world.allgather(world.rank) == list(range(world.size))
    gathered = world.gather(world.rank**2)
    assert gathered == ([r**2 for r in range(world.size)] if world.rank == 0 else None)
    np.testing.assert_array_equal(world.sum(np.full(3, world.rank)), np.full(3, sum(range(world.size))))
    number, team = world.split(2)
    assert team.allgather(number) == [number] * team.size
    assert sum(world.allgather(team.rank == 0)) == 2
    world.barrier()
    world.finish()
print(f"{world.launcher} {world.rank}/{world.size}")
"""

DISTRIBUTED = """
import torch, torch.distributed as dist
from hpcspin.parallel.world import World
world = World.detect()
with world.abort_on_failure():
    world.torch_group()
    value = torch.tensor([float(world.rank + 1)])
    dist.all_reduce(value)
    assert value.item() == 3.0
    world.finish()
print("reduced")
"""

FAILURE = """
import time
from hpcspin.parallel.world import World
from hpcspin.errors import HpcspinError
world = World.detect()
with world.abort_on_failure():
    if world.rank == 1:
        raise HpcspinError("the spins of this rank are broken")
    world.barrier()
    time.sleep(60)
"""

FAILURE_OF_ALL = """
import sys, time
from hpcspin.parallel.world import World
from hpcspin.errors import HpcspinError
world = World.detect()
world.barrier()
with world.abort_on_failure():
    time.sleep(float(sys.argv[1 + world.rank]))
    raise HpcspinError("the config is wrong")
"""

CTRL_C = """
import os, signal, threading
from hpcspin.parallel.world import World
world = World.detect()
world.barrier()
threading.Timer(0.5 + 0.2 * world.rank, os.kill, (os.getpid(), signal.SIGINT)).start()
with world.abort_on_failure():
    while True:
        world.barrier()
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "ranks.py"
        path.write_text(text)
        return str(path)

    return write


def test_alone_every_collective_is_the_identity() -> None:
    world = World()
    assert world.allgather(3) == [3] == world.gather(3)
    assert world.broadcast("x") == "x"
    np.testing.assert_array_equal(world.sum(np.arange(3)), np.arange(3))


@pytest.mark.mpi
def test_collectives_under_mpi(mpirun: Launch, script: Callable[[str], str]) -> None:
    result = mpirun(3, script(COLLECTIVES))
    assert result.returncode == 0, result.stderr
    assert all(f"mpi {rank}/3" in result.stdout for rank in range(3))


@pytest.mark.mpi
def test_collectives_under_torchrun(torchrun: Launch, script: Callable[[str], str]) -> None:
    result = torchrun(2, script(COLLECTIVES))
    assert result.returncode == 0, result.stderr
    assert "torchrun 0/2" in result.stdout
    assert "torchrun 1/2" in result.stdout


@pytest.mark.mpi
def test_torch_distributed_under_mpi(mpirun: Launch, script: Callable[[str], str]) -> None:
    """Under torchrun every collective call is one of it."""
    result = mpirun(2, script(DISTRIBUTED))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("reduced") == 2


def test_teams_may_take_days_more_than_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a rank under torch.distributed gives up after half an hour in a collective call."""
    waits, default = [], timedelta(minutes=30)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, timeout=default, **__: waits.append(timeout))
    monkeypatch.setattr("torch.distributed.new_group", lambda *_, timeout=default, **__: waits.append(timeout))
    ranks = World(rank=0, size=2, launcher="torchrun")
    ranks.torch_group()
    ranks.split(2)
    assert len(waits) == 2
    assert min(waits) > timedelta(weeks=1)


def test_teams_called_for_again_are_connected_as_before() -> None:
    """MPICH has 2048 communicators, and each call of a session that labels snapshots took one."""
    made: list[tuple[int, int]] = []

    class Comm:
        def Split(self, colour: int, key: int) -> Comm:
            made.append((colour, key))
            return Comm()

    ranks = World(rank=2, size=4, launcher="mpi", comm=Comm())
    first, second = (ranks.split(2)[1] for _ in range(2))
    assert first.comm is second.comm is not ranks.comm
    assert first.split(2)[1].comm is second.split(2)[1].comm is not first.comm
    assert ranks.split(4)[1].comm is not first.comm
    assert made == [(1, 2), (0, 0), (2, 2)]
    ranks.sharing["cpu"] = 4
    assert ranks.split(2)[1].sharing == {"cpu": 4}


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_a_failing_rank_ends_the_job_within_seconds(
    launcher: str, request: pytest.FixtureRequest, script: Callable[[str], str]
) -> None:
    start = time.monotonic()
    result = request.getfixturevalue(launcher)(2, script(FAILURE), timeout=60)
    assert result.returncode != 0
    assert "rank 1: the spins of this rank are broken" in result.stderr + result.stdout
    assert time.monotonic() - start < 40


@pytest.mark.mpi
@pytest.mark.parametrize("delays", ["0.9 0 0", "0.5 9 0"])
def test_what_all_ranks_find_wrong_is_said_once(mpirun: Launch, script: Callable[[str], str], delays: str) -> None:
    result = mpirun(3, script(FAILURE_OF_ALL), *delays.split(), timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("the config is wrong") == 1


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_ctrl_c_ends_all_ranks_within_seconds(
    launcher: str, request: pytest.FixtureRequest, script: Callable[[str], str]
) -> None:
    """One rank is told while the other waits for it in a collective call."""
    result = request.getfixturevalue(launcher)(2, script(CTRL_C), timeout=40)
    assert result.returncode != 0
    assert "interrupted" in result.stderr
    if launcher == "mpirun":
        assert result.returncode == 130
        assert result.stderr.count("interrupted") == 1


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_ranks_of_another_mpi_library_are_refused(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[str], str], name: str
) -> None:
    """Each would otherwise believe to be alone, and all would write the same files."""
    pytest.importorskip("mpi4py.MPI", exc_type=RuntimeError)
    monkeypatch.setenv(name, "4")
    command = [sys.executable, script("from hpcspin.parallel.world import World; World.detect()")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    assert "started 4 ranks and mpi4py's MPI library sees 1" in result.stderr


@pytest.mark.mpi
def test_a_shell_inside_an_allocation_is_told_how_to_run_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one line advises is done literally."""
    pytest.importorskip("mpi4py.MPI", exc_type=RuntimeError)
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("SLURM_PROCID", "0")

    def launcher(*before: str) -> subprocess.CompletedProcess[str]:
        script = "from hpcspin.parallel.world import World; print(World.detect().launcher)"
        command = [*before, sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    refused = launcher()
    assert refused.returncode == 1
    line = refused.stderr.splitlines()[-1]  # mpi4py warns of the variables that Open MPI sets, too
    advised = line[line.index("env -u") :].split()
    done = launcher(*advised[: advised.index("hpcspin")])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "single\n"
