"""One of each kind of thing that a config names, from a module of the user's own, through the command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

import hpcspin as hs
from hpcspin import cli
from hpcspin.config import load_config, parse_config
from hpcspin.dynamics import INTEGRATORS, OBSERVERS, TERMS, WAVEFORMS
from hpcspin.electrons import SOLVERS
from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, SHAPES, TEXTURES, make_lattice, make_texture
from hpcspin.potential import (
    DESCRIPTORS,
    FORCE_FIELDS,
    Architecture,
    load_model,
    make_force_field,
    save_model,
)
from hpcspin.registry import load_plugins

REGISTRIES = (LATTICES, SHAPES, TEXTURES, SOLVERS, INTEGRATORS, OBSERVERS, TERMS, WAVEFORMS, DESCRIPTORS, FORCE_FIELDS)
CONFIG = """
plugins: [mine]
lattice: {kind: square, size: [4, 3], periodic: [false, false]}
electrons:
  temperature: 0.1
  solver: closed_form
  reservoirs: [{name: left, sites: left, width: 1, potential: -1}, {name: bath, sites: all, width: 0.1, potential: 0}]
initial: {kind: random}
dynamics: {field: classical, classical: {zeeman: [0, 0, 1]}, step: 0.1, duration: 0.2, record_interval: 1}
"""


def _system() -> hs.DrivenLattice:
    return hs.load_system({**YAML(typ="safe").load(CONFIG), "plugins": []})


KINDS = {
    "lattice": (
        """
import numpy as np
from hpcspin.lattice import Lattice
class Wires(Lattice):
    kind = "wires"
    bonds = ((1, 0),)
    primitive_vectors = np.eye(2)
    generators = (((-1, 0), (0, 1)), ((1, 0), (0, -1)))
""",
        ["lattice.kind=wires", "dynamics.field=electrons"],
        lambda run: np.isfinite(run["field"]).all() and run["density"].shape == (3, 4, 3),
    ),
    "texture": (
        """
import numpy as np
from hpcspin.lattice import TEXTURES
@TEXTURES.adding("spiral")
def spiral(lattice, rng, pitch: float = 4.0):
    angle = 2 * np.pi * np.indices(lattice.size)[0] / pitch
    return np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
""",
        ["initial={kind: spiral, pitch: 2}"],
        lambda run: np.allclose(run["spins"][0, :, 0, 0], [1, -1, 1, -1]),
    ),
    "reservoir shape": (
        """
import numpy as np
from hpcspin.lattice import SHAPES
@SHAPES.adding("corner")
def corner(lattice):
    return np.indices(lattice.size).sum(axis=0) == 0
""",
        ["electrons.reservoirs.left.sites=corner", "dynamics.field=electrons"],
        lambda run: run["current"].shape == (3, 2),
    ),
    "solver": (
        """
import dataclasses
from hpcspin.electrons.closed_form import ClosedFormSolver
class Doubled(ClosedFormSolver):
    name = "doubled"
    def _solve(self, spins):
        state, spins[:] = super()._solve(spins), 0.0
        return dataclasses.replace(state, field=2 * state.field)
""",
        ["electrons.solver=doubled", "dynamics.field=electrons"],
        lambda run: np.allclose(run["field"][0] - (0, 0, 1), 2 * _system().solve(run["spins"][0]).field),
    ),
    "classical term": (
        """
from hpcspin.dynamics import TERMS, Zeeman
@TERMS.adding("upwards")
def upwards(lattice, strength: float):
    return Zeeman((0.0, 0.0, strength))
""",
        ["dynamics.classical={upwards: 3}"],
        lambda run: np.all(run["field"] == [0, 0, 3]),
    ),
    "drive": (
        """
from dataclasses import dataclass
from hpcspin.dynamics import Waveform, waveform
@waveform("ramp")
@dataclass(frozen=True)
class Ramp(Waveform):
    slope: float
    def __call__(self, time):
        return self.slope * time
    def rate(self, start, end):
        return abs(self.slope)
