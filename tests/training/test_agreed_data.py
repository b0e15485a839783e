"""Data of a training belong together: the same electrons, and nothing that validates is learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teacher import BIAS, CPU, run, write_data, write_shard

from hpcspin.assembly.agreement import warn_of_labels
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import MEMBER, ForceField, load_force, load_model
from hpcspin.storage import ensure_manifest, write_manifest
from hpcspin.training import evaluate, find_data, learned_files
from hpcspin.training.sources import read_source

KEYS = {"exchange": 3.8, "hopping": 1.0}


def tell(path: Path, *potentials: float, **electrons: Any) -> None:
    """Write other electrons into a label file, or with none at all no config."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs.pop("config"))
        if potentials:
            reservoirs = [
                {"sites": sites, "potential": mu}
                for sites, mu in zip(("left", "right", "all"), potentials, strict=False)
            ]
            file.attrs["config"] = json.dumps({**config, "electrons": {**electrons, "reservoirs": reservoirs}})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = write_data(tmp_path / "data")
    for path in directory.glob("*.h5"):
        tell(path, -BIAS, 0.0, **KEYS)
    write_manifest(directory)
    return directory


def find(directory: Path, *validation: str, **more: Any) -> Any:
    write_manifest(directory)
    return find_data([directory], validation, "square", World(), **more)


@pytest.mark.parametrize("name", ["b.h5", "z.h5"])
def test_labels_of_other_electrons_are_refused_unless_allowed(data: Path, name: str) -> None:
    tell(data / name, -BIAS, 0.0, **{**KEYS, "exchange": 2.0})
    message = (
        rf"{name}: its labels are of other electrons than a\.h5: electrons\.exchange \(3\.8 -> 2\.0\).*allow=\[elec"
    )
    with pytest.raises(HpcspinError, match=message):
        find(data, "z.h5")
    find(data, "z.h5", allow=["electrons.exchange"])


def test_potentials_of_one_bias_are_not_one_system(data: Path) -> None:
    tell(data / "b.h5", -BIAS / 2, BIAS / 2, **KEYS)
    with pytest.raises(HpcspinError, match=r"electrons\.reservoirs\.0\.potential \(-1\.5 -> -0\.75\)"):
        find(data, "z.h5")
    tell(data / "b.h5", -BIAS / 2, 0.0, **KEYS)
    find(data, "z.h5")


