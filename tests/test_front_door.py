"""The front door: `import hpcspin`, from arrays to arrays."""

from __future__ import annotations

import copy
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcspin as hs
from hpcspin.assembly.landscape import Landscape
from hpcspin.drawing.contents import describe
from hpcspin.dynamics import Anisotropy, Heisenberg, Zeeman, observer
from hpcspin.dynamics.fields import BoundField
from hpcspin.electrons import make_solver
from hpcspin.parallel.domain import Domain
from hpcspin.potential import Committee

ROOT = Path(__file__).parent.parent
SMALL = ROOT / "configs" / "driven_sd_small.yaml"
MOVING = {"damping": 0.2, "temperature": 0.01, "step": 0.4}


@pytest.fixture(scope="module")
def system() -> hs.DrivenLattice:
    return hs.load_system(SMALL)


def test_import_is_fast_and_brings_neither_torch_nor_numpy() -> None:
    script = "import sys, hpcspin; print(sorted({'torch', 'numpy', 'pydantic', 'h5py'} & set(sys.modules)))"
    script += "; hpcspin.perpendicular; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"


def test_every_name_of_the_front_door_is_there() -> None:
    for name in hs.__all__:
        assert getattr(hs, name) is not None
    assert set(hs.__all__) <= set(dir(hs))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hs.nothing


def test_one_snapshot_and_many_arrays_and_tensors(system: hs.DrivenLattice) -> None:
    spins = np.stack([system.texture("wall", position=4, seed=seed) for seed in (1, 2)])
    many, one = system.solve(spins), system.solve(spins[1])
    assert (many.field.shape, one.field.shape) == ((2, 12, 6, 3), (12, 6, 3))
    assert (one.density.shape, one.current.shape, one.error.shape) == ((12, 6), (3,), ())
    np.testing.assert_array_equal(one.field, many.field[1])
    tensor = system.solve(torch.from_numpy(spins[1]))
    assert isinstance(tensor.field, torch.Tensor)
    assert torch.equal(tensor.field, torch.from_numpy(one.field))


def test_a_tolerance_and_a_solver_of_the_call_count(system: hs.DrivenLattice) -> None:
    spins = system.texture("wall", position=4)
    exact, rough = system.solve(spins), system.solve(spins, 1e-2, solver="negf")
    assert 1e-9 < np.abs(rough.field - exact.field).max() <= rough.error <= 1e-2


def test_a_model_gives_the_field_across_the_spins() -> None:
    system = hs.load_system(ROOT / "configs" / "driven_sd.yaml")
    with hs.open_labels(ROOT / "configs" / "models" / "driven_sd_exact.h5") as labels:
        spins, exact = labels.spins[:2], labels.field[:2]
    model = hs.load_model("driven_sd_fast")
    field = model.field(spins, system)
    assert np.abs((field * spins).sum(-1)).max() < 1e-6
    across = hs.perpendicular(spins, exact)
    np.testing.assert_allclose(across, np.cross(spins, np.cross(exact, spins)), atol=1e-12)
    assert torch.equal(hs.perpendicular(torch.from_numpy(spins), torch.from_numpy(exact)), torch.from_numpy(across))
    with pytest.raises(hs.HpcspinError, match=r"a field of shape \(24, 3\) is not on spins of shape"):
        hs.perpendicular(spins, exact[0, 0])
    assert np.mean((field - across) ** 2) < 1e-2 * np.mean(across**2)
    assert model.field(torch.from_numpy(spins[0]), system).shape == (30, 24, 3)


def test_energies_of_tensors_are_tensors() -> None:
    system = hs.load_system(ROOT / "configs" / "triangular_120.yaml", "lattice.size=[6,6]")
    model, spins = hs.load_model("triangular_120"), np.stack([system.texture("random", seed=seed) for seed in (1, 2)])
    energies = model.energy(torch.from_numpy(spins), system)
    assert isinstance(energies, torch.Tensor)
    assert energies.tolist() == [model.energy(torch.from_numpy(one), system) for one in spins]