""",
        ["dynamics.classical={drives: [{kind: ramp, field: [0, 0, 1], slope: 0.5}]}"],
        lambda run: np.allclose(run["field"][2], [0, 0, 0.1]),
    ),
    "integrator": (
        """
from hpcspin.dynamics import integrator
@integrator("frozen", order=1, langevin=True)
def frozen(spins, time, dt, omega):
    return spins
""",
        ["dynamics.integrator=frozen"],
        lambda run: np.array_equal(run["spins"][2], run["spins"][0]),
    ),
    "observer": (
        """
from hpcspin.dynamics import observer
@observer("column", lambda lattice, number: (lattice.size[1], 3))
def column(frame, number: int):
    return frame.spins[number]
""",
        ["dynamics.observers=[{name: column, number: 2}]"],
        lambda run: np.array_equal(run["column"], run["spins"][:, 2]),
    ),
}


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is no part of the next one."""
    monkeypatch.setattr(logging.getLogger("hpcspin"), "level", logging.NOTSET)
    names = [set(registry) for registry in REGISTRIES]
    yield
    for registry, kept in zip(REGISTRIES, names, strict=True):
        for name in set(registry) - kept:
            del registry[name]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "system.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_ones_own_through_the_command_line(kind: str, config: Path, tmp_path: Path) -> None:
    source, overrides, right = KINDS[kind]
    (tmp_path / "mine.py").write_text(source)
    done = CliRunner().invoke(cli.app, ["simulate", str(config), "--output", str(tmp_path / "run"), *overrides])
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "run" / "trajectory.h5") as file:
        assert right({name: file[name][()] for name in file})


