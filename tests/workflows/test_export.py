"""Exports read back by readers written from the formats' specifications."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import TrajectoryWriter, write_labels
from hpcspin.workflows.export import Format, export

Cli = Callable[..., subprocess.CompletedProcess[str]]
SIZE, FRAMES = (4, 3), 3
kinds = pytest.mark.parametrize("kind", ["square", "triangular"])


def places(kind: str) -> np.ndarray:
    return make_lattice(kind, SIZE).cartesian(np.moveaxis(np.indices(SIZE), 0, -1))


def trajectory(directory: Path, kind: str, written: int = FRAMES, **config: Any) -> dict[str, np.ndarray]:
    """A trajectory of random vectors in a directory; returns its content."""
    random = np.random.default_rng(3)
    frames = {name: random.normal(size=(FRAMES, *SIZE, 3)) for name in ("spins", "field")}
    frames |= {"bond_map": random.normal(size=(FRAMES, *SIZE)), "time": np.array([0.0, 0.4, 1.2])}
    frames |= {"step": np.array([0, 1, 3]), "magnetization": random.normal(size=(FRAMES, 3))}
    attributes = {"config": {"lattice": {"kind": kind, "size": SIZE, "periodic": [False, True]}, **config}}
    observables = {"bond_map": SIZE, "magnetization": (3,)}
    writer = TrajectoryWriter(directory / "trajectory.h5", SIZE, attributes, FRAMES, observables)
    for frame in range(written):
        writer.append(**{name: values[frame] for name, values in frames.items()})
    if written == FRAMES:
        writer.finish()
    return frames


def read_ovf(path: Path) -> tuple[dict[str, str], np.ndarray]:
    """Header and data, one row a node, x running fastest; strict about what the specification requires."""
    content = path.read_bytes()
    start = re.search(rb"# Begin: Data (Text|Binary 8|Binary 4)\n", content)
    assert start is not None
    head = content[: start.start()].decode("ascii").splitlines()
    assert head[0] == "# OOMMF OVF 2.0"
    assert head[1:4] == ["# Segment count: 1", "# Begin: Segment", "# Begin: Header"]
    assert head[-1] == "# End: Header"
    header = dict(line.removeprefix("# ").split(": ", 1) for line in head[4:-1])
    required = {"Title", "valuedim", "valuelabels", "valueunits", "meshunit", "meshtype"}
    assert required | {axis + end for axis in "xyz" for end in ("min", "max")} <= set(header)
    columns = int(header["valuedim"])
    if header["meshtype"] == "irregular":
        rows, columns = int(header["pointcount"]), columns + 3
    else:
        rows = int(np.prod([int(header[f"{axis}nodes"]) for axis in "xyz"]))
    kind, body = start[1], content[start.end() :]
    closing = b"# End: Data " + kind + b"\n# End: Segment\n"
    assert body.endswith(closing)
    body = body.removesuffix(closing)
    if kind == b"Text":
        return header, np.array(body.split(), dtype=float).reshape(rows, columns)
    width, check = int(kind[-1:]), {b"4": 1234567.0, b"8": 123456789012345.0}[kind[-1:]]
    assert len(body) == width * (1 + rows * columns) + 1
    numbers = np.frombuffer(body[:-1], dtype=f"<f{width}").astype(float)
    assert numbers[0] == check
    return header, numbers[1:].reshape(rows, columns)


@pytest.mark.parametrize("target", ["ovf", "ovf-binary4", "ovf-text"])
@kinds
def test_ovf_holds_every_vector_at_its_place(tmp_path: Path, kind: str, target: Format) -> None:
    frames = trajectory(tmp_path, kind)
    export(tmp_path, target, tmp_path / "ovf", World())
    assert len(list((tmp_path / "ovf").iterdir())) == 2 * FRAMES
    for name in ("spins", "field"):
        for frame, step in enumerate(frames["step"]):
            header, data = read_ovf(tmp_path / "ovf" / f"{name}_{step:08d}.ovf")
            assert header["Title"] == name
            assert float(header["Desc"].split()[-2]) == frames["time"][frame]
            points = places(kind).transpose(1, 0, 2).reshape(-1, 2)
            if kind == "square":
                assert [header[f"{axis}nodes"] for axis in "xyz"] == ["4", "3", "1"]
                low, base, step_size = (float(header[key]) for key in ("xmin", "xbase", "xstepsize"))
                assert base == points[0, 0] == low + step_size / 2
                assert float(header["xmax"]) == base + 3.5 * step_size
            else:
                assert np.allclose(data[:, :2], points)
                assert not data[:, 2].any()
            precision = 1e-6 if target == "ovf-binary4" else 0
            assert np.allclose(
                data[:, -3:], frames[name][frame].transpose(1, 0, 2).reshape(-1, 3), precision, precision
            )


@kinds
def test_an_export_of_ovf_says_what_viewers_of_square_grids_show(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    trajectory(tmp_path, kind)
    with caplog.at_level("INFO"):
        export(tmp_path, "xdmf", tmp_path / "run.xdmf", World())
    assert "warning" not in caplog.text
    with caplog.at_level("INFO"):
        export(tmp_path, "ovf", tmp_path / "ovf", World())
    assert ("warning: a triangular lattice becomes an irregular mesh" in caplog.text) == (kind == "triangular")


def series(path: Path) -> tuple[np.ndarray, list[meshio.CellBlock], list[tuple[float, dict[str, np.ndarray]]]]:
    """Points, cells, and of each frame its time and data, as meshio reads them."""
    with meshio.xdmf.TimeSeriesReader(path) as reader:
        points, cells = reader.read_points_cells()
        return points, cells, [reader.read_data(number)[:2] for number in range(reader.num_steps)]


@kinds
def test_meshio_reads_every_frame_of_an_xdmf_export(tmp_path: Path, kind: str) -> None:
    frames = trajectory(tmp_path / "run", kind)
    view = tmp_path / "view"
    export(tmp_path / "run", "xdmf", view / "run.xdmf", World())
    view = view.rename(tmp_path / "moved")
    points, (cells,), found = series(view / "run.xdmf")
    assert np.array_equal(points[:, :2].reshape(*SIZE, 2), places(kind))
    assert not points[:, 2].any()
    x, y = points[cells.data].transpose(2, 0, 1)[:2]
    area = (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1) / 2
    assert cells.type == "quad"
    assert np.allclose(area, {"square": 1.0, "triangular": 0.75**0.5}[kind])
    assert len(area) == (SIZE[0] - 1) * (SIZE[1] - 1)
    assert [time for time, _ in found] == frames["time"].tolist()
    for frame, (_, data) in enumerate(found):
        assert set(data) == {"spins", "field", "bond_map"}
        for name, values in data.items():
            assert np.array_equal(values, frames[name][frame].reshape(values.shape))
            assert values.shape == ((12,) if name == "bond_map" else (12, 3))


def test_spins_are_zero_at_vacancies(tmp_path: Path) -> None:
    """Which viewers of OVF files show as no magnet, and ParaView hides by a threshold."""
    frames = trajectory(tmp_path, "square", electrons={"vacancies": [[2, 1]]})
    frames["spins"][:, 2, 1] = frames["field"][:, 2, 1] = 0
    export(tmp_path, "ovf", tmp_path / "ovf", World())
    export(tmp_path, "xdmf", tmp_path / "run.xdmf", World())
    shown = [data["spins"].reshape(*SIZE, 3) for _, data in series(tmp_path / "run.xdmf")[2]]
    assert np.array_equal(shown, frames["spins"])
    for name in ("spins", "field"):
        paths = sorted((tmp_path / "ovf").glob(f"{name}_*.ovf"))
        found = [read_ovf(path)[1].reshape(*SIZE[::-1], 3).transpose(1, 0, 2) for path in paths]
        assert np.array_equal(found, frames[name])


@pytest.mark.parametrize("size", [(4, 1), (1, 1)])
def test_a_chain_is_a_mesh_of_its_sites(tmp_path: Path, size: tuple[int, int]) -> None:
    spins = np.random.default_rng(1).normal(size=(2, *size, 3))
    attributes = {"config": {"lattice": {"kind": "square", "size": size, "periodic": [False, False]}}}
    write_labels(tmp_path / "labels.h5", spins, -spins, {**attributes, "precision": "complex128"})
    export(tmp_path / "labels.h5", "xdmf", tmp_path / "view.xdmf", World())
    points, (cells,), found = series(tmp_path / "view.xdmf")
    assert cells.type == "vertex"
    assert np.array_equal(points[cells.data.ravel(), 0], np.arange(size[0]))
    assert np.array_equal([data["field"] for _, data in found], -spins.reshape(2, -1, 3))


@pytest.mark.parametrize(("target", "name"), [("xdmf", "view/run.xdmf"), ("ovf", "view")])
def test_an_export_of_a_run_that_goes_on_says_so_and_outlives_its_end(
    hpcspin: Cli, tmp_path: Path, target: Format, name: str
) -> None:
    frames = trajectory(tmp_path / "run", "square", 2)
    done = hpcspin("export", tmp_path / "run", "--format", target, "--output", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / name}: 2 frames")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "its frames so far are copied" in line
    again = hpcspin("export", tmp_path / "run", "--format", target, "--output", tmp_path / name)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    again = hpcspin("export", tmp_path / "run", "--format", target, "--output", tmp_path / name, "--force")
    assert again.returncode == 0, again.stderr
    (tmp_path / "run" / "trajectory.h5.partial").unlink()  # as at the end of the run
    if target == "xdmf":
        found = [data["spins"] for _, data in series(tmp_path / name)[2]]
    else:
        paths = sorted((tmp_path / name).glob("spins_*.ovf"))
        found = [read_ovf(path)[1].reshape(*SIZE[::-1], 3).transpose(1, 0, 2) for path in paths]
    assert np.array_equal(np.reshape(found, (2, *SIZE, 3)), frames["spins"][:2])


def test_an_export_of_a_finished_run_says_where_it_is(hpcspin: Cli, tmp_path: Path) -> None:
    trajectory(tmp_path, "square")
    done = hpcspin("export", tmp_path, "--output", tmp_path / "run.xdmf")
    assert done.stdout == f"{tmp_path}/run.xdmf: 3 frames, whose numbers are in {tmp_path}/run.frames.h5\n"
    assert done.stderr == ""


def test_an_export_does_not_replace_what_it_reads(tmp_path: Path) -> None:
    trajectory(tmp_path, "square")
    source = (tmp_path / "trajectory.h5").rename(tmp_path / "run.frames.h5")
    before = source.read_bytes()
    with pytest.raises(HpcspinError, match="would be overwritten"):
        export(source, "xdmf", tmp_path / "run.xdmf", World())
    with pytest.raises(HpcspinError, match="choose a name without"):
        export(source, "xdmf", tmp_path / "a:b.xdmf", World())
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".xdmf"] == []


def test_what_cannot_be_exported_is_refused(hpcspin: Cli, spins_file: Path, tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match="carries no config with a lattice"):
        export(spins_file, "ovf", tmp_path / "ovf", World())
    trajectory(tmp_path, "square")
    result = hpcspin("export", tmp_path, "--format", "xdmf", "--output", tmp_path / "run")
    assert result.returncode == 1
    assert "end it with .xdmf" in result.stderr
