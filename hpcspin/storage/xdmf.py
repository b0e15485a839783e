"""Trajectories as XDMF, which ParaView, VisIt, VTK and, as a time series, meshio can read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as xml

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import atomic_file, remove_temporaries, require_output, write_bytes
from hpcspin.storage.disk import create_hdf5
from hpcspin.storage.opening import count_frames, open_hdf5, read_rows, real_dataset

_NUMBERS = {"f": "Float", "i": "Int"}


def frames_path(path: str | Path) -> Path:
    """Path of the file with the numbers of an XDMF file, in the same directory."""
    return Path(path).with_suffix(".frames.h5")


def write_xdmf(
    path: str | Path, trajectory: str | Path, places: NDArray[np.float64], vacancies: NDArray[np.bool_] | None = None
) -> int:
    """Write the vectors and maps of a file of frames on Lx x Ly sites, and return the number of frames.

    The numbers are copied to `frames_path`, to which the XDMF file refers by a relative path: both can be moved
    together, whatever becomes of the run. Each array is a separate dataset, because meshio cannot read part of one.
    ``places`` are those of `write_ovf`. Spins are 0 at ``vacancies``, a mask (Lx, Ly): ParaView can hide these.
    """
    path, trajectory, numbers = Path(path), Path(trajectory), frames_path(path)
    if ":" in numbers.name:
        raise HpcspinError(f"{path}: XDMF reads a colon as the end of a file's name; choose a name without")
    require_output(numbers, trajectory)
    remove_temporaries(numbers)
    root = xml.Element("Xdmf", Version="3.0")
    series = xml.SubElement(
        xml.SubElement(root, "Domain"), "Grid", Name="trajectory", GridType="Collection", CollectionType="Temporal"
    )
    with open_hdf5(trajectory) as source, atomic_file(numbers) as disk, create_hdf5(disk) as copy:
        times, shown = _times(source, trajectory), _shown(source, trajectory, places.shape[:2])
        mesh = {"cells": _cells(places.shape[:2]), "places": np.pad(places.reshape(-1, 2), ((0, 0), (0, 1)))}
        stored = {name: copy.create_dataset(f"mesh/{name}", data=values) for name, values in mesh.items()}
        for index, time in enumerate(times):
            grid = _grid(series, index, float(time), stored, numbers.name)
            for name, values in _layers(shown, trajectory, index, places.shape[:2]):
                if name == "spins" and vacancies is not None:
                    values[vacancies] = 0
                kind, shape = ("Vector", (-1, 3)) if values.ndim == 3 else ("Scalar", (-1,))
                attribute = xml.SubElement(grid, "Attribute", Name=name, AttributeType=kind, Center="Node")
                stored_values = copy.create_dataset(f"frames/{index:08d}/{name}", data=values.reshape(shape))
                _item(attribute, stored_values, numbers.name)
            disk.check()
    xml.indent(root)
    write_bytes(path, xml.tostring(root, encoding="utf-8", xml_declaration=True))
    return len(times)


def _times(source: h5py.File, path: Path) -> NDArray[np.float64]:
    """Times of the complete frames, or their numbers if the file has no times."""
    count = count_frames(source, path)
    if count == 0:
        raise HpcspinError(f"{path}: holds no complete frame; export it when its run has recorded one")
    if "time" not in source:
        return np.arange(count, dtype=np.float64)
    return read_rows(real_dataset(source, path, "time", (len(source["spins"]),)), path, slice(count))


def _shown(source: h5py.File, path: Path, size: tuple[int, ...]) -> dict[str, h5py.Dataset]:
    """Datasets with a number or a vector for each site, or with several of them, such as one for each bond."""
    arrays = {name: item for name, item in source.items() if isinstance(item, h5py.Dataset)}
    total, fitting = len(arrays["spins"]), (size, (*size, 3))
    return {
        name: real_dataset(source, path, name)
        for name, item in arrays.items()
        if (shape := item.shape or ())[:1] == (total,) and (shape[1:] in fitting or shape[2:] in fitting)
    }


def _layers(
    shown: dict[str, h5py.Dataset], path: Path, index: int, size: tuple[int, ...]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Names and values of one frame; several numbers for each site are named NAME_0, NAME_1 and so on."""
    for name, data in shown.items():
        values = read_rows(data, path, slice(index, index + 1))[0]
        if values.shape in (size, (*size, 3)):
            yield name, values
        else:
            yield from ((f"{name}_{number}", layer) for number, layer in enumerate(values))


def _cells(size: tuple[int, ...]) -> NDArray[np.int64]:
    """Corners of the cells of the mesh: the plaquettes of the lattice or, for a chain, its sites."""
    sites = np.arange(np.prod(size), dtype=np.int64).reshape(size)
    if min(size) == 1:
        return sites.reshape(-1, 1)
    corners = (sites[:-1, :-1], sites[1:, :-1], sites[1:, 1:], sites[:-1, 1:])
    return np.stack(corners, axis=-1).reshape(-1, 4)


def _grid(parent: xml.Element, index: int, time: float, mesh: dict[str, h5py.Dataset], file: str) -> xml.Element:
    grid = xml.SubElement(parent, "Grid", Name=f"frame {index}", GridType="Uniform")
    xml.SubElement(grid, "Time", Value=repr(time))
    count, corners = mesh["cells"].shape
    kind = {"TopologyType": "Quadrilateral"} if corners == 4 else {"TopologyType": "Polyvertex", "NodesPerElement": "1"}
    _item(xml.SubElement(grid, "Topology", kind, NumberOfElements=str(count)), mesh["cells"], file)
    _item(xml.SubElement(grid, "Geometry", GeometryType="XYZ"), mesh["places"], file)
    return grid


def _item(parent: xml.Element, data: h5py.Dataset, file: str) -> None:
    layout = {
        "Dimensions": " ".join(map(str, data.shape)),
        "NumberType": _NUMBERS[data.dtype.kind],
        "Precision": str(data.dtype.itemsize),
    }
    xml.SubElement(parent, "DataItem", layout, Format="HDF").text = f"{file}:{data.name}"
