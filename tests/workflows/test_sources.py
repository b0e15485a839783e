"""Spins of any origin start simulations and are labelled; what cannot be taken is told by what it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin import load_system
from hpcspin.config import load_config
from hpcspin.dynamics import WholeLatticeField
from hpcspin.dynamics.energies import energy, spin_temperature
from hpcspin.errors import HpcspinError, one_line
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import SpinsFile, read_ovf, spins, write_ovf
from hpcspin.workflows.export import export
from hpcspin.workflows.label import label_file
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.suggest_step import suggest_step

CLASSICAL = [
    "dynamics.field=classical",
    "dynamics.classical.heisenberg=1",
    "dynamics.step=0.1",
    "dynamics.duration=0.4",
]
Cli = Callable[..., subprocess.CompletedProcess[str]]


def first_frame(directory: Path) -> np.ndarray:
    return SpinsFile(directory, None).read(0)[0]


def simulate(config: Path, output: Path, *overrides: str) -> int:
    return simulate_directory(load_config(config, [*CLASSICAL, *overrides]), output, World())


def from_file(path: Path) -> list[str]:
    return [f"initial={{kind: file, path: {path}}}"]


@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_a_simulation_starts_from_all_of_them(config: Path, tmp_path: Path, kind: str) -> None:
    on = [f"lattice.kind={kind}"]
    simulate(config, tmp_path / "a", *on)
    last = SpinsFile(tmp_path / "a", None).read(-1)[0]
    np.save(tmp_path / "one.npy", last)
    lattice = make_lattice(kind, (6, 4))
    places = lattice.cartesian(lattice.sites)
    write_ovf(tmp_path / "one.ovf", last, places, title="spins", unit="1", time=0.0)
    for name, source in {"b": tmp_path / "a", "c": tmp_path / "one.npy", "d": tmp_path / "one.ovf"}.items():
        simulate(config, tmp_path / name, *on, *from_file(source))
        assert np.array_equal(first_frame(tmp_path / name), last)


def test_an_unfinished_simulation_is_taken_with_a_warning(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "STOP").touch()
    assert simulate(config, tmp_path / "a") == 75
    with caplog.at_level("INFO"):
        simulate(config, tmp_path / "b", *from_file(tmp_path / "a"))
    assert f"warning: {tmp_path / 'a'}: the simulation is not finished" in caplog.text
    assert np.array_equal(first_frame(tmp_path / "b"), first_frame(tmp_path / "a"))


def test_label_takes_what_simulations_start_from(config: Path, spins_file: Path, tmp_path: Path) -> None:
    """And the labels have the same bits whatever the snapshots came in."""
    given = SpinsFile(spins_file, (6, 4)).read(slice(0, 2))
    np.save(tmp_path / "two.npy", given)
    (tmp_path / "ovf").mkdir()
    for n, one in enumerate(given):
        lattice = make_lattice("square", (6, 4))
        places = lattice.cartesian(lattice.sites)
        write_ovf(tmp_path / "ovf" / f"m{n}.ovf", one, places, title="m", unit="1", time=0.0)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["spins"] = given
    found = []
    for source in ("two.npy", "ovf", "two.h5"):
        label_file(load_config(config), tmp_path / source, tmp_path / "out" / f"{source}.h5", World())
        with h5py.File(tmp_path / "out" / f"{source}.h5") as file:
            found.append({name: file[name][...] for name in file})
    for other in found[1:]:
        assert all(np.array_equal(other[name], array) for name, array in found[0].items())


def test_label_never_holds_more_than_it_solves(
    config: Path, spins_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    read = spins.read_rows
    monkeypatch.setattr(spins, "read_rows", lambda *args: taken.append(read(*args)) or taken[-1])
    monkeypatch.setattr(spins, "_NUMBERS_AT_ONCE", 2 * 6 * 4 * 3)
    label_file(load_config(config), spins_file, tmp_path / "out.h5", World())
    # The first one for its size, all in the check, and each to be solved and to be written.
    assert [len(rows) for rows in taken] == [1, 2, 2, 1, *(2 * 5 * [1])]


def test_label_refuses_a_billion_frames_that_nobody_has_written(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("spins", (10**9, 6, 4, 3), "f8", chunks=(1, 6, 4, 3), compression="gzip")
    result = hpcspin("label", config, "--spins", tmp_path / "in.h5", "--output", tmp_path / "out.h5")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "in.h5: /spins declares the shape (1000000000, 6, 4, 3), but not all of it has been written" in line
    assert not list(tmp_path.glob("out*"))


def test_a_torn_trajectory_is_named_with_what_to_delete(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleting the files that the message names is enough to start again, with the bits of an undisturbed run.

    Where there is no checkpoint to go on from, the run starts again by itself, and says so.
    """
    caplog.set_level("INFO", "hpcspin")
    run, partial = tmp_path / "run", tmp_path / "run" / "trajectory.h5.partial"
    simulate(config, tmp_path / "whole", "dynamics.duration=0.8")
    simulate(config, run)
    finished = (run / "trajectory.h5").read_bytes()
    run.joinpath("STOP").touch()
    simulate(config, run, "dynamics.duration=0.8")
    content = partial.read_bytes()
    for torn in (content[:300], content[:-9], b"", bytes(len(content))):
        partial.write_bytes(torn)
        with pytest.raises(HpcspinError, match=r"trajectory\.h5\.partial: .*; delete it to go on from the finished"):
            simulate(config, run, "dynamics.duration=0.8")
        (run / "trajectory.h5").unlink()
        with pytest.raises(HpcspinError, match=r"delete it, checkpoint\.h5 and .*\.h5 to start again"):
            simulate(config, run, "dynamics.duration=0.8")
        (run / "trajectory.h5").write_bytes(finished)
    partial.unlink()
    shutil.copytree(run, tmp_path / "anew")
    for path in (tmp_path / "anew").iterdir():
        path.unlink()
    (tmp_path / "anew" / partial.name).write_bytes(content[:300])
    for directory in (run, tmp_path / "anew"):
        caplog.clear()
        assert simulate(config, directory, "dynamics.duration=0.8") == 0
        assert ("the run starts anew" in caplog.text) == (directory != run)
        assert np.array_equal(SpinsFile(directory, None).read(), SpinsFile(tmp_path / "whole", None).read())


