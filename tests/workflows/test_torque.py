"""The verb ``torque``, and laws of the torque of a polarised current."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcspin.assembly.system import build_system
from hpcspin.config import Config, load_config
from hpcspin.dynamics.spin_transfer import spin_transfer
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.workflows import torque
from hpcspin.workflows.torque import Magnet, at_voltage, bracket, outside

Cli = Callable[..., subprocess.CompletedProcess[str]]

VALVE = """
lattice: {kind: square, size: [4, 3], periodic: [false, true]}
electrons:
  exchange: 3.8
  temperature: 0.01
  tolerance: 1.0e-9
  solver: closed_form
  reservoirs:
    - {name: left,  sites: left,  width: 1.0,   potential: -3.8, polarization: [0, 0, 0.7]}
    - {name: right, sites: right, width: 1.0,   potential: -3.8}
    - {name: bath,  sites: all,   width: 0.001, potential: -3.8}
torque:
  voltages: [-0.4, 0, 0.4]
  angles: [40, 110]
  switching: {voltages: [0.2, 0.8], start: antiparallel}
dynamics: {damping: 0.02, observers: [magnetization], classical: {anisotropy: 0.05}}
"""


@pytest.fixture
def valve(tmp_path: Path) -> Path:
    path = tmp_path / "valve.yaml"
    path.write_text(VALVE)
    return path


def damping_like(config: Config, voltage: float) -> np.ndarray:
    magnet, system = Magnet.of(config), build_system(at_voltage(config, voltage))
    spins = np.stack([magnet.turned(angle) for angle in (40, 110)])
    return magnet.transfer(spins, system.solve(spins).field).damping_like


def test_the_damping_like_torque_vanishes_in_equilibrium_and_is_odd_in_the_voltage(valve: Path) -> None:
    even = []
    for width in (0.01, 0.001):
        config = load_config(valve, [f"electrons.reservoirs.2.width={width}"])
        assert np.abs(damping_like(config, 0.0)).max() < 1e-8
        forward, back = damping_like(config, 0.4), damping_like(config, -0.4)
        assert np.abs(forward).min() > 1e-3
        even.append(np.abs(forward + back).max() / 2)
    assert even[1] < 2e-5
    assert even[1] < even[0] / 3


def test_all_ranks_take_labels_as_there_where_rank_0_sees_them(
    valve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server may show a file to the others later: they would begin to label, and wait for rank 0 for ever."""

    class Second(World):
        def broadcast(self, value: Any) -> Any:
            return True

    config = load_config(valve)
    spins = Magnet.of(config).turned(40)[None]
    labels = SimpleNamespace(field=spins, others={"current": np.ones((1, 3)), "error": np.zeros(1)})
    monkeypatch.setattr(torque, "read_labels", lambda path, size: labels)
    monkeypatch.setattr(torque, "write_label_file", lambda *given: pytest.fail("it begins to label"))
    fields, _ = torque._fields(config, 0.4, spins, tmp_path / "unseen.h5", Second(1, 2))
    assert fields == {"exact": spins}


def test_an_unpolarised_current_has_no_torque_on_a_uniform_magnet(valve: Path) -> None:
    config = load_config(valve, ["electrons.reservoirs.0.polarization=[0,0,0]", "torque.axis=[0,0,1]"])
    assert np.abs(damping_like(config, 0.4)).max() < 1e-9


def test_the_torque_turns_with_spins_and_polarisation(valve: Path) -> None:
    along_z = load_config(valve)
    along_y = load_config(valve, ["electrons.reservoirs.0.polarization=[0,0.7,0]"])
    np.testing.assert_allclose(damping_like(along_z, 0.4), damping_like(along_y, 0.4), atol=1e-9)


def test_spins_outside_the_magnet_stand_along_the_axis(valve: Path) -> None:
    magnet = Magnet.of(load_config(valve, ["torque.free=[2,3]"]))
    spins = magnet.turned(60)
    np.testing.assert_allclose(spins[..., 2], [[1] * 3, [1] * 3, [0.5] * 3, [0.5] * 3], atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(spins, axis=-1), 1)


def test_an_easy_axis_damps_a_rigid_magnet_by_twice_its_constant(hpcspin: Cli, valve: Path, tmp_path: Path) -> None:
    growth = []
    for number, constant in enumerate((0.05, 0.15)):
        output, anisotropy = tmp_path / f"{number}", f"dynamics.classical.anisotropy={constant}"
        assert hpcspin("torque", valve, "--output", output, "torque.angles=[90]", anisotropy).returncode == 0
        rows = [row for row in table(output / "switching.csv") if row["field"] == "macrospin"]
        growth.append(np.array([float(row["growth"]) for row in rows]))
    # One spin after the other is tilted by a degree, and the response is linear up to its square.
    np.testing.assert_allclose(growth[0] - growth[1], 2 * 0.02 * 0.1 / (1 + 0.02**2), rtol=1e-3)


