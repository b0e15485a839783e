"""A model meets the electrons that it has learned from, or says that it does not: simulate, evaluate, shipped cards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import hpcspin as hs
from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_model, make_force_field, save_model
from hpcspin.storage import electron_differences, electrons_of, kinds_of_electrons, sha256, stored_electrons
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.simulate import simulate_directory

MODELS = Path(__file__).parents[2] / "configs" / "models"
SHORT = ("potential=null", "dynamics.field=learned", "dynamics.duration=0.4", "dynamics.observers=[magnetization]")


@pytest.fixture
def model(config: Path, tmp_path: Path) -> Path:
    """A force field whose card says that it has learned from the electrons of the config."""
    torch.manual_seed(1)
    network = make_force_field(Architecture("square", 1.5, (4,), bias_reference=3.2))
    path = tmp_path / "model.safetensors"
    save_model(path, network, {"electrons": kinds_of_electrons([electrons(config)])})
    return path


def electrons(config: Path, *overrides: str) -> dict[str, Any]:
    found = electrons_of(load_config(config, overrides).model_dump(mode="json"), "the config")
    assert found is not None
    return found


def write_card(model: Path, **content: Any) -> None:
    card = json.loads(model.with_suffix(".json").read_text())
    model.with_suffix(".json").write_text(json.dumps({**card, **content}))


def simulate(config: Path, model: Path, output: Path, *overrides: str) -> list[str]:
    settings = load_config(config, [*SHORT, f"dynamics.model={model}", *overrides])
    assert simulate_directory(settings, output, World()) == 0
    return []


@pytest.mark.parametrize("field", ["learned", "corrected"])
@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["electrons.exchange=2.0"], [r"electrons\.exchange \(3\.8 -> 2\.0\)"]),
        (["electrons.temperature=0.1"], [r"electrons\.temperature \(0\.05 -> 0\.1\)"]),
        (["electrons.reservoirs.2.width=0.2"], [r"electrons\.reservoirs\.2\.width \(0\.02 -> 0\.2\)"]),
        (
            ["electrons.reservoirs.0.potential=0", "electrons.reservoirs.1.potential=-3.2"],
            [r"reservoirs\.0\.potential \(-3\.2 -> 0\.0\)", r"reservoirs\.1\.potential \(0\.0 -> -3\.2\)"],
        ),
    ],
)
def test_another_system_is_refused_unless_allowed(
    config: Path, model: Path, tmp_path: Path, field: str, overrides: list[str], told: list[str]
) -> None:
    how = ["dynamics.field=corrected", "dynamics.exact_interval=1"] if field == "corrected" else []
    with pytest.raises(HpcspinError) as failure:
        simulate(config, model, tmp_path / "run", *how, *overrides)
    for words in told:
        assert failure.match(words)
    allow = str(failure.value).rpartition("give ")[2]
    assert allow.startswith("dynamics.allow=[electrons.")
    assert not (tmp_path / "run").exists()
    simulate(config, model, tmp_path / "run", *how, *overrides, allow)


def test_a_run_goes_on_when_its_keys_are_allowed(config: Path, model: Path, tmp_path: Path) -> None:
    """A run that was started with other electrons asks for the key, and nothing else has changed."""
    write_card(model, electrons=None)
    simulate(config, model, tmp_path / "run", "electrons.exchange=2.0")
    write_card(model, electrons=[electrons(config)])
    longer = ("electrons.exchange=2.0", "dynamics.duration=0.8")
    with pytest.raises(HpcspinError, match=r"electrons\.exchange"):
        simulate(config, model, tmp_path / "run", *longer)
    simulate(config, model, tmp_path / "run", *longer, "dynamics.allow=[electrons.exchange]")


@pytest.mark.parametrize(
    ("known", "override", "warning"),
    [
        ([3.2], "electrons.reservoirs.0.potential=-1.6", "the bias 1.6 lies outside those .*, 3.2 alone"),
        ([1.0, 2.0], "electrons.reservoirs.0.potential=-3.2", "the bias 3.2 lies outside those .*, 1 to 2"),
        ([1.0, 4.0], "electrons.reservoirs.0.potential=-3.2", None),
        (None, "electrons.exchange=3.8", "its card does not say which electrons"),
        ([], "electrons.exchange=3.8", "from labels without a config, so that their electrons are unknown"),
    ],
)
def test_what_may_be_ignored_is_a_warning(
    config: Path,
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    known: list[float] | None,
    override: str,
    warning: str | None,
) -> None:
    told = known and [electrons(config, f"electrons.reservoirs.0.potential={-bias}") for bias in known]
    write_card(model, electrons=[{"bias": 3.2}] if known == [] else told)
    with caplog.at_level("INFO"):
        simulate(config, model, tmp_path / "run", override)
    found = [message for message in caplog.messages if "warning" in message and "step" not in message]
    assert len(found) == (warning is not None)
    if warning is not None:
        assert pytest.importorskip("re").search(f"warning: .*model.safetensors: .*{warning}", found[0])


def test_open_edges_that_a_model_has_not_learned_are_a_warning(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, periodic in (("known", [False, True]), ("new", [True, True])):
        write_card(model, config={"lattice": {"periodic": periodic}})
        caplog.clear()
        with caplog.at_level("INFO"):
            simulate(config, model, tmp_path / name)
        assert ("periodic along x, and here x is open" in caplog.text) == (name == "new")
        assert "periodic along y" not in caplog.text


def test_a_model_of_labels_without_a_config_is_refused_at_another_bias(
    config: Path, model: Path, tmp_path: Path
) -> None:
    write_card(model, electrons=[{"bias": 0.0}])
    with pytest.raises(HpcspinError, match=r"electrons\.reservoirs \(bias 0 -> bias 3\.2\)"):
        simulate(config, model, tmp_path / "run")
    simulate(config, model, tmp_path / "run", "electrons.reservoirs.0.potential=0")


def test_a_model_of_several_electrons_says_so(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_card(model, electrons=[electrons(config), electrons(config, "electrons.exchange=2.0")])
    with caplog.at_level("INFO"):
        simulate(config, model, tmp_path / "run", "electrons.exchange=2.0")
    assert "it has learned from several electrons, which it cannot tell apart: electrons.exchange (3.8 -> 2.0)" in (
        caplog.text
    )


def write_labels(path: Path, config: Path | None, seed: int, *overrides: str) -> Path:
    rng = np.random.default_rng(seed)
    spins = make_texture("random", make_lattice("square", (6, 4)), seed)[None]
    with h5py.File(path, "w") as file:
        file["spins"], file["field"] = spins, rng.standard_normal(spins.shape)
        if config is not None:
            file.attrs["config"] = load_config(config, overrides).as_json()
    return path


def evaluate(
    model: Path, data: Path, caplog: pytest.LogCaptureFixture, *allow: str
) -> tuple[dict[str, Any], list[str]]:
    caplog.clear()
    with caplog.at_level("INFO"):
        evaluate_files(model, data, data.parent / "errors.json", World(), allow, force=True)
    warnings = [message for message in caplog.messages if "warning" in message]
    return json.loads((data.parent / "errors.json").read_text()), warnings


def test_evaluate_warns_of_other_electrons(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = write_labels(tmp_path / "a.h5", config, 1)
    assert evaluate(model, labels, caplog)[1] == []
    labels = write_labels(tmp_path / "b.h5", config, 1, "electrons.exchange=2.0", "electrons.hopping=1.5")
    _, (line,) = evaluate(model, labels, caplog)
    assert "b.h5: its labels are of other electrons" in line
    assert "electrons.exchange (3.8 -> 2.0), electrons.hopping (1.0 -> 1.5); --allow KEY" in line
    _, (line,) = evaluate(model, labels, caplog, "electrons.exchange")
    assert "exchange" not in line
    assert evaluate(model, labels, caplog, "electrons.exchange", "electrons.hopping")[1] == []
    with pytest.raises(HpcspinError, match=r"--allow 'electrons\.exchnage' is no key of the electrons"):
        evaluate(model, labels, caplog, "electrons.exchnage")
    labels = write_labels(tmp_path / "c.h5", config, 1, "electrons.rashba=0.1")
    with pytest.raises(HpcspinError, match=r"c.h5: electrons.rashba 0.1 ties the spins to the lattice"):
        evaluate(model, labels, caplog)
    assert not caplog.text  # No --allow would help.


@pytest.mark.parametrize(("known", "bias"), [("config", 3.2), (0.0, 0.0), (None, 3.2)])
def test_evaluate_says_which_bias_it_takes(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, known: Any, bias: float
) -> None:
    """And it takes that one: the error is that of labels which say it."""
    if known != "config":
        write_card(model, electrons=None if known is None else [{"bias": known}])
    plain, warnings = evaluate(model, write_labels(tmp_path / "a.h5", None, 1), caplog)
    taken = "the largest that the model has learned from" if known is None else f"{bias:g}"
    assert any("a.h5: without a config" in line and f"its bias is taken as {taken}" in line for line in warnings)
    told, _ = evaluate(
        model, write_labels(tmp_path / "b.h5", config, 1, f"electrons.reservoirs.0.potential={-bias}"), caplog
    )
    assert plain["mse"] == pytest.approx(told["mse"], rel=1e-5)
    other, _ = evaluate(
        model, write_labels(tmp_path / "c.h5", config, 1, "electrons.reservoirs.0.potential=-9"), caplog
    )
    assert abs(other["mse"] / plain["mse"] - 1) > 1e-4


def test_evaluate_warns_of_what_the_model_has_learned_from(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    first, second, new = (write_labels(tmp_path / "data" / f"{name}.h5", config, n) for n, name in enumerate("abc"))
    shards = [[{"file": path.name, "snapshots": 1, "checksum": sha256(path)}] for path in (first, second)]
    write_card(model, data={"train": shards[0]}, start={"data": {"train": shards[1]}})
    assert evaluate(model, new, caplog)[1] == []
    for path in (first, second, tmp_path / "data"):
        _, (line,) = evaluate(model, path, caplog)
        assert "the model has learned from it" in line
    assert "a.h5 and 1 more" in line
    shutil.copy(first, new)
    _, (line,) = evaluate(model, new, caplog)  # By what it holds, whatever its name is.
    assert "c.h5: the model has learned from it" in line


def test_one_trajectory_has_no_error(
    config: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers, _ = evaluate(model, write_labels(tmp_path / "a.h5", config, 1), caplog)
    assert numbers["mse_error"] is None
    assert "mse_error is null" in caplog.text
    (tmp_path / "data").mkdir()
    for seed in range(2):
        write_labels(tmp_path / "data" / f"{seed}.h5", config, seed)
    numbers, _ = evaluate(model, tmp_path / "data", caplog)
    one, two = (values[0] for values in numbers["snapshot_mse"].values())
    assert numbers["mse_error"] == pytest.approx(abs(one - two) / 2)  # Standard error of the mean of two.
    assert "no error" not in caplog.text


@pytest.mark.parametrize(
    "name", ["driven_sd", "driven_sd_light", "driven_sd_fast", "driven_sd_pair", "driven_sd_strips"]
)
def test_shipped_models_say_which_electrons_they_have_learned_from(name: str) -> None:
    _, card = load_model(MODELS / f"{name}.safetensors")
    known = stored_electrons(card["electrons"], name)
    assert known is not None
    for labels in ("driven_sd_test", "driven_sd_exact"):
        with h5py.File(MODELS / f"{labels}.h5") as file:
            config = json.loads(file.attrs["config"])
            given = electrons_of(config, labels)
        assert given is not None
        assert electron_differences(known, given) == {}
    small = electrons(MODELS.parent / "driven_sd_small.yaml")
    assert electron_differences(known, small) == {"electrons.temperature": (0.01, 0.05)}


@pytest.mark.parametrize("term", [{"on_site": np.linspace(0, 1, 720).reshape(30, 24)}, {"rashba": 0.2}])
def test_terms_that_labels_did_not_have_are_refused_where_the_card_does_not_name_them(term: dict[str, Any]) -> None:
    system = replace(hs.load_system(MODELS.parent / "driven_sd.yaml"), **term)
    model = hs.load_model("driven_sd_fast")
    with pytest.raises(hs.HpcspinError, match=f"electrons.{next(iter(term))}") as refused:
        model.field(system.texture("wall", position=8), system)
    assert len(str(refused.value)) < 700


def test_a_model_that_sees_the_potentials_takes_those_between_what_it_has_learned_from(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    described: dict[str, Any] = {"kind": "pair", "layers": (1,), "channels": 3, "drive": "potentials", "drives": 2}
    torch.manual_seed(2)
    network = make_force_field(Architecture("square", 1.5, (4,), bias_reference=3.2, **described))
    path, right = tmp_path / "model.safetensors", "electrons.reservoirs.1.potential"
    save_model(path, network, {"electrons": [electrons(config), electrons(config, f"{right}=1.0")]})
    simulate(config, path, tmp_path / "inside", f"{right}=0.5")
    for voltage in (-0.1, 1.2):
        with pytest.raises(
            HpcspinError, match=rf"drives the electrons of the config.*{voltage:g} of right, learned from 0 to 1"
        ):
            simulate(config, path, tmp_path / "outside", f"{right}={voltage}")
        system = hs.load_system(config, f"{right}={voltage}")
        with pytest.raises(HpcspinError, match=r"give allow=\['electrons\.reservoirs'\]"):
            hs.load_model(path).field(system.texture("random"), system)
    with caplog.at_level("INFO"):
        simulate(config, path, tmp_path / "outside", f"{right}=1.2", "dynamics.allow=[electrons.reservoirs]")
    assert "warning" in caplog.text
    one, other = (hs.load_system(config, f"{right}={voltage}") for voltage in (0.0, 1.0))
    spins = one.texture("random")
    assert not np.allclose(hs.load_model(path).field(spins, one), hs.load_model(path).field(spins, other))
