"""Whatever a file or a config holds, the answer is a valid result or one line: no traceback, no hang, nothing wrong.

Few examples by default; ``HPCSPIN_FUZZ_EXAMPLES=2000 bash launch/test.sh tests/test_fuzz.py`` searches for longer.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcspin.config import Config, load_config, parse_config
from hpcspin.config_text import read_yaml
from hpcspin.dynamics import DynamicsSettings, Simulation, Zeeman
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import (
    Labels,
    SpinsFile,
    TrajectoryWriter,
    read_attributes,
    read_checkpoint,
    read_labels,
    read_manifest,
    write_checkpoint,
    write_labels,
    write_manifest,
    write_ovf,
)
from hpcspin.training.sources import read_source
from hpcspin.workflows.export import export

fuzz = settings(
    max_examples=int(os.environ.get("HPCSPIN_FUZZ_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SIZE = (3, 3)
LATTICE = make_lattice("square", SIZE)
SITES = np.moveaxis(np.indices(SIZE), 0, -1).astype(float)
CONFIG = {
    "lattice": {"kind": "square", "size": [3, 3], "periodic": [False, True]},
    "electrons": {
        "exchange": 3.8,
        "temperature": 0.05,
        "reservoirs": [
            {"name": "left", "sites": "left", "width": 1.0, "potential": -3.2},
            {"name": "right", "sites": [[2, 0]], "width": 1.0, "potential": 0.0},
        ],
    },
    "initial": {"kind": "wall", "position": 1, "tilt": 0.1},
    "dynamics": {"field": "classical", "step": 0.1, "duration": 1.0, "observers": ["energy"]},
    "potential": {"radius": 1.5, "hidden": [4, 4]},
    "training": {"epochs": 2, "validation": ["b.h5"]},
    "reproduce": {"train": [{"seed": 1}], "validation": [{"seed": 2}], "test": [{"seed": 3, "initial": None}]},
}


def unit(n: int) -> np.ndarray:
    spins = np.random.default_rng(n).normal(size=(n, *SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


@contextmanager
def refusal() -> Iterator[None]:
    """All that may be raised: one line for a user, and no warning of a library beside it."""
    told = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except HpcspinError as failure:
        told = str(failure)
    assert told.isprintable()


def valid(spins: np.ndarray) -> None:
    assert spins.dtype == np.float64
    assert spins.ndim == 4
    assert np.allclose(np.linalg.norm(spins, axis=-1), 1, rtol=0, atol=1e-6)


def written(write: Callable[[Path], object], name: str = "a") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def trajectory(path: Path) -> None:
    writer = TrajectoryWriter(path, SIZE, {"config": CONFIG}, 2, {})
    for step in range(2):
        writer.append(spins=unit(2)[step], field=unit(2)[step], step=step, time=0.1 * step)
    writer.finish()


def spins_of(path: Path) -> Labels | None:
    """Read a file as everything that it could be."""
    labels = None
    with refusal():
        source = SpinsFile(path, None)
        source.check()
        valid(source.read(-1))
        valid(source.read())
    with refusal():
        labels = read_labels(path)
        valid(labels.spins)
        assert labels.field.shape == labels.spins.shape
        assert np.isfinite(labels.field).all()
        for name, array in labels.others.items():
            assert len(array) == len(labels.spins), name
    with refusal():
        read_source(path, "square", 0.0)
    for target in ("ovf-text", "xdmf"):
        with refusal():
            export(path, target, path.parent / f"out.{target}", World())  # type: ignore[arg-type]
    with refusal():
        write_manifest(path.parent)
        read_manifest(path.parent)
    return labels


LABELS = written(lambda path: write_labels(path, unit(3), unit(3), {"config": CONFIG}, error=np.ones(3)))
WHOLE = {
    "a.h5": LABELS,
    "t.h5": written(trajectory),
    "a.npy": written(lambda path: np.save(path.open("wb"), unit(3))),
    "a.ovf": written(lambda path: write_ovf(path, unit(1)[0], SITES, title="m", unit="1", time=0.0)),
}
damages = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
    st.tuples(st.just("set"), st.integers(0, 10**6), st.integers(0, 255)),
    st.tuples(st.just("add"), st.integers(0, 10**6), st.integers(0, 255)),
)


def damaged(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    found = bytearray(content)
    for kind, place, value in changes:
        place %= len(found) or 1
        if kind == "cut" or not found:
            del found[place:]
        elif kind == "flip":
            found[place] ^= 1 << value
        elif kind == "set":
            found[place] = value
        else:
            found.insert(place, value)
    return bytes(found)


@fuzz
@given(st.sampled_from(sorted(WHOLE)), st.lists(damages, min_size=1, max_size=4))
def test_damaged_files_of_spins_and_labels(name: str, changes: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(damaged(WHOLE[name], changes))
        spins_of(path)


shapes = st.sampled_from(
    [
        (3, *SIZE, 3),
        (3, *SIZE, 3),
        (3, *SIZE),
        (3,),
        (),
        (0,),
        (0, *SIZE, 3),
        (3, *SIZE, 2),
        (2, *SIZE, 3),
        (3, 0, 2, 3),
    ]
)
dtypes = st.sampled_from(
    ["f8", ">f4", "f2", "i8", "u1", "bool", "c16", "S3", "object", [("x", "f8")], ("f8", (2, 3)), "g", "ref", "enum"]
)
numbers = st.one_of(st.sampled_from(["unit", "z"]), st.floats(), st.integers(-3, 3))
layouts = st.sampled_from(
    [{}, {}, {"chunks": True}, {"compression": "gzip"}, {"compression": "lzf"}, {"fletcher32": True}]
)
items = st.one_of(
    st.tuples(st.just("data"), shapes, dtypes, numbers, layouts),
    st.tuples(st.sampled_from(["group", "type", "soft", "self", "external", "virtual", "raw", "lazy", "huge", "null"])),
)
words = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.integers(-9, 9),
    st.floats(),
    st.sampled_from(
        ["spins", "field", "error", "time", "{", "[1]", json.dumps(CONFIG), '{"lattice": 3}', b"x", np.ones(3)]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["lattice", "electrons", "size", "kind", "reservoirs"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ).map(json.dumps),
)
names = st.sampled_from(["spins", "field", "density", "current", "error", "time", "step", "spread", "other", "\n", "é"])


def put(file: h5py.File, name: str, item: tuple[Any, ...]) -> None:
    kind = item[0]
    if kind == "data":
        _, shape, dtype, number, layout = item
        special = {"ref": h5py.ref_dtype, "object": h5py.string_dtype(), "enum": h5py.enum_dtype({"a": 1})}
        dtype = special.get(dtype, dtype) if isinstance(dtype, str) else dtype
        try:
            values: Any = np.zeros(shape)
            if number == "unit" and shape == (3, *SIZE, 3):
                values = unit(3)
            elif number == "z" and shape[-1:] == (3,):
                values[..., 2] = 1
            elif isinstance(number, int | float):
                values += number
            with np.errstate(all="ignore"):
                values = None if dtype in special.values() else values.astype(dtype)
            file.create_dataset(name, shape, dtype, data=values, **(layout if np.prod(shape) and shape else {}))
        except (TypeError, ValueError, OSError):  # h5py or NumPy have no such thing
            return
    elif kind == "group":
        file.create_group(name)["again"] = file["/"]
    elif kind == "type":
        file[name] = np.dtype("f8")
    elif kind in ("soft", "self"):
        file[name] = h5py.SoftLink(f"/{name}" if kind == "self" else "/other")
    elif kind == "external":
        file[name] = h5py.ExternalLink("a.h5", "/spins")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((3, *SIZE, 3), "f8")
        layout[...] = h5py.VirtualSource("a.h5", "spins", (3, *SIZE, 3))
        file.create_virtual_dataset(name, layout)
    elif kind == "raw":
        file.create_dataset(name, (3, *SIZE, 3), "f8", external=[("raw", 0, h5py.h5f.UNLIMITED)])
    elif kind == "lazy":
        file.create_dataset(name, (3, *SIZE, 3), "f8")
    elif kind == "huge":
        file.create_dataset(name, (2**40, *SIZE, 3), "f8", chunks=(1, *SIZE, 3), maxshape=(None, *SIZE, 3))[0] = 1
    else:
        file[name] = h5py.Empty("f8")


@fuzz
@given(
    st.dictionaries(names, items, max_size=4),
    st.dictionaries(st.sampled_from(["config", "marker", "schema_version", "kind", "é"]), words, max_size=3),
    st.booleans(),
)
def test_hdf5_files_that_hold_anything(contents: dict[str, Any], attributes: dict[str, Any], whole: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        if whole:
            path.write_bytes(LABELS)
        with h5py.File(path, "a") as file:
            for name, item in contents.items():
                if name in file:
                    del file[name]
                put(file, name, item)
            for name, value in attributes.items():
                file.attrs[name] = value
        spins_of(path)


ARRAYS = {"spins": unit(1)[0], "field": unit(2)[0]}
META = {"step": 2, "last_step": 4, "recorder": {"frames": 2, "closing": False, "wall": 0.0}}


def simulation(folder: Path) -> Simulation:
    chosen = DynamicsSettings(
        damping=0.1, temperature=0.0, step=0.1, duration=0.4, record_interval=1, checkpoint_interval=2, observers=()
    )
    return Simulation(LATTICE, Zeeman((0.0, 0.0, 1.0)), unit(1)[0], chosen, folder, config={})


def run_on(folder: Path) -> None:
    """Go on with a run; what has its real name in the end is right."""
    with refusal():
        assert simulation(folder).run().finished
    if (folder / "trajectory.h5").exists():
        labels = read_labels(folder / "trajectory.h5")
        valid(labels.spins)
        with h5py.File(folder / "trajectory.h5") as file:
            assert file["step"][...].tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A run that was stopped at step 2: its files, and the whole one's trajectory."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "STOP").touch()
    simulation(folder).run()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@fuzz
@given(damage=st.lists(damages, min_size=1, max_size=3), which=st.integers(0, 9))
def test_damaged_checkpoints_and_partial_files(
    half_done: dict[str, bytes], damage: list[tuple[str, int, int]], which: int
) -> None:
    """Frames hold no checksum: a flipped bit in one is seen where it makes a spin that is none."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in half_done.items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / sorted(half_done)[which % len(half_done)]
        path.write_bytes(damaged(path.read_bytes(), damage))
        before = None
        with refusal():
            found = read_checkpoint(Path(folder) / "checkpoint.h5")
            before = found and found.arrays["spins"]
        assert before is None or np.array_equal(before, unit(1)[0])
        if path.name == "checkpoint.h5":
            run_on(Path(folder))
        else:
            with refusal():
                simulation(Path(folder)).run()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
