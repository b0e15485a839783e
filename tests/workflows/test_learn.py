"""Active learning from the command line: labels where the committee disagrees, provenance kept, resumable."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import hpcspin as hs
from hpcspin.potential import Architecture, make_force_field, save_model
from hpcspin.storage import read_labels
from hpcspin.training import memory

Cli = Callable[..., subprocess.CompletedProcess[str]]
LEARNING = """
learning:
  initial: [{kind: wall, position: 3, tilt: 0.2}, {kind: antiferromagnet}]
  rounds: 1
  trajectories: 2
  labels: 5
"""
DRIVEN = ("potential.drive=potentials", "potential.layers=[1]", "potential.channels=4", "potential.precision=float32")
SHORT = ("training.members=2", "training.epochs=2", "dynamics.duration=2.8")


def test_labels_are_those_of_largest_spread_and_a_second_run_changes_nothing(
    hpcspin: Cli, config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + LEARNING)
    output = tmp_path / "learned"
    result = hpcspin("learn", config, "--output", output, *SHORT)
    assert result.returncode == 0, result.stderr
    labels = {path.name: len(read_labels(path).spins) for path in (output / "data").glob("*.h5")}
    assert labels == {"train-00.h5": 5, "train-01.h5": 3, "validation-01.h5": 2}
    with (
        h5py.File(output / "round-01/train.h5") as chosen,
        h5py.File(output / "round-01/trajectory-001/trajectory.h5") as trajectory,
    ):
        spread = np.sqrt(np.mean(trajectory["spread"][()] ** 2, axis=(1, 2)))
        # 7 steps, 8 frames, three stretches.
        expected = [np.argmax(spread[:3]), 3 + np.argmax(spread[3:6]), 6 + np.argmax(spread[6:])]
        assert chosen["step"][()].tolist() == trajectory["step"][()][expected].tolist()
        assert np.array_equal(chosen["spins"][()], trajectory["spins"][()][expected])
        assert (chosen["trajectory"][()] == 1).all()
        origin = read_labels(output / "data/train-01.h5").attributes["origin"]
        assert origin == {
            "round": 1,
            "step": chosen["step"][()].tolist(),
            "trajectory": [1, 1, 1],
            "spread": chosen["spread"][()].tolist(),
        }
    rounds = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert [(record["round"], record["labels_before"], record["snapshots"]) for record in rounds] == [(1, 5, 5)]
    results = [path for path in output.rglob("*.*") if path.is_file() and path.name != "jobs.jsonl"]
    before = {path: path.read_bytes() for path in results}
    again = hpcspin("learn", config, "--output", output, *SHORT)
    assert again.returncode == 0, again.stderr
    # But for the line about this job.
    after = {path: path.read_bytes() for path in output.rglob("*.*") if path.is_file() and path.name != "jobs.jsonl"}
    assert before == after
    assert hpcspin("learn", config, "--output", output, *SHORT, "learning.labels=7").returncode == 1
    more = hpcspin("learn", config, "--output", output, *SHORT, "learning.rounds=2")
    assert more.returncode == 0, more.stderr
    assert len((output / "rounds.jsonl").read_text().splitlines()) == 2


def test_a_batch_that_does_not_fit_into_memory_is_refused_before_anything_is_labelled(
    hpcspin: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text() + LEARNING)
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000)
    for verb, snapshots in (("learn", 10), ("reproduce", 64)):  # No more labels than 5 in each of two rounds.
        result = hpcspin(verb, config, "--output", tmp_path / verb, *SHORT, "training.batch=64")
        assert result.returncode == 1
        assert f"training.batch: a step on {snapshots} snapshots of 6 x 4 sites" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / verb).exists()


def test_without_a_committee_random_frames_are_labelled(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + LEARNING)
    output = tmp_path / "learned"
    result = hpcspin("learn", config, "--output", output, "learning.selection=time", "training.epochs=2")
    assert result.returncode == 0, result.stderr
    (record,) = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert "NaN" not in json.dumps(record)
    assert "spread" not in record
    assert record["snapshots"] == 5


def test_the_rounds_end_at_the_target(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    """A target that any model reaches leaves one round; without it the rest is done, and the first stays."""
    config.write_text(config.read_text() + LEARNING.replace("rounds: 1", "rounds: 2"))
    output, plain = tmp_path / "learned", ("learning.selection=time", "training.epochs=2", "dynamics.duration=2")
    for _ in range(2):
        result = hpcspin("learn", config, "--output", output, *plain, "learning.target=100")
        assert result.returncode == 0, result.stderr
        assert "round 1 has reached learning.target" in result.stderr
        assert len((output / "rounds.jsonl").read_text().splitlines()) == 1
    first = (output / "round-01/model/model.safetensors").read_bytes()
    result = hpcspin("learn", config, "--output", output, *plain, "learning.target=1e-12")
    assert result.returncode == 0, result.stderr
    assert "has reached" not in result.stderr
    assert len((output / "rounds.jsonl").read_text().splitlines()) == 2
    assert (output / "round-01/model/model.safetensors").read_bytes() == first
    assert (output / "round-02/model/model.safetensors").exists()


VARIED = """
learning:
  initial: [{kind: wall, position: 3, tilt: 0.2}, {kind: antiferromagnet}]
  vary: {electrons.reservoirs.left.potential: [-3.2, -2.0]}
  rounds: 1
  trajectories: 6
  validation: 2
  labels: 9
  selection: pool
