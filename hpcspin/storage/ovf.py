"""Vector fields in OVF 2.0, the file format of OOMMF, which mumax3, Ubermag and their viewers read.

https://math.nist.gov/oommf/doc/userguide20a3/userguide/OVF_2.0_format.html
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpcspin.storage.atomic import write_bytes

CHECK_VALUE = 123456789012345.0
"""Begins binary data of eight bytes, so that a reader knows the order of the bytes."""


def write_ovf(
    path: str | Path,
    vectors: NDArray[np.float64],
    places: NDArray[np.float64],
    *,
    title: str,
    unit: str,
    time: float,
    text: bool = False,
) -> None:
    """Write one vector field.

    Parameters
    ----------
    path
        File to write.
    vectors
        Shape (Lx, Ly, 3).
    places
        Cartesian coordinates of the sites in lattice constants, shape (Lx, Ly, 2).  Sites on the square grid become
        a rectangular mesh, others an irregular one.
    title
        Name of the quantity, without spaces.
    unit
        Its unit.
    time
        Time in hbar/t.
    text
        Decimal numbers instead of binary ones.
    """
    square = np.array_equal(places, np.moveaxis(np.indices(places.shape[:2]), 0, -1))
    # The file runs along x first, arrays along y.
    values = vectors.transpose(1, 0, 2).reshape(-1, 3)
    if not square:
        flat = places.transpose(1, 0, 2).reshape(-1, 2)
        values = np.column_stack([flat, np.zeros(len(flat)), values])
    kind = "Text" if text else "Binary 8"
    header = [*_description(title, unit, time), *(_rectangular if square else _irregular)(places), "End: Header"]
    file = BytesIO()
    _lines(file, "OOMMF OVF 2.0", "Segment count: 1", "Begin: Segment", *header, f"Begin: Data {kind}")
    if text:
        np.savetxt(file, values, fmt="%.17g")
    else:
        file.write(np.float64(CHECK_VALUE).astype("<f8").tobytes())
        file.write(np.ascontiguousarray(values, dtype="<f8").tobytes() + b"\n")
    _lines(file, f"End: Data {kind}", "End: Segment")
    write_bytes(path, file.getvalue())


def _lines(file: BinaryIO, *lines: str) -> None:
    file.write("".join(f"# {line}\n" for line in lines).encode("ascii"))


def _description(title: str, unit: str, time: float) -> list[str]:
    labels = " ".join(f"{title}_{axis}" for axis in "xyz")
    return [
        "Begin: Header",
        f"Title: {title}",
        f"Desc: Total simulation time: {time!r} hbar/t",
        "valuedim: 3",
        f"valuelabels: {labels}",
        f"valueunits: {unit} {unit} {unit}",
        "meshunit: a",
    ]


def _box(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[str]:
    ends = {"min": (*low, -0.5), "max": (*high, 0.5)}
    return [f"{axis}{end}: {float(ends[end][k])!r}" for end in ends for k, axis in enumerate("xyz")]


def _rectangular(places: NDArray[np.float64]) -> list[str]:
    nodes = (*places.shape[:2], 1)
    return [
        "meshtype: rectangular",
        *_box(np.full(2, -0.5), np.array(nodes[:2]) - 0.5),
        *(f"{axis}base: 0.0" for axis in "xyz"),
        *(f"{axis}nodes: {count}" for axis, count in zip("xyz", nodes, strict=True)),
        *(f"{axis}stepsize: 1.0" for axis in "xyz"),
    ]


def _irregular(places: NDArray[np.float64]) -> list[str]:
    flat = places.reshape(-1, 2)
    return ["meshtype: irregular", f"pointcount: {len(flat)}", *_box(flat.min(axis=0) - 0.5, flat.max(axis=0) + 0.5)]
