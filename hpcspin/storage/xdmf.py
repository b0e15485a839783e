"""XDMF descriptions of trajectories, with which ParaView and VisIt read the HDF5 files as they are."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree as xml

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcspin.storage.atomic import atomic_hdf5, write_bytes
from hpcspin.storage.opening import count_frames, open_hdf5, read_rows, real_dataset

_NUMBERS = {"f": "Float", "i": "Int", "u": "UInt"}


def write_xdmf(path: str | Path, trajectory: str | Path, places: NDArray[np.float64]) -> None:
    """Describe the vectors and maps of a file of frames.

    Parameters
    ----------
    path
        XDMF file to write; the coordinates of the sites go beside it, into ``NAME.sites.h5``.  Both name the
        trajectory relative to themselves, so they move together.
    trajectory
        File of frames on Lx x Ly sites.
    places
        Cartesian coordinates of the sites in lattice constants, shape (Lx, Ly, 2).

    Raises
    ------
    HpcspinError
        If the trajectory cannot be read.
    """
    path, trajectory = Path(path), Path(trajectory)
    sites = path.with_suffix(".sites.h5")
    size = places.shape[:2]
    with atomic_hdf5(sites) as file:
        file["places"] = np.concatenate([places, np.zeros((*size, 1))], axis=-1)
    root = xml.Element("Xdmf", Version="3.0")
    frames = xml.SubElement(
        xml.SubElement(root, "Domain"), "Grid", Name="trajectory", GridType="Collection", CollectionType="Temporal"
    )
    with open_hdf5(trajectory) as file:
        count = count_frames(file, trajectory)
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        total = len(arrays["spins"])
        fitting = ((total, *size), (total, *size, 3))
        shown = {name: real_dataset(file, trajectory, name) for name, item in arrays.items() if item.shape in fitting}
        where = os.path.relpath(trajectory, path.parent)
        times = np.arange(count)
        if "time" in file:
            times = read_rows(real_dataset(file, trajectory, "time", (total,)), trajectory, slice(count))
        for index in range(count):
            grid = _grid(frames, index, float(times[index]), size, sites.name)
            for name, data in shown.items():
                _attribute(grid, name, data, index, where)
    xml.indent(root)
    write_bytes(path, xml.tostring(root, encoding="utf-8", xml_declaration=True))


def _grid(parent: xml.Element, index: int, time: float, size: tuple[int, ...], sites: str) -> xml.Element:
    grid = xml.SubElement(parent, "Grid", Name=f"frame {index}", GridType="Uniform")
    xml.SubElement(grid, "Time", Value=repr(time))
    xml.SubElement(grid, "Topology", TopologyType="3DSMesh", Dimensions=_words((1, *size)))
    geometry = xml.SubElement(grid, "Geometry", GeometryType="XYZ")
    _item(geometry, (*size, 3), np.dtype(np.float64)).text = f"{sites}:/places"
    return grid


def _attribute(grid: xml.Element, name: str, data: h5py.Dataset, index: int, where: str) -> None:
    shape = data.shape[1:]
    kind = "Vector" if len(shape) == 3 else "Scalar"
    attribute = xml.SubElement(grid, "Attribute", Name=name, AttributeType=kind, Center="Node")
    # VTK's reader wants a slab of as many dimensions as the data: the lattice is one layer of a three-dimensional mesh.
    slab = xml.SubElement(attribute, "DataItem", {"ItemType": "HyperSlab"} | _layout((1, *shape), data.dtype))
    choice = xml.SubElement(slab, "DataItem", Dimensions=f"3 {data.ndim}", NumberType="Int", Format="XML")
    start, stride, count = (index, *(0 for _ in shape)), (1,) * data.ndim, (1, *shape)
    choice.text = " ".join(map(_words, (start, stride, count)))
    _item(slab, data.shape, data.dtype).text = f"{where}:/{name}"


def _item(parent: xml.Element, shape: tuple[int, ...], dtype: np.dtype) -> xml.Element:
    return xml.SubElement(parent, "DataItem", {"Format": "HDF"} | _layout(shape, dtype))


def _layout(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, str]:
    return {"Dimensions": _words(shape), "NumberType": _NUMBERS[dtype.kind], "Precision": str(dtype.itemsize)}


def _words(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))
