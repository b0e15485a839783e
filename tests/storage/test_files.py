"""Whole or absent: what storage promises about files, whatever happens while they are written."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import h5py
import numpy as np
import pytest

from hpcspin.errors import HpcspinError
from hpcspin.storage import (
    FrameReader,
    LabelWriter,
    TrajectoryWriter,
    atomic_file,
    check_spins,
    code_version,
    config_differences,
    partial_path,
    provenance,
    read_attributes,
    read_checkpoint,
    read_labels,
    read_manifest,
    read_spins,
    write_checkpoint,
    write_labels,
    write_manifest,
    write_text,
)

SIZE = (4, 3)
CONFIG = {
    "lattice": {"size": [4, 3]},
    "electrons": {"tolerance": 1e-6, "reservoirs": [{"name": "l", "potential": 0.0}]},
}
ATTRIBUTES = {"config": CONFIG, "precision": "float64"}
SHAPES = {"density": SIZE, "current": (2,), "error": ()}


def unit_spins(n, seed=0):
    spins = np.random.default_rng(seed).normal(size=(n, *SIZE, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def labels(n, seed=0):
    rng = np.random.default_rng(seed + 100)
    return {
        "spins": unit_spins(n, seed),
        "field": rng.normal(size=(n, *SIZE, 3)),
        "density": rng.normal(size=(n, *SIZE)),
        "current": rng.normal(size=(n, 2)),
        "error": rng.uniform(0, 1e-7, size=n),
    }


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


class TestAtomicFile:
    def test_success_leaves_the_file_and_nothing_else(self, tmp_path):
        write_text(tmp_path / "deep" / "a.txt", "whole")
        assert (tmp_path / "deep" / "a.txt").read_text() == "whole"
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]

    def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path):
        target = tmp_path / "a.txt"
        target.write_text("old")
        with contextlib.suppress(KeyboardInterrupt), atomic_file(target) as file:
            file.write_at(0, b"half")
            raise KeyboardInterrupt
        assert target.read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


class TestSpins:
    def test_valid_spins_pass_unchanged(self):
        spins = unit_spins(2)
        assert np.array_equal(check_spins(spins, SIZE, "here"), spins)

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda s: s[..., :2], "shape"),
            (lambda s: s[:, :3], "3 x 3"),
            (lambda s: np.where(s == s[1, 2, 1, 0], np.nan, s), r"(1, 2, 1)"),
            (lambda s: s * (1 + 1e-4), "length 1.0001"),
            (lambda s: s[:0], "shape"),
        ],
    )
    def test_invalid_spins_are_named(self, damage, words):
        with pytest.raises(HpcspinError) as error:
            check_spins(damage(unit_spins(2)), SIZE, "in.h5")
        assert words in one_line(error)
        assert "in.h5" in str(error.value)

    def test_frames_are_chosen_by_index_or_slice(self, tmp_path):
        spins = unit_spins(5)
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file["spins"] = spins
        assert np.array_equal(read_spins(tmp_path / "in.h5", SIZE, -1), spins[-1:])
        assert np.array_equal(read_spins(tmp_path / "in.h5", SIZE, slice(1, 4)), spins[1:4])
        with pytest.raises(HpcspinError, match="has 5 frames"):
            read_spins(tmp_path / "in.h5", SIZE, 5)

    def test_truncation_at_any_byte_is_one_line(self, tmp_path):
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file["spins"] = unit_spins(5)
        whole = (tmp_path / "in.h5").read_bytes()
        for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.h5").write_bytes(whole[:length])
            with pytest.raises(HpcspinError, match=r"cut\.h5") as error:
                read_spins(tmp_path / "cut.h5", SIZE)
            one_line(error)

    def test_missing_file_and_missing_dataset_are_one_line(self, tmp_path):
        with pytest.raises(HpcspinError, match="no such file"):
            read_spins(tmp_path / "none.h5", SIZE)
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["velocity"] = np.ones(3)
        with pytest.raises(HpcspinError, match="no dataset /spins"):
            read_spins(tmp_path / "other.h5", SIZE)


class TestLabels:
    def test_round_trip_with_attributes(self, tmp_path):
        given = labels(3)
        write_labels(tmp_path / "a.h5", attributes=ATTRIBUTES, **given)
        found = read_labels(tmp_path / "a.h5", SIZE)
        for name, value in given.items():
            assert np.array_equal(vars(found).get(name, found.others.get(name)), value)
        assert found.attributes["config"] == CONFIG
        for name in ("schema_version", "code_version", "precision", "units"):
            assert name in found.attributes

    def test_resumed_equals_uninterrupted(self, tmp_path):
        arrays = labels(5)
        settings = (SIZE, SHAPES, ATTRIBUTES, 5)
        writer = LabelWriter(tmp_path / "once.h5", *settings)
        writer.append(**arrays)
        writer.finish()
        writer = LabelWriter(tmp_path / "a.h5", *settings)
        writer.append(**{name: array[:2] for name, array in arrays.items()})
        assert not (tmp_path / "a.h5").exists()
        assert len(read_spins(partial_path(tmp_path / "a.h5"), SIZE)) == 2
        writer = LabelWriter(tmp_path / "a.h5", *settings)
        assert writer.done == 2
        writer.append(**{name: array[2:] for name, array in arrays.items()})
        writer.finish()
        assert not partial_path(tmp_path / "a.h5").exists()
        with h5py.File(tmp_path / "a.h5") as resumed, h5py.File(tmp_path / "once.h5") as once:
            assert set(resumed) == set(once) == {"spins", "field", "density", "current", "error"}
            for name in once:
                assert np.array_equal(resumed[name][...], once[name][...])

    def test_another_config_is_refused_with_the_key(self, tmp_path):
        LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, ATTRIBUTES, 5).append(**labels(1))
        other = json.loads(json.dumps(ATTRIBUTES))
        other["config"]["electrons"]["reservoirs"][0]["potential"] = -3.2
        with pytest.raises(HpcspinError, match=r"config\.electrons\.reservoirs\.0\.potential \(0\.0 -> -3"):
            LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, other, 5)

    def test_an_unfinished_file_without_a_dataset_of_today_is_refused_and_stays(self, tmp_path):
        """As those of kpm from before /energy_error."""
        LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, ATTRIBUTES, 5).append(**labels(2))
        partial = partial_path(tmp_path / "a.h5")
        before = partial.read_bytes()
        with pytest.raises(
            HpcspinError, match="has no /energy_error, which this version of hpcspin writes too"
        ) as error:
            LabelWriter(tmp_path / "a.h5", SIZE, {**SHAPES, "energy_error": ()}, ATTRIBUTES, 5)
        one_line(error)
        assert list(tmp_path.iterdir()) == [partial]
        assert partial.read_bytes() == before

    def test_nothing_is_there_before_the_first_label(self, tmp_path):
        """And what an earlier version has laid out without a label stands in nobody's way."""
        LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, ATTRIBUTES, 5)
        assert not list(tmp_path.iterdir())
        LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, ATTRIBUTES, 5).append(**labels(1))
        with h5py.File(partial_path(tmp_path / "a.h5"), "r+") as file:
            file["error"][...] = np.nan
        writer = LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, {**ATTRIBUTES, "precision": "complex64"}, 1)
        writer.append(**labels(1))
        writer.finish()
        assert read_attributes(tmp_path / "a.h5")["precision"] == "complex64"

    def test_incomplete_is_not_finished_and_not_finite_is_refused(self, tmp_path):
        writer = LabelWriter(tmp_path / "a.h5", SIZE, SHAPES, ATTRIBUTES, 5)
        arrays = labels(1)
        with pytest.raises(HpcspinError, match="field from snapshot 0"):
            writer.append(**{**arrays, "field": arrays["field"] * np.nan})
        writer.append(**arrays)
        with pytest.raises(HpcspinError, match="1 of 5"):
            writer.finish()

    def test_unlabelled_spins_are_not_labels(self, tmp_path):
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file["spins"] = unit_spins(2)
        with pytest.raises(HpcspinError, match="no dataset /field"):
            read_labels(tmp_path / "in.h5")

    def test_killed_at_any_moment_leaves_only_whole_labels(self, tmp_path):
        """SIGKILL at moments we do not choose; the partial file opens and its rows are whole."""
        script = (
            "import sys, numpy as np\n"
            "from hpcspin.storage import LabelWriter\n"
            "spins = np.zeros((1, 40, 40, 3)); spins[..., 2] = 1\n"
            "writer = LabelWriter(sys.argv[1], (40, 40), {'density': (40, 40), 'error': ()}, {'config': {}}, 2000)\n"
            "while True:\n"
            "    k = writer.done + 1.0\n"
            "    writer.append(spins=spins, field=spins * k, density=spins[..., 0] + k, error=np.full(1, k))\n"
            "    print('ready', flush=True)\n"
        )
        path, done = tmp_path / "a.h5", 0
        for attempt in range(4):
            process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(0.05 + 0.037 * attempt)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            found = read_labels(partial_path(path))
            error = found.others["error"]
            assert len(error) > done
            done = len(error)
            assert np.array_equal(error, np.arange(1, done + 1))
            assert (found.field[..., 2] == error[:, None, None]).all()


