"""Ranks agree on the step at which they stop without asking each other in every step."""

import json
import time

import numpy as np
import pytest

from hpcspin.dynamics import interrupt
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.parallel.world import World

RANKS = """
import json, os, signal, sys, threading, time
from pathlib import Path
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.parallel.world import World

world, directory = World.detect(), Path(sys.argv[1])
asked, told = [], []
add = world.sum
world.sum = lambda array: asked.append(time.monotonic()) or add(array)


def tell():
    told.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGTERM)


with world.abort_on_failure(), StopRequest(directory / "STOP", world) as stop:
    if world.rank == world.size - 1:
        threading.Timer(1.5, tell).start()
    step, start = 0, time.monotonic()
    while time.monotonic() < start + 20 and not stop.requested():
        time.sleep(0.001 * (1 + world.rank))  # ranks of different speed
        step += 1
    waited = time.monotonic() - told[0] if told else None
    found = {"step": step, "asked": len(asked), "waited": waited}
    (directory / f"{world.rank}.json").write_text(json.dumps(found))
    world.finish()
"""


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_a_signal_to_one_rank_stops_all_at_one_step_within_a_second(request, tmp_path, launcher):
    (tmp_path / "ranks.py").write_text(RANKS)
    result = request.getfixturevalue(launcher)(2, str(tmp_path / "ranks.py"), str(tmp_path), timeout=60)
    assert result.returncode == 0, result.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert len({rank["step"] for rank in found}) == 1
    assert found[-1]["waited"] < 1.5
    assert 5 < found[0]["asked"] < found[0]["step"] / 4


TEAMS = """
import os, signal, sys, threading, time
from pathlib import Path
from hpcspin.config import parse_config
from hpcspin.parallel.world import World
from hpcspin.workflows.simulate import simulate_all

world, directory = World.detect(), Path(sys.argv[1])
dynamics = {"field": "classical", "damping": 0.1, "step": 0.1, "record_interval": 10**6, "checkpoint_interval": 10**6}
runs = {
    directory / name: parse_config(
        {
            "lattice": {"kind": "square", "size": [4, 4]},
            "initial": {"kind": "random"},
            "dynamics": {**dynamics, "duration": duration},
        },
        name,
    )
    for name, duration in (("long", 1e5), ("short", 1.0))
}


def tell():
    while not (directory / "short" / "jobs.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


with world.abort_on_failure():
    threading.Thread(target=tell).start()
    (directory / f"{world.rank}.code").write_text(str(simulate_all(runs, world)))
    world.finish()
"""


@pytest.mark.mpi
def test_a_team_without_work_outlives_the_signal_by_which_another_team_stops(mpirun, tmp_path):
    """Its death would end the job before the other team has written its checkpoint."""
    (tmp_path / "ranks.py").write_text(TEAMS)
    result = mpirun(2, str(tmp_path / "ranks.py"), str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert [(tmp_path / f"{rank}.code").read_text() for rank in range(2)] == ["75", "75"]


class Clocked(World):
    """The first of two ranks; the other is told nothing. A clock that only steps move."""

    def sum(self, array):
        self.asked.append(self.step)
        return array


@pytest.fixture
def follow(monkeypatch, tmp_path):
    """Steps at which the ranks ask each other, where each step takes the seconds given for it."""

    def steps(seconds):
        world = Clocked(size=2)
        world.asked, now = [], 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        stop = StopRequest(tmp_path / "STOP", world)
        for world.step, duration in enumerate(seconds):
            assert not stop.requested()
            now += duration
        return np.array(world.asked)

    return steps


def test_quick_steps_are_asked_for_a_few_times_a_second(follow):
    asked = follow([1e-4] * 30_000)
    assert np.diff(asked)[-1] == pytest.approx(interrupt._ASK_SECONDS / 1e-4, rel=0.01)
    assert len(asked) < 30


def test_slow_steps_are_each_asked_for(follow):
    assert np.array_equal(follow([0.3] * 20), np.arange(20))


def test_steps_that_become_slow_are_soon_asked_for_again(follow):
    asked = follow([1e-2] * 100 + [0.1] * 40)
    assert np.diff(asked).max() * 0.1 < 10 * interrupt._ASK_SECONDS + 0.1
    assert np.diff(asked)[-1] <= 2


def test_only_the_first_rank_says_when_to_ask_again(tmp_path):
    """What each rank gives is added up."""
    given = []

    class Second(World):
        def sum(self, array):
            given.append(array.tolist())
            return np.array([0, 0, 2])

    stop = StopRequest(tmp_path / "STOP", Second(rank=1, size=2))
    assert not any(stop.requested() for _ in range(5))
    assert given == [[0, 0, 0]] * 3


def test_one_rank_asks_itself_in_every_step(tmp_path):
    stop = StopRequest(tmp_path / "STOP", World(), minutes=1e-9)
    for _ in range(5):
        time.sleep(1e-3)
        assert not stop.requested()
        assert stop.overdue
    (tmp_path / "STOP").touch()
    assert stop.requested()
