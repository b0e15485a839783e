"""A disk that fails at any moment: one line, nothing wrong under a real name, and the same bytes when there is room."""

from __future__ import annotations

import errno
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
    LabelWriter,
    TrajectoryWriter,
    append_line,
    disk,
    partial_path,
    read_checkpoint,
    read_labels,
    write_bytes,
    write_checkpoint,
    write_labels,
    write_ovf,
    write_xdmf,
)

SIZE, FRAMES = (3, 2), 3
SPINS = np.zeros((FRAMES, *SIZE, 3))
SPINS[..., 2] = 1
FIELD = np.random.default_rng(1).normal(size=SPINS.shape)
NUMBERS = np.arange(1.0, FRAMES + 1)
SHAPES = {"density": SIZE, "current": (1,), "error": ()}
CALLS = ("pwrite", "fsync", "ftruncate", "replace", "close")


def labels(rows: slice) -> dict[str, np.ndarray]:
    sites = {"spins": SPINS[rows], "field": FIELD[rows], "density": SPINS[rows, ..., 0]}
    return {**sites, "current": NUMBERS[rows, None], "error": NUMBERS[rows]}


def label(path: Path) -> None:
    """Label in two appends, and go on where an earlier call has stopped."""
    writer = LabelWriter(path, SIZE, SHAPES, {"config": {}, "precision": "float64"}, FRAMES)
    while writer.done < FRAMES:
        rows = slice(writer.done, writer.done + 2)
        writer.append(**labels(rows))
    writer.finish()


def simulate(path: Path, compression: str | None = None, frames: int = FRAMES, most: int = FRAMES) -> None:
    """Record one frame after the other, as after a checkpoint at each."""
    unfinished = partial_path(path)
    done = 0
    if unfinished.exists():
        with h5py.File(unfinished) as file:
            done = int(np.isfinite(file["time"]).sum())
    writer = TrajectoryWriter(path, SIZE, {"config": {}}, most, {}, done, most > frames, compression)
    for row in range(done, frames):
        writer.append(spins=SPINS[row], field=FIELD[row], step=row, time=NUMBERS[row])
    writer.finish()


def export(path: Path) -> None:
    places = np.moveaxis(np.indices(SIZE), 0, -1).astype(float)
    source = path.parent / "source.h5"
    if not source.exists():
        write_labels(source, SPINS, FIELD, {"config": {}})
    write_xdmf(path, source, places)


def failure_of(work: Callable[[Path], None], path: Path) -> str:
    """The message of work that fails; empty if it succeeds."""
    try:
        work(path)
    except HpcspinError as failure:
        return str(failure)
    return ""


KINDS: dict[str, Callable[[Path], None]] = {
    "label": label,
    "trajectory": simulate,
    # All but the end is as for "trajectory": a frame will do.
    "compressed": lambda path: simulate(path, "gzip", frames=1, most=1),
    "fewer frames": lambda path: simulate(path, frames=1),
    "labels at once": lambda path: write_labels(path, SPINS, FIELD, {"config": {}}, error=NUMBERS),
    "checkpoint": lambda path: write_checkpoint(path, {"spins": SPINS}, {"step": 1}, {}),
    "ovf": lambda path: write_ovf(path, SPINS[0], np.zeros((*SIZE, 2)), title="spins", unit="1", time=0.0),
    "xdmf": export,
    "text": lambda path: write_bytes(path, b"numbers" * 1000),
}


