"""A failure is one line that says what, where and how to mend it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from hpcspin.errors import one_line

TEMPORARY = "run/.trajectory.h5.8f7d1215.partial"


def h5py_error(number: int, path: str) -> OSError:
    """As h5py raises it: the name stands in the message alone."""
    return OSError(number, f"Unable to create file (unable to open file: name = '{path}', errno = {number})")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("make", [lambda number, path: OSError(number, os.strerror(number), path), h5py_error])
def test_an_output_that_cannot_be_written_is_named_by_its_directory(
    number: int, make: Callable[[int, str], OSError]
) -> None:
    told = one_line(make(number, TEMPORARY))
    assert told == f"run: {os.strerror(number)}; choose another --output or make it writable"


def test_a_full_disk_is_told_with_the_file() -> None:
    told = one_line(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/trajectory.h5"))
    assert told.startswith("run/trajectory.h5: No space left on device; make room")


def test_the_name_in_a_message_of_hdf5_is_found(tmp_path: Path) -> None:
    path = tmp_path / "none" / "file.h5"
    with pytest.raises(OSError) as failure:
        h5py.File(path, "w")
    assert one_line(failure.value) == f"{path}: {os.strerror(errno.ENOENT)}"


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError("Unable to allocate 1.00 TiB for an array"),
        # As torch raises it for a GPU, and for a CPU.
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. Including ... See ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_full_memory_says_what_would_help(failure: Exception) -> None:
    told = one_line(failure)
    assert told.startswith("out of memory: ")
    assert "; make lattice.size or training.batch smaller, or share" in told
    assert "See" not in told


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:4787: reset by peer", True),
        ("NCCL error in: ProcessGroupNCCL.cpp:3690, ncclRemoteError: A call failed, possibly by a network error", True),
        ("NCCL error in: ProcessGroupNCCL.cpp:3690, invalid usage", False),
    ],
)
def test_a_rank_that_has_gone_is_nothing_unexpected(message: str, gone: bool) -> None:
    told = one_line(RuntimeError(message))
    assert told.startswith("another rank of the job has gone") == gone
    assert told.startswith("unexpected RuntimeError") != gone