class TestTrajectory:
    OBSERVABLES: ClassVar = {"wall_position": (), "magnetization": (3,)}

    def frame(self, step):
        return {
            "spins": unit_spins(1, step)[0],
            "field": unit_spins(1, step + 50)[0],
            "step": step,
            "time": 0.1 * step,
            "wall_position": 1.5,
            "magnetization": np.arange(3.0),
        }

    def writer(self, path, capacity, keep=0):
        return TrajectoryWriter(path, SIZE, ATTRIBUTES, capacity, self.OBSERVABLES, keep)

    @pytest.mark.parametrize(
        "first", [slice(1, 3), slice(-2, None), 1, -1, np.int64(2), [0, 3], np.arange(4) % 2 == 0, ...]
    )
    def test_a_stretch_of_frames_is_indexed_as_an_array_of_them(self, tmp_path, first):
        writer = self.writer(tmp_path / "t.h5", 6)
        for step in range(6):
            writer.append(**self.frame(step))
        writer.finish()
        with FrameReader(tmp_path / "t.h5") as frames:
            whole, stretch = frames.spins[:], frames.spins.between(1, 5)
            for which in (first, (first, 2)):
                np.testing.assert_array_equal(stretch[which], whole[1:5][which])

    def test_frames_beyond_the_checkpoint_are_written_again(self, tmp_path):
        writer = self.writer(tmp_path / "t.h5", 4)
        for step in (0, 1, 99):
            writer.append(**self.frame(step))
        writer = self.writer(tmp_path / "t.h5", 4, keep=2)
        assert len(read_spins(writer.partial, SIZE)) == 2
        for step in (2, 3):
            writer.append(**self.frame(step))
        writer.finish()
        with h5py.File(tmp_path / "t.h5") as file:
            assert file["step"][...].tolist() == [0, 1, 2, 3]
            assert file["step"].dtype == np.int64
            for row in range(4):
                assert np.array_equal(file["spins"][row], self.frame(row)["spins"])

    def test_a_finished_run_is_extended(self, tmp_path):
        writer = self.writer(tmp_path / "t.h5", 2)
        for step in range(2):
            writer.append(**self.frame(step))
        writer.finish()
        writer = self.writer(tmp_path / "t.h5", 3, keep=2)
        assert len(read_spins(tmp_path / "t.h5", SIZE)) == 2
        writer.append(**self.frame(2))
        writer.finish()
        assert len(read_spins(tmp_path / "t.h5", SIZE)) == 3

    def test_fewer_frames_than_the_checkpoint_knows_is_an_error(self, tmp_path):
        self.writer(tmp_path / "t.h5", 4).append(**self.frame(0))
        with pytest.raises(HpcspinError, match="holds 1 frames, the checkpoint counts 2"):
            self.writer(tmp_path / "t.h5", 4, keep=2)

    def test_serves_as_a_label_file_while_it_grows(self, tmp_path):
        writer = self.writer(tmp_path / "t.h5", 4)
        writer.append(**self.frame(0))
        found = read_labels(writer.partial, SIZE)
        assert len(found.spins) == 1
        assert "density" not in found.others