"""


def test_spins_and_voltages_are_chosen_together(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    """Training labels are the frames of largest spread of all voltages; each file of labels is of one voltage."""
    config.write_text(config.read_text() + VARIED)
    output = tmp_path / "learned"
    result = hpcspin("learn", config, "--output", output, *SHORT, *DRIVEN)
    assert result.returncode == 0, result.stderr
    first = {path.name: len(read_labels(path).spins) for path in (output / "data").glob("train-00-*.h5")}
    assert first == {"train-00-00.h5": 5, "train-00-01.h5": 4}
    assert all((output / f"data/validation-01-0{condition}.h5").exists() for condition in (0, 1))
    best, others, files = [], [], list((output / "data").glob("train-01-*.h5"))
    labelled = np.concatenate([read_labels(path).spins for path in files])
    assert len(labelled) == 7
    for number in (2, 3, 4, 5):
        with h5py.File(output / f"round-01/trajectory-{number:03d}/trajectory.h5") as file:
            attributes, spins = json.loads(file.attrs["config"]), file["spins"][()]
            spread = np.sqrt(np.mean(file["spread"][()] ** 2, axis=(1, 2)))
        assert attributes["electrons"]["reservoirs"][0]["potential"] == (-3.2, -2.0)[number % 2]
        assert attributes["initial"]["kind"] == ("wall", "antiferromagnet")[(number + 2) // 2 % 2]
        # 8 frames are divided into four or eight stretches.
        for part in np.array_split(np.arange(8), 4 * ((9 + number) // 6)):
            if len(part):
                frame = part[np.argmax(spread[part])]
                taken = any(np.array_equal(spins[frame], one) for one in labelled)
                (best if taken else others).append(spread[frame])
    assert len(best) == 7
    assert min(best) >= max(others)
    for path in files:
        labels = read_labels(path)
        voltage = labels.attributes["config"]["electrons"]["reservoirs"][0]["potential"]
        system = hs.load_system(config, f"electrons.reservoirs.left.potential={voltage}")
        assert np.array_equal(system.solve(labels.spins).field, labels.field)
        assert {number % 2 for number in labels.attributes["origin"]["trajectory"]} == {(-3.2, -2.0).index(voltage)}
    # A directory from before a key existed goes on with its default value.
    config_file = output / "config.json"
    stored = json.loads(config_file.read_text())
    del stored["learning"]["seed"]
    config_file.write_text(json.dumps(stored))
    arguments = ("learn", config, "--output", output, *SHORT, *DRIVEN)
    assert hpcspin(*arguments).returncode == 0
    del stored["learning"]["vary"]
    config_file.write_text(json.dumps(stored))
    refused = hpcspin(*arguments)
    assert refused.returncode == 1
    assert "learning.vary" in refused.stderr


def test_what_a_force_field_has_no_input_for_does_not_vary(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + VARIED)
    for given, message in (
        (("learning.vary={electrons.exchange: [3.8, 3]}",), "the force field has no input for electrons.exchange (3.8"),
        (("learning.vary={lattice.kind: [square]}",), "lattice.kind cannot vary"),
        (("learning.vary={electrons.nope: [1]}",), "electrons.nope"),
        (("learning.vary={electrons.reservoirs.left.potential: [-1, -1e6]}",), "potentials differ by 1e+06"),
        (("learning.vary={electrons.exchange: 3}",), "learning.vary"),
        (("learning.vary={'electrons.exchange,electrons.temperature': [3]}",), "write it as"),
        (
            ("learning.vary={electrons.reservoirs.left.potential: [-1, -2, -3, -4, -1.5, -2.5, -3.5, 0, -0.5, -0.2]}",),
            "labels must be at least 10",
        ),
        (("learning.validation=6",), "validation must leave trajectories"),
    ):
        result = hpcspin("learn", config, "--output", tmp_path / "learned", *SHORT, *given)
        assert result.returncode == 1
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "learned").exists()


def test_spread_of_a_single_model_is_refused(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + LEARNING)
    result = hpcspin("learn", config, "--output", tmp_path / "learned")
    assert result.returncode == 1
    assert "set training.members to two or more" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_that_exists_moves_the_spins_of_the_first_round(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    """No round of labels of initial spins is made; the trajectory is that of the model."""
    config.write_text(config.read_text() + LEARNING)
    model = make_force_field(Architecture("square", 1.5, (8,), precision="float64")).eval()
    save_model(tmp_path / "start.safetensors", model, {})
    output, plain = tmp_path / "learned", ("learning.selection=time", "training.epochs=2", "dynamics.duration=2")
    start = f"learning.start={tmp_path / 'start.safetensors'}"
    for _ in range(2):
        result = hpcspin("learn", config, "--output", output, *plain, start)
        assert result.returncode == 0, result.stderr
        assert sorted(path.name for path in (output / "data").glob("*.h5")) == ["train-01.h5", "validation-01.h5"]
        assert not (output / "round-00").exists()
    (record,) = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert (record["round"], record["labels_before"]) == (1, 0)
    with h5py.File(output / "round-01/trajectory-001/trajectory.h5") as trajectory:
        stored = json.loads(trajectory.attrs["config"])
    assert stored["dynamics"]["model"] == str(tmp_path / "start.safetensors")
