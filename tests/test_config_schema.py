"""The schema that editors read: it takes every config that the program takes, and finds wrong keys."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcspin.config import load_config
from hpcspin.config_schema import json_schema
from hpcspin.config_text import read_yaml
from hpcspin.errors import HpcspinError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path, validator: Any) -> None:
    validator.validate(read_yaml(path.read_text()))


@pytest.mark.parametrize(
    "wrong", ["lattice.sizes=[3,4]", "dynamics.dampin=0.1", "potential.layer=[1]", "electrons.exchange=text"]
)
def test_what_the_program_refuses_the_schema_refuses(wrong: str, validator: Any) -> None:
    path = CONFIGS[0].parent / "driven_sd.yaml"
    with pytest.raises(HpcspinError):
        load_config(path, [wrong])
    content = read_yaml(path.read_text())
    section, key = wrong.partition("=")[0].split(".")
    content[section][key] = "text"
    assert not validator.is_valid(content)


def test_bounds_of_numbers_are_in_the_schema(validator: Any) -> None:
    """In words that JSON schemas have: editors took negative numbers."""
    content = read_yaml((CONFIGS[0].parent / "driven_sd.yaml").read_text())
    for key, value in (("damping", -1), ("step", 0), ("record_interval", 0), ("temperature", 1e16)):
        assert not validator.is_valid({**content, "dynamics": {**content["dynamics"], key: value}})


def test_observers_are_names_or_sections(validator: Any) -> None:
    content = read_yaml((CONFIGS[0].parent / "driven_sd.yaml").read_text())
    for observer, valid in (
        ("energy", True),
        ({"name": "structure_factor", "wave_vectors": [[0, 0]]}, True),
        (1, False),
    ):
        content["dynamics"]["observers"] = [observer]
        assert validator.is_valid(content) is valid


def test_sites_and_values_of_sites_may_come_from_files(validator: Any) -> None:
    content = read_yaml((CONFIGS[0].parent / "driven_sd.yaml").read_text())
    file = {"file": "map.h5", "dataset": "map"}
    forms = ["left", {"columns": [0, 1]}, [[0, 1]], file, {"file": 1}]
    for sites, valid in zip(forms, [True, True, True, True, False], strict=True):
        content["electrons"] |= {"exchange": file, "vacancies": sites, "regions": [{"sites": sites, "on_site": 1.0}]}
        assert validator.is_valid(content) is valid


def test_keys_have_meanings_and_names(validator: Any) -> None:
    sections = validator.schema["$defs"]
    assert "heun" in sections["DynamicsSection"]["properties"]["integrator"]["examples"]
    assert "Gilbert" in sections["DynamicsSection"]["properties"]["damping"]["description"]
    assert sections["InitialSettings"]["properties"].keys() >= {"kind", "tilt", "position", "path"}
    assert sections["ClassicalSettings"]["properties"].keys() >= {"heisenberg", "drives"}
    assert sections["MessagePassingSettings"]["properties"].keys() >= {"layers", "radius"}
