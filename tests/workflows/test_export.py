"""Exports read back by readers written from the formats' specifications."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import TrajectoryWriter
from hpcspin.workflows.export import Format, export

Cli = Callable[..., subprocess.CompletedProcess[str]]
SIZE, FRAMES = (4, 3), 3
kinds = pytest.mark.parametrize("kind", ["square", "triangular"])


def places(kind: str) -> np.ndarray:
    return make_lattice(kind, SIZE).cartesian(np.moveaxis(np.indices(SIZE), 0, -1))


def trajectory(directory: Path, kind: str, written: int = FRAMES) -> dict[str, np.ndarray]:
    """A trajectory of random vectors in a directory; returns its content."""
    random = np.random.default_rng(3)
    frames = {name: random.normal(size=(FRAMES, *SIZE, 3)) for name in ("spins", "field")}
    frames |= {"bond_map": random.normal(size=(FRAMES, *SIZE)), "time": np.array([0.0, 0.4, 1.2])}
    frames |= {"step": np.array([0, 1, 3]), "magnetization": random.normal(size=(FRAMES, 3))}
    attributes = {"config": {"lattice": {"kind": kind, "size": SIZE, "periodic": [False, True]}}}
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


def load(item: ElementTree.Element, folder: Path) -> np.ndarray:
    """What an XDMF data item stands for."""
    shape = tuple(map(int, item.attrib["Dimensions"].split()))
    if item.get("ItemType") == "HyperSlab":
        choice, source = item
        start, stride, count = load(choice, folder).astype(int)
        slab = tuple(slice(s, s + n * d, d) for s, d, n in zip(start, stride, count, strict=True))
        return load(source, folder)[slab].reshape(shape)
    assert item.text is not None
    if item.attrib["Format"] == "XML":
        return np.array(item.text.split(), dtype=float).reshape(shape)
    path, name = item.text.split(":")
    with h5py.File(folder / path) as file:
        found = file[name]
        assert found.shape == shape
        assert found.dtype.itemsize == int(item.attrib["Precision"])
        return np.asarray(found[...])


@kinds
@pytest.mark.parametrize("written", [FRAMES, 2])
def test_xdmf_points_to_every_frame(tmp_path: Path, kind: str, written: int) -> None:
    (tmp_path / "run").mkdir()
    frames = trajectory(tmp_path / "run", kind, written)
    export(tmp_path / "run", "xdmf", tmp_path / "view" / "run.xdmf", World())
    view = tmp_path / "view"
    (collection,) = ElementTree.parse(view / "run.xdmf").getroot().findall("./Domain/Grid")
    assert collection.attrib["CollectionType"] == "Temporal"
    grids = collection.findall("Grid")
    assert len(grids) == written
    for frame, grid in enumerate(grids):
        assert float(grid.find("Time").attrib["Value"]) == frames["time"][frame]  # type: ignore[union-attr]
        assert grid.find("Topology").attrib == {"TopologyType": "3DSMesh", "Dimensions": "1 4 3"}  # type: ignore[union-attr]
        points = load(grid.find("Geometry/DataItem"), view)  # type: ignore[arg-type]
        assert np.array_equal(points[..., :2], places(kind))
        attributes = {node.attrib["Name"]: node for node in grid.findall("Attribute")}
        assert {name: node.attrib["AttributeType"] for name, node in attributes.items()} == {
            "spins": "Vector",
            "field": "Vector",
            "bond_map": "Scalar",
        }
        for name, node in attributes.items():
            assert np.array_equal(load(node[0], view)[0], frames[name][frame])


def test_what_cannot_be_exported_is_refused(hpcspin: Cli, spins_file: Path, tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match="carries no config with a lattice"):
        export(spins_file, "ovf", tmp_path / "ovf", World())
    trajectory(tmp_path, "square")
    result = hpcspin("export", tmp_path, "--format", "xdmf", "--output", tmp_path / "run")
    assert result.returncode == 1
    assert "end it with .xdmf" in result.stderr
