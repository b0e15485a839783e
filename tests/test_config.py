"""The configuration is strict: what is mistyped is refused with a hint, what is accepted is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcspin.config import load_config, parse_config
from hpcspin.config_text import combinations, read_yaml
from hpcspin.errors import HpcspinError
from hpcspin.lattice.settings import InitialSettings

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
MINIMAL = "lattice: {size: [4, 4]}\nelectrons: {reservoirs: [{name: l, sites: left, width: 1, potential: 0}]}\n"


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "system.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid_and_survive_a_round_trip(path: Path) -> None:
    import json

    config = load_config(path)
    assert parse_config(json.loads(config.as_json()), "stored") == config


def test_the_contract_of_names(minimal: Path) -> None:
    config = load_config(minimal, ["electrons.tolerance=1e-7", "dynamics.field=classical", "lattice.size=[5, 6]"])
    assert config.electrons is not None
    assert config.dynamics is not None
    assert config.electrons.tolerance == 1e-7
    assert config.lattice.size == (5, 6)
    assert config.dynamics.field == "classical"


def test_paths_may_begin_with_the_sign_of_the_home_directory(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file, in an override and among the values of a sweep; as it was written nothing is found."""
    monkeypatch.setenv("HOME", "/home/me")
    minimal.write_text(f"{minimal.read_text()}\ntraining: {{start: ~/a.safetensors, validation: [~/b.h5]}}\n")
    config = load_config(minimal, ["initial={kind: file, path: ~/c.h5}"])
    assert config.training is not None
    assert config.initial is not None
    assert (config.training.start, config.training.validation) == ("/home/me/a.safetensors", ("/home/me/b.h5",))
    assert config.initial.parameters["path"] == "/home/me/c.h5"
    assert combinations(["dynamics.model=~/d,e~f"]) == [{"dynamics.model": "/home/me/d"}, {"dynamics.model": "e~f"}]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("latice.size=[3,3]", "did you mean 'lattice'"),
        ("reproduce.record_interval=1", "unknown key 'reproduce.record_interval'; known keys: train, validation, test"),
        ("electrons.temprature=0.1", "unknown key 'electrons.temprature'; did you mean 'temperature'"),
        ("electrons.reservoirs.0.widht=1", r"electrons.reservoirs.0.widht'; did you mean 'width'"),
        ("electrons.reservoirs.0.width=-1", "electrons.reservoirs.0.width"),
        ("electrons.reservoirs.0.polarization=[1, 1, 0]", "longer than 1"),
        ("electrons.reservoirs.3.width=1", "electrons.reservoirs has the entries 0 to 0, called l, and no 3"),
        ("electrons.reservoirs.left.width=1", "electrons.reservoirs has the entries 0 to 0, called l, and no left"),
        ("electrons.reservoirs.l.width=-1", "electrons.reservoirs.0.width: must be at least 0"),
        ("electrons.reservoirs.l.widht=1", r"electrons.reservoirs.0.widht'; did you mean 'width'"),
        ("electrons.reservoirs.0.sites=lft", "electrons.reservoirs.0.sites: 'lft' is unknown; did you mean 'left'"),
        ("electrons.reservoirs.0.width.a=1", "electrons.reservoirs.0.width has no keys, its value is 1"),
        ("lattice.size=[12,6", "not valid YAML .*; close its brackets"),
        ("initial={kind: file, kind: random}", 'found duplicate key "kind" with value "random"'),
        ("lattice.size=[4]", "lattice.size.1: is missing"),
        ("lattice.size=4", r"lattice.size: must be a list in \[ \] \(given: 4\)"),
        ("lattice.size=[4, 4, 4]", "lattice.size: must have 2 entries"),
        ("lattice.my-key=1", "unknown key 'lattice.my-key'"),
        ("electrons=3", "electrons: must be a section of keys: hopping, exchange"),
        ("electrons.hopping=true", r"electrons.hopping: must be a number, without quotes \(given: true\)"),
        ("electrons.reservoirs.0.sites=[[0, true]]", "electrons.reservoirs.0.sites.0.1: must be a number"),
        ("electrons.solver=nefg", "electrons.solver: 'nefg' is unknown; did you mean 'negf'"),
        ("dynamics.step=yes", r"dynamics.step: must be a number, without quotes \(given: \"yes\"\)"),
        ("dynamics.duration=1:30", r"dynamics.duration: must be a number, without quotes \(given: \"1:30\"\)"),
        ("dynamics.duration='90'", "dynamics.duration: must be a number"),
        ("dynamics.seed=1_000", "dynamics.seed: must be a number"),
        ("dynamics.seed=2001-01-01", "dynamics.seed: must be a number"),
        ("dynamics.seed=1:30", "dynamics.seed: must be a number"),
        ("lattice.size=[1:30, 4]", "lattice.size.0: must be a number"),
        ("lattice.periodic=[no, yes]", r"lattice.periodic.0: must be true or false \(given: \"no\"\)"),
        ("lattice.periodic=[0, 1]", "lattice.periodic.0: must be true or false"),
        ("dynamics.step=!!float 1:30", "not valid YAML"),
        ("dynamics.step=!!binary MQ==", "a value of type bytes has no place in a config"),
        ("lattice={1: 2}", "the key 1 is no text"),
        ("lattice=&a [*a]", "nested deeper"),
        ("dynamics.step=", "dynamics.step: must be a number"),
        ("dynamics.seed=-1", r"dynamics.seed: must be at least 0 \(given: -1\)"),
        ("dynamics.seed=1.5", "dynamics.seed: must be a whole number"),
        ("dynamics.seed=4294967296", "dynamics.seed: must be less than 4294967296"),
        ("training.seed=-1", "training.seed: must be at least 0"),
        ("training.warmup=5", "training.warmup: must be at most 1"),
        ("electrons.temperature=0", "greater than 0"),
        ("electrons.temperature=.nan", "electrons.temperature"),
        ("lattice.size=[0, 4]", "lattice.size.0"),
        ("lattice.kind=kagome", "choose one of .*square, triangular"),
        ("initial.kind=wall", "initial.position: is missing; add it"),
        ("initial={kind: wall, position: '3'}", "initial.position: must be a number, without quotes"),
        ("initial={kind: random, tilt: 0.1}", "unknown key 'initial.tilt'; known keys: none"),
        ("initial={kind: random, seed: 1}", "initial: seed: initial spins have none of their own, theirs is dynamics"),
        ("initial={kind: [wall], seed: 1}", "initial.kind: must be a word"),
        ("dynamics.integrator=nope", "dynamics.integrator: 'nope' is unknown; choose one of .*heun"),
        ("potential={descriptor: nope}", "potential.descriptor: 'nope' is unknown; choose one of .*bonds"),
        ("potential={kind: pare}", "potential.kind: 'pare' is unknown; did you mean 'pair'"),
        ("dynamics.integrator=huen", "dynamics.integrator: 'huen' is unknown; did you mean 'heun'"),
        ("dynamics.observers=[enrgy]", "dynamics.observers.0.name: 'enrgy' is unknown; did you mean 'energy'"),
        ("dynamics.observers=[energy, energy]", "the same name twice"),
        ("dynamics.classical.zeman=[1, 0, 0]", "dynamics.classical.zeman'; did you mean 'zeeman'"),
        ("dynamics.classical.zeeman=[1, 0]", "dynamics.classical.zeeman.2: is missing"),
        (
            "dynamics.classical.drives=[{kind: puls, field: [0, 0, 1]}]",
            "drives.0.kind: 'puls' is unknown",
        ),
        ("initial.kind=vortex", "choose one of"),
        ("nonsense", "key.path=value"),
        ("dynamics.record_window=[5, 1]", "record_window ends before it begins"),
        ("dynamics.record_window=[101, 200]", "record_window begins at 101, after the duration of 100"),
        ("dynamics.observers=[structure_factor]", "dynamics.observers.0.wave_vectors: is missing"),
        (
            "dynamics.observers=[{name: structure_factor, wave_vectors: []}]",
            "wave_vectors: must have 1 or more entries",
        ),
        ("dynamics.step=1e-320", "would take inf steps of"),
        ("dynamics.duration=1e15", r"duration 1e\+15 would take .* steps"),
        ("dynamics.duration=1e300", r"dynamics.duration: must be at most 1e\+15"),
        ("dynamics.damping=1e300", r"dynamics.damping: must be at most 1e\+15"),
        ("electrons.exchange=-1e300", r"electrons.exchange: must be at least -1e\+06"),
        ("electrons.hopping=1e15", r"electrons.hopping: must be at most 1e\+06"),
        ("electrons.rashba=1e15", r"electrons.rashba: must be at most 1e\+06"),
        ("electrons.reservoirs.l.width=1e15", r"electrons.reservoirs.0.width: must be at most 1e\+06"),
        ("dynamics.step=1e15", r"dynamics.step: must be at most 1e\+06"),
        ("dynamics.damping=.nan", "dynamics.damping: must be a finite number"),
        (f"dynamics.record_interval={10**400}", r"dynamics.record_interval: must be at most 1e\+15"),
    ],
)
def test_mistakes_get_one_line_that_names_the_key(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(HpcspinError, match=message) as failure:
        load_config(minimal, [override])
    assert "\n" not in str(failure.value)
    assert str(failure.value).startswith(f"override {override!r}: ")


def test_a_mistake_of_the_file_is_not_an_overrides(minimal: Path) -> None:
    minimal.write_text(f"{MINIMAL}initial: {{kind: wall}}\n")
    with pytest.raises(HpcspinError, match=r"^.*system.yaml: initial.position: is missing"):
        load_config(minimal, ["initial.tilt=0.2"])
    minimal.write_text(f"{MINIMAL}initial: {{kind: random}}\n")
    with pytest.raises(HpcspinError, match=r"^override 'initial.tilt=0.2': unknown key 'initial.tilt'"):
        load_config(minimal, ["lattice.size=[5, 5]", "initial.tilt=0.2"])


def test_a_kind_whose_parameters_the_file_has_not_is_given_with_its_section(minimal: Path) -> None:
    minimal.write_text(f"{MINIMAL}initial: {{kind: wall, position: 2, tilt: 0.1}}\n")
    typed = "initial.kind=antiferromagnet"
    with pytest.raises(
        HpcspinError, match=rf"^override '{typed}': keeps .* key 'initial.position'; .* '(.*)'"
    ) as failure:
        load_config(minimal, [typed, "initial.tilt=0.2"])
    advice = str(failure.value).split("'")[5]
    assert load_config(minimal, [advice]).section(InitialSettings).kind == "antiferromagnet"
    with pytest.raises(HpcspinError, match=r"^override 'initial.tilted=1': unknown key 'initial.tilted'; did [^;]*$"):
        load_config(minimal, ["initial.kind=wall", "initial.tilted=1"])
    with pytest.raises(HpcspinError, match=r"^override 'initial.kind=file': keeps"):
        load_config(minimal, ["initial.kind=file"])
    minimal.write_text(f"{MINIMAL}initial: {{kind: random}}\n")
    with pytest.raises(HpcspinError, match=r"^override 'initial.kind=wall': initial.position: is missing; add it$"):
        load_config(minimal, ["initial.kind=wall"])


def test_a_key_that_stands_twice_is_refused(minimal: Path) -> None:
    minimal.write_text(f"{MINIMAL}device: cpu\ndevice: auto\n")
    with pytest.raises(HpcspinError, match=r"system.yaml: not valid YAML in line 4: found duplicate key \"device\""):
        load_config(minimal)


def test_overrides_reach_entries_of_lists_by_their_names(minimal: Path) -> None:
    minimal.write_text(
        f"{MINIMAL}dynamics: {{observers: [energy, {{name: structure_factor, wave_vectors: [[0, 0]]}}]}}\n"
    )
    changes = ["electrons.reservoirs.l.potential=-2", "dynamics.observers.structure_factor.wave_vectors=[[0.5, 0.5]]"]
    config = load_config(minimal, changes)
    assert config.electrons is not None
    assert config.dynamics is not None
    assert config.electrons.reservoirs[0].potential == -2
    assert config.dynamics.observers[1].parameters == {"wave_vectors": ((0.5, 0.5),)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1.0e-6", 1e-6), ("2E5", 2e5), ("+.5", 0.5), ("010", 10), ("0x10", 16), (".inf", float("inf"))]
    + [("true", True), ("~", None), ("", None)]
    + [(text, text) for text in ("1:30", "1:30.5", "on", "yes", "no", "1_0", "2001-01-01", "=", "0b1", "1e", ".")],
)
def test_yaml_is_that_of_version_1_2(text: str, value: object) -> None:
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)
    assert read_yaml(f"%YAML 1.1\n---\n[{text or '~'}]") == [value]


def test_a_yaml_text_stays_small_when_its_aliases_are_written_out(minimal: Path) -> None:
    """Ten aliases of ten aliases of ... take a line each and a memory without end."""
    lines = [f"k{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}' if n else 'x'])}]" for n in range(12)]
    minimal.write_text("\n".join(lines))
    with pytest.raises(HpcspinError, match="over 100000 values"):
        load_config(minimal)
    minimal.write_text("a: " + 400 * "[" + 400 * "]")
    with pytest.raises(HpcspinError, match="nested"):
        load_config(minimal)
    minimal.write_text(f"a: {1_000_000 * 'x'}")
    with pytest.raises(HpcspinError, match="more than 1000000 characters"):
        load_config(minimal)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "mapping of sections"), ("a: [", "not valid YAML"), ("\xff", "mapping|text")],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HpcspinError, match=message):
        load_config(path)


def test_missing_file_and_missing_section(tmp_path: Path, minimal: Path) -> None:
    with pytest.raises(HpcspinError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(HpcspinError, match="no section 'dynamics'"):
        load_config(minimal).need("electrons", "dynamics")


def test_a_config_cannot_execute_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("lattice: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(HpcspinError, match="not valid YAML"):
        load_config(path)
