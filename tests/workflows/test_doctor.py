"""The verb that tries what hpcspin needs of a machine."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcspin.errors import HpcspinError
from hpcspin.parallel.bandwidth import cores
from hpcspin.storage import OutputLock
from hpcspin.workflows import doctor
from hpcspin.workflows.doctor import holds_lock

Cli = Callable[..., subprocess.CompletedProcess[str]]


def told(output: str) -> dict[str, str]:
    lines = [line.partition("  ") for line in output.splitlines()]
    return {name: text.strip() for name, _, text in lines}


def check_ranks(done: subprocess.CompletedProcess[str], ranks: int) -> None:
    assert done.returncode == 0, done.stderr
    lines = told(done.stdout)
    assert all(f"local rank {rank} of {ranks}" in lines[f"rank {rank}"] for rank in range(ranks))
    assert lines["locks"] == "good: on every rank only one run may write to an output"
    assert lines["halo bandwidth"].endswith("GB/s")
    assert lines["all-reduce"].startswith("good: 16 MiB in")


def test_doctor_tries_everything_alone_and_leaves_nothing(hpcspin: Cli, tmp_path: Path) -> None:
    result = hpcspin("doctor", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    lines = told(result.stdout)
    assert lines["HDF5"].endswith("gzip, lzf")
    assert lines["MPI library"]
    assert lines["verdict"]
    assert not list((tmp_path / "new").iterdir())


def test_what_fails_decides_the_exit_code_and_what_is_doubtful_does_not(
    hpcspin: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "holds_lock", lambda folder: False)
    result = hpcspin("doctor", tmp_path)
    assert result.returncode == 0
    assert told(result.stdout)["locks"].startswith("warning: rank(s) [0] pass")

    def refuse(folder: Path) -> str:
        raise HpcspinError("the filter gzip is missing")

    monkeypatch.setattr(doctor, "_hdf5", refuse)
    result = hpcspin("doctor", tmp_path)
    assert result.returncode == 1
    assert told(result.stdout)["HDF5"] == "fails: the filter gzip is missing"
    assert told(result.stdout)["verdict"] == "does not work here: HDF5"


def test_a_lock_holds_until_it_is_released(tmp_path: Path) -> None:
    lock = OutputLock(tmp_path, lambda message: None)
    lock.acquire()
    assert holds_lock(tmp_path)
    lock.release()
    assert not holds_lock(tmp_path)


def test_cores_are_named_by_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5, 8, 9})
    assert cores() == "0-2,5,8-9"


def test_ranks_that_are_bound_to_the_same_cores_are_named() -> None:
    two = frozenset({0, 1})
    assert doctor._binding([("a", two), ("a", two), ("b", two)]).grade == "good"
    assert doctor._binding([("a", two), ("a", two), ("a", two)]).grade == "warning"
    assert doctor._binding([("a", two), ("a", frozenset({1, 2}))]).grade == "warning"
    assert doctor._binding([("a", two), ("a", frozenset({2, 3}))]).grade == "good"


@pytest.mark.mpi
def test_doctor_under_mpi(mpirun: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    check_ranks(mpirun(2, "-m", "hpcspin", "doctor", str(tmp_path), timeout=100), 2)


@pytest.mark.mpi
def test_doctor_under_torchrun(torchrun: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    check_ranks(torchrun(2, "-m", "hpcspin", "doctor", str(tmp_path), timeout=100), 2)