def test_a_run_in_memory_is_that_in_a_directory(system: hs.DrivenLattice, tmp_path: Path) -> None:
    spins = system.texture("wall", position=4)
    run = hs.simulate(system, spins=spins, duration=4, record_interval=2, **MOVING)
    kept = hs.simulate(system, spins=spins, duration=4, record_interval=2, path=tmp_path / "run", **MOVING)
    np.testing.assert_allclose(run.time, [0, 0.8, 1.6, 2.4, 3.2, 4.0])
    for name in ("spins", "field", "wall_position", "density", "current"):
        np.testing.assert_array_equal(getattr(run, name), getattr(kept, name))
    longer = hs.simulate(system, spins=spins, duration=6, record_interval=2, path=tmp_path / "run", **MOVING)
    np.testing.assert_array_equal(longer.spins[:6], run.spins)
    with hs.open_trajectory(tmp_path / "run") as frames:
        assert len(frames) == len(longer.time) == 9
        np.testing.assert_array_equal(frames.spins[-1], longer.spins[8])


def test_another_run_in_a_directory_is_refused(system: hs.DrivenLattice, tmp_path: Path) -> None:
    spins = system.texture("wall", position=4)
    hs.simulate(system, spins=spins, duration=0.4, path=tmp_path, **MOVING)
    for change in ({"damping": 0.3}, {"spins": system.texture("wall", position=5)}, {"field": Zeeman((0, 0, 1.0))}):
        with pytest.raises(hs.HpcspinError):
            hs.simulate(system, path=tmp_path, **{"spins": spins, "duration": 0.4, **MOVING, **change})


def test_a_run_under_a_given_solver_names_it_and_resumes_under_no_other(tmp_path: Path) -> None:
    closed = hs.ClosedLattice(hs.make_lattice("square", (4, 4), (True, True)), 1.0, 4.0, 0.5, filling=0.9)

    def run(tolerance: float, duration: float, of: hs.ClosedLattice = closed) -> None:
        solver = make_solver("kpm", of, tolerance)
        hs.simulate(closed, solver, closed.texture("random"), path=tmp_path / "run", duration=duration, **MOVING)

    run(1e-2, 0.4)
    with hs.open_trajectory(tmp_path / "run") as frames:
        electrons = frames.attributes["config"]["electrons"]
    assert (electrons["solver"], electrons["tolerance"]) == ("kpm", 1e-2)
    with pytest.raises(hs.HpcspinError, match="belongs to another config"):
        run(1e-3, 0.8)
    with pytest.raises(hs.HpcspinError, match="belongs to another config"):
        run(1e-2, 0.8, replace(closed, exchange=3.0))
    run(1e-2, 0.8)


@dataclass(frozen=True)
class Uneven:
    """Field of a user: one vector for each site, given in some container."""

    given: Any
    halo = (0, 0)

    def bind(self, domain: Domain) -> BoundField:
        return lambda spins, time: torch.zeros_like(spins)


@pytest.mark.parametrize("hold", [np.copy, torch.tensor, lambda a: {"by name": [a]}, lambda a: Uneven((a, 1))])
def test_a_run_resumes_under_no_field_with_another_number_in_an_array(hold: Callable[..., Any], tmp_path: Path) -> None:
    """Not even in a large one, whose repr leaves out most numbers, and in the last digit, which it leaves out too."""
    lattice = hs.make_lattice("square", (40, 30))
    spins, array = np.tile([0.0, 0.6, 0.8], (40, 30, 1)), np.ones((40, 30))
    changed = array.copy()
    changed[20, 15] += 1e-12
    settings = {"step": 0.1, "damping": 0.1, "path": tmp_path}
    hs.simulate(lattice, Uneven(hold(array)), spins, duration=0.1, **settings)
    hs.simulate(lattice, Uneven(hold(array.copy())), spins, duration=0.2, **settings)
    with pytest.raises(hs.HpcspinError, match="belongs to another config"):
        hs.simulate(lattice, Uneven(hold(changed)), spins, duration=0.3, **settings)


def test_a_run_resumes_under_no_field_of_another_state_or_system(system: hs.DrivenLattice, tmp_path: Path) -> None:
    """They print in short."""
    spins = system.texture("wall", position=4)
    solved = system.solve(spins, 1e-2)
    other = replace(solved, density=solved.density + 1e-9)
    further = replace(system, exchange=np.linspace(3.0, 3.8, 72).reshape(12, 6))
    for number, (one, two) in enumerate(
        ((solved, other), (further, replace(further, exchange=further.exchange[::-1])))
    ):
        assert repr(one) == repr(two)
        hs.simulate(system.lattice, Uneven(one), spins, duration=0.4, path=tmp_path / f"{number}", **MOVING)
        with pytest.raises(hs.HpcspinError, match="belongs to another config"):
            hs.simulate(system.lattice, Uneven(two), spins, duration=0.8, path=tmp_path / f"{number}", **MOVING)