def test_pinned_spins_and_vacancies_are_no_part_of_what_becomes_unstable(
    hpcspin: Cli, valve: Path, tmp_path: Path
) -> None:
    free, vacancy, output = (1, 1), (1, 0), tmp_path / "out"
    pinned = [[x, y] for x in range(4) for y in range(3) if (x, y) != free]
    changes = [
        f"electrons.vacancies=[{list(vacancy)}]",
        f"dynamics.pinned={pinned}",
        "dynamics.classical.heisenberg=0.2",
    ]
    assert hpcspin("torque", valve, "--output", output, "torque.angles=[90]", *changes).returncode == 0
    config, alpha = load_config(valve, changes), 0.02
    (spins,) = Magnet.of(config).deviations(180, 1)
    for row in table(output / "switching.csv"):
        field = build_system(at_voltage(config, float(row["voltage"]))).solve(spins).field
        a, b = spin_transfer(spins[free], field[free], [0, 0, -1])
        # Three of its four neighbours are there.
        np.testing.assert_allclose(
            float(row["growth"]), -(a + alpha * (b + 2 * 0.05 + 3 * 0.2)) / (1 + alpha**2), rtol=1e-3
        )


def test_the_verb_writes_tables_figures_and_numbers_and_goes_on(hpcspin: Cli, valve: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = hpcspin("torque", valve, "--output", output)
    assert result.returncode == 0, result.stderr
    rows = table(output / "torque.csv")
    assert len(rows) == 6
    found: dict[str, Any] = json.loads((output / "numbers.json").read_text())
    assert found["largest_even_part"] < 2e-5
    config = load_config(valve)
    stored = [float(row["damping_like"]) for row in rows if row["voltage"] == "0.4"]
    np.testing.assert_allclose(stored, damping_like(config, 0.4), atol=1e-9)
    growth = table(output / "switching.csv")
    assert {row["field"] for row in growth} == {"exact", "macrospin"}
    assert all(float(row["growth"]) < 0 for row in growth if row["voltage"] == "0.2")
    files = sorted(path for path in output.rglob("*") if path.suffix in (".csv", ".h5", ".json"))
    before = [path.read_bytes() for path in files]
    (output / "torque.csv").unlink()
    assert hpcspin("torque", valve, "--output", output).returncode == 0
    assert [path.read_bytes() for path in files] == before
    assert all((output / name).stat().st_size for name in ("torque.png", "switching.png"))


def test_exact_torques_and_currents_have_errors_that_follow_from_those_of_the_labels(
    hpcspin: Cli, valve: Path, tmp_path: Path
) -> None:
    changes = ["torque.switching.tilt=10", "torque.voltages=[0.4]", "torque.free=[1,3]"]
    for solver, tolerance in (("closed_form", 1e-9), ("negf", 0.03)):
        own = (f"electrons.solver={solver}", f"electrons.tolerance={tolerance}")
        result = hpcspin("torque", valve, "--output", tmp_path / solver, *changes, *own)
        assert result.returncode == 0, result.stderr
    rows = zip(table(tmp_path / "negf" / "torque.csv"), table(tmp_path / "closed_form" / "torque.csv"), strict=True)
    with h5py.File(tmp_path / "negf" / "labels" / "00.h5") as file:
        errors = np.stack([file["error"], file["current_error"]], axis=1)
    for (row, exact), (field, current) in zip(rows, errors, strict=True):
        bound = 3**0.5 * 3 * field / np.sin(np.deg2rad(float(row["angle"])))
        assert float(row["torque_error"]) == pytest.approx(bound, rel=1e-12)
        assert float(row["current_error"]) == pytest.approx(current / 3, rel=1e-12)
        for column in ("damping_like", "field_like"):
            assert 0 < abs(float(row[column]) - float(exact[column])) < bound
        assert 0 < abs(float(row["current"]) - float(exact["current"])) < current / 3
    rows = zip(
        table(tmp_path / "negf" / "switching.csv"), table(tmp_path / "closed_form" / "switching.csv"), strict=True
    )
    for row, exact in rows:
        assert 0 < abs(float(row["growth"]) - float(exact["growth"])) < float(row["growth_error"])
        assert float(exact["growth_error"]) < 1e-9
    mean, better = (
        json.loads((tmp_path / solver / "numbers.json").read_text())["slonczewski"][0]
        for solver in ("negf", "closed_form")
    )
    assert 0 < abs(mean["coefficient"] - better["coefficient"]) < mean["coefficient_error"]


def test_a_sweep_compares_torques(hpcspin: Cli, valve: Path, tmp_path: Path) -> None:
    given = ("torque.switching=null", "torque.voltages=[0.4]", "torque.angles=[90]", "--output", tmp_path / "out")
    done = hpcspin("sweep", valve, "--run", "torque", "--vary", "electrons.exchange=1,3.8", *given)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "sweep.csv").open()))
    for row, exchange in zip(rows, (1, 3.8), strict=True):
        config = load_config(valve, [f"electrons.exchange={exchange}"])
        magnet, system = Magnet.of(config), build_system(at_voltage(config, 0.4))
        exact = magnet.transfer(spins := magnet.turned(90), system.solve(spins).field)
        assert float(row["slonczewski.exact.0.4"]) == pytest.approx(exact.damping_like, rel=1e-6)
        assert "provenance" not in row