WRONG = {
    "of one column": (
        """
from hpcspin.dynamics import TERMS
class Column:
    halo = (0, 0)
    def bind(self, domain):
        return lambda spins, time: spins[:1]
@TERMS.adding("column")
def column(lattice, strength: float):
    return Column()
""",
        "dynamics.classical={zeeman: [0, 0, 1], column: 1}",
        "Column: its field has shape (1, 3, 3) on a block of (4, 3) sites",
    ),
    "of the halo too": (
        """
from hpcspin.dynamics import TERMS
class Extended:
    halo = (1, 1)
    def bind(self, domain):
        return lambda spins, time: spins
@TERMS.adding("extended")
def extended(lattice, strength: float):
    return Extended()
""",
        "dynamics.classical={extended: 1}",
        "Extended: its field has shape (6, 5, 3) on a block of (4, 3) sites",
    ),
    "of an observer": (
        """
from hpcspin.dynamics import observer
@observer("edge")
def edge(frame):
    return frame.spins[0, :, 2]
""",
        "dynamics.observers=[edge]",
        "edge gives shape (3,) where it says ()",
    ),
    "no tensor": (
        """
from hpcspin.dynamics import TERMS
class Nothing:
    halo = (0, 0)
    def bind(self, domain):
        return lambda spins, time: None
@TERMS.adding("nothing")
def nothing(lattice, strength: float):
    return Nothing()
""",
        "dynamics.classical={nothing: 1}",
        "Nothing: its field has type NoneType on a block",
    ),
    "no number": (
        """
from hpcspin.dynamics import observer
@observer("phase")
def phase(frame):
    return 1j
""",
        "dynamics.observers=[phase]",
        "dynamics.observers: phase: unexpected TypeError: Cannot cast",
    ),
    "a failing field": (
        """
from hpcspin.dynamics import TERMS
class Brittle:
    halo = (0, 0)
    def bind(self, domain):
        def field(spins, time):
            return spins / (1 if time < 0.1 else 0 // int(time > 9))
        return field
@TERMS.adding("brittle")
def brittle(lattice, strength: float):
    return Brittle()
""",
        "dynamics.classical={brittle: 1}",
        "mine.py, line 7, in field: unexpected ZeroDivisionError",
    ),
    "a failing observer": (
        """
from hpcspin.dynamics import observer
@observer("weather", lambda lattice, station: ())
def weather(frame, station: str):
    with open(f"/nowhere/{station}"):
        return 0.0
""",
        "dynamics.observers=[{name: weather, station: here}]",
        "mine.py, line 5, in weather: /nowhere/here: No such file or directory",
    ),
    "an observer that changes its frame": (
        """
from hpcspin.dynamics import observer
@observer("eraser")
def eraser(frame):
    frame.force[:] = 0
    return 0.0
""",
        "dynamics.observers=[eraser]",
        "mine.py, line 5, in eraser: unexpected ValueError: assignment destination is read-only",
    ),
    "an observer with the name of a dataset": (
        """
from hpcspin.dynamics import observer
@observer("spins")
def spins(frame):
    return 0.0
""",
        "dynamics.classical={}",
        "plugins: mine: dynamics.observers: 'spins' cannot be the name of an observer's dataset",
    ),
    "a mask of numbers": (
        """
import numpy as np
from hpcspin.lattice import SHAPES
@SHAPES.adding("corner")
def corner(lattice):
    return (np.indices(lattice.size).sum(axis=0) == 0).astype(int)
""",
        "electrons={temperature: 0.1, filling: 1, solver: diagonalization, regions: [{sites: corner, exchange: 1}]}",
        "corner: its function gives shape (4, 3) and type int64; correct it, it must return a mask",
    ),
    "an integrator that lets the spins grow": (
        """
from hpcspin.dynamics import integrator
@integrator("growing", order=1, langevin=True)
def growing(spins, time, dt, omega):
    return (1 + dt) * spins
""",
        "dynamics.integrator=growing",
        "spins are no unit vectors at step 1; dynamics.integrator growing must return unit vectors",
    ),
    "an integrator in single precision": (
        """
from hpcspin.dynamics import integrator
@integrator("single", order=1, langevin=True)
def single(spins, time, dt, omega):
    return spins.float()
""",
        "dynamics.integrator=single",
        "dynamics.integrator: single must return the spins after the step, a tensor of their shape and type",
    ),
    "an integrator that gives an array": (
        """
from hpcspin.dynamics import integrator
@integrator("array", order=1, langevin=True)
def array(spins, time, dt, omega):
    return spins.numpy()
""",
        "dynamics.integrator=array",
        "dynamics.integrator: array must return the spins after the step, a tensor of their shape and type",
    ),
    "a solver without numbers": (
        """
import dataclasses
from hpcspin.electrons.closed_form import ClosedFormSolver
class Nowhere(ClosedFormSolver):
    name = "nowhere"
    def _solve(self, spins):
        state = super()._solve(spins)
        return dataclasses.replace(state, spin_density=state.spin_density * float("nan"))
""",
        "electrons.solver=nowhere; dynamics.field=electrons",
        "occupations between nan and nan leave [0, 1]",
    ),
    "a solver that returns one snapshot": (
        """
import dataclasses
from hpcspin.electrons.closed_form import ClosedFormSolver
class Flat(ClosedFormSolver):
    name = "flat"
    def _solve(self, spins):
        state = super()._solve(spins)
        return dataclasses.replace(state, current=state.current[0])
""",
        "electrons.solver=flat; dynamics.field=electrons",
        "electrons.solver: flat gives a current of shape (2,) and type float64; it must have shape (1, 2) and",
    ),
    "a solver whose field has no numbers": (
        """
import dataclasses
from hpcspin.electrons.closed_form import ClosedFormSolver
class Endless(ClosedFormSolver):
    name = "endless"
    def _solve(self, spins):
        state = super()._solve(spins)
        return dataclasses.replace(state, field=state.field * float("nan"))
""",
        "electrons.solver=endless; dynamics.field=electrons",
        "it must have shape (1, 4, 3, 3) and finite real numbers",
    ),
    "a solver that is not checked": (
        """
from hpcspin.electrons.closed_form import ClosedFormSolver
class Free(ClosedFormSolver):
    name = "free"
    def solve(self, spins):
        return super()._solve(spins)
""",
        "electrons.solver=free; dynamics.field=electrons",
        "plugins: mine: the solver Free overrides solve, which checks states; override _solve instead",
    ),
    "a term without a value": (
        """
from hpcspin.dynamics import TERMS, Zeeman
@TERMS.adding("fixed")
def fixed(lattice):
    return Zeeman((0.0, 0.0, 1.0))
""",
        "dynamics.classical={fixed: 1}",
        "dynamics.classical: fixed: its function needs a parameter more, the value of its key",
    ),
    "a module that leaves": (
        "import sys\nsys.exit(3)",
        "dynamics.classical={}",
        "plugins: mine: fails with SystemExit: 3",
    ),
}
FIELD = """
from hpcspin.dynamics import TERMS
class Own:
    halo = (0, 0)
    def bind(self, domain):
        def field(spins, time):
            return spins
        return field
@TERMS.adding("own")
def own(lattice, strength: float):
    return Own()
"""
for _change, _to, _words in (
    ("return spins", "return spins.mul_(2)", "Own: changes the spins that it is given, which others use"),
    ("return spins", "return spins.clone().requires_grad_()", "Own: its field carries a gradient; return a tensor"),
    ("return spins", "return spins.long()", "Own: its field has type torch.int64; return a tensor of real numbers"),
    ("        return field\n", "", "Own: its bind gives a NoneType; return a function of spins and time"),
    ("return Own()", "return Own", "dynamics.classical: own: its function gives no field"),
    ("halo = (0, 0)", "halo = 1", "dynamics.classical: own: its function gives no field"),
    ("halo = (0, 0)", "", "dynamics.classical: own: its function gives no field"),
):
    WRONG[f"{_to or 'without'} {_change}"] = (FIELD.replace(_change, _to), "dynamics.classical={own: 1}", _words)