def test_the_fields_of_an_exact_run_are_labels_and_no_others(system: hs.DrivenLattice, tmp_path: Path) -> None:
    """And the report of a learned run says that no label checks it."""
    spins, allow = system.texture("wall", position=4), ["electrons.temperature"]
    model = hs.load_model("driven_sd_light")
    fields = {"exact": None, "both": [None, Zeeman((0, 0, 0.1))], "learned": "driven_sd_light"}
    for name, field in fields.items():
        hs.simulate(system, field, spins, duration=0.4, path=tmp_path / name, allow=allow, **MOVING)
    run = hs.open_trajectory(tmp_path / "exact")
    wrong = model.field(run.spins[:], system, allow) - hs.perpendicular(run.spins[:], run.field[:])
    assert hs.evaluate(model, tmp_path / "exact")["mse"] == pytest.approx((wrong**2).mean() * 3 / 2, rel=1e-6)
    for name, reason in (("both", "classical term Zeeman"), ("learned", "field: learned")):
        with pytest.raises(hs.HpcspinError, match=reason):
            hs.evaluate(model, tmp_path / name, allow=allow)
    for name in ("exact", "learned"):
        assert ("was not compared with exact labels" in str(describe(tmp_path / name, "simulate")[0])) == (
            name == "learned"
        )


def test_exact_labels_correct_and_check_learned_runs(system: hs.DrivenLattice) -> None:
    spins = system.texture("wall", position=4)
    settings = {**MOVING, "duration": 1.6, "record_interval": 1, "allow": ["electrons.temperature"]}
    plain, checked, corrected = (
        hs.simulate(system, "driven_sd_light", spins, **settings, **interval)
        for interval in ({}, {"check_interval": 4}, {"exact_interval": 4})
    )
    np.testing.assert_array_equal(checked.spins, plain.spins)
    for run, field, error in (
        (checked, checked.exact_field, checked.exact_error),
        (corrected, corrected.field, corrected.error),
    ):
        assert np.isfinite(error).tolist() == [True, False, False, False, True]
        np.testing.assert_allclose(field[[0, 4]], system.solve(run.spins[[0, 4]]).field, atol=2 * system.tolerance)


def test_fields_add_up_and_a_lattice_alone_will_do(system: hs.DrivenLattice) -> None:
    spins = system.texture("wall", position=4)
    parts = [Heisenberg(0.3, system.lattice.bonds), Zeeman((0.0, 0.1, 0.0))]
    both = hs.simulate(system.lattice, parts, spins, duration=0.4, **MOVING).field[0]
    each = [hs.simulate(system.lattice, part, spins, duration=0.4, **MOVING).field[0] for part in parts]
    np.testing.assert_allclose(both, each[0] + each[1], atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({**MOVING, "duration": "1"}, "simulate: duration: must be a number"),
        ({**MOVING, "duration": 1, "dampling": 0.1}, "unknown key 'dampling'; did you mean 'damping'"),
        ({**MOVING, "duration": 1, "field": 3}, "a int is no field"),
        ({**MOVING, "duration": 1, "field": "driven_sd_fats"}, "no such model"),
        ({**MOVING, "duration": 1, "spins": np.zeros((12, 6))}, "have shape"),
        ({**MOVING, "duration": 1, "spins": np.zeros((12, 6, 3))}, "has length 0"),
        ({**MOVING, "duration": 1, "observers": ("nothing",)}, "'nothing' is unknown"),
        ({**MOVING, "duration": 1, "exact_interval": 2}, "exact_interval is for the field of one model"),
        ({**MOVING, "duration": 1, "field": [None, "driven_sd_light"]}, "2 fields in the sum are of electrons"),
        (
            {**MOVING, "duration": 1, "field": "driven_sd_light", "check_interval": 0},
            "check_interval: must be at least 1",
        ),
        ({**MOVING, "duration": 1, "model": "driven_sd_light"}, "unknown key 'model'"),
        ({**MOVING, "duration": 1, "allow": "electrons.exchange"}, "allow: must be a list"),
    ],
)
def test_what_does_not_fit_is_one_line(system: hs.DrivenLattice, arguments: dict[str, object], message: str) -> None:
    given = {"spins": system.texture("wall", position=4), **arguments}
    with pytest.raises(hs.HpcspinError, match=message) as found:
        hs.simulate(system, **given)
    assert "\n" not in str(found.value)


