"""The command line itself; what the verbs do is tested in workflows."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcspin import __version__, cli
from hpcspin.cli_run import write_logs
from hpcspin.errors import HpcspinError


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb sets the level of the package's log."""
    monkeypatch.setattr(logging.getLogger("hpcspin"), "level", logging.NOTSET)


def enter(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hpcspin", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert enter(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith(f"hpcspin {__version__}")


def test_the_home_directory_takes_the_place_of_its_sign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The shell leaves it in --data=~/labels."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert enter(monkeypatch, "evaluate", "driven_sd_fast", "--data=~/none.h5", f"--output={tmp_path}/out.json") == 1
    assert f"{tmp_path}/none.h5" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1, 4])
def test_debug_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: int) -> None:
    words = ["simulate", str(tmp_path / "none.yaml"), "--output", str(tmp_path)]
    assert enter(monkeypatch, *words) == 1
    monkeypatch.setattr(sys, "argv", ["hpcspin", *words[:place], "--debug", *words[place:]])
    with pytest.raises(HpcspinError, match="cannot be read"):
        cli.main()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("label", ("lattice and electrons",)),
        ("train", ("potential and training", "Exit code 75", "SIGTERM")),
        ("simulate", ("initial and dynamics", "Exit code 75")),
    ],
)
def test_help_names_the_sections_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, words: tuple[str, ...]
) -> None:
    assert enter(monkeypatch, verb, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(word in told for word in words)


def test_the_second_rank_is_silent_about_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setattr(cli, "_GRACE_SECONDS", 0.0)
    assert enter(monkeypatch, "label") == 2
    assert enter(monkeypatch, "--version") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hpcspin.cli", {"h5py", "matplotlib", "mpi4py", "numba", "numpy", "pydantic", "scipy", "torch"}),
        ("hpcspin.workflows.simulate", {"matplotlib", "numba", "scipy.special", "scipy.sparse", "scipy.optimize"}),
    ],
)
def test_a_start_waits_for_nothing_heavy_that_it_does_not_need(module: str, heavy: set[str]) -> None:
    """Help, and shell completion, which asks the command line at every key; and each rank of a simulation."""
    script = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``hpcspin info | head -1``: what is written later goes nowhere, also at the end of the process."""
    logger = logging.getLogger("hpcspin.results")
    for one, name in ((logger, "handlers"), (logger, "propagate"), (logger.parent, "handlers")):
        monkeypatch.setattr(one, name, getattr(one, name))
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        write_logs(debug=False)
        for _ in range(2):
            logger.info("a result")
