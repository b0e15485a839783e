"""Kernels in C are kept where that is possible, and found where it is not."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from pathlib import Path

import pytest

from hpcspin.parallel.host_compiler import attempt

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 42; }\n")
    return path


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_kernels_are_kept_in_the_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert isinstance(attempt(source), ctypes.CDLL)
    assert [path.suffix for path in (tmp_path / "cache/hpcspin/kernels").iterdir()] == [".so"]


@pytest.mark.parametrize("cache", [None, "", "/proc/nobody"])
def test_kernels_without_a_folder_to_keep_them(
    cache: str | None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: no home directory, or one that cannot be written."""
    monkeypatch.setattr(Path, "home", no_home)
    if cache is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    temporary, here = tmp_path / "temporary", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(here)
    found = attempt(source)
    assert isinstance(found, ctypes.CDLL)
    assert found.answer() == 42
    assert not [*temporary.iterdir(), *here.iterdir()]