def test_electrons_of_two_solvers_are_not_mixed_up() -> None:
    """A run has one density and one energy: those of the last solver were recorded."""
    one = hs.ClosedLattice(hs.make_lattice("square", (4, 3)), 1.0, 2.5, 0.05, filling=1.0)
    other, spins = make_solver("kpm", replace(one, exchange=1.0), 1e-2), one.texture("random", seed=1)
    for call in (
        lambda: hs.simulate(one, [None, other], spins, duration=0.4, **MOVING),
        lambda: hs.landscape(one, [Zeeman((0, 0, 1)), None, other]),
    ):
        with pytest.raises(hs.HpcspinError, match=r"2 fields in the sum are of electrons.*give one solver or model"):
            call()
    assert hs.simulate(one, [None, Zeeman((0, 0, 1))], spins, duration=0.4, **MOVING).finished


def test_textures_and_masks_refuse_what_they_do_not_know(system: hs.DrivenLattice) -> None:
    with pytest.raises(
        hs.HpcspinError, match="missing a required argument: 'position'; its parameters: position, tilt"
    ):
        system.texture("wall", place=4)
    with pytest.raises(hs.HpcspinError, match="outside"):
        system.lattice.mask([(12, 0)])

    for wrong, message in (
        ({"position": "a"}, r"initial\.position: must be a number"),
        ({"position": 4, "tilt": -1}, r"initial\.tilt: must be at least 0"),
        ({"position": 4, "seed": "a"}, "seed: 'a' must be a whole number"),
    ):
        with pytest.raises(hs.HpcspinError, match=message):
            system.texture("wall", **wrong)
    np.testing.assert_array_equal(system.texture("wall", position=np.int64(4)), system.texture("wall", position=4.0))


def landscape() -> Landscape:
    return hs.landscape(hs.make_lattice("square", (4, 3)), Anisotropy(0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda system, spins: system.solve(spins, solver=3), "electrons: solver 3 must be a name"),
        (lambda system, spins: system.solve(spins, precision=0), "electrons: precision 0 must be a name"),
        (lambda system, spins: system.solve(spins, device=spins), r"device: array.* must be auto, cpu or cuda"),
        (lambda system, spins: system.solve(spins, tolerance=1e300), r"tolerance: 1e\+300 must be .* at most 1e\+06"),
        (lambda system, spins: replace(system, temperature=1e300), r"temperature 1e\+300 must be .* at most 1e\+06"),
        (lambda system, spins: system.lattice.shell(0), "shell: number: must be at least 1"),
        (lambda system, spins: system.solve(np.ma.masked_less(spins, 0)), "spins: some are masked"),
        (
            lambda system, _: replace(system, exchange=np.ma.masked_less(np.eye(12, 6), 1)),
            "exchange masked.* must",
        ),
        (lambda _, spins: hs.perpendicular(spins, torch.tensor(spins)), "one of spins and field is a torch tensor"),
        (lambda _, __: observer("count", shape=(2,)), r"observers: count: shape \(2,\) must be a function"),
        (lambda _, __: observer(max), "<built-in function max> cannot be the name"),
        (lambda system, spins: system.transport(spins, "x"), "energies: 'x' must be a list of finite numbers"),
        (lambda system, spins: system.transport(spins, 0.5), "energies: 0.5 must be a list of finite numbers"),
        (lambda system, spins: system.transport(spins, [(0.5, 1)]), "energies: .* must be a list of finite numbers"),
        (lambda system, _: system.texture(["wall"]), r"initial.kind: \['wall'\] is unknown; give a name"),
        (lambda system, _: system.texture("random", seed=None), "seed: None must be a whole number"),
        (lambda _, __: hs.make_lattice("square", (4, 3), ("no", "yes")), "periodic .* two of True and False"),
        (lambda _, __: hs.load_model("driven_sd_fast", np.ones(2)), "load_model: precision: must be 'float32' or"),
        (lambda _, __: hs.load_model("driven_sd_fast").field(0, 0, allow=3), "field: allow: must be a list"),
        (lambda _, __: landscape().minimise(0, tolerance="x"), "minimise: tolerance: must be a number"),
        (lambda _, __: landscape().path(0, 0, images=2.5), "path: images: must be a whole number"),
        (lambda _, __: landscape().path(0, 0, seed=-1), "path: seed: must be at least 0"),
        (lambda _, spins: landscape().images(spins[0]), "spins: have shape"),
        (lambda _, __: landscape().ends("a", 3), "spins: have shape"),
        (lambda _, spins: hs.load_model("driven_sd_fast").field(spins, (4, 3)), r"\(4, 3\) is no system"),
        (lambda _, __: hs.load_model(3), "model: 3 is no path"),
        (lambda system, spins: hs.simulate(system, spins=spins, duration=0.1, path=""), "path: '' is no path"),
        (lambda _, __: hs.load_system(3), "3 is no config"),
        (lambda _, __: hs.open_labels(3), "labels: 3 is no path"),
        (lambda _, __: hs.train(SMALL, [3], "runs"), "data: 3 is no path"),
        (lambda _, __: hs.train(SMALL, [], "runs"), "data: the list is empty"),
        (lambda _, __: hs.load_system(SMALL, {"seed": 1}), r"overrides \(\{'seed': 1\},\) are no texts"),
        (lambda system, spins: hs.simulate(spins, system), r"array\(\[\[\[[^\\]*\.\.\. is no system"),
        (lambda system, spins: hs.simulate(system, [], spins), "simulate: field: the list is empty"),
        (lambda system, _: hs.evaluate(system, "labels.h5"), r"evaluate: <DrivenLattice: .*\.\.\. is no model"),
        (lambda _, __: hs.evaluate("driven_sd_fast", "labels.h5", allow="x"), "evaluate: allow: must be a list"),
        (lambda _, __: hs.evaluate("driven_sd_fast", "labels.h5", allow=["x"]), "evaluate: allow.*: 'x' is no key"),
        (lambda _, spins: hs.perpendicular(spins, None), r"a field of shape \(\) is not on spins"),
        (lambda system, _: system.lattice.mask({"columns": [0, 1]}), "sites: {'columns': .*} is neither a name nor"),
        (lambda system, _: system.lattice.mask([(0.5, 1)]), r"sites: \[\(0.5, 1\)\] is neither a name nor pairs"),
        (lambda _, __: hs.Reservoir(3, np.ones((2, 2), bool), 1.0, 0.0), "reservoir 3: its name must be a text"),
        (lambda _, __: hs.Reservoir("a", [[True], []], 1.0, 0.0), "its sites must be a mask"),
        (lambda system, _: replace(system, vacancies=[[0], []]), "vacancies must be a mask"),
        (lambda system, _: replace(system, reservoirs=system.reservoirs[0]), "reservoirs <Reservoir.* are no list"),
        (lambda _, __: Heisenberg([1.0, -0.2]), "Heisenberg: exchange of one shell .* must be a number"),
        (lambda _, __: Anisotropy("x"), "Anisotropy: strength 'x' must be a number"),
    ],
)
def test_arguments_of_a_wrong_type_are_one_line(system: hs.DrivenLattice, call: Callable, message: str) -> None:
    with pytest.raises(hs.HpcspinError, match=message) as found:
        call(system, system.texture("wall", position=4))
    assert len(str(found.value)) < 300


