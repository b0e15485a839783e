"""What goes where: results to stdout, for people and pipes, the log and the progress to stderr."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcspin.lattice import make_lattice, make_texture
from hpcspin.storage import write_labels

Cli = Callable[..., subprocess.CompletedProcess[str]]
LONG_NUMBER = re.compile(r"\d\.\d{5,}")
CLASSICAL = ("dynamics.field=classical", "dynamics.classical.heisenberg=1.0", "dynamics.step=0.4")
STOPPING = "stopping with a checkpoint; Ctrl-C again ends at once"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lattice, rng = make_lattice("square", (6, 4)), np.random.default_rng(1)
    for name, seeds in (("train", range(4)), ("validation", range(4, 6))):
        spins = np.stack([make_texture("wall", lattice, seed, position=3, tilt=0.3) for seed in seeds])
        path = tmp_path / "data" / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        write_labels(path, spins, rng.standard_normal(spins.shape), {"precision": "complex128"})
    return path.parent


def test_results_of_label_and_simulate_are_what_they_have_written(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    done = hpcspin("label", config, "--spins", spins_file, "--output", tmp_path / "labels.h5")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/labels.h5: 5 snapshots\n")
    run = ["simulate", config, *CLASSICAL, "--output", tmp_path / "run"]
    for _ in range(2):
        done = hpcspin(*run)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}/run/trajectory.h5: 10 steps, to time 4\n")
    assert "already finished" in done.stderr


def test_numbers_are_for_people_on_the_screen_and_json_for_programs(
    hpcspin: Cli, config: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [config, "training.validation=[validation.h5]", "training.epochs=2"]
    done = hpcspin("train", *given, "--data", data, "--output", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "model" / "model.json").read_text())["metrics"]
    (line,) = done.stdout.splitlines()
    assert saved["mse_error"] is None  # Of one trajectory.
    assert line.startswith(f"{tmp_path}/model/model.safetensors: mse {saved['mse']:.2e}, ")
    assert not LONG_NUMBER.search(done.stdout + done.stderr)

    json_file = tmp_path / "errors.json"
    done = hpcspin("evaluate", tmp_path / "model", "--data", data, "--output", json_file)
    assert done.returncode == 0, done.stderr
    stored = json.loads(json_file.read_text())
    stored.pop("snapshot_mse")
    assert json.loads(done.stdout) == stored
    assert str(json_file) in done.stderr
    assert str(json_file.with_suffix(".png")) in done.stderr

    monkeypatch.setenv("COLUMNS", "60")
    vary = ["--vary", "training.learning_rate=0.001,0.002", "--vary", "training.warmup=0.125"]
    done = hpcspin("sweep", *given, "--data", data, "--output", tmp_path / "sweep", *vary)
    assert done.returncode == 0, done.stderr
    assert not LONG_NUMBER.search(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    (heading,) = [line.split() for line in lines if line.startswith("training.learning_rate")]
    assert heading[:2] == ["training.learning_rate", "training.warmup"]
    rows = [line.split()[:2] for line in lines if line.startswith("0.00")]
    assert sorted(rows) == [["0.001", "0.125"], ["0.002", "0.125"]]
    assert lines[-1] == f"{tmp_path}/sweep/sweep.jsonl: 2 results"


def test_the_log_of_active_learning_is_for_people(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    learning = (
        "learning={rounds: 1, labels: 4, trajectories: 2, seed: 1, initial: [{kind: wall, position: 3, tilt: 0.2}]}"
    )
    given = [config, learning, "training.epochs=2", "training.members=2", "dynamics.duration=2"]
    done = hpcspin("learn", *given, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert not LONG_NUMBER.search(done.stdout + done.stderr)
    assert re.search(r"round 1: the previous model, on labels new to it: mse \d\.\d\de", done.stderr)
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/out/round-01/model: the last model"


def on_a_terminal(*arguments: object, interrupt: bool) -> tuple[int, str, list[str]]:
    """Exit code, stdout, which is a pipe, and the lines that a terminal has been given on stderr.

    What begins after a carriage return is a line, too: a bar is drawn over the bar of before.
    """
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "hpcspin", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    seen = b""
    while True:
        try:
            seen += os.read(screen, 4096)
        except OSError:  # the other end is closed
            break
        if interrupt and re.search(rb"simulate .*[1-9]\d*/", seen):
            interrupt = False
            run.send_signal(signal.SIGINT)
    os.close(screen)
    assert run.stdout is not None
    out = run.stdout.read().decode()
    run.stdout.close()
    plain = re.sub(rb"\x1b\[[?\d;]*[a-zA-Z]", b"", seen).decode()
    return run.wait(60), out, [line.strip() for line in re.split(r"[\r\n]+", plain)]


def test_ctrl_c_closes_the_bar_before_it_speaks(config: Path, tmp_path: Path) -> None:
    run = ["simulate", config, *CLASSICAL, "dynamics.duration=1e5", "--output", tmp_path / "run"]
    code, out, lines = on_a_terminal(*run, interrupt=True)
    assert (code, out) == (75, ""), lines
    assert lines.count(STOPPING) == 1, lines
    assert not [line for line in lines[lines.index(STOPPING) :] if line.startswith("simulate ")]
    assert any(line.startswith("stopped at step") for line in lines)


def test_lines_of_the_log_stand_beside_no_bar_and_results_on_stdout(config: Path, tmp_path: Path) -> None:
    run = ["simulate", config, *CLASSICAL, "dynamics.step=2", "--output", tmp_path / "run"]
    code, out, lines = on_a_terminal(*run, interrupt=False)
    assert (code, out) == (0, f"{tmp_path}/run/trajectory.h5: 2 steps, to time 4\n")
    assert any(line.startswith("simulate ") for line in lines)
    assert any(line.startswith("warning: dynamics.step 2 is long for") for line in lines), lines