def test_runs_leave_their_direction_where_deviations_grow(hpcspin: Cli, valve: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    changes = [
        "torque.shares={left: -0.5, right: 0.5}",
        "torque.switching={voltages: [0.9, 0.1], start: antiparallel, precision: 1.0}",
        "dynamics={damping: 0.2, integrator: rk4, step: 0.5, duration: 40, observers: [magnetization], "
        "classical: {anisotropy: 0.15, heisenberg: 0.3}}",
    ]
    result = hpcspin("torque", valve, "--output", output, "torque.angles=[90]", *changes)
    assert result.returncode == 0, result.stderr
    leaves = {row["voltage"]: row["leaves"] == "True" for row in table(output / "runs.csv")}
    exact = [row for row in table(output / "switching.csv") if row["field"] == "exact"]
    assert leaves == {row["voltage"]: float(row["growth"]) > 0 for row in exact} == {"0.9": True, "0.1": False}
    assert json.loads((output / "numbers.json").read_text())["critical_voltage_of_runs"] == {"exact": 0.5}
    assert (output / "runs.png").stat().st_size


def test_runs_move_the_spins_of_which_the_stability_is(hpcspin: Cli, valve: Path, tmp_path: Path) -> None:
    changes = [
        "torque.free=[1,2]",
        "torque.switching={voltages: [0.1, 0.9], precision: 1.0}",
        "dynamics={damping: 0.2, step: 0.5, duration: 1, observers: [], pinned: [[2, 1]]}",
    ]
    result = hpcspin("torque", valve, "--output", tmp_path / "out", "torque.angles=[90]", *changes)
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "out" / "runs" / "exact_0.9" / "trajectory.h5") as file:
        moved = (file["spins"][-1] != file["spins"][0]).any(axis=-1)
    assert np.array_equal(moved, Magnet.of(load_config(valve, changes)).moving)


@given(st.sets(st.floats(0.01, 1), min_size=2), st.floats(0, 1), st.sampled_from([-1, 1]))
def test_a_bracket_is_the_pair_between_which_runs_begin_to_leave(sizes: set[float], critical: float, sign: int) -> None:
    leaves = {sign * size: size >= critical for size in sizes}
    found = bracket(leaves)
    if found is None:
        assert not any(leaves.values()) or leaves[sign * min(sizes)]
    else:
        assert abs(found[0]) < critical <= abs(found[1])
        assert not any(abs(found[0]) < size < abs(found[1]) for size in sizes)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("torque.shares={lft: 1}", "no reservoir 'lft'"),
        ("torque.free=[2, 4]", "columns 0 to 3"),
        ("electrons.reservoirs.1.polarization=[0.5, 0, 0]", "torque.axis"),
        ("torque.angles=[180]", "torque.angles"),
        ("electrons.reservoirs.0.polarization=[0.7, 0, 0]", "axis [1.0, 0.0, 0.0], and dynamics.classical is not"),
        ("dynamics.classical.dmi_interfacial=0.1", "axis [0.0, 0.0, 1.0], and dynamics.classical is not"),
        ("dynamics.classical.drives=[{kind: sinusoid, frequency: 1, field: [0, 0, 1]}]", "classical.drives is not"),
        ("electrons.rashba=0.1", "electrons.rashba is not"),
        ("torque.axis=[0, 1, 1]", "symmetric under rotations"),
        ("dynamics.pinned=all", "no spin in these columns can move"),
        ("torque.voltages=[0.4, 4000]", "potentials differ by 4000"),
        ("torque.switching.voltages=[0.4, 4000]", "potentials differ by 4000"),
        ("torque.voltages=[0.4, 0, 0.4]", "torque.voltages: the value 0.4 would count twice; give it once"),
        ("torque.angles=[30, 60, 30]", "torque.angles: the value 30 would count twice; give it once"),
        ("torque.switching.voltages=[0.4, 0.4]", "torque.switching.voltages: the value 0.4 would count twice"),
        ("torque.model=driven_sd_fast", "take potential.drive: polarized"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(hpcspin: Cli, valve: Path, tmp_path: Path, override: str, said: str) -> None:
    result = hpcspin("torque", valve, "--output", tmp_path / "out", override)
    assert result.returncode != 0
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_critical_voltage_outside_the_given_ones_has_a_side(valve: Path) -> None:
    assert outside({-0.2: False, -0.4: False}) == "|V| > 0.4"
    assert outside({0.4: True, 0.2: True}) == "|V| < 0.2"
    with pytest.raises(HpcspinError, match="voltages of one sign"):
        load_config(valve, ["torque.switching.voltages=[-0.2,0.2]"])