@pytest.mark.filterwarnings("error")
def test_a_model_takes_spins_that_cannot_be_changed() -> None:
    system = hs.load_system(ROOT / "configs" / "triangular_120.yaml", "lattice.size=[6,6]")
    model, spins = hs.load_model("triangular_120"), system.texture("random", seed=1)
    given = system.lattice, model.drive(system)
    expected = model.predict(spins[None], *given).equilibrium
    spins.flags.writeable = False
    np.testing.assert_array_equal(model.predict(spins[None], *given).equilibrium, expected)


def test_lists_have_a_perpendicular_part_too() -> None:
    np.testing.assert_array_equal(hs.perpendicular([[0.0, 0.0, 1.0]], [[1.0, 2.0, 3.0]]), [[1.0, 2.0, 0.0]])


class _Own:
    """A field of one's own that is no dataclass, and whose `repr` says nothing of its parameter."""

    halo = (0, 0)

    def __init__(self, strength: object) -> None:
        self.strength = strength

    def bind(self, domain: object) -> Callable:
        return lambda spins, time: 0 * spins + torch.as_tensor(self.strength)


@pytest.mark.parametrize("make", [float, lambda up: np.full(3, up), lambda up: np.full((4, 3, 3), up)])
def test_a_run_goes_on_under_the_same_field_of_ones_own_alone(make: Callable, tmp_path: Path) -> None:
    lattice, spins = hs.make_lattice("square", (4, 3)), np.tile([0.0, 0.6, 0.8], (4, 3, 1))
    settings = {"damping": 0.1, "step": 0.1, "path": tmp_path}
    hs.simulate(lattice, _Own(make(1.0)), spins, duration=0.1, **settings)
    assert hs.simulate(lattice, _Own(make(1.0)), spins, duration=0.2, **settings).finished
    with pytest.raises(hs.HpcspinError, match=r"belongs to another config: dynamics\.field"):
        hs.simulate(lattice, _Own(make(1.0 + 1e-9)), spins, duration=0.3, **settings)


