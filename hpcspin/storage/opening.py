"""Opening of files from outside: their type and integrity are checked before any data are read.

An HDF5 file can refer to other files, by external links, external storage and virtual datasets; it can contain dangling
or circular links, and datasets that were declared but never written. None of these is read here: every object is
reached by hard links inside the file, and every dataset is completely in the file and contains real numbers of the
expected shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o, h5t, h5z

from hpcspin.errors import HpcspinError
from hpcspin.storage.provenance import SCHEMA_VERSION, stored_attributes

MARKER = "marker"
"""Attribute with the name of the dataset that is finite for every complete frame."""
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}
_MOST_OBJECTS = 100_000
_FRAMES_AT_ONCE = 1_000_000
_NUMBERS = {h5t.INTEGER, h5t.FLOAT}
_OTHERS = {h5t.STRING: "text", h5t.COMPOUND: "compound values or complex numbers", h5t.ENUM: "names or truth values"}
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""Exceptions that h5py raises for damaged files."""
_SIGNATURES = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a ZIP archive, such as .npz",
    b"\x1f\x8b": "compressed by gzip",
}
_SNIFFED = 512


def describe(path: Path) -> str:
    """Type of an existing regular file by its first bytes: ``an HDF5 file``, ``empty``, ``text``, ..."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    if not head:
        return "empty"
    for signature, words in _SIGNATURES.items():
        if head.startswith(signature):
            return words
    if head.lstrip(b"# \t").lower().startswith(b"oommf"):
        return "an OVF file"
    printable = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "a text file" if printable else "of an unknown format"


def require_file(path: str | Path) -> Path:
    """Refuse a path that is not a regular file, with an HpcspinError that says what it is."""
    path = Path(path)
    if path.is_dir():
        raise HpcspinError(f"{path}: is a directory; give a file in it")
    if not path.is_file():
        reason = "is no regular file; give one" if path.exists() else "no such file; check the path"
        raise HpcspinError(f"{path}: {reason}")
    return path


@contextmanager
def open_hdf5(path: str | Path, advice: str = "") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; any error becomes one line that names the file.

    The open file has only hard links and refers to no other file; it is closed on leaving. Raises HpcspinError if it is
    missing, truncated, of another format, refers to other files, or cannot be read in the block. ``advice`` says what
    to do then; if it is empty, the message advises making the file again.
    """
    path = require_file(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            _require_self_contained(file, path)
            yield file
    except OSError as error:
        what = describe(path)
        if what != "an HDF5 file":
            advice = advice or "give an HDF5 file"
            raise HpcspinError(f"{path}: cannot be read, it is {what}, not HDF5; {advice}") from error
        if "flag values don't match" in str(error):  # HDF5's words for a file that a notebook, say, holds open.
            raise HpcspinError(
                f"{path}: is open in this program by h5py already; close it, or open it with locking=False"
            ) from error
        raise _unreadable(path, error, advice) from error


def real_dataset(file: h5py.File, path: Path, name: str, shape: Sequence[str | int] | None = None) -> h5py.Dataset:
    """A dataset of real numbers that is completely in the file from `open_hdf5`, which has the given path.

    The required shape has words for axes of any length: ``("n", "Lx", "Ly", 3)``. Raises HpcspinError if there is no
    such dataset, it is a group, contains other types or has another shape, or was not completely written.
    """
    if name not in file:
        raise HpcspinError(f"{path}: has no dataset /{name}; give a file that has one")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise HpcspinError(f"{path}: /{name} is a group or a type, not a dataset; give an array of numbers there")
    _require_whole(dataset, path)
    with _damage_in_words(path):
        kind = dataset.id.get_type().get_class()
        number = kind in _NUMBERS and dataset.dtype.kind in "fiu"
    if not number:
        content = _OTHERS.get(kind, "other values")
        raise HpcspinError(f"{path}: /{name} holds {content}; give real numbers, such as float64")
    require_shape(dataset.shape, shape, f"{path}: /{name}")
    return dataset


def stored_array(item: h5py.Dataset, path: Path) -> np.ndarray:
    """All of a dataset of numbers of any type; see `real_dataset` for the checks."""
    _require_whole(item, path)
    with _damage_in_words(path, item):
        if item.dtype.kind not in "fiucb":
            raise HpcspinError(f"{path}: {item.name} holds no numbers")
        return np.asarray(item[()])


def require_shape(given: tuple[int, ...] | None, expected: Sequence[str | int] | None, where: str) -> None:
    """Refuse an array of another shape; ``expected`` is as for `real_dataset`, and None stands for no array at all."""
    fits = given is not None and (
        expected is None
        or (
            len(given) == len(expected)
            and all(isinstance(b, str) or a == b for a, b in zip(given, expected, strict=True))
        )
    )
    if not fits:
        wanted = f"give ({', '.join(map(str, expected))})" if expected is not None else "give an array of numbers"
        hint = ", n for the frames" if expected is not None and expected[0] == "n" else ""
        raise HpcspinError(f"{where} has {'no shape' if given is None else f'shape {given}'}; {wanted}{hint}")


def read_rows(data: h5py.Dataset, path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Rows of a checked dataset as float64; HpcspinError if they cannot be read or do not fit in memory."""
    with _damage_in_words(path, data), np.errstate(over="ignore"):
        return np.asarray(data[rows], dtype=np.float64)


def check_schema(file: h5py.File, path: Path) -> None:
    """Refuse a file of another schema version; a user's own file without a version is read by its datasets."""
    version = attributes(file, path).get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise HpcspinError(
            f"{path}: has schema version {version!r:.20}, this program reads {SCHEMA_VERSION}; make it again"
        )


def count_frames(file: h5py.File, path: Path) -> int:
    """Number of complete frames of an open file: all frames, unless the file marks each complete one."""
    if "spins" not in file:
        raise HpcspinError(f"{path}: has no dataset /spins; give a spins, label or trajectory file")
    total = real_dataset(file, path, "spins", ("n", "Lx", "Ly", 3)).shape[0]
    name = attributes(file, path).get(MARKER)
    if name is None:
        return total
    if not isinstance(name, str):
        raise HpcspinError(f"{path}: its attribute {MARKER!r} names no dataset; make it again")
    marker = real_dataset(file, path, name, (total,))
    for start in range(0, total, _FRAMES_AT_ONCE):
        finite = np.isfinite(read_rows(marker, path, slice(start, min(start + _FRAMES_AT_ONCE, total))))
        if not finite.all():
            count = start + int(np.argmin(finite))
            if path.suffix != ".partial":
                raise HpcspinError(
                    f"{path}: /{name} of frame {count} of {total} is not a finite number, so that the frame is not "
                    "complete; make the file again"
                )
            return count
    return total


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Read a file's attributes; see `attributes`."""
    with open_hdf5(path) as file:
        return attributes(file, Path(path))


def attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """The attributes of a file that are text or numbers; JSON mappings and lists are decoded."""
    with _damage_in_words(path):
        values = {name: _decoded(value) for name, value in stored_attributes(file).items()}
    if not _has_sections(values.get("config", {})):
        raise HpcspinError(f"{path}: its attribute 'config' is no JSON of a config; make it again, or delete it")
    return {name: value for name, value in values.items() if isinstance(value, dict | list | str | int | float)}


def parse_json(text: str | bytes) -> Any:
    """Decode JSON from any source; raises ValueError if it is not valid, too deeply nested or with too long numbers."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, advice: str, kind: type = dict) -> Any:
    """Read a JSON file with a value of type ``kind``, else say `advice`; a missing one raises FileNotFoundError."""
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, kind):
            raise ValueError(f"no {kind.__name__}")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise HpcspinError(f"{path}: is no valid JSON of hpcspin ({reason}); {advice}") from error
    return content


def _has_sections(config: Any) -> bool:
    """Whether a value has the form of a config, in those parts that are used in reading files."""
    if not isinstance(config, dict):
        return False
    sections = [config.get(name) or {} for name in ("lattice", "electrons", "dynamics")]
    if not all(isinstance(section, dict) for section in sections):
        return False
    reservoirs = sections[1].get("reservoirs") or []
    return isinstance(reservoirs, list) and all(isinstance(one, dict) for one in reservoirs)


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value.item() if isinstance(value, np.generic) else value


def _require_self_contained(file: h5py.File, path: Path) -> None:
    """Refuse a file that refers to other files, or has dangling or circular links."""
    block = file.id.get_create_plist().get_userblock()
    if block:
        raise HpcspinError(
            f"{path}: begins with a user block of {block} bytes, as MATLAB writes; copy its datasets to a plain "
            "HDF5 file"
        )
    with _damage_in_words(path):
        waiting, visited = [file["/"].id], set()
        while waiting:
            group = waiting.pop()
            links: list[tuple[bytes, int]] = []
            group.links.iterate(lambda name, info, links=links: links.append((name, info.type)), info=True)
            for name, kind in links:
                where = (
                    f"{h5py.h5i.get_name(group).decode(errors='replace').rstrip('/')}/{name.decode(errors='replace')}"
                )
                if kind != h5l.TYPE_HARD:
                    raise HpcspinError(
                        f"{path}: {where!r} is a soft or external link, which hpcspin does not follow; copy the data "
                        "into the file"
                    )
                address = h5o.get_info(group, name).addr
                if address in visited:
                    continue
                visited.add(address)
                if len(visited) > _MOST_OBJECTS:
                    raise HpcspinError(f"{path}: holds more than {_MOST_OBJECTS} objects; give a file of hpcspin's own")
                opened = h5o.open(group, name)
                if isinstance(opened, h5py.h5g.GroupID):
                    waiting.append(opened)
                elif isinstance(opened, h5d.DatasetID):
                    _require_inside(opened, f"{path}: {where!r}")


def _require_inside(dataset: h5d.DatasetID, where: str) -> None:
    plan = dataset.get_create_plist()
    if plan.get_layout() not in _LAYOUTS or plan.get_external_count():
        raise HpcspinError(f"{where} is virtual or keeps its data in another file; copy the data into this one")
    filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
    if not filters <= _FILTERS:
        number = min(filters - _FILTERS)
        raise HpcspinError(
            f"{where} is packed by the HDF5 filter {number}; write it with gzip, lzf or without a filter"
        )


def _require_whole(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset that was not completely written: the rest would be read as zeros."""
    if dataset.shape is None:
        raise HpcspinError(f"{path}: {dataset.name} is empty, without a shape; give an array of numbers there")
    with _damage_in_words(path):
        plan = dataset.id.get_create_plist()
        if plan.get_layout() == h5d.CHUNKED:
            needed = math.prod(-(-length // part) for length, part in zip(dataset.shape, dataset.chunks, strict=True))
            stored = dataset.id.get_num_chunks()
        else:
            needed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
            stored = dataset.id.get_storage_size()
    if stored < needed:
        raise HpcspinError(
            f"{path}: {dataset.name} declares the shape {dataset.shape}, but not all of it has been written; "
            "make it again"
        )


@contextmanager
def _damage_in_words(path: Path, data: h5py.Dataset | None = None) -> Iterator[None]:
    """Turn what h5py raises for a damaged file, and for a dataset that does not fit in memory, into one line."""
    try:
        yield
    except MemoryError as error:
        if data is None:
            raise
        raise HpcspinError(
            f"{path}: {data.name} has shape {data.shape} and does not fit the memory; divide it into several files"
        ) from error
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException, advice: str = "") -> HpcspinError:
    reason = " ".join(str(error).split())
    return HpcspinError(
        f"{path}: cannot be read, it is truncated, corrupt or not HDF5 ({reason}); {advice or 'make it again'}"
    )
