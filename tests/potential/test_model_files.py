"""Saved models: what goes in comes out, and nothing foreign gets in."""

import json

import pytest
import torch
from force_fields import make_model, random_spins

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import load_model, save_model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, make_model(precision="float32"), {"metrics": {"mse": 1e-5}})
    return path


def test_a_saved_model_predicts_the_same_bits(saved):
    lattice, model = make_lattice("square", (5, 4)), make_model(precision="float32")
    loaded, card = load_model(saved)
    assert loaded.architecture == model.architecture
    assert card["metrics"] == {"mse": 1e-5}
    assert "code_version" in card["provenance"]
    spins, bias = random_spins(2, 20, 1), torch.tensor([1.0, 2.0])
    one, other = (m(spins, m.neighbourhood(lattice), bias) for m in (model, loaded))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_saved_model_computes_in_the_precision_that_is_asked_for(saved):
    """The weights stay what they are: single precision has its rounding alone beside double."""
    lattice, spins, bias = make_lattice("square", (5, 4)), random_spins(2, 20, 1), torch.tensor([1.0, 2.0])
    (single, _), (double, _) = load_model(saved), load_model(saved, "float64")
    one, other = (m(spins, m.neighbourhood(lattice), bias).field for m in (single, double))
    assert (one.dtype, other.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(one.double(), other)
    with pytest.raises(HpcspinError, match="precision"):
        load_model(saved, "float16")


def test_nothing_but_the_two_files_is_left(saved):
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


def change_card(path, **changes):
    card = path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def _pickle(path):
    torch.save(_Trap(), path)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda path: path.unlink(), "no such file|cannot be read"),
        (lambda path: path.with_suffix(".json").unlink(), r"model\.json: no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "intact safetensors"),
        (_pickle, "intact safetensors"),
        (lambda path: path.with_suffix(".json").write_text("{"), "no valid JSON"),
        (lambda path: path.with_suffix(".json").write_text("{}"), "not the card"),
        (lambda path: change_card(path, schema_version=99), "schema version 99"),
        (lambda path: change_card(path, architecture={"lattice": "square"}), "architecture is invalid"),
        (lambda path: change_card(path, weights_sha256="0"), "does not belong to the card"),
    ],
)
def test_spoilt_models_are_refused_in_one_line(saved, spoil, word):
    spoil(saved)
    with pytest.raises(HpcspinError, match=word) as failure:
        load_model(saved)
    assert str(saved.parent) in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("hidden", [(9, 9), (10**7, 10**7), (10**15,)])
def test_weights_of_another_architecture_are_refused_before_memory_is_taken_for_it(saved, hidden):
    architecture = load_model(saved)[0].architecture.as_dict()
    change_card(saved, architecture={**architecture, "hidden": list(hidden)})
    with pytest.raises(HpcspinError, match=r"\.json: architecture: (asks for|it cannot be built)"):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"radius": 1e3}, "potential.radius: must be at most 20"),
        ({"hidden": [4] * 65}, "potential.hidden"),
        ({"kind": "direct", "layers": [1] * 65}, "potential.layers"),
        ({"kind": "direct", "layers": [1, 2**40]}, "potential.layers.1: must be at most 1024"),
        ({"kind": "direct", "channels": 10**9}, "potential.channels: must be at most 1024"),
        ({"kind": "direct", "channels": [12]}, "potential.channels"),
        ({"kind": "direct", "drive": "potentials", "drives": 10**9}, "drives: must be at most 1024"),
        ({"drives": 1.5}, "drives: must be a whole number"),
        ({"bias_reference": 10**400}, "bias_reference: must be a"),
        ({"bias_reference": "x"}, "bias_reference: must be a number"),
    ],
)
def test_a_card_of_absurd_sizes_or_types_is_refused_at_once(saved, changes, word):
    """Before tables of a neighbourhood are made, which may take all memory."""
    architecture = load_model(saved)[0].architecture.as_dict()
    if "kind" in changes:
        del architecture["descriptor"]
    change_card(saved, architecture={**architecture, **changes})
    with pytest.raises(HpcspinError, match=rf"architecture is invalid \({word}"):
        load_model(saved)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.network.layers[0].weight[0, 0] = float("nan")
    save_model(tmp_path / "model.safetensors", model, {})
    with pytest.raises(HpcspinError, match="NaN"):
        load_model(tmp_path / "model.safetensors")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(HpcspinError, match="safetensors"):
        load_model(tmp_path / "model.pt")