class TestCheckpoint:
    ARRAYS: ClassVar = {"spins": unit_spins(1), "field/grid": np.linspace(0, 1, 7), "count": np.int64(3)}
    META: ClassVar = {"step": 12, "time": 4.8}

    def write(self, path, step=12):
        write_checkpoint(path, self.ARRAYS, {**self.META, "step": step}, CONFIG)

    def test_round_trip(self, tmp_path):
        self.write(tmp_path / "c.h5")
        found = read_checkpoint(tmp_path / "c.h5", CONFIG)
        assert found.meta == self.META
        assert found.config == CONFIG
        assert set(found.arrays) == set(self.ARRAYS)
        for name, array in self.ARRAYS.items():
            assert np.array_equal(found.arrays[name], array)

    def test_none_where_there_is_none(self, tmp_path):
        assert read_checkpoint(tmp_path / "c.h5") is None

    @pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
    def test_corrupt_newest_falls_back_loudly(self, tmp_path, caplog, damage):
        path = tmp_path / "c.h5"
        self.write(path, 1)
        self.write(path, 2)
        assert read_checkpoint(path).meta["step"] == 2
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[content.find(self.ARRAYS["spins"].tobytes()) + 5] ^= 1
        path.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
        with caplog.at_level(logging.WARNING):
            assert read_checkpoint(path, CONFIG).meta["step"] == 1
        assert "c.h5" in caplog.text
        assert "falling back" in caplog.text

    def test_killed_between_the_two_renames(self, tmp_path):
        self.write(tmp_path / "c.h5", 1)
        (tmp_path / "c.h5").rename(tmp_path / "c.previous.h5")
        assert read_checkpoint(tmp_path / "c.h5").meta["step"] == 1

    def test_what_a_killed_writer_left_goes_with_the_next_one(self, tmp_path):
        left, others = tmp_path / ".c.0123abcd.h5", tmp_path / ".d.0123abcd.h5"
        for path in (left, others):
            path.touch()
        self.write(tmp_path / "c.h5")
        assert not left.exists()
        assert others.exists()

    def test_no_intact_one_is_an_error(self, tmp_path):
        self.write(tmp_path / "c.h5")
        (tmp_path / "c.h5").write_bytes(b"")
        with pytest.raises(HpcspinError, match="no intact checkpoint") as error:
            read_checkpoint(tmp_path / "c.h5")
        one_line(error)

    def test_another_config_is_refused_unless_the_key_may_differ(self, tmp_path):
        self.write(tmp_path / "c.h5")
        other = json.loads(json.dumps(CONFIG))
        other["electrons"]["tolerance"] = 1e-8
        with pytest.raises(HpcspinError, match=r"electrons\.tolerance \(1e-06 -> 1e-08\)"):
            read_checkpoint(tmp_path / "c.h5", other)
        assert read_checkpoint(tmp_path / "c.h5", other, ignore=("electrons.tolerance",)) is not None