for _change, _to, _words in (
    ("bonds = ((1, 0),)", "", "plugins: mine: the lattice 'wires' needs bonds: pairs of whole numbers"),
    ("((1, 0),)", "(1, 0)", "plugins: mine: the bonds of the lattice 'wires' must be pairs of whole numbers"),
    ("np.eye(2)", "np.zeros((2, 2))", "the primitive_vectors of the lattice 'wires' must be two vectors of the plane"),
    ('"wires"', "3", "plugins: mine: the lattice Wires has no kind"),
):
    _source = KINDS["lattice"][0]
    WRONG[f"{_to or 'without'} {_change}"] = (_source.replace(_change, _to), "lattice.kind=wires", _words)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_ones_own_is_named(what: str, config: Path, tmp_path: Path) -> None:
    source, overrides, words = WRONG[what]
    (tmp_path / "mine.py").write_text(source)
    given = ["simulate", str(config), "--output", str(tmp_path / "run"), *overrides.split("; ")]
    done = CliRunner().invoke(cli.app, given)
    assert done.exit_code == 1
    assert words in done.stderr.splitlines()[-1]
    if "observers=" in overrides:
        assert "hpcspin: dynamics.observers: " in done.stderr


LEARNED = {
    "descriptor": (
        """
import numpy as np
from hpcspin.potential import Descriptor
class NearestBonds(Descriptor):
    name = "nearest_bonds"
    def __init__(self, lattice, offsets, operations, even):
        super().__init__(lattice, offsets, operations, even)
        self.parity = np.ones(len(offsets) - 1 + len(self.presence_counts), dtype=np.int64)
    def forward(self, spins, tile):
        import torch
        bonds = (spins[:1] * spins[1:]).sum(1)
        return torch.cat([bonds, self.presence(spins, tile)])
""",
        "potential={kind: conservative, descriptor: nearest_bonds, radius: 1, symmetry: full, hidden: [4]}",
    ),
    "force field": (
        """
from typing import Literal
from hpcspin.potential import FORCE_FIELDS
from hpcspin.potential.settings import MessagePassingSettings
@FORCE_FIELDS.adding("shallow")
class Shallow(MessagePassingSettings):
    kind: Literal["shallow"] = "shallow"
    def make(self, architecture):
        from hpcspin.potential import CovariantField
        return CovariantField(architecture)
""",
        "potential={kind: shallow, radius: 1, hidden: [4], channels: 3}",
    ),
}