def test_electrons_that_differ_along_a_column_are_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A force field is the same at all sites of a column, so it cannot learn what a tip or an impurity does."""
    caplog.set_level("INFO")
    find(data, "z.h5")
    assert "column" not in caplog.text
    with h5py.File(data / "b.h5", "r+") as file:
        config = json.loads(file.attrs.pop("config"))
        config["electrons"]["exchange"] = (3.8 + np.indices(file["spins"].shape[1:3])[1]).tolist()
        config["electrons"]["reservoirs"] += [{"sites": [[1, 2]], "potential": 0.0}]
        file.attrs["config"] = json.dumps(config)
    find(data, "z.h5", allow=["electrons"])
    assert "warning: b.h5: its electrons are not the same at all sites of a column" in caplog.text
    assert "(electrons.exchange, electrons.reservoirs.2.sites)" in caplog.text


def test_the_card_says_which_electrons(data: Path, tmp_path: Path) -> None:
    tell(data / "b.h5", -BIAS / 2, 0.0, **KEYS)
    write_manifest(data)
    _, card = load_model(run(data, tmp_path / "model", epochs=1).model)
    assert [electrons["bias"] for electrons in card["electrons"]] == [BIAS / 2, BIAS]
    assert all(electrons["exchange"] == 3.8 for electrons in card["electrons"])


def test_labels_without_a_config_are_said_to_be_of_bias_0(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in data.glob("*.h5"):
        tell(path)
    write_manifest(data)
    with caplog.at_level("INFO"):
        _, card = load_model(run(data, tmp_path / "model", epochs=1).model)
    (line,) = [message for message in caplog.messages if "warning" in message]
    assert line.startswith("warning: a.h5 and 2 more: without a config in it, so its electrons are unknown")
    assert "bias is taken as 0" in line
    assert card["electrons"] == [{"bias": 0.0}]


def test_a_label_without_a_config_is_taken_to_be_like_the_others(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell(data / "b.h5")
    with caplog.at_level("INFO"):
        assert find(data, "z.h5").sources["b.h5"].drive == (BIAS,)
    assert "warning: b.h5: without a config in it, so its electrons are those of the others" in caplog.text
    given = {"bias": 2.0, "exchange": 1.0}
    with pytest.raises(HpcspinError, match=r"electrons\.exchange \(3\.8 -> 1\.0\)"):
        find(data, "z.h5", electrons={**given, "reservoirs": []})


def test_a_start_has_to_be_of_the_same_electrons(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run(data, tmp_path / "first", epochs=1).model
    other = write_data(tmp_path / "other", (6, 6))
    for number, path in enumerate(sorted(other.glob("*.h5"))):
        write_shard(path, 6, 200 + number)
        tell(path, -BIAS, 0.0, **{**KEYS, "exchange": 2.0})
    write_manifest(other)
    with pytest.raises(HpcspinError, match=r"than training\.start: electrons\.exchange \(3\.8 -> 2\.0\)"):
        run(other, tmp_path / "second", epochs=1, start=first)
    _, card = load_model(run(other, tmp_path / "second", epochs=1, start=first, allow=["electrons.exchange"]).model)
    assert [electrons["exchange"] for electrons in card["electrons"]] == [2.0]  # What it has learned last.
    card = json.loads(first.with_suffix(".json").read_text())
    first.with_suffix(".json").write_text(json.dumps({**card, "electrons": None}))
    with caplog.at_level("INFO"):
        find(other, "z.h5", start=first)
    assert "warning: " + str(first) + ": its card does not say which electrons" in caplog.text


def test_the_members_of_a_committee_have_the_same_electrons(data: Path, tmp_path: Path) -> None:
    for number in range(2):
        run(data, tmp_path / "committee" / MEMBER.format(number), epochs=1, seed=number)
    known = load_force(tmp_path / "committee").card["electrons"]
    assert [electrons["exchange"] for electrons in known] == [3.8]
    path = tmp_path / "committee" / MEMBER.format(1) / "model.json"
    content = json.loads(path.read_text())
    content["electrons"][0]["exchange"] = 2.0
    path.write_text(json.dumps(content))
    with pytest.raises(HpcspinError, match=r"member-01.*electrons\.exchange \(3\.8 -> 2\.0\)"):
        load_force(tmp_path / "committee")


@pytest.mark.parametrize("electrons", ["x", [], [1], [{}], [{"bias": "x"}], [{"bias": 1, "reservoirs": [2]}]])
def test_a_card_of_strange_electrons_is_refused(data: Path, tmp_path: Path, electrons: Any) -> None:
    first = run(data, tmp_path / "first", epochs=1).model
    card = json.loads(first.with_suffix(".json").read_text())
    first.with_suffix(".json").write_text(json.dumps({**card, "electrons": electrons}))
    with pytest.raises(HpcspinError, match=r"model\.safetensors: its (list of )?electrons"):
        find(data, "z.h5", start=first)


def test_the_same_file_does_not_validate(data: Path) -> None:
    shutil.copy(data / "a.h5", data / "y.h5")
    with pytest.raises(HpcspinError, match=r"y\.h5: is the same file as a\.h5, which is learned from"):
        find(data, "y.h5")


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_single_snapshot_in_common_does_not_validate(data: Path, precision: str) -> None:
    with h5py.File(data / "b.h5") as learned, h5py.File(data / "z.h5", "r+") as judging:
        spins, field = judging["spins"][()], judging["field"][()]
        spins[3] = learned["spins"][4]
        del judging["spins"]
        judging["spins"], judging["field"][...] = spins.astype(precision), field + 0.1
    with pytest.raises(HpcspinError, match=r"z\.h5: its snapshot 3 is also in b\.h5, which is learned from"):
        find(data, "z.h5")


def test_what_a_start_has_learned_from_does_not_validate(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "first", epochs=1).model
    assert set(learned_files(load_model(first)[1]).values()) == {"a.h5", "b.h5"}
    with pytest.raises(HpcspinError, match=r"a\.h5: is the same file as a\.h5, which is learned from"):
        find(data, "a.h5", start=first)
    find(data, "z.h5", start=first)


def test_snapshots_that_are_learned_from_twice_are_warned_of(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        find(data, "z.h5")
    assert "warning" not in caplog.text
    with h5py.File(data / "b.h5", "r+") as file, h5py.File(data / "a.h5") as other:
        file["spins"][1], file["spins"][2] = other["spins"][0], file["spins"][0]
    with caplog.at_level("INFO"):
        find(data, "z.h5")
    (line,) = [message for message in caplog.messages if "warning" in message]
    assert line.startswith("warning: 2 snapshots are learned from more than once")
    assert "of b.h5, is already in a.h5" in line
    caplog.clear()
    tell(data / "b.h5", -BIAS / 2, 0.0, **KEYS)
    with h5py.File(data / "b.h5", "r+") as file:
        file["spins"][2] = -file["spins"][3]
    with caplog.at_level("INFO"):
        find(data, "z.h5")  # The same spins at another bias are another snapshot.
    assert "warning" not in caplog.text


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        ({"field": "learned"}, "whose fields are no exact labels"),
        ({"field": "electrons", "classical": {"zeeman": [0, 0, 0.1]}}, "hold the classical term zeeman"),
        ({"field": "electrons", "classical": {"zeeman": [0.0, 0.0, 0.0], "drives": []}}, None),
    ],
)
def test_a_trajectory_is_a_label_file_only_if_its_fields_are_the_electrons(
    data: Path, dynamics: dict[str, Any], message: str | None
) -> None:
    with h5py.File(data / "a.h5", "r+") as file:
        file.attrs["kind"] = "trajectory"
        file.attrs["config"] = json.dumps({**json.loads(file.attrs["config"]), "dynamics": dynamics})
    if message is None:
        assert read_source(data / "a.h5", "square", 0.0).drive == (BIAS,)
        return
    with pytest.raises(HpcspinError, match=rf"a\.h5: .*{message}"):
        read_source(data / "a.h5", "square", 0.0)


def test_a_model_that_sees_the_potentials_learns_from_any(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell(data / "b.h5", 0.3, -0.6, 0.0, **KEYS)
    tell(data / "z.h5", -1.1, 0.1, 0.0, **KEYS)
    tell(data / "a.h5", -BIAS, 0.0, 0.0, **KEYS)
    given: dict[str, Any] = {"kind": "pair", "layers": (1,), "drive": "potentials"}
    write_manifest(data)
    model = load_force(run(data, tmp_path / "model", epochs=1, **given).model)
    assert isinstance(model, ForceField)
    assert model.architecture.drives == 2
    assert model.architecture.bias_reference == pytest.approx(BIAS)
    assert [entry["reservoirs"][0]["potential"] for entry in model.card["electrons"]] == [-BIAS, 0.3]
    # The error on the validation shard is that of its own voltages.
    again = evaluate(model, [data / "z.h5"], World(), CPU)
    assert again["mse"] == pytest.approx(model.card["metrics"]["mse"])
    tell(data / "z.h5", -1.0, 0.1, 0.0, **KEYS)
    assert evaluate(model, [data / "z.h5"], World(), CPU)["mse"] != pytest.approx(again["mse"])
    tell(data / "z.h5", -9.1, 0.1, 0.0, **{**KEYS, "exchange": 2.0})
    with caplog.at_level("INFO"):
        warn_of_labels([data / "z.h5"], tmp_path / "model", model.card, ["electrons.exchange"], World())
        assert "-9.1 of left, learned from -1.5 to 0.3" in caplog.text
    with pytest.raises(HpcspinError, match=r"electrons\.exchange \(3\.8 -> 2\.0\)"):
        find(data, "z.h5", drive="potentials")
    tell(data / "z.h5")
    with pytest.raises(HpcspinError, match="sees the potential of each reservoir"):
        evaluate(model, [data / "z.h5"], World(), CPU)


@pytest.mark.mpi
def test_a_refusal_on_two_ranks_is_one_line(mpirun: Any, data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "a.h5", data / "z.h5")
    write_manifest(data)
    ensure_manifest(data)
    result = mpirun(2, str(Path(__file__).with_name("teacher.py")), str(data), str(tmp_path / "model"), "4", "1")
    assert result.returncode != 0
    assert result.stderr.count("z.h5: is the same file as a.h5") == 1
    assert "Traceback" not in result.stderr


def test_more_epochs_go_on_with_a_finished_training(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The schedule of the longer training from there on, with the same bits where it is stopped on its way."""
    first = run(data, tmp_path / "model", epochs=2)
    before = first.model.read_bytes()
    with caplog.at_level("INFO"):
        run(data, tmp_path / "model", epochs=6)
    (line,) = [message for message in caplog.messages if "continues" in message]
    # 4 of 6 epochs of 4 steps are left: half a cosine behind a rise of one step.
    assert "train: continues from epoch 2 of 2 to 6: from here on the learning rate is that of a training of 6" in line
    lines = [json.loads(text) for text in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[1]["lr"] < 0.2 * lines[2]["lr"]
    assert lines[5]["lr"] < 0.1 * lines[2]["lr"]
    assert first.model.read_bytes() != before
    shutil.copytree(tmp_path / "model", tmp_path / "fewer")
    with pytest.raises(
        HpcspinError, match=r"belongs to a training of 6 epochs, the config asks for 4; training\.epochs"
    ):
        run(data, tmp_path / "fewer", epochs=4)
    with pytest.raises(HpcspinError, match=r"training\.learning_rate"):
        run(data, tmp_path / "fewer", epochs=8, learning_rate=1.0)

    run(data, tmp_path / "parts", epochs=2)
    asked = iter([False, True])
    assert not run(data, tmp_path / "parts", epochs=6, stop=lambda: next(asked)).finished
    run(data, tmp_path / "parts", epochs=6)
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == first.model.read_bytes()
    again = (tmp_path / "model" / "model.json").read_text()
    with caplog.at_level("INFO"):
        caplog.clear()
        run(data, tmp_path / "model", epochs=6)
    assert "continues" not in caplog.text
    assert (tmp_path / "model" / "model.json").read_text() == again
    assert np.isfinite(lines[-1]["loss"])
