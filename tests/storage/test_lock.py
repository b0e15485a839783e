"""One run an output: who comes second is told who is there, and the dead hold nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpcspin.errors import HpcspinError
from hpcspin.storage import OutputLock, lock

HOLD = """
import sys, time
from pathlib import Path
from hpcspin.storage import OutputLock
lock = OutputLock(Path(sys.argv[1]), print)
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def take(output: Path) -> OutputLock:
    taken = OutputLock(output, lambda message: None)
    taken.acquire()
    return taken


def hold_and_die(output: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    return process


def change_holder(output: Path, **changes: Any) -> None:
    """As if the holder were another one."""
    claim = Path((output / ".lock").read_text())
    card = claim.with_name(f"{claim.name}.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


@pytest.fixture
def held_elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory whose lock a process on another machine holds, in the SLURM job 77."""
    taken = take(tmp_path)
    change_holder(tmp_path, host="node7", machine="another", process=4711, job="77")
    yield tmp_path
    taken.release()


def test_a_second_run_is_refused_with_the_holder_and_the_way_out(tmp_path: Path) -> None:
    first = take(tmp_path)
    with pytest.raises(HpcspinError) as refused:
        take(tmp_path)
    told = str(refused.value)
    assert "\n" not in told
    assert re.match(rf"{tmp_path}: another run writes there, process {os.getpid()} on \S+, since 20\d\d-", told)
    assert told.endswith(f"rm {tmp_path}/.lock*")
    first.release()
    take(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_files_of_one_directory_have_locks_of_their_own(tmp_path: Path) -> None:
    locks = [take(tmp_path), take(tmp_path / "a.h5"), take(tmp_path / "b.h5")]
    with pytest.raises(HpcspinError, match=r"a\.h5: another run"):
        take(tmp_path / "a.h5")
    for one in locks:
        one.release()
    assert not list(tmp_path.iterdir())


def test_a_killed_holder_is_displaced_at_once_also_before_its_parent_has_heard_of_it(tmp_path: Path) -> None:
    dead = hold_and_die(tmp_path)
    while "Z" not in Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2]:
        time.sleep(0.01)
    take(tmp_path).release()
    dead.communicate()
    hold_and_die(tmp_path).communicate()
    take(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_one_of_many_takes_over_from_the_dead(tmp_path: Path) -> None:
    hold_and_die(tmp_path).communicate()

    def attempt(_: int) -> OutputLock | None:
        try:
            return take(tmp_path)
        except HpcspinError:
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [won for won in pool.map(attempt, range(6)) if won]
    assert len(winners) == 1
    assert winners[0]._lock.is_locked
    winners[0].release()
    assert not list(tmp_path.iterdir())


def test_what_the_dead_have_left_beside_the_lock_is_swept(tmp_path: Path) -> None:
    dead = hold_and_die(tmp_path)
    dead.communicate()
    (tmp_path / ".lock").unlink()
    assert len(list(tmp_path.iterdir())) == 2
    first = take(tmp_path)
    with pytest.raises(HpcspinError):
        take(tmp_path)  # Whose own description does not stay, and who leaves that of the first one alone.
    assert len(list(tmp_path.iterdir())) == 3
    first.release()
    assert not list(tmp_path.iterdir())


def test_the_number_of_a_process_that_is_used_again_protects_nobody(tmp_path: Path) -> None:
    take(tmp_path)
    change_holder(tmp_path, started="1")
    take(tmp_path).release()


def test_a_holder_elsewhere_is_trusted_until_it_gives_no_sign_of_life(
    held_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HpcspinError, match="process 4711 of SLURM job 77 on node7"):
        take(held_elsewhere)
    time.sleep(0.05)
    monkeypatch.setattr(lock, "LIFETIME_SECONDS", 0.02)
    take(held_elsewhere).release()


def test_a_holder_elsewhere_whose_description_is_lost_is_unknown(held_elsewhere: Path) -> None:
    change_holder(held_elsewhere, process="no number")
    with pytest.raises(HpcspinError, match="another run writes there, by an unknown process"):
        take(held_elsewhere)


def test_a_requeued_job_takes_over_its_own_lock_and_no_other(
    held_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(HpcspinError, match="SLURM job 77"):
        take(held_elsewhere)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    take(held_elsewhere).release()


def test_two_steps_of_one_job_do_not_displace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    first = take(tmp_path)
    with pytest.raises(HpcspinError, match="another run"):
        take(tmp_path)
    first.release()


def test_a_run_that_has_lost_the_lock_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TOUCH_SECONDS", 0.01)
    told: list[str] = []
    first = OutputLock(tmp_path, told.append)
    first.acquire()
    time.sleep(0.1)
    assert not told
    for path in tmp_path.glob(".lock*"):
        path.unlink()
    second = take(tmp_path)
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(told) == 1
    assert "no longer this run's" in told[0]
    first.release()
    assert second._lock.is_locked  # What is not ours is not given back.
    second.release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM])
def test_without_room_a_lock_fails_and_without_permission_or_links_there_is_none(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    if number == errno.ENOSPC:
        with pytest.raises(HpcspinError, match=": No space left on device; make room"):
            take(tmp_path)
    else:
        take(tmp_path).release()
    assert ("warning" in caplog.text) == (number == errno.EPERM)
    assert not list(tmp_path.iterdir())
