"""A signal stops every stage of a verb in the same way: exit code 75, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import hpcspin as hs
from hpcspin.electrons import Solver
from hpcspin.storage import partial_path, read_labels
from hpcspin.workflows import learn

Cli = Callable[..., subprocess.CompletedProcess[str]]
LEARNING = "\nlearning: {initial: [{kind: random}], rounds: 1, trajectories: 2, labels: 5}"
TORQUE = """
torque: {voltages: [0.0, 0.4], angles: [40, 110, 150], axis: [0, 0, 1], shares: {left: 1.0}}
"""


@pytest.fixture(autouse=True)
def alive() -> Iterator[None]:
    """A signal that no verb notes ends it, and not the tests."""

    def end(number: int, frame: object) -> None:
        raise AssertionError("the signal would have ended the process")

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def at_second_label(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the signals that this process gets while its second label is solved."""
    numbers, check, solved = list[int](), Solver._check, list[object]()

    def told(self: Solver, state: object) -> None:
        check(self, state)
        solved.append(state)
        if len(solved) == 2:
            for number in numbers:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Solver, "_check", told)
    return numbers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_stopped_labels_go_on(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path, at_second_label: list[int], number: int
) -> None:
    at_second_label.append(number)
    output, whole = tmp_path / "labels.h5", tmp_path / "whole.h5"
    for code, file in ((75, partial_path(output)), (0, output), (0, whole)):
        to = file if file == whole else output
        result = hpcspin("label", config, "--spins", spins_file, "--output", to)
        assert result.returncode == code, result.stderr
        assert len(read_labels(file).spins) == (2 if code else 5)
    assert np.array_equal(read_labels(output).field, read_labels(whole).field)


def test_labels_of_learn_stop(hpcspin: Cli, config: Path, tmp_path: Path, at_second_label: list[int]) -> None:
    at_second_label.append(signal.SIGTERM)
    config.write_text(config.read_text() + LEARNING)
    result = hpcspin("learn", config, "--output", tmp_path / "learned", "training.members=2")
    assert result.returncode == 75, result.stderr
    assert len(read_labels(partial_path(tmp_path / "learned" / "data" / "train-00.h5")).spins) == 2


def test_labels_of_torque_stop(hpcspin: Cli, config: Path, tmp_path: Path, at_second_label: list[int]) -> None:
    at_second_label.append(signal.SIGTERM)
    config.write_text(config.read_text() + TORQUE)
    for code in (75, 0):
        result = hpcspin("torque", config, "--output", tmp_path / "torque")
        assert result.returncode == code, result.stderr
        assert (tmp_path / "torque" / "numbers.json").exists() == (code == 0)


def test_a_signal_between_stages_stops_the_next_one(
    hpcspin: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = learn._choose
    monkeypatch.setattr(learn, "_choose", lambda *given: (choose(*given), os.kill(os.getpid(), signal.SIGTERM)))
    config.write_text(config.read_text() + LEARNING)
    result = hpcspin("learn", config, "--output", tmp_path / "learned", "training.members=2")
    assert result.returncode == 75, result.stderr
    assert not list((tmp_path / "learned" / "data").glob("*.h5"))


def test_a_stopped_call_from_python_goes_on(config: Path, tmp_path: Path, at_second_label: list[int]) -> None:
    at_second_label.append(signal.SIGTERM)
    system = hs.load_system(config)
    spins = np.stack([system.texture("random", seed=seed) for seed in range(3)])
    with pytest.raises(hs.HpcspinError, match="the labels were stopped; the same call goes on"):
        hs.label(system, spins, tmp_path / "labels.h5")
    assert len(hs.label(system, spins, tmp_path / "labels.h5")) == 3
