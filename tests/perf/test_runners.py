"""Benchmarks and studies: their runners list them, and each still finds what it imports of the package."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).resolve().parents[2] / "perf"
SCRIPTS = sorted([*PERF.glob("benchmarks/*.py"), *PERF.glob("studies/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (script.parent, PERF):
        monkeypatch.syspath_prepend(folder)
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])


@pytest.mark.parametrize(("runner", "folder"), [("benchmark.py", "benchmarks"), ("study.py", "studies")])
def test_a_runner_lists_its_scripts_and_refuses_others(runner: str, folder: str) -> None:
    names = [path.stem for path in SCRIPTS if path.parent.name == folder]
    listed = subprocess.run([sys.executable, PERF / runner], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == names
    wrong = subprocess.run([sys.executable, PERF / runner, "nope"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "'nope' is none of these" in wrong.stderr
