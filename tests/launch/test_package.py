"""The package as others install it: from the wheel that the sdist builds, with models, templates and kernels inside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, f'build_{sys.argv[1]}')(sys.argv[2])"
SMALL = (
    "lattice.size=[6,4]", "electrons.solver=closed_form", "dynamics.duration=2", "training.epochs=2",
    "training.checkpoint_interval=1", "potential.hidden=[8,8]", "reproduce.train=[{seed: 1}]",
    "reproduce.validation=[{seed: 2}]", "reproduce.test=[{seed: 3}]",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Output of a command that has to succeed; its modules come from `path` before all others."""
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory with what the wheel brings; everything else is that of this environment."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "hpcspin", source / "hpcspin", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-c", BUILD, "sdist", folder, cwd=source)
    (sdist,) = folder.glob("hpcspin-*.tar.gz")
    shutil.unpack_archive(sdist, folder, filter="data")
    run(sys.executable, "-c", BUILD, "wheel", folder, cwd=folder / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("hpcspin-*.whl")
    shutil.unpack_archive(wheel, folder / "installed", format="zip")
    return folder / "installed"


def test_the_wheel_has_all_that_is_no_python(installed: Path) -> None:
    def others(root: Path) -> set[Path]:
        files = (path.relative_to(root) for path in (root / "hpcspin").rglob("*") if path.is_file())
        return {path for path in files if path.suffix != ".py" and path.parent.name != "__pycache__"}

    assert len(others(ROOT)) > 20
    assert others(installed) == others(ROOT)


def test_the_smallest_quickstart_runs_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    where = run(sys.executable, "-c", "import hpcspin; print(hpcspin.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    hpcspin = (sys.executable, "-m", "hpcspin")
    run(*hpcspin, "init", "mine.yaml", "--job", "reproduce", cwd=tmp_path, path=installed)
    run(*hpcspin, "reproduce", "mine.yaml", "--output", "all", *SMALL, cwd=tmp_path, path=installed)
    assert json.loads((tmp_path / "all" / "numbers.json").read_text())["test"]["mse"] > 0


def test_the_recipes_of_containers_copy_what_is_there_and_run_the_same_commands() -> None:
    docker = (ROOT / "containers" / "Dockerfile").read_text()
    head, files, post, environment, _ = (ROOT / "containers" / "hpcspin.def").read_text().split("\n%")
    # A line of %files is a source and a destination; Apptainer ignores what stands behind these.
    copied = dict(line.split() for line in files.splitlines()[1:] if line)
    assert {f"/source/{name}" for name in copied} == set(copied.values())
    assert all((ROOT / name).exists() and name in docker for name in copied)
    assert head.split("From: ")[1].strip() in docker
    torch, package = re.findall("pip install .*", post)
    assert f"ARG TORCH={torch.split()[-1]}" in docker
    assert package in docker
    assert "&&" not in post  # A failure of the first of two such commands would not end the script.
    assert environment.split("export ")[1].strip() == docker.split("ENV ")[1].splitlines()[0]


def test_in_a_container_mpiexec_starts_ranks_inside_a_slurm_job(tmp_path: Path) -> None:
    mpiexec = shutil.which("mpiexec")
    if mpiexec is None or "HYDRA" not in run(mpiexec, "--version", cwd=tmp_path):
        pytest.skip("the MPI library is not MPICH, as in the containers")
    variables = (ROOT / "containers" / "Dockerfile").read_text().split("ENV ")[1].splitlines()[0]
    job = ("SLURM_JOB_ID=7", "SLURM_NNODES=1", "SLURM_NODELIST=localhost", "SLURM_TASKS_PER_NODE=2")
    command = ("env", "-i", f"PATH={tmp_path}", *job, *variables.split(), mpiexec, "-n", "2", "/bin/echo", "here")
    assert subprocess.run(command, capture_output=True, text=True, timeout=20).stdout == "here\n" * 2
