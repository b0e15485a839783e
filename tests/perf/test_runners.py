"""Benchmarks and studies: their runners list them, and each still finds what it imports of the package."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

import pytest

from hpcspin.errors import HpcspinError

PERF = Path(__file__).resolve().parents[2] / "perf"
SCRIPTS = sorted([*PERF.glob("benchmarks/*.py"), *PERF.glob("studies/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (script.parent, PERF):
        monkeypatch.syspath_prepend(folder)
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])


@pytest.mark.parametrize(("runner", "folder"), [("benchmark.py", "benchmarks"), ("study.py", "studies")])
def test_a_runner_lists_its_scripts_and_refuses_others(
    runner: str, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(PERF)
    for given, code in (((), 0), (("nope",), "'nope' is none of these; choose one")):
        monkeypatch.setattr(sys, "argv", [runner, *given])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(PERF / runner), run_name="__main__")
        assert ended.value.code == code  # Python prints a message and exits with 1.
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names == [path.stem for path in SCRIPTS if path.parent.name == folder]


def test_what_a_script_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(PERF)
    shared = importlib.import_module("shared")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "refusing.py").write_text(
        "from hpcspin.errors import HpcspinError\nraise HpcspinError('too few labels')\n"
    )
    for name, value in (("argv", ["study.py", "refusing"]), ("excepthook", sys.excepthook), ("path", [*sys.path])):
        monkeypatch.setattr(sys, name, value)
    monkeypatch.setattr(shared, "PERF", tmp_path)
    with pytest.raises(HpcspinError) as failure:
        shared.run_script("studies")
    sys.excepthook(failure.type, failure.value, failure.tb)
    assert capsys.readouterr().err == "hpcspin: too few labels\n"