small = st.one_of(values, st.integers(-1, 6), st.just(META["recorder"]))
arrays = st.builds(
    lambda shape, dtype, number: np.full(shape, number).astype(dtype),
    st.sampled_from([(*SIZE, 3), SIZE, (), (1,), (0,), (1, *SIZE, 3)]),
    st.sampled_from(["f8", ">f8", "f4", "i8", "c16", "bool"]),
    st.sampled_from([0.0, 1.0, np.nan, 1e300]),
)


@fuzz
@given(
    meta=st.dictionaries(st.sampled_from(["step", "last_step", "recorder", "level"]), small, max_size=2),
    inner=st.dictionaries(st.sampled_from(["frames", "closing", "wall"]), small, max_size=2),
    changes=st.dictionaries(st.sampled_from(["spins", "field", "field_state/a"]), arrays, max_size=2),
    without=st.sets(st.sampled_from(["step", "last_step", "recorder", "spins", "field"]), max_size=1),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_checkpoints_that_hold_anything(
    half_done: dict[str, bytes], meta: dict[str, Any], inner: dict[str, Any], changes: dict[str, Any], without: set[str]
) -> None:
    """With a valid checksum: it says that the bytes are those that were written, not that they make sense."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in half_done.items():
            (Path(folder) / name).write_bytes(content)
        told = {**META, "recorder": {**META["recorder"], **inner}, **meta}  # type: ignore[dict-item]
        held = {**ARRAYS, **changes}
        write_checkpoint(
            Path(folder) / "checkpoint.h5",
            {name: array for name, array in held.items() if name not in without},
            {name: value for name, value in told.items() if name not in without},
            {},
        )
        with refusal():
            simulation(Path(folder)).run()
        for path in Path(folder).glob("trajectory.h5"):
            valid(read_labels(path).spins)


def paths(node: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value of a nested structure can be replaced."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [here, *(path for key, value in inner for path in paths(value, (*here, key)))]


ODD = """1:30 | on | 1e400 | -1e-400 | 0x1F | 1_000 | .nan | .inf | !!float x | !!python/name:os.system | *a | ~
| &a [*a] | {a: 1, a: 2} | {1: 2} | {? [a] : b} | <<: 3 | !!set {a} | !!binary x | 2001-01-01 | ' | [ | %
| !!timestamp 1 | = | - 1 | > b | !!int '' | {} | [] | "" """
odd = st.sampled_from([*ODD.split(" | "), "| a", "\t", "\x07", str(10**30), 5000 * "9", 60 * "[" + 60 * "]"])


@fuzz
@given(st.sampled_from(paths(CONFIG)[1:]), values.map(json.dumps) | odd | st.text(max_size=20))
def test_configs_and_overrides_with_any_value(path: tuple[Any, ...], value: str) -> None:
    key = ".".join(map(str, path))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "system.yaml"
        file.write_text(json.dumps(CONFIG))
        outcomes = [_loaded(file, [f"{key}={value}"])]
        content = json.loads(json.dumps(CONFIG))
        node = content
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = "@@"
        file.write_text(json.dumps(content).replace('"@@"', value), encoding="utf-8", errors="surrogatepass")
        outcomes.append(_loaded(file, []))
        for config in outcomes:
            assert config is None or parse_config(json.loads(config.as_json()), "stored") == config


def _loaded(path: Path, overrides: list[str]) -> Config | None:
    with refusal():
        return load_config(path, overrides)
    return None


@fuzz
@given(st.text(max_size=60) | st.lists(odd | st.text(max_size=6), max_size=8).map("\n".join) | st.binary(max_size=60))
def test_any_text_is_a_config_or_refused(text: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "system.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        _loaded(path, [])
        if isinstance(text, str):
            with refusal():
                json.dumps(read_yaml(text))
            _loaded(path, [text])
            path.write_text(json.dumps(CONFIG))
            _loaded(path, [text])


@fuzz
@given(
    values
    | st.fixed_dictionaries(
        {
            "shards": st.lists(
                values
                | st.fixed_dictionaries(
                    {
                        "file": st.sampled_from(["a.h5", "../a.h5", "", ".", "/", "\0", "b"]),
                        "snapshots": st.sampled_from([3, 2, -1, 10**30]),
                        "checksum": st.text(max_size=3),
                    }
                ),
                max_size=3,
            )
        }
    ),
    st.lists(damages, max_size=2),
)
def test_any_manifest_is_refused_unless_it_is_true(content: Any, damage: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.h5").write_bytes(LABELS)
        (Path(folder) / "manifest.json").write_bytes(damaged(json.dumps(content).encode(), damage))
        with refusal():
            assert all(shard.file == "a.h5" and shard.snapshots == 3 for shard in read_manifest(folder))
        with refusal():
            read_attributes(Path(folder) / "manifest.json")
