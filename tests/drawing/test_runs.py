"""Curves of a run are the measures of its frames, a run differs from itself by nothing, and films have its frames."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcspin.drawing.lattice_figures import flow_maps
from hpcspin.drawing.runs import difference, draw_run, plot_runs
from hpcspin.drawing.series import QUANTITIES, averaged, read_series, some_frames
from hpcspin.dynamics import OBSERVERS, Frame
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture, scalar_chirality
from hpcspin.parallel.world import World
from hpcspin.storage import FrameReader, TrajectoryWriter
from hpcspin.workflows.export import export

SIZE, WALLS = (12, 4), (4, 5, 7)


def write_run(directory: Path, kind: str = "square", written: int = len(WALLS), walls: tuple[int, ...] = WALLS) -> Path:
    """A wall that moves to the right, with currents; unfinished where fewer frames are written."""
    lattice = make_lattice(kind, SIZE)
    electrons = {"reservoirs": [{"name": "left"}, {"name": "right"}]}
    attributes = {
        "config": {"lattice": {"kind": kind, "size": SIZE, "periodic": [False, True]}, "electrons": electrons}
    }
    shapes = {"current": (2,), "density": SIZE}
    writer = TrajectoryWriter(directory / "trajectory.h5", SIZE, attributes, len(walls), shapes)
    for number, wall in enumerate(walls[:written]):
        spins = make_texture("wall", lattice, 1, position=wall, tilt=0.05)
        observed = {"current": [number, -number], "density": np.full(SIZE, 1.0 + number)}
        writer.append(spins=spins, field=spins, step=number, time=0.5 * number, **observed)
    if written == len(walls):
        writer.finish()
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return write_run(tmp_path / "run")


def test_curves_are_the_measures_of_the_frames(run: Path) -> None:
    series = read_series(run)
    np.testing.assert_array_equal(series.time, [0, 0.5, 1])
    np.testing.assert_allclose(series.curves["wall position (columns)"][""], np.array(WALLS) - 0.5, atol=0.1)
    np.testing.assert_array_equal(series.curves["current out of a reservoir (t/ħ)"]["right"], [0, -1, -2])
    spin = series.curves["magnetisation"]
    np.testing.assert_allclose(spin["length"] ** 2, spin["x"] ** 2 + spin["y"] ** 2 + spin["z"] ** 2)


@pytest.mark.parametrize("vacancies", [[], [[2, 1], [11, 0]]])
def test_curves_and_maps_are_those_of_the_observers_around_vacancies_too(run: Path, vacancies: list[list[int]]) -> None:
    """Neither the bonds of an open edge count more than others, nor does the spin that a file holds for a vacancy."""
    with h5py.File(run / "trajectory.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        config["electrons"]["vacancies"] = vacancies
        file.attrs["config"] = json.dumps(config)
        spins = file["spins"][:]
    lattice, vacant = make_lattice("square", SIZE), np.zeros(SIZE, dtype=bool)
    vacant[tuple(np.array(vacancies, dtype=int).reshape(-1, 2).T)] = True
    spins[:, vacant] = np.nan
    curves = read_series(run).curves
    for curve, name in (("mean bond", "mean_bond"), ("mean chirality", "mean_chirality")):
        frames = [Frame(lattice, one, one, 0.0, None, ~vacant) for one in spins]
        np.testing.assert_array_equal(curves[curve][""], [OBSERVERS[name].measure(frame) for frame in frames])
    np.testing.assert_allclose(curves["magnetisation"]["z"], np.nanmean(spins[..., 2], axis=(1, 2)), atol=1e-14)
    with FrameReader(run / "trajectory.h5") as read:
        for name in ("bonds", "sz"):
            assert np.isnan(QUANTITIES[name].measure(lattice, read, 0)[vacant]).all()
        chirality = QUANTITIES["chirality"].measure(lattice, read, 0)
        np.testing.assert_array_equal(chirality, scalar_chirality(lattice, spins[0]))


def test_an_unfinished_run_is_measured_so_far(tmp_path: Path) -> None:
    assert len(read_series(write_run(tmp_path, written=2)).time) == 2


def test_a_run_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match="give the directory of a simulation"):
        read_series(tmp_path)
    with pytest.raises(HpcspinError, match="no such file"):
        read_series(tmp_path / "absent")


def test_a_run_differs_from_itself_by_nothing_and_from_a_shorter_one_where_both_are(run: Path, tmp_path: Path) -> None:
    whole, part = read_series(run), read_series(write_run(tmp_path, written=2, walls=(4, 6, 7)))
    _, nothing = difference(whole, whole)
    assert all(not one.any() for curves in nothing.values() for one in curves.values())
    time, apart = difference(whole, part)
    np.testing.assert_array_equal(time, [0, 0.5])
    np.testing.assert_allclose(apart["wall position (columns)"][""], [0, 1], atol=0.1)


def test_what_a_user_adds_to_a_file_is_no_number_of_its_frames(run: Path) -> None:
    expected = set(read_series(run).curves)
    with h5py.File(run / "trajectory.h5", "r+") as file:
        file["remark"], file["masses"], file["note"] = 3.0, np.ones(2), "second try"
        file["load"] = np.ones(len(WALLS))
    assert set(read_series(run).curves) == expected | {"load"}


@pytest.mark.parametrize("name", ["current", "density", "energy"])
def test_numbers_of_another_shape_than_they_have_are_refused(run: Path, name: str) -> None:
    with h5py.File(run / "trajectory.h5", "r+") as file:
        file.pop(name, None)
        file[name] = np.ones((len(WALLS), 2, 2, 2))
    with pytest.raises(HpcspinError, match=f"/{name} has shape"):
        read_series(run)


def test_spins_on_another_lattice_than_that_of_the_config_are_refused(run: Path, tmp_path: Path) -> None:
    """As many sites in other rows would be exported in the wrong places."""
    with h5py.File(run / "trajectory.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        config["lattice"]["size"] = SIZE[::-1]
        file.attrs["config"] = json.dumps(config)
    for work in (lambda: read_series(run), lambda: export(run, "ovf", tmp_path / "ovf", World())):
        with pytest.raises(HpcspinError, match=r"/spins has shape \(3, 12, 4, 3\); give \(n, 4, 12, 3\)"):
            work()


def test_dollar_signs_in_names_begin_no_formula(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "$x^$"
    other.mkdir()
    write_run(other)
    with h5py.File(other / "trajectory.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        config["electrons"]["reservoirs"][1]["name"] = r"$\frac{$"
        file.attrs["config"] = json.dumps(config)
        file["$y^$"] = np.ones(len(WALLS))
    plot_runs([read_series(other), read_series(run)], tmp_path / "plot.svg")
    assert all(name in (tmp_path / "plot.svg").read_text() for name in ("$x^$", r"$\frac{$", "$y^$"))
    draw_run(other, QUANTITIES["bonds"], tmp_path / "map.svg", 1, World())
    assert "$x^$, t = 0" in (tmp_path / "map.svg").read_text()


@pytest.mark.parametrize(("ending", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plots_are_of_the_format_that_the_name_says(run: Path, tmp_path: Path, ending: str, head: bytes) -> None:
    series = read_series(run)
    plot_runs([series, series], tmp_path / f"plot.{ending}")
    assert (tmp_path / f"plot.{ending}").read_bytes().startswith(head)


def test_runs_without_a_time_in_common_are_refused(run: Path, tmp_path: Path) -> None:
    one = read_series(run)
    with pytest.raises(HpcspinError, match="nothing at the same times"):
        plot_runs([one, type(one)("late", one.lattice, one.time + 0.1, one.curves)], tmp_path / "plot.svg")
    assert not (tmp_path / "plot.svg").exists()


def test_a_panel_of_what_only_one_run_has_recorded_says_so(run: Path, tmp_path: Path) -> None:
    one = read_series(run)
    other = {what: found for what, found in one.curves.items() if not what.startswith("current")}
    plot_runs([one, replace(one, curves=other)], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("recorded in one run only") == 1


def test_numbers_of_frames_are_labelled_with_their_units(run: Path) -> None:
    with h5py.File(run / "trajectory.h5", "r+") as file:
        for name in ("error", "deviation", "outside_share"):
            file[name] = np.ones(len(WALLS))
    assert {"estimated error of the exact field (t)", "deviation (t)", "outside share"} <= set(read_series(run).curves)


def test_no_current_is_drawn_beyond_an_open_edge(tmp_path: Path) -> None:
    lattice = make_lattice("square", (4, 3), (False, True))
    flows = {"bond_current": np.ones((2, 4, 3)), "bond_spin_current": np.ones((2, 4, 3, 3))}
    spins = make_texture("ferromagnet", lattice, 1)
    flow_maps(lattice, lattice.bonds, spins, flows, [], tmp_path / "flows.svg")
    text = (tmp_path / "flows.svg").read_text()
    lines = text.split('id="LineCollection_1"')[1].split("</g>")[0]
    assert lines.count("<path") == 3 * 3 + 4 * 3  # along x and along y
    assert text.count(">x (lattice constants)<") == 2


def test_transmissions_are_curves_over_the_energy_from_each_reservoir_into_each_other(tmp_path: Path) -> None:
    """No figure had them; and of a hundred energies with a map each it was too wide to be written."""
    lattice, energies = make_lattice("square", (4, 3), (False, True)), np.linspace(-1, 0.5, 20).tolist()
    flows = {"bond_current": np.ones((2, 4, 3)), "bond_spin_current": np.ones((2, 4, 3, 3))}
    flows |= {"ldos": np.ones((20, 4, 3)), "transmission": np.full((20, 2, 2), 0.5)}
    spins = make_texture("ferromagnet", lattice, 1)
    flow_maps(lattice, lattice.bonds, spins, flows, energies, tmp_path / "flows.svg", ["left", "right"])
    text = (tmp_path / "flows.svg").read_text()
    assert text.count(">x (lattice constants)<") == 2 + 5
    assert {">left to right<", ">right to left<", ">transmission<"} <= set(re.findall(">[a-z ]+<", text))


def test_a_film_has_the_frames_of_the_run(run: Path, tmp_path: Path) -> None:
    assert draw_run(run, QUANTITIES["bonds"], tmp_path / "wall.gif", 10, World()) == len(WALLS)
    with Image.open(tmp_path / "wall.gif") as image:
        assert image.n_frames == len(WALLS)
        first = np.asarray(image.convert("RGB"), dtype=int)
        image.seek(2)
        assert (np.asarray(image.convert("RGB"), dtype=int) != first).any()


def test_what_was_not_recorded_and_unknown_formats_are_refused(run: Path, tmp_path: Path) -> None:
    for quantity, name in (("error", "a.gif"), ("bonds", "a.avi")):
        with pytest.raises(HpcspinError):
            draw_run(run, QUANTITIES[quantity], tmp_path / name, 10, World())
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("coarse", [2, 3])
def test_coarse_cells_are_means_of_their_sites(coarse: int) -> None:
    values = np.random.default_rng(1).normal(size=(6, 5))
    values[0, 0] = np.nan
    cells = averaged(values, coarse)
    assert cells[0, 0] == pytest.approx(np.nanmean(values[:coarse, :coarse]))
    last = values[-coarse:, -(5 % coarse) :]
    assert cells[-1, -1] == pytest.approx(last.mean())


def test_some_frames_are_the_first_the_last_and_equally_spaced() -> None:
    assert some_frames(11, 6) == [0, 2, 4, 6, 8, 10]
    assert some_frames(3, 10) == [0, 1, 2]
