"""Vector fields in OVF 2.0, the file format of OOMMF, which mumax3, Ubermag and their viewers also read.

https://math.nist.gov/oommf/doc/userguide20a3/userguide/OVF_2.0_format.html
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.storage.atomic import write_bytes
from hpcspin.storage.opening import describe, require_file

Representation = Literal["Text", "Binary 4", "Binary 8"]
CHECK_VALUES = {"Binary 4": np.array(1234567.0, dtype="<f4"), "Binary 8": np.array(123456789012345.0, dtype="<f8")}
"""Number at the start of binary data from which a reader recognises the byte order."""
_LONGEST_LINE, _MOST_LINES = 10_000, 1_000
_NEAR = 1e-2
"""Largest distance of a point in a file from its site, in lattice constants."""


def write_ovf(
    path: str | Path,
    vectors: NDArray[np.float64],
    places: NDArray[np.float64],
    *,
    title: str,
    unit: str,
    time: float,
    representation: Representation = "Binary 8",
) -> None:
    """Write one vector field: the vector of each site, shape (Lx, Ly, 3).

    The sites have the Cartesian coordinates ``places`` in lattice constants, shape (Lx, Ly, 2); those on a square grid
    become a rectangular mesh, all others an irregular one. ``title`` is the name of the quantity, without spaces, and
    ``time`` is in hbar/t.
    """
    square = is_square_grid(places)
    # x varies fastest in the file, y in arrays.
    values = vectors.transpose(1, 0, 2).reshape(-1, 3)
    if not square:
        flat = places.transpose(1, 0, 2).reshape(-1, 2)
        values = np.column_stack([flat, np.zeros(len(flat)), values])
    head = [
        "OOMMF OVF 2.0", "Segment count: 1", "Begin: Segment", "Begin: Header", f"Title: {title}",
        f"Desc: Total simulation time: {time!r} hbar/t", "valuedim: 3",
        f"valuelabels: {title}_x {title}_y {title}_z", f"valueunits: {unit} {unit} {unit}", "meshunit: a",
        *_mesh(places, square), "End: Header", f"Begin: Data {representation}",
    ]  # fmt: skip
    file = BytesIO()
    file.write("".join(f"# {line}\n" for line in head).encode("ascii"))
    if representation == "Text":
        np.savetxt(file, values, fmt="%.17g")
    else:
        check = CHECK_VALUES[representation]
        file.write(check.tobytes() + np.ascontiguousarray(values, dtype=check.dtype).tobytes() + b"\n")
    file.write(f"# End: Data {representation}\n# End: Segment\n".encode("ascii"))
    write_bytes(path, file.getvalue())


def _mesh(places: NDArray[np.float64], square: bool) -> list[str]:
    """The lines of a header that describe the mesh."""
    if not square:
        flat = places.reshape(-1, 2)
        ends = flat.min(axis=0) - 0.5, flat.max(axis=0) + 0.5
        return ["meshtype: irregular", f"pointcount: {len(flat)}", *_box(*ends)]
    nodes = (*places.shape[:2], 1)
    return [
        "meshtype: rectangular",
        *_box(np.full(2, -0.5), np.array(nodes[:2]) - 0.5),
        *(f"{axis}base: 0.0" for axis in "xyz"),
        *(f"{axis}nodes: {count}" for axis, count in zip("xyz", nodes, strict=True)),
        *(f"{axis}stepsize: 1.0" for axis in "xyz"),
    ]


def _box(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[str]:
    ends = {"min": (*low, -0.5), "max": (*high, 0.5)}
    return [f"{axis}{end}: {float(ends[end][k])!r}" for end in ends for k, axis in enumerate("xyz")]


def read_ovf(path: str | Path, places: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Read one vector field, shape (Lx, Ly, 3), as OOMMF, mumax3, Ubermag and `write_ovf` write them.

    The file has one segment and one layer of cells: for the square lattice a rectangular mesh, whose cells may have any
    size; for other lattices an irregular mesh, whose points are the sites, with the Cartesian coordinates ``places``,
    in any order. Raises HpcspinError if the path is no such file, or its mesh does not match the lattice.
    """
    path = require_file(path)
    if (what := describe(path)) != "an OVF file":
        raise HpcspinError(f"{path}: is {what}; give an OVF 2.0 file")
    with path.open("rb") as file:
        header, representation = _header(file, path)
        irregular = header.get("meshtype", "rectangular").lower() == "irregular"
        if header.get("valuedim") != "3":
            raise HpcspinError(f"{path}: its valuedim is {header.get('valuedim')}; give a field of vectors, valuedim 3")
        if irregular:
            values = _numbers(file, path, representation, _whole(header, "pointcount", path), 6)
            return _at_sites(values, places, path)
        nodes = [_whole(header, f"{axis}nodes", path) for axis in "xyz"]
        if nodes[2] != 1:
            raise HpcspinError(f"{path}: has {nodes[2]} layers of cells; give a field with znodes 1")
        values = _numbers(file, path, representation, nodes[0] * nodes[1], 3)
    if places is not None and not is_square_grid(places):
        raise HpcspinError(
            f"{path}: its mesh is rectangular and the lattice is not square; give an irregular mesh, as "
            "`hpcspin export` writes, or a .npy array of shape (Lx, Ly, 3)"
        )
    return values.reshape(nodes[1], nodes[0], 3).transpose(1, 0, 2)