class TestManifest:
    def shards(self, directory):
        for name, n in (("b.h5", 2), ("a.h5", 3)):
            given = labels(n)
            write_labels(directory / name, given["spins"], given["field"], ATTRIBUTES)
        return write_manifest(directory)

    def test_sorted_and_read_back(self, tmp_path):
        shards = self.shards(tmp_path)
        assert [(shard.file, shard.snapshots) for shard in shards] == [("a.h5", 3), ("b.h5", 2)]
        assert read_manifest(tmp_path) == shards

    def test_missing_shard_is_named(self, tmp_path):
        self.shards(tmp_path)
        (tmp_path / "b.h5").unlink()
        with pytest.raises(HpcspinError, match=r"b\.h5: shard is missing"):
            read_manifest(tmp_path)

    def test_changed_shard_is_named(self, tmp_path):
        self.shards(tmp_path)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file["field"][0, 0, 0, 0] += 1e-12
        with pytest.raises(HpcspinError, match=r"a\.h5: shard is corrupt"):
            read_manifest(tmp_path)

    def test_missing_and_invalid_manifest(self, tmp_path):
        with pytest.raises(HpcspinError, match="no such file"):
            read_manifest(tmp_path)
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(HpcspinError, match="no valid JSON"):
            read_manifest(tmp_path)
        with pytest.raises(HpcspinError, match="no label files"):
            write_manifest(tmp_path)


def test_differences_name_nested_keys():
    stored = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    given = {"a": {"b": 2, "c": [1, 2]}, "e": 1}
    assert config_differences(stored, given) == {"a.b": (1, 2), "d": (1, "absent"), "e": ("absent", 1)}
    assert config_differences(stored, given, ignore=("a", "d", "e")) == {}


def test_provenance_is_json_and_names_the_code():
    assert json.loads(json.dumps(provenance()))["code_version"] == code_version()
    assert "numpy" in provenance()


def test_attributes_come_back_decoded(tmp_path):
    write_labels(tmp_path / "a.h5", attributes={"config": CONFIG, "reservoirs": ["l"], "n": 3}, **labels(1))
    attributes = read_attributes(tmp_path / "a.h5")
    assert attributes["config"] == CONFIG
    assert attributes["reservoirs"] == ["l"]
    assert attributes["n"] == 3
