"""Sweeps over keys of the config: every combination once, recorded, the same as a training of its own."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcspin.config_text import combinations
from hpcspin.drawing.axes import natural_axis
from hpcspin.drawing.tables import short
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.storage import write_labels, write_manifest
from hpcspin.workflows import sweep
from hpcspin.workflows.sweep import Sweep, _chains, _draw, _row, sweep_directory

Cli = Callable[..., subprocess.CompletedProcess[str]]
VALIDATION = "training.validation=[validation.h5]"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Random fields on walls: what a training makes of them is of no interest here."""
    directory, rng = tmp_path / "data", np.random.default_rng(1)
    directory.mkdir()
    for name, seeds in (("train", range(4)), ("validation", range(4, 6))):
        lattice = make_lattice("square", (6, 4))
        spins = np.stack([make_texture("wall", lattice, seed, position=3, tilt=0.3) for seed in seeds])
        write_labels(directory / f"{name}.h5", spins, rng.standard_normal(spins.shape), {"precision": "complex128"})
    write_manifest(directory)
    return directory


def test_every_combination_is_trained_once_and_recorded(hpcspin: Cli, config: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    vary = ["--vary", "potential.hidden=[8],[4,4]", "--vary", "training.learning_rate=1e-3"]
    command = ["sweep", config, VALIDATION, "training.epochs=2", "--data", data, "--output", output, *vary]
    result = hpcspin(*command)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (output / "sweep.jsonl").read_text().splitlines()]
    assert [record["overrides"]["potential.hidden"] for record in records] == [[8], [4, 4]]
    assert all({"mse", "mse_error", "snapshots"} <= set(record["metrics"]) for record in records)
    assert all(record["seconds"] > 0 and record["seed"] == 1 and record["provenance"] for record in records)
    shown = [short(record["metrics"]["mse"]) for record in sorted(records, key=lambda r: r["metrics"]["mse"])]
    table = result.stdout[result.stdout.index("Validation errors") :]
    assert table.index(shown[0]) <= table.index(shown[1])
    alone = tmp_path / "alone"
    changes = ["potential.hidden=[4,4]", "training.learning_rate=1e-3", "training.epochs=2", VALIDATION]
    assert hpcspin("train", config, *changes, "--data", data, "--output", alone).returncode == 0
    swept = output / records[1]["directory"] / "model.safetensors"
    assert swept.read_bytes() == (alone / "model.safetensors").read_bytes()

    before = {path: path.stat().st_mtime_ns for path in output.rglob("checkpoint.h5")}
    assert len(before) == 2
    more = [argument.replace("[8]", "[8],[2]") if isinstance(argument, str) else argument for argument in command]
    again = hpcspin(*more)
    assert again.returncode == 0, again.stderr
    extended = [json.loads(line) for line in (output / "sweep.jsonl").read_text().splitlines()]
    assert [extended[0]["metrics"], extended[2]["metrics"]] == [record["metrics"] for record in records]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_combination_that_diverges_is_left_out(
    config: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides, rate, output = [VALIDATION, "training.epochs=1"], "training.learning_rate", tmp_path / "out"
    with caplog.at_level("INFO"):
        assert sweep_directory(Sweep(config, [f"{rate}=1.0e+300,0.001"], output, overrides, data=[data]), World()) == 0
    assert "diverged in epoch 1" in caplog.text
    (line,) = (output / "sweep.jsonl").read_text().splitlines()
    assert json.loads(line)["overrides"] == {rate: 0.001}
    with pytest.raises(HpcspinError, match="every training of the sweep has diverged"):
        sweep_directory(Sweep(config, [f"{rate}=1.0e+300"], output, overrides, data=[data]), World())


@pytest.mark.parametrize(
    ("vary", "overrides", "message"),
    [
        (["training.seed"], [VALIDATION], "write it as KEY=V1,V2"),
        (["training.seed="], [VALIDATION], "write it as KEY=V1,V2"),
        (["training.seed=1", "training.seed=2"], [VALIDATION], "each key once"),
        (["training.sed=1,2"], [VALIDATION], "did you mean 'seed'"),
        (["training.seed=1,2"], [], "compares errors on validation files"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_trained(
    config: Path, tmp_path: Path, vary: list[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(HpcspinError, match=message):
        sweep_directory(Sweep(config, vary, tmp_path / "out", overrides, data=[tmp_path / "none"]), World())
    assert not (tmp_path / "out").exists()


LEFT = "electrons.reservoirs.left.potential"
SHORT = ("dynamics.duration=1.6", "dynamics.checkpoint_interval=50")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_simulations_become_curves_over_the_voltage_whose_points_are_means_over_the_seeds(
    hpcspin: Cli, config: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    vary = ("--vary", f"{LEFT}=-2.0,-3.2", "--vary", "dynamics.seed=1,2", "--vary", "initial.position=2,4")
    given = ("sweep", config, "--run", "simulate", "--output", output, *vary, *SHORT, "--show", "current_left")
    done = hpcspin(*given, "--show", "wall_end")
    assert done.returncode == 0, done.stderr
    rows = table(output / "sweep.csv")
    assert len(rows) == 8
    with h5py.File(output / rows[0]["directory"] / "trajectory.h5") as file:
        assert float(rows[0]["current_left"]) == pytest.approx(file["current"][len(file["time"]) // 2 :, 0].mean())
        assert float(rows[0]["wall_end"]) == file["wall_position"][-1]
    points = table(output / "curves.csv")
    assert {(point["quantity"], point["line"], point["x"]) for point in points} == {
        (quantity, f"position {position}", x)
        for quantity in ("current_left", "wall_end")
        for position in (2, 4)
        for x in ("2.0", "3.2")
    }
    for point in points:
        mine = [
            float(row[point["quantity"]])
            for row in rows
            if row["voltage"] == point["x"] and f"position {row['initial.position']}" == point["line"]
        ]
        assert float(point["mean"]) == pytest.approx(np.mean(mine), rel=1e-12)
        assert float(point["error"]) == pytest.approx(np.std(mine, ddof=1) / np.sqrt(2), rel=1e-9)
    assert (output / "curves.png").exists()

    before = {path: path.read_bytes() for path in (output / "sweep.csv", *output.glob("run-*/trajectory.h5"))}
    done = hpcspin(*given, "--against", "time")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert {float(point["x"]) for point in table(output / "curves.csv")} >= {0.0, 0.8, 1.6}


def test_runs_without_a_wall_show_their_energy(hpcspin: Cli, tmp_path: Path) -> None:
    config, output = tmp_path / "closed.yaml", tmp_path / "out"
    config.write_text(
        "lattice: {size: [3, 3], periodic: [true, true]}\nelectrons: {filling: 0.9}\ninitial: {kind: random}\n"
        "dynamics: {duration: 1, step: 0.5}\n"
    )
    vary = ("--vary", "electrons.filling=0.9,1.0")
    done = hpcspin("sweep", config, "--run", "simulate", "--output", output, *vary)
    assert done.returncode == 0, done.stderr
    assert {point["quantity"] for point in table(output / "curves.csv")} == {"energy"}


def test_tasks_of_an_array_make_together_what_one_command_makes(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    vary = ("--vary", f"{LEFT}=-2.0,-3.2", "--vary", "dynamics.seed=1,2")
    for name, tasks in (("whole", ("1/1",)), ("array", ("3/3", "1/3", "2/3"))):
        for task in tasks:
            given = ("sweep", config, "--run", "simulate", "--output", tmp_path / name, *vary, *SHORT, "--task", task)
            done = hpcspin(*given)
            assert done.returncode == 0, done.stderr
            if task == "3/3":
                assert "3 of 4 runs are not finished" in done.stdout
    for name in ("sweep.jsonl", "sweep.csv", "curves.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "array" / name).read_bytes()
    for task in (1, 2, 3):
        job = json.loads((tmp_path / "array" / f"jobs-{task}-of-3.jsonl").read_text())
        assert job["task"] == f"{task}-of-3"
    assert hpcspin("report", tmp_path / "array").returncode == 0
    assert "<td>2-of-3</td>" in (tmp_path / "array" / "report.html").read_text()


def test_a_task_shows_no_results_of_other_settings(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    """Which other tasks have left in the directory; those that change no result may differ."""
    output, vary = tmp_path / "out", ("--vary", "dynamics.seed=1,2", *SHORT, "dynamics.field=classical")

    def run(task: str, *changes: str) -> list[str]:
        done = hpcspin("sweep", config, "--run", "simulate", "--output", output, *vary, "--task", task, *changes)
        assert done.returncode == 0, done.stderr
        assert ("1 of 2 runs are not finished" in done.stdout) == (len(table(output / "sweep.csv")) == 1)
        return [row["dynamics.seed"] for row in table(output / "sweep.csv")]

    assert run("1/2") == ["1"]
    assert run("2/2", "dynamics.damping=0.3") == ["2"]
    assert run("1/2", "dynamics.checkpoint_interval=3") == ["1"]
    assert run("1/2", "dynamics.duration=2") == ["1"]
    assert run("2/2", "dynamics.damping=0.3", "dynamics.duration=2") == ["2"]
    (output / f"{table(output / 'sweep.csv')[0]['directory']}").rename(tmp_path / "aside")
    assert run("2/2", "dynamics.duration=2", "dynamics.checkpoint_interval=5") == ["1", "2"]


def test_what_makes_a_sweep_for_a_report_comes_after_its_table(
    hpcspin: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "write_csv", killed)
    given = ("--run", "simulate", "--output", tmp_path / "out", *SHORT, "dynamics.field=classical")
    assert hpcspin("sweep", config, *given, "--vary", "dynamics.seed=1").returncode != 0
    assert list((tmp_path / "out").glob("run-*/result.json"))
    assert not (tmp_path / "out" / "sweep.jsonl").exists()


def test_a_chain_goes_up_and_down_from_spins_to_spins(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    vary = ("--vary", f"{LEFT}=0,-2,0", "--vary", "dynamics.seed=1,2", "--chain", LEFT, "--show", "current_left")
    done = hpcspin("sweep", config, "--run", "simulate", "--output", output, *vary, *SHORT)
    assert done.returncode == 0, done.stderr
    rows = table(output / "sweep.csv")
    for seed in ("1", "2"):
        first, second, third = (row for row in rows if row["dynamics.seed"] == seed)
        assert [row["stage"] for row in (first, second, third)] == ["0", "1", "2"]
        for before, after in ((first, second), (second, third)):
            ends = [output / row["directory"] / "trajectory.h5" for row in (before, after)]
            with h5py.File(ends[0]) as one, h5py.File(ends[1]) as other:
                np.testing.assert_array_equal(one["spins"][-1], other["spins"][0])
    points = table(output / "curves.csv")
    assert [(point["stage"], point["x"]) for point in points] == [("0", "0.0"), ("1", "2.0"), ("2", "0.0")]
    assert float(points[0]["mean"]) == pytest.approx(0, abs=1e-6)
    assert abs(float(points[1]["mean"])) > 1e-3

    before = {path: path.read_bytes() for path in output.glob("run-*/*.h5")}
    longer = hpcspin("sweep", config, "--run", "simulate", "--output", output, *vary, *SHORT, "dynamics.duration=2.4")
    assert longer.returncode == 1
    assert "the next run of the chain goes on from its spins at 1.6" in longer.stderr
    assert {path: path.read_bytes() for path in before} == before


def _rows(runs: Sequence[Any]) -> list[dict[str, Any]]:
    return [_row(run, {"metrics": {"q": 1.0}, "directory": ""}, "simulate") for run in runs]


def test_keys_that_change_together_with_the_axis_are_one_curve(config: Path, tmp_path: Path) -> None:
    right = "electrons.reservoirs.right.potential"
    given = Sweep(config, [f"{LEFT},{right}=[-1,1],[1,-1],[0,0]", "dynamics.damping=0.1,0.2"], tmp_path, show=["q"])
    runs = [run for chain in _chains(given) for run in chain]
    assert _draw(given, runs, _rows(runs), ["q"])
    assert {point["line"] for point in table(tmp_path / "curves.csv")} == {"damping 0.1", "damping 0.2"}


@pytest.mark.parametrize("chain", [None, "potential.hidden"])
def test_a_key_without_numbers_is_an_axis_of_words(config: Path, tmp_path: Path, chain: str | None) -> None:
    """In the order given, with the mean over the seeds; such sweeps had no figure, without a word."""
    vary = ["dynamics.field=electrons,classical", "dynamics.seed=1,2"]
    given = Sweep(config, ["potential.hidden=[8],[4, 4]", *vary], tmp_path, verb="simulate", show=["q"], chain=chain)
    runs = [run for group in _chains(given) for run in group]
    assert _draw(given, runs, _rows(runs), ["q"])
    points = table(tmp_path / "curves.csv")
    assert [(point["line"], point["x"]) for point in points] == [
        (f"field {field}", x) for field in ("classical", "electrons") for x in ("[8]", "[4, 4]")
    ]
    assert {(point["mean"], point["of"]) for point in points} == {("1.0", "2")}
    assert (tmp_path / "curves.png").exists()


def test_keys_joined_by_commas_change_together() -> None:
    found = combinations(["a,b=[1,x],[2,null]", "c=3,4"])
    assert found == [{"a": a, "b": b, "c": c} for a, b in ((1, "x"), (2, None)) for c in (3, 4)]
    with pytest.raises(HpcspinError, match="write it as"):
        combinations(["a,b=[1],[2]"])


def test_a_value_counts_once_but_along_a_chain() -> None:
    assert len(combinations(["a=0,2,0", "seed=1,2"], chain="a")) == 6
    for vary in (["a=0,2,0"], ["a,b=[0,1],[2,1],[0,1]"], ["seed=1,1", "b=0,1"]):
        with pytest.raises(HpcspinError, match=r"--vary .*: the value [01, ]+ would count twice"):
            combinations(vary, chain="b" if len(vary) > 1 else None)


def test_labels_of_spins_at_two_voltages(hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path) -> None:
    vary, output = ("--vary", f"{LEFT}=-1,-2", "--show", "current_left"), tmp_path / "out"
    done = hpcspin("sweep", config, "--run", "label", "--spins", spins_file, "--output", output, *vary)
    assert done.returncode == 0, done.stderr
    for row in table(output / "sweep.csv"):
        with h5py.File(output / row["directory"] / "labels.h5") as file:
            assert float(row["current_left"]) == pytest.approx(file["current"][:, 0].mean())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"verb": "sing"}, "choose from evaluate, label, learn"),
        ({"verb": "train"}, "--data: give it with --run evaluate and train"),
        ({"verb": "label"}, "--spins: give it"),
        ({"chain": "dynamics.step"}, "name one of the varied keys: dynamics.seed"),
        ({"chain": "dynamics.seed", "verb": "torque"}, "it is for --run simulate"),
        ({"task": "3"}, "write it as i/n"),
        ({"task": "5/4"}, "the tasks are 1 to n"),
        ({"task": "0/4"}, "the tasks are 1 to n"),
        ({"against": "time", "verb": "minimise"}, "--against time: minimise has no frames in time"),
        ({"against": "voltage", "verb": "torque"}, "--against voltage: each torque has the voltages torque.voltages"),
        ({"vary": [f"{LEFT}=-1,-1e6"]}, "potentials differ by 1e[+]06"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(
    config: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    wanted = {"vary": ["dynamics.seed=1,2"], "verb": "simulate", **given}
    with pytest.raises(HpcspinError, match=message):
        sweep_directory(Sweep(config, output=tmp_path / "out", **wanted), World())
    assert not (tmp_path / "out").exists()


def test_a_voltage_that_the_model_does_not_know_is_refused_before_anything_runs(config: Path, tmp_path: Path) -> None:
    """Not when its turn comes, hours later."""
    model = ["dynamics.field=learned", "dynamics.model=driven_sd_voltages", "potential=null"]
    electrons = ["electrons.temperature=0.01", "electrons.reservoirs.bath.width=0.001"]
    given = Sweep(config, [f"{LEFT}=-3.2,-6"], tmp_path / "out", [*model, *electrons], verb="simulate")
    with pytest.raises(HpcspinError, match=r"-6\.?0? of left, learned from"):
        sweep_directory(given, World())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--show", "nothing"), "--show nothing: .* mean_bond, .* wall_velocity"),
        (("--show", "wall_velocity", "--against", "time"), "--show wall_velocity: .* mean_bond, wall_position"),
        (("--against", "nowhere"), "--against nowhere: .*voltage"),
        (("--against", "nucleation_time"), "--against nucleation_time: a run has nothing there; .* of all runs"),
    ],
)
def test_an_unknown_quantity_is_refused_with_the_known_ones(
    hpcspin: Cli, config: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    vary = ("--vary", f"{LEFT}=-2", "--vary", "dynamics.pinned=left", *given)
    done = hpcspin("sweep", config, "--run", "simulate", "--output", tmp_path / "out", *vary, *SHORT)
    assert done.returncode == 1
    if "--show" in given:  # And doubted as soon as a run has its numbers: there may be hours of others.
        assert f"warning: --show {given[1]}: the first run has no such quantity, " in done.stderr
    assert re.fullmatch(f"hpcspin: {said}[^\n]*", done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("values", "against", "lines"), [("-1,-2", "voltage", {""}), ("-1,1", LEFT, {""}), ("-1,1", None, {"-1", "1"})]
)
def test_opposite_voltages_are_not_averaged(
    config: Path, tmp_path: Path, values: str, against: str | None, lines: set[str]
) -> None:
    """They are the same largest difference of potentials, and different systems."""
    explicit = "voltage" if against is None else None
    given = Sweep(config, [f"{LEFT}={values}", "dynamics.seed=1,2"], tmp_path, show=["q"], against=explicit)
    runs = [run for chain in _chains(given) for run in chain]
    rows = _rows(runs)
    assert natural_axis(runs, voltage=True) == (against or LEFT)
    assert _draw(given, runs, rows, given.show)
    points = table(tmp_path / "curves.csv")
    assert [point["of"] for point in points] == ["2", "2"]
    assert {point["line"].rpartition(" ")[2] for point in points} == lines


def test_a_torque_has_several_voltages_and_none_in_the_table(config: Path, tmp_path: Path) -> None:
    """That of the config was there, at which none of its labels are."""
    runs = [run for chain in _chains(Sweep(config, [f"{LEFT}=-1,-2"], tmp_path, verb="torque")) for run in chain]
    assert "voltage" not in _row(runs[0], {"metrics": {}, "directory": ""}, "torque")
    assert natural_axis(runs, voltage=False) == LEFT


def test_the_potential_of_a_reservoir_without_a_width_is_no_voltage(config: Path, tmp_path: Path) -> None:
    width = LEFT.replace("potential", "width")
    given = Sweep(config, [f"{LEFT}=-1,-2", f"{width}=0"], tmp_path)
    runs = [run for chain in _chains(given) for run in chain]
    assert {_row(run, {"metrics": {}, "directory": ""}, "simulate")["voltage"] for run in runs} == {0.0}


@pytest.mark.mpi
def test_ranks_share_the_runs_and_make_the_same(
    hpcspin: Cli, mpirun: Callable[..., subprocess.CompletedProcess[str]], config: Path, tmp_path: Path
) -> None:
    vary = ("--vary", "dynamics.seed=1,2", *SHORT)
    assert hpcspin("sweep", config, "--run", "simulate", "--output", tmp_path / "one", *vary).returncode == 0
    command = ("-m", "hpcspin", "sweep", str(config), "--run", "simulate", "--output", str(tmp_path / "two"), *vary)
    done = mpirun(2, *command)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "one").glob("run-*/trajectory.h5"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        with h5py.File(path) as one, h5py.File(other) as two:
            np.testing.assert_array_equal(one["spins"][()], two["spins"][()])
    assert (tmp_path / "one" / "sweep.csv").read_bytes() == (tmp_path / "two" / "sweep.csv").read_bytes()


@pytest.mark.mpi
def test_teams_of_ranks_train_apart_from_each_other(
    hpcspin: Cli,
    torchrun: Callable[..., subprocess.CompletedProcess[str]],
    config: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    """Two teams of two ranks: neither starts from the other's weights, nor adds the other's gradients to its own."""
    changes = ("--vary", "training.seed=1,2", "--data", str(data), VALIDATION, "training.epochs=1")
    one, four = tmp_path / "one", tmp_path / "four"
    assert hpcspin("sweep", config, "--output", one, *changes).returncode == 0
    done = torchrun(4, "--module", "--", "hpcspin", "sweep", str(config), "--output", str(four), *changes)
    assert done.returncode == 0, done.stderr
    for path in one.glob("run-*/model.safetensors"):
        together = load_model(four / path.relative_to(one))[0].state_dict()
        for name, alone in load_model(path)[0].state_dict().items():
            np.testing.assert_allclose(together[name], alone, rtol=1e-5, atol=1e-6, err_msg=name)