def test_a_path_that_does_not_come_to_rest_ends() -> None:
    land, up = hs.landscape(hs.make_lattice("square", (2, 1), (False, False)), Anisotropy(0.5)), np.zeros((2, 1, 3))
    up[..., 2] = 1.0
    with pytest.raises(hs.HpcspinError, match=r"the residual force is .* after 20 evaluations, and 0 is asked for"):
        land.path(up, -up, images=4, tolerance=0.0, most=20)


def test_frames_are_indexed_as_arrays_are_while_the_file_is_open(tmp_path: Path) -> None:
    lattice, spins = hs.make_lattice("square", (4, 3)), np.tile([0.0, 0.6, 0.8], (4, 3, 1))
    run = hs.simulate(lattice, Zeeman((0, 0, 1)), spins, step=0.1, duration=0.5, record_interval=1, path=tmp_path)
    with hs.open_trajectory(tmp_path) as frames:
        odd = np.arange(6) % 2 == 1
        for which in (2, -1, np.int64(3), slice(4, 1, -2), [3, 0, 0], odd, (slice(None, None, -1), ..., 2), (..., 0)):
            np.testing.assert_array_equal(frames.spins[which], run.spins[which])
        assert repr(frames).startswith(f"<6 frames in {tmp_path}")
        assert repr(frames.spins).endswith("trajectory.h5: /spins, shape (6, 4, 3, 3)>")
        assert copy.copy(frames).names == frames.names
        rows = frames.spins
    for read in (lambda: rows[0], lambda: frames.spins, lambda: np.asarray(rows)):
        with pytest.raises(hs.HpcspinError, match="has been closed; open it again"):
            read()
    np.testing.assert_array_equal(hs.open_trajectory(tmp_path).spins[-1], run.spins[-1])  # In one expression.


def test_a_landscape_refuses_other_shapes_and_stays_usable() -> None:
    closed = hs.ClosedLattice(hs.make_lattice("square", (4, 4), (True, True)), 1.0, 4.0, 0.1, filling=0.9)
    energy, spins = hs.landscape(closed), closed.texture("random", seed=1)
    before = energy.slope(spins)
    for call in (energy, energy.field, energy.slope, energy.minimise, lambda wrong: energy.path(spins, wrong)):
        with pytest.raises(hs.HpcspinError, match=r"have shape \(3, 4, 3\)"):
            call(spins[:3])
    for call in (energy, energy.field, energy.slope, energy.minimise):
        with pytest.raises(hs.HpcspinError, match="has length 2, not 1"):
            call(2 * spins)
    np.testing.assert_array_equal(energy.slope(spins), before)