def is_square_grid(places: NDArray[np.float64]) -> bool:
    """Whether sites, shape (Lx, Ly, 2), form a square grid of spacing 1, and thus a rectangular mesh."""
    return np.array_equal(places, np.moveaxis(np.indices(places.shape[:2]), 0, -1))


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, str], Representation]:
    """Entries of the header, with keys in lower case, and the representation of the data that follow."""
    header: dict[str, str] = {}
    for number in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE).decode("utf-8", errors="replace")
        if not line.startswith("#"):
            raise HpcspinError(f"{path}: line {number + 1} belongs to no OVF 2.0 header; write the file again")
        words = " ".join(line.split("##")[0].strip("# \t\r\n").lower().split())
        if number == 0 and words != "oommf ovf 2.0":
            raise HpcspinError(f"{path}: is an OVF file of another version, {words!r:.60}; convert it to OVF 2.0")
        key, _, value = (part.strip() for part in words.partition(":"))
        if key == "begin" and value.startswith("data"):
            representations: dict[str, Representation] = {one.lower(): one for one in get_args(Representation)}
            if (kind := value.removeprefix("data").strip()) in representations:
                return header, representations[kind]
            raise HpcspinError(f"{path}: holds data as {kind!r:.60}; write them as Text, Binary 4 or Binary 8")
        if key == "segment count" and value != "1":
            raise HpcspinError(f"{path}: has {value!r:.20} segments; give a file of one")
        header[key] = value
    raise HpcspinError(f"{path}: no data begin within {_MOST_LINES} lines; write the file again")


def _whole(header: dict[str, str], key: str, path: Path) -> int:
    value = header.get(key, "")
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value)):
        raise HpcspinError(f"{path}: its {key} is {value!r:.20}, no number of points; write the file again")
    return int(value)


def _numbers(
    file: BinaryIO, path: Path, representation: Representation, rows: int, columns: int
) -> NDArray[np.float64]:
    """The data, shape (rows, columns), which must have exactly this size in the file."""
    if representation == "Text":
        # The next line that starts with # ends the data.
        text, mark, rest = file.read().partition(b"#")
        try:
            values = np.array(text.split(), dtype=np.float64)
        except ValueError as error:
            raise HpcspinError(f"{path}: its data are no decimal numbers ({error}); write the file again") from error
        count, rest = len(values), mark + rest
    else:
        check = CHECK_VALUES[representation]
        size = check.itemsize
        first = file.read(size)
        if first != check.tobytes():
            reason = "are of the other byte order" if first == check.tobytes()[::-1] else "lack their check value"
            raise HpcspinError(
                f"{path}: its {representation} data {reason}; write OVF 2.0, least significant byte first"
            )
        content = file.read()
        count = min(rows * columns, len(content) // size)
        values, rest = np.frombuffer(content, check.dtype, count), content[count * size :]
    if count != rows * columns or not rest.lstrip(b"#\r\n\t ").lower().startswith(b"end"):
        raise HpcspinError(
            f"{path}: is incomplete or damaged, its header declares {rows} points and its data hold "
            f"{count / columns:g}, or more; write the file again"
        )
    return values.reshape(rows, columns).astype(np.float64)


def _at_sites(points: NDArray[np.float64], places: NDArray[np.float64] | None, path: Path) -> NDArray[np.float64]:
    """Vectors at the sites of the lattice, from the rows of an irregular mesh: x, y, z and three components each."""
    # The import takes a second, and such files are rare.
    from scipy.spatial import cKDTree

    if places is None:
        raise HpcspinError(f"{path}: its mesh is irregular, and here a rectangular one is read; give that, or .npy")
    sites = places.reshape(-1, 2)
    row = np.zeros(len(sites), dtype=int)
    near = len(points) == len(sites) and bool(np.isfinite(points[:, :3]).all())
    if near:
        distance, row = cKDTree(points[:, :2]).query(sites)
        near = bool(distance.max() < _NEAR and len(set(row)) == len(sites) and np.ptp(points[:, 2]) < _NEAR)
    if not near:
        size = " x ".join(map(str, places.shape[:2]))
        raise HpcspinError(
            f"{path}: its {len(points)} points are not the sites of the {size} lattice, in lattice constants from the "
            "first site on; correct lattice.size and lattice.kind, or give a .npy array of shape (Lx, Ly, 3)"
        )
    return points[row, 3:].reshape(*places.shape[:2], 3)