class Failing:
    """The calls of the operating system, of which the one with a given number fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, error: int) -> None:
        self.count = 0
        for name in CALLS:
            monkeypatch.setattr(disk.os, name, self._counted(getattr(os, name), number, error))

    def _counted(self, call: Callable[..., object], number: int, error: int) -> Callable[..., object]:
        def counted(*arguments: object, **words: object) -> object:
            self.count += 1
            if self.count == number:
                if call.__name__ == "close":  # A descriptor is closed also where closing fails.
                    call(*arguments)
                raise OSError(error, os.strerror(error))
            return call(*arguments, **words)

        return counted


@pytest.fixture(autouse=True)
def no_room_is_taken_in_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that cannot, so that each write can be the one that finds the disk full."""
    monkeypatch.setattr(disk, "_fallocate", lambda *_: errno.EOPNOTSUPP)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush is called, counted and fails as ever; what it does, only a power failure would show."""
    monkeypatch.setattr(disk.os, "fsync", lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_fails_is_one_line_and_the_next_run_ends_with_the_same_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = KINDS[kind]
    (tmp_path / "undisturbed").mkdir()
    undisturbed = tmp_path / "undisturbed" / "out.x"
    work(undisturbed)
    expected = undisturbed.read_bytes()
    errors = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
    failed = 0
    for number in range(1, 1000):
        path = tmp_path / f"{number}" / "out.x"
        path.parent.mkdir()
        if kind == "xdmf":
            export(path.parent / "first.x")
        error = errors[number % len(errors)]
        with monkeypatch.context() as patch:
            calls = Failing(patch, number, error)
            message = failure_of(work, path)
        if message:
            failed += 1
            assert "\n" not in message
            assert os.strerror(error) in message
            assert "out." in message
            assert not path.exists() or path.read_bytes() == expected
            assert not list(path.parent.glob(".*"))
        else:
            assert path.read_bytes() == expected
        work(path)
        assert path.read_bytes() == expected
        if calls.count < number:
            break
    assert failed >= 4
    assert failed == number - 1


def test_a_frame_that_has_not_reached_the_disk_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    writer = LabelWriter(path, SIZE, SHAPES, {"config": {}}, FRAMES)
    frames = labels(slice(0, 1))
    writer.append(**frames)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(HpcspinError, match=r"a\.h5\.partial: Input/output error"):
            writer.append(**frames)
    assert writer.done == 1
    assert len(read_labels(partial_path(path)).spins) == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    write_checkpoint(path, {"spins": SPINS}, {"step": 1}, {})
    for number in range(1, 1000):
        with monkeypatch.context() as patch:
            calls = Failing(patch, number, errno.ENOSPC)
            failure_of(KINDS["checkpoint"], path)
        checkpoint = read_checkpoint(path)
        assert checkpoint is not None
        assert np.array_equal(checkpoint.arrays["spins"], SPINS)
        if calls.count < number:
            break
    assert number > 6


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system may take less than it is given: what a signal interrupts, and the last bytes of a disk."""
    whole = os.pwrite
    monkeypatch.setattr(disk.os, "pwrite", lambda file, data, offset: whole(file, bytes(data[:7]), offset))
    write_bytes(tmp_path / "a", bytes(range(256)))
    append_line(tmp_path / "a", "more")
    assert (tmp_path / "a").read_bytes() == bytes(range(256)) + b"more\n"


def test_a_file_has_its_name_only_after_all_of_it_has_reached_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> Callable[..., object]:
        call = getattr(os, name)
        return lambda *arguments: (calls.append(name), call(*arguments))[1]

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(disk.os, name, recorded(name))
        write_bytes(tmp_path / "a", b"whole")
    assert calls == ["pwrite", "fsync", "close", "replace", "fsync", "close"]


def test_room_for_all_frames_is_taken_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    writer = TrajectoryWriter(tmp_path / "a.h5", (100, 100), {"config": {}}, 20, {})
    spins = np.zeros((100, 100, 3))
    writer.append(spins=spins, field=spins, step=0, time=0.0)
    with open(tmp_path / "b", "wb") as file:
        if disk._fallocate(file.fileno(), 1):
            pytest.skip("this file system takes no room in advance")
    assert 512 * partial_path(tmp_path / "a.h5").stat().st_blocks >= 20 * 2 * spins.nbytes


LIMITED = """
import resource, sys
import numpy as np
from hpcspin.storage import disk, write_labels, atomic_hdf5, LabelWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
if sys.argv[2] == "late":
    disk._fallocate = lambda *_: 95
try:
    if sys.argv[1] == "hdf5":
        with atomic_hdf5("out.h5") as file:
            for number in range(100):
                file.create_dataset(f"{number}", data=np.ones((10, 100)), chunks=(1, 100), compression="gzip")
    else:
        spins = np.zeros((1, 10, 10, 3)); spins[..., 2] = 1
        writer = LabelWriter("out.h5", (10, 10), {"density": (10, 10), "error": ()}, {"config": {}}, 100)
        for number in range(100):
            writer.append(spins=spins, field=spins, density=spins[..., 0], error=np.ones(1))
        writer.finish()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("what", ["hdf5", "frames"])
def test_hdf5_neither_complains_nor_crashes_at_a_limit(what: str, when: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, what, when]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("HpcspinError: out.h5")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.h5").exists()
