"""Files from strangers: nothing outside them is read, and what they declare is checked before anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.storage import (
    SpinsFile,
    count_frames,
    open_hdf5,
    partial_path,
    read_attributes,
    read_checkpoint,
    read_labels,
    read_manifest,
    read_spins,
    write_checkpoint,
    write_labels,
    write_manifest,
)

SIZE = (4, 3)
SHAPE = (2, *SIZE, 3)


def unit(n: int = 2) -> np.ndarray:
    spins = np.random.default_rng(n).normal(size=(n, *SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with valid spins and fields that another file could pull in, and the same bytes without HDF5."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["spins"] = file["field"] = unit()
    unit().tofile(tmp_path / "secret.bin")
    return tmp_path / "secret.h5"


def external_link(file: h5py.File, name: str, secret: Path) -> None:
    file[name] = h5py.ExternalLink(str(secret), "/spins")


def external_storage(file: h5py.File, name: str, secret: Path) -> None:
    raw = (str(secret.with_suffix(".bin")), 0, h5py.h5f.UNLIMITED)
    file.create_dataset(name, SHAPE, "f8", external=[raw])


def virtual(file: h5py.File, name: str, secret: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f8")
    layout[...] = h5py.VirtualSource(str(secret), "spins", SHAPE)
    file.create_virtual_dataset(name, layout)


def soft_link(file: h5py.File, name: str, secret: Path) -> None:
    file["elsewhere"] = unit()
    file[name] = h5py.SoftLink("/elsewhere")


def linked_to_itself(file: h5py.File, name: str, secret: Path) -> None:
    file[name] = h5py.SoftLink(f"/{name}")


def odd_filter(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, data=np.ones(SHAPE, int), scaleoffset=4, chunks=SHAPE)


def group(file: h5py.File, name: str, secret: Path) -> None:
    file.create_group(name)


def group_in_a_circle(file: h5py.File, name: str, secret: Path) -> None:
    circle = file.create_group(name)
    circle["again"] = circle


def huge_contiguous(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, (10**9, 12, 6, 3), "f8")


def huge_chunked(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, (10**9, 12, 6, 3), "f8", chunks=(1, 12, 6, 3))[0] = 1


def no_shape(file: h5py.File, name: str, secret: Path) -> None:
    file[name] = h5py.Empty("f8")


def kind(dtype: object, value: object = 1) -> Callable[[h5py.File, str, Path], None]:
    def make(file: h5py.File, name: str, secret: Path) -> None:
        file.create_dataset(name, data=np.full(SHAPE, value, dtype))

    make.__name__ = str(dtype)
    return make


def text(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, data=np.full(SHAPE, "1.0", dtype=object), dtype=h5py.string_dtype())


def array_type(file: h5py.File, name: str, secret: Path) -> None:
    file.create_dataset(name, (2,), dtype=np.dtype(("f8", SHAPE[1:])))[...] = unit()


def named_type(file: h5py.File, name: str, secret: Path) -> None:
    file[name] = np.dtype("f8")


def shape(*lengths: int) -> Callable[[h5py.File, str, Path], None]:
    def make(file: h5py.File, name: str, secret: Path) -> None:
        file[name] = np.ones(lengths)

    make.__name__ = f"shape_{lengths}"
    return make


NOT_INSIDE = [
    (external_link, "soft or external link"),
    (external_storage, "keeps its data in another file"),
    (virtual, "is virtual"),
    (soft_link, "soft or external link"),
    (linked_to_itself, "soft or external link"),
    (odd_filter, "packed by the HDF5 filter"),
]
NOT_NUMBERS = [
    (group, "is a group"),
    (group_in_a_circle, "is a group"),
    (named_type, "is a group or a type"),
    (huge_contiguous, "not all of it has been written"),
    (huge_chunked, "not all of it has been written"),
    (no_shape, "without a shape"),
    (kind(complex, 1j), "complex numbers"),
    (kind([("x", "f8")]), "compound values"),
    (kind(bool), "truth values"),
    (text, "text"),
    (array_type, "other values"),
    (shape(), r"has shape \(\)"),
    (shape(4, 3, 3), r"has shape \(4, 3, 3\); give \((n|2), (Lx|4), (Ly|3), 3\)"),
    (shape(2, 4, 3, 2), r"has shape \(2, 4, 3, 2\)"),
    (shape(1, 2, 4, 3, 3), r"has shape \(1, 2, 4, 3, 3\)"),
]
faults = pytest.mark.parametrize(
    ("fault", "words"), NOT_INSIDE + NOT_NUMBERS, ids=lambda value: getattr(value, "__name__", "")
)


def one_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(HpcspinError, match=words) as failure:
        call()
    assert "\n" not in str(failure.value)


@faults
def test_spins_that_are_not_numbers_in_the_file_are_refused(
    tmp_path: Path, secret: Path, fault: Callable[..., None], words: str
) -> None:
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        fault(file, "spins", secret)
    one_line(lambda: read_spins(path, None), words)
    one_line(lambda: SpinsFile(path, None), words)


@faults
@pytest.mark.parametrize("name", ["field", "density"])
def test_labels_that_are_not_numbers_in_the_file_are_refused(
    tmp_path: Path, secret: Path, fault: Callable[..., None], words: str, name: str
) -> None:
    if name == "density" and "give" in words:
        words = "has shape"
    path = tmp_path / "in.h5"
    write_labels(path, unit(), unit(), {})
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        fault(file, name, secret)
    one_line(lambda: read_labels(path), words)


@pytest.mark.parametrize(("fault", "words"), NOT_INSIDE)
def test_nothing_of_a_file_is_read_that_leads_out_of_it(
    tmp_path: Path, secret: Path, fault: Callable[..., None], words: str
) -> None:
    """Not even what lies beside the link: in trajectories, shards, checkpoints and their attributes alike."""
    path, data = tmp_path / "in.h5", tmp_path / "data"
    data.mkdir()
    for target in (path, data / "a.h5"):
        write_labels(target, unit(), unit(), {})
        with h5py.File(target, "r+") as file:
            fault(file.create_group("deep"), "inside", secret)
    for call in (read_labels, read_attributes, lambda given: read_spins(given, None)):
        one_line(lambda call=call: call(path), words)  # type: ignore[misc]
    one_line(lambda: write_manifest(data), words)
    write_checkpoint(tmp_path / "c.h5", {"spins": unit()}, {"step": 1}, {})
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        fault(file["arrays"], "more", secret)
    one_line(lambda: read_checkpoint(tmp_path / "c.h5"), words)


def test_a_checkpoint_has_no_names_that_are_no_text(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.h5", {"spins": unit()}, {"step": 1}, {})
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file["arrays"].create_dataset(b"\xff", data=np.ones(3))
    one_line(lambda: read_checkpoint(tmp_path / "c.h5"), "is no checkpoint")


def test_a_user_block_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w", userblock_size=512) as file:
        file["spins"] = unit()
    one_line(lambda: read_spins(tmp_path / "in.h5", None), "user block of 512 bytes")


def test_what_hpcspin_and_h5py_write_is_read(tmp_path: Path) -> None:
    """Chunks, lossless filters, single precision, big-endian numbers and whole ones are numbers like any others."""
    whole = np.zeros(SHAPE, "i2")
    whole[..., 2] = 1
    written = {
        "gzip": {"data": unit(), "compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (1, 4, 3, 3)},
        "lzf": {"data": unit(), "compression": "lzf"},
        "uneven": {"data": unit(), "chunks": (3, 3, 2, 2), "maxshape": (None, None, None, None)},
        "endian": {"data": unit().astype(">f8")},
        "long": {"data": unit().astype(np.longdouble)},
        "whole": {"data": whole},
    }
    for name, options in written.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("spins", **options)
        assert np.array_equal(read_spins(tmp_path / f"{name}.h5", SIZE), np.asarray(options["data"], dtype=float))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "it is empty, not HDF5; give HDF5 with /spins"),
        (lambda path: path.write_text("1 0 0\n"), "a text file"),
        (lambda path: path.write_bytes(bytes(range(256))), "of an unknown format"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "truncated, corrupt"),
        (lambda path: np.savez(path.open("wb"), spins=unit()), "a ZIP archive, such as .npz"),
        (lambda path: path.mkdir(), "is a directory with neither trajectory.h5 nor OVF files"),
        (os.mkfifo, "is no regular file"),
        (lambda path: None, "no such file"),
    ],
)
def test_a_file_that_holds_no_spins_is_told_by_what_it_is(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "in")
    one_line(lambda: read_spins(tmp_path / "in", SIZE), words)


def test_a_file_that_the_program_holds_open_is_not_called_corrupt(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["spins"] = unit()
    with h5py.File(tmp_path / "in.h5"):
        one_line(lambda: read_spins(tmp_path / "in.h5", SIZE), "is open in this program by h5py already; close it")
    with h5py.File(tmp_path / "in.h5", locking=False):
        assert len(read_spins(tmp_path / "in.h5", SIZE)) == len(unit())


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"schema_version": 99}, "has schema version 99, this program reads 1"),
        ({"schema_version": "one"}, "has schema version 'one'"),
        ({"marker": 3}, "names no dataset"),
        ({"marker": "none"}, "has no dataset /none"),
        ({"marker": "field"}, r"/field has shape \(2, 4, 3, 3\); give \(2\)"),
        ({"config": "[1]"}, "no JSON of a config"),
        ({"config": "{"}, "no JSON of a config"),
        ({"config": 5000 * "["}, "no JSON of a config"),
        ({"config": '{"electrons": [1]}'}, "no JSON of a config"),
        ({"config": '{"electrons": {"reservoirs": [1]}}'}, "no JSON of a config"),
    ],
)
def test_attributes_that_are_wrong_are_told(tmp_path: Path, attributes: dict[str, object], words: str) -> None:
    write_labels(tmp_path / "in.h5", unit(), unit(), attributes)
    with h5py.File(tmp_path / "in.h5", "r+") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
    one_line(lambda: read_labels(tmp_path / "in.h5"), words)


def test_frames_without_a_marker_do_not_count_and_a_finished_file_has_none(tmp_path: Path) -> None:
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        file["spins"], file["done"] = unit(5), [0, 1, np.nan, 3, np.inf]
        file.attrs["marker"] = "done"
    with open_hdf5(path) as file:
        assert count_frames(file, partial_path(path)) == 2
    one_line(lambda: read_spins(path, SIZE), "/done of frame 2 of 5 is not a finite number")


@pytest.mark.parametrize("name", ["field", "density", "energy", "electrons", "chemical_potential"])
@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, name: str, number: float) -> None:
    """Not told apart, they would look like fields that are too long, or make a training diverge."""
    datasets = {"field": unit(3), "density": unit(3)[..., 0]}
    datasets |= {one: np.ones(3) for one in ("energy", "electrons", "chemical_potential")}
    datasets[name][2, ...] = number
    write_labels(tmp_path / "in.h5", unit(3), attributes={}, **datasets)
    words = f"in.h5: /{name} of frame 2 holds numbers that are not finite"
    one_line(lambda: read_labels(tmp_path / "in.h5"), words)
    one_line(lambda: read_labels(tmp_path / "in.h5", frames=slice(1, 3)), words)
    assert len(read_labels(tmp_path / "in.h5", frames=slice(0, 2)).spins) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("field", [1e30, -1e5, 1e300])
def test_a_field_that_no_electrons_have_is_named(tmp_path: Path, field: float) -> None:
    fields = unit(3)
    fields[2, 1, 0, 2] = field
    write_labels(tmp_path / "in.h5", unit(3), fields, {})
    one_line(lambda: read_labels(tmp_path / "in.h5"), r"in.h5: /field of frame 2 at site \(1, 0\)")
    one_line(lambda: read_labels(tmp_path / "in.h5", frames=slice(2, 3)), r"frame 2 at site \(1, 0\)")


@pytest.mark.parametrize(("exchange", "error", "right"), [(0.9, 0.0, False), (1.0, 0.0, True), (-0.9, 0.2, True)])
def test_no_label_is_longer_than_the_exchange(tmp_path: Path, exchange: float, error: float, right: bool) -> None:
    config = {"config": {"electrons": {"exchange": exchange}}}
    write_labels(tmp_path / "in.h5", unit(3), unit(3), config, error=np.full(3, error))
    if right:
        read_labels(tmp_path / "in.h5")
    else:
        one_line(lambda: read_labels(tmp_path / "in.h5"), "longer than the 0.9009 that an exchange field can be")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda shard: {"file": "../outside.h5"}, "no plain name"),
        (lambda shard: {"file": "sub/a.h5"}, "no plain name"),
        (lambda shard: {"file": "/etc/passwd"}, "no plain name"),
        (lambda shard: {"file": ".."}, "no plain name"),
        (lambda shard: {"file": ""}, "no plain name"),
        (lambda shard: {"file": "..\\a.h5"}, "no plain name"),
        (lambda shard: {"file": 3}, "no shard"),
        (lambda shard: {"snapshots": True}, "no shard"),
        (lambda shard: {"snapshots": 1}, "number of snapshots is not the manifest's"),
        (lambda shard: {"checksum": None}, "no shard"),
    ],
)
def test_a_manifest_names_files_of_its_directory(
    tmp_path: Path, change: Callable[[dict[str, object]], dict[str, object]], words: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in (tmp_path / "outside.h5", data / "a.h5"):
        write_labels(path, unit(), unit(), {})
    write_manifest(data)
    content = json.loads((data / "manifest.json").read_text())
    content["shards"][0] |= change(content["shards"][0])
    (data / "manifest.json").write_text(json.dumps(content))
    one_line(lambda: read_manifest(data), words)
    (data / "manifest.json").write_text(json.dumps({"shards": 2 * [content["shards"][0] | {"file": "a.h5"}]}))
    one_line(lambda: read_manifest(data), "lists a file twice|no shard|number")
    (data / "manifest.json").write_text(9999 * "[")
    one_line(lambda: read_manifest(data), "no valid JSON")


def test_a_million_frames_are_checked_without_holding_them(tmp_path: Path) -> None:
    """500 MB of zeros that no disk holds: the first one is found in no more memory than a hundredth of them."""
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("spins", (1_000_000, 4, 5, 3), "f8")
        data[:1000, ..., 2] = 1
        data[-1, ..., 2] = 1
    script = (
        "import resource, sys\n"
        "from hpcspin.storage import SpinsFile\n"
        "source = SpinsFile(sys.argv[1], (4, 5))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    source.check()\nexcept Exception as failure:\n    print(failure)\n"
        "print(source.read(-1).shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    told, last = result.stdout.splitlines()
    assert "spin (1000, 0, 0) has length 0, not 1; only the sites of electrons.vacancies can lack a spin" in told
    assert last.startswith("(1, 4, 5, 3)")
    assert int(last.split()[-1]) < 150_000  # kB


def test_a_torn_partial_file_of_labels_is_named_with_what_to_do(tmp_path: Path) -> None:
    from hpcspin.storage import LabelWriter

    writer = LabelWriter(tmp_path / "out.h5", SIZE, {"density": SIZE, "error": ()}, {"config": {}}, 3)
    writer.append(spins=unit(1), field=unit(1), density=np.ones((1, *SIZE)), error=np.ones(1))
    partial = partial_path(tmp_path / "out.h5")
    partial.write_bytes(partial.read_bytes()[:-100])
    one_line(
        lambda: LabelWriter(tmp_path / "out.h5", SIZE, {"density": SIZE, "error": ()}, {"config": {}}, 3),
        r"out.h5.partial: .*; delete it to label from the first snapshot on$",
    )