@pytest.mark.parametrize("kind", LEARNED)
def test_a_force_field_of_ones_own_learns_and_moves_spins(kind: str, config: Path, tmp_path: Path) -> None:
    source, potential = LEARNED[kind]
    (tmp_path / "mine.py").write_text(source)
    first, model, run = (str(tmp_path / name) for name in ("first", "model", "run"))
    (tmp_path / "data").mkdir()
    learning = ["training={epochs: 2, batch: 2}", potential]
    moving = ["dynamics.field=learned", "dynamics.classical={}", f"dynamics.model={model}"]
    for words in (
        ["simulate", str(config), "--output", first, "dynamics.field=electrons", "dynamics.classical={}"],
        ["label", str(config), "--spins", first, "--output", str(tmp_path / "data" / "a.h5")],
        ["train", str(config), "--data", str(tmp_path / "data"), "--output", model, *learning],
        ["simulate", str(config), "--output", run, *moving],
    ):
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "run" / "trajectory.h5") as file:
        assert np.isfinite(file["field"][()]).all()
        assert file["field"][()].any()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "return torch.cat([bonds, self.presence(spins, tile)])",
            "return bonds",
            r"forward gives \(4, 4\), .*; give \(5,",
        ),
        ("return torch.cat([bonds, self.presence(spins, tile)])", "return None", "forward gives NoneType"),
        ("(spins[:1] * spins[1:]).sum(1)", "spins[1:, 0]", "its features change when all spins turn together"),
        ("self.parity = ", "self.parity = -", "its features have other signs under S -> -S than its parity says"),
        ("self.parity = ", "self.parities = ", r"; give \(0, 4\), torch.float32, a feature for each entry of parity"),
    ],
)
def test_a_descriptor_without_the_features_that_it_promises_is_refused(
    config: Path, tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    source, potential = LEARNED["descriptor"]
    (tmp_path / "mine.py").write_text(source.replace(right, wrong))
    section = load_config(config, [potential]).potential
    assert section is not None
    with pytest.raises(HpcspinError, match=f"potential.descriptor: nearest_bonds: .*{message}"):
        make_force_field(Architecture("square", **section.model_dump()))


def test_a_model_that_cannot_be_built_without_weights_says_where(config: Path, tmp_path: Path) -> None:
    build = "        return CovariantField(architecture)"
    source = LEARNED["force field"][0]
    assert build in source
    (tmp_path / "mine.py").write_text(source)
    section = load_config(config, [LEARNED["force field"][1]]).potential
    assert section is not None
    save_model(tmp_path / "model.safetensors", make_force_field(Architecture("square", **section.model_dump())), {})
    del FORCE_FIELDS["shallow"]
    broken = source.replace(build, f"        import torch\n        torch.ones(3).sum().item()\n{build}")
    (tmp_path / "again.py").write_text(broken)
    load_config(config, ["plugins=[again]"])
    with pytest.raises(HpcspinError, match=r"again.py, line 11, in make: unexpected RuntimeError: .*meta") as failure:
        load_model(tmp_path / "model.safetensors")
    assert "model.json: architecture: " in str(failure.value)


def test_what_a_file_names_is_not_imported_and_one_line_says_so(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(KINDS["lattice"][0])
    stored = load_config(config, ["lattice.kind=wires"]).model_dump(mode="json")
    assert stored["plugins"] == ["mine"]
    del LATTICES["wires"]
    with pytest.raises(HpcspinError, match=r"a file: lattice.kind: 'wires' is unknown; .*; your own needs its module"):
        parse_config(stored, "a file")


def test_verbs_without_a_config_take_a_plugin(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(KINDS["lattice"][0])
    run, target = tmp_path / "run", str(tmp_path / "run.xdmf")
    simulated = CliRunner().invoke(cli.app, ["simulate", str(config), "-o", str(run), "lattice.kind=wires"])
    assert simulated.exit_code == 0, simulated.output
    wires = LATTICES.pop("wires")
    refused = CliRunner().invoke(cli.app, ["export", str(run), "-o", target])
    assert refused.exit_code == 1
    assert "'wires' is unknown" in refused.output
    again = tmp_path / "again.py"
    again.write_text(KINDS["lattice"][0])
    told = CliRunner().invoke(cli.app, ["--plugin", str(again), "export", str(run), "-o", target])
    assert told.exit_code == 0, told.output
    assert wires is not LATTICES["wires"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "plugins: mine: there is neither a file .*mine.py nor a module of this name"),
        ("import no_such_module", "plugins: mine: fails with ModuleNotFoundError: .*no_such_module"),
        ("1 +", "plugins: mine: fails with SyntaxError"),
        (KINDS["lattice"][0].replace("wires", "square"), "lattice.kind: 'square' is registered already, by hpcspin"),
    ],
)
def test_a_plugin_that_fails_is_one_line(config: Path, tmp_path: Path, source: str | None, message: str) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    with pytest.raises(HpcspinError, match=message) as failure:
        load_config(config)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("wrong", ["mine", [3], None])
def test_plugins_that_are_no_list_are_refused_before_what_they_would_add(wrong: object, config: Path) -> None:
    with pytest.raises(HpcspinError, match=r"plugins: must be a list of names in \[ \]"):
        load_config(config, [f"plugins={'null' if wrong is None else wrong}", "lattice.kind=wires"])
    with pytest.raises(HpcspinError, match=r"plugins: must be a list of names in \[ \]"):
        hs.load_system({"plugins": wrong, "lattice": {"kind": "wires", "size": [4, 3]}})


def test_the_same_entry_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """As when a cell of a notebook runs again."""
    first, second = {}, {}
    for content in (first, second):
        exec("def still(lattice, rng):\n    return 1", content)
        content["still"].__module__ = "__main__"
        TEXTURES.add("still", content["still"])
    assert TEXTURES["still"] is second["still"]


def test_the_field_of_the_page_is_minus_the_gradient_of_its_energy(config: Path, tmp_path: Path) -> None:
    """From Python, and as a term of a config."""
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    (block,) = (part for part in page.split("```python\n")[1:] if "Biquadratic" in part)
    source = tmp_path / "mine.py"
    source.write_text(block.partition("```")[0])
    load_config(config)  # imports it
    lattice = make_lattice("square", (4, 3), (False, False))
    spins = make_texture("random", lattice, 1)

    def energy(spins: np.ndarray) -> float:
        along_x, along_y = (spins[1:] * spins[:-1]).sum(-1), (spins[:, 1:] * spins[:, :-1]).sum(-1)
        return -0.05 * float((along_x**2).sum() + (along_y**2).sum())

    steps = 1e-6 * np.eye(36).reshape(36, 4, 3, 3)
    slope = np.array([energy(spins + step) - energy(spins - step) for step in steps]).reshape(4, 3, 3) / 2e-6
    term = TERMS["biquadratic"](lattice, 0.05)
    run = hs.simulate(lattice, field=term, spins=spins, damping=0.1, step=0.1, duration=0.1)
    np.testing.assert_allclose(run.field[0], -slope, atol=1e-8)
    done = CliRunner().invoke(
        cli.app, ["simulate", str(config), "-o", str(tmp_path / "run"), "dynamics.classical={biquadratic: 0.05}"]
    )
    assert done.exit_code == 0, done.output


def test_a_plugin_may_be_a_module_that_python_finds() -> None:
    load_plugins(["json"], Path("/nowhere"))


def test_shell_completion_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the shell is looked for among the parents of the process, and tests may have none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = CliRunner().invoke(cli.app, ["--show-completion", "bash"], prog_name="hpcspin")
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).output
    assert done.exit_code == 0, done.output