@pytest.mark.mpi
def test_ranks_share_the_work_and_a_failure_ends_all(system: hs.DrivenLattice, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, numpy as np, hpcspin as hs\n"
        f"system = hs.load_system({str(SMALL)!r})\n"
        "spins = np.stack([system.texture('wall', position=4, seed=s) for s in (1, 2, 3)])\n"
        "world = hs.api.World.current()\n"
        "np.save(f'{world.rank}.npy', system.solve(spins).field)\n"
        "if len(sys.argv) > 1 and world.rank == 1: raise hs.HpcspinError('on purpose')\n"
        "world.barrier()\n"
    )
    alone = system.solve(np.stack([system.texture("wall", position=4, seed=seed) for seed in (1, 2, 3)]))
    ranks = ["mpiexec", "-n", "2", sys.executable, str(script)]
    subprocess.run(ranks, cwd=tmp_path, check=True)
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), alone.field)
    failed = subprocess.run([*ranks, "fail"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert failed.returncode
    assert "on purpose" in failed.stderr


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run_and_are_short(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(example.read_text().splitlines()) <= 15
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("size", [8, (8, 6, 2), (8.0, 6.0), "86", None])
def test_a_size_that_is_no_pair_is_one_line(size: object) -> None:
    with pytest.raises(hs.HpcspinError, match=r"two whole numbers \(Lx, Ly\)"):
        hs.make_lattice("square", size)


def test_masks_reservoirs_and_lattices_that_are_none_are_one_line() -> None:
    lattice = hs.make_lattice("square", (4, 3))
    for sites in ("left", [[0, 0], [1, 0]], np.ones(12, bool)):
        with pytest.raises(hs.HpcspinError, match=r"reservoir 'left': its sites must be a mask"):
            hs.Reservoir("left", sites, 1.0, 0.0)
    for wrong in ({"width": "x"}, {"potential": None}, {"polarization": 1.0}, {"polarization": (1.0, 0.0)}):
        with pytest.raises(hs.HpcspinError, match=rf"reservoir 'left': {next(iter(wrong))} .* must be .*finite number"):
            hs.Reservoir("left", lattice.mask("left"), **{"width": 1.0, "potential": 0.0, **wrong})
    good = {"hopping": 1.0, "exchange": 2.5, "temperature": 0.05, "filling": 1.0}
    for key in ("hopping", "exchange", "temperature", "filling", "rashba", "on_site"):
        with pytest.raises(hs.HpcspinError, match=f"electrons: {key} 'x' must"):
            hs.ClosedLattice(lattice, **{**good, key: "x"})
    closed, up = hs.ClosedLattice(lattice, **good), np.broadcast_to([0.0, 0.0, 1.0], (4, 3, 3))
    with pytest.raises(hs.HpcspinError, match=r"electrons\.tolerance: 'x' must be"):
        closed.solve(up, tolerance="x")
    with pytest.raises(hs.HpcspinError, match="simulate: spins are missing"):
        hs.simulate(closed)
    with pytest.raises(hs.HpcspinError, match="has no electrons"):
        hs.label(lattice, up, "never.h5")
    for function in (hs.simulate, hs.landscape):
        with pytest.raises(hs.HpcspinError, match=r"\(4, 3\) is no system"):
            function((4, 3))
    with pytest.raises(hs.HpcspinError, match=r"'left' is no reservoir"):
        hs.DrivenLattice(lattice, 1.0, 2.5, 0.05, ["left"])
    with pytest.raises(hs.HpcspinError, match=r"\(4, 3\) is no lattice"):
        hs.ClosedLattice((4, 3), 1.0, 2.5, 0.05, filling=1.0)


def test_a_run_says_what_it_has(tmp_path: Path) -> None:
    lattice = hs.make_lattice("square", (4, 3))
    spins = np.tile([0.0, 0.6, 0.8], (4, 3, 1))
    for path in (None, tmp_path / "run"):
        run = hs.simulate(lattice, Zeeman((0, 0, 1)), spins, step=0.1, duration=1, damping=0.1, path=path)
        assert {"time", "spins", "magnetization"} <= set(run.names) <= set(dir(run))
        assert repr(run).startswith("<finished run of ")
    with pytest.raises(hs.HpcspinError, match="no trajectory is in this directory"):
        hs.open_trajectory(tmp_path)


def test_results_and_models_print_one_line(system: hs.DrivenLattice) -> None:
    """Shapes, numbers and the largest error instead of whole arrays and networks, also of many snapshots or tensors."""
    spins = system.texture("wall", position=4)
    for given in (spins, torch.from_numpy(spins), np.stack([spins, spins])):
        state = system.solve(given, 1e-2)
        error, uncertain = (f"{float(one.max()):.1e}" for one in (state.error, state.current_error))
        assert repr(state).startswith("<SteadyState: field (")
        assert f", largest error {error}, current (" in repr(state)
        assert repr(state).endswith(f", largest current error {uncertain}>")
        assert "\n" not in repr(state)
    assert re.fullmatch(r"<Transport: bond_current \(2, 12, 6\), [^\n]*>", repr(system.transport(spins)))
    closed = hs.ClosedLattice(hs.make_lattice("square", (4, 3)), 1.0, 2.5, 0.05, filling=1.0)
    found = closed.solve(closed.texture("random", seed=1))
    assert f"energy {found.energy:.6g}, " in repr(found)
    land = hs.landscape(hs.make_lattice("square", (2, 1), (False, False)), Anisotropy(0.5))
    up = np.tile([0.0, 0.0, 1.0], (2, 1, 1))
    assert repr(land.minimise(up)) == "<Minimum: spins (2, 1, 3), torque 0, evaluations 1>"
    assert "\n" not in repr(land.path(up, -up, images=3, tolerance=1.0))
    assert "\n" not in repr(system)
    model = hs.load_model("driven_sd_fast")
    weights = sum(weight.numel() for weight in model.parameters())
    assert re.fullmatch(rf"<direct force field, square lattice: radius [^\n]*, {weights} weights>", repr(model))
    assert repr(Committee([model, model])) == f"<committee of 2: {model!r}>"


def test_systems_print_one_line_with_what_they_are_made_of(system: hs.DrivenLattice) -> None:
    """Numbers of sites and ranges instead of whole arrays; defaults are left out."""
    assert repr(system) == str(system)
    reservoirs = ", ".join(map(repr, system.reservoirs))
    assert re.fullmatch(
        rf"<DrivenLattice: lattice {re.escape(str(system.lattice))}, hopping 1.0, exchange 3.8, [^\n]*"
        rf"reservoirs \({re.escape(reservoirs)}\)>",
        repr(system),
    )
    lattice = hs.make_lattice("square", (4, 3))
    levels = np.linspace(-0.5, 1.5, 12).reshape(4, 3)
    closed = hs.ClosedLattice(lattice, 1.0, 2.5, 0.05, filling=1.0, on_site=levels, vacancies=levels > 1)
    assert repr(closed) == (
        f"<ClosedLattice: lattice {lattice}, hopping 1.0, exchange 2.5, temperature 0.05, on_site from -0.5 to 1.5, "
        "vacancies on 3 sites, solver diagonalization, filling 1.0>"
    )
    end = hs.Reservoir("left", lattice.mask("left"), 1.0, -0.5, (0.0, 0.0, 0.7))
    assert repr(end) == "<Reservoir left on 3 sites: width 1.0, potential -0.5, polarization (0.0, 0.0, 0.7)>"


def test_finished_labels_are_kept(system: hs.DrivenLattice, tmp_path: Path) -> None:
    spins, path = system.texture("wall", position=4), tmp_path / "labels.h5"
    hs.label(system, spins, path)
    before = path.read_bytes()
    hs.label(system, spins, path)
    with pytest.raises(hs.HpcspinError, match=r"belongs to another config: spins_sha256.*choose another output"):
        hs.label(system, system.texture("wall", position=5), path)
    assert path.read_bytes() == before


def test_sites_may_be_a_mask() -> None:
    """It was refused, of pinned spins and in a config that is a mapping."""
    lattice = hs.make_lattice("square", (4, 3))
    spins, mask = np.tile([0.0, 0.6, 0.8], (4, 3, 1)), np.zeros((4, 3), dtype=bool)
    mask[1, 2] = mask[3] = True
    for pinned in (mask, torch.from_numpy(mask), np.argwhere(mask)):
        run = hs.simulate(lattice, Zeeman((0, 0, 1)), spins, pinned=pinned, duration=0.4)
        assert np.array_equal((run.spins[-1] == run.spins[0]).all(axis=-1), mask)
    with pytest.raises(hs.HpcspinError, match=r"pinned: a mask of shape \(3, 4\) does not fit \(4, 3\) sites"):
        hs.simulate(lattice, Zeeman((0, 0, 1)), spins, pinned=mask.T, duration=0.4)
    system = hs.load_system({"lattice": {"size": (4, 3)}, "electrons": {"vacancies": mask, "potential": 0.0}})
    assert np.array_equal(system.vacancies, mask)


def test_parameters_may_be_numbers_of_numpy() -> None:
    """As those of a loop over `np.arange`; labels and runs, which store them, ended in a TypeError."""
    lattice, number = hs.make_lattice("square", (3, 3)), np.int64(1)
    left = hs.Reservoir("left", lattice.mask("left"), np.float32(0.5), number, np.array([0, 0, 0.5]))
    systems = [
        hs.DrivenLattice(lattice, number, number, np.float32(0.5), (left,), on_site=number, rashba=number),
        *(hs.ClosedLattice(lattice, 1.0, 1.0, np.array(0.1), **{key: number}) for key in ("potential", "filling")),
    ]
    for system in systems:
        again = hs.load_system(json.loads(json.dumps(system.as_config())))
        assert again.as_config() == system.as_config()
    assert left not in [copy.copy(left)]  # Comparing their masks ended in a ValueError.


@pytest.mark.parametrize("name", ["driven_sd_fast", "driven_sd_pair"])
def test_a_model_in_double_precision_has_the_field_of_before(system: hs.DrivenLattice, name: str) -> None:
    """The kernels read its weights as if they were of single precision: the field was NaN, or any number."""
    model, spins = hs.load_model(name), system.texture("wall", position=4)
    allow = ["electrons.temperature"]
    field = model.field(spins, system, allow)
    np.testing.assert_allclose(model.double().field(spins, system, allow), field, rtol=0, atol=1e-5)
    assert np.array_equal(model.float().field(spins, system, allow), field)