def test_an_observer_without_energy_is_told_in_the_words_of_the_config() -> None:
    lattice = make_lattice("square", (3, 3))
    field = WholeLatticeField(lambda spins: None, {"density": (3, 3), "current": (1,), "error": ()})
    up = np.zeros((3, 3, 3))
    up[..., 2] = 1
    for call in (lambda: energy(field, lattice, up, 0.0), lambda: spin_temperature(field, lattice, up, up)):
        with pytest.raises(
            HpcspinError, match=r"^dynamics\.observers: \w+ needs a field with a known energy"
        ) as failure:
            call()
        assert "WholeLatticeField" not in str(failure.value)


def test_a_memory_that_is_too_small_is_told() -> None:
    with pytest.raises(MemoryError) as failure:
        np.ones(2**59)
    assert one_line(failure.value).startswith("out of memory: Unable to allocate")


def test_zeros_of_an_export_are_read_at_vacancies_and_nowhere_else(config: Path, tmp_path: Path) -> None:
    """As OOMMF writes and reads what lies outside a magnet."""
    holes = ["electrons.vacancies={columns: [4, 4]}"]
    simulate(config, tmp_path / "run", *holes)
    export(tmp_path / "run", "ovf", tmp_path / "ovf", World())
    exported = read_ovf(sorted((tmp_path / "ovf").glob("spins_*.ovf"))[-1])
    assert np.array_equal(~exported.any(axis=-1), np.arange(6)[:, None] * np.ones(4) == 4)
    given = [*holes, *from_file(tmp_path / "ovf")]
    simulate(config, tmp_path / "again", *given)
    assert np.array_equal(np.delete(first_frame(tmp_path / "again"), 4, axis=0), np.delete(exported, 4, axis=0))
    suggest_step(load_config(config, [*CLASSICAL, *given]), World(), 1)
    assert label_file(load_config(config, holes), tmp_path / "ovf", tmp_path / "out.h5", World()) == 0
    system = load_system(str(config), *holes)
    solved = system.solve(exported)
    assert np.array_equal(solved.field, system.solve(system.texture("file", path=tmp_path / "ovf")).field)
    with pytest.raises(HpcspinError, match=r"spin \(4, 4, 0\) has length 0, not 1; .*electrons\.vacancies"):
        simulate(config, tmp_path / "other", *from_file(tmp_path / "ovf"))
