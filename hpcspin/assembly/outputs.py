"""Outputs of runs: one run per output, one config per directory, and the files of a reproduction."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpcspin.config import Config, parse_config
from hpcspin.dynamics import CHECKPOINTING
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import gpu_names
from hpcspin.parallel.host_compiler import processor
from hpcspin.parallel.world import World
from hpcspin.storage import (
    TRAJECTORY,
    OutputLock,
    append_line,
    code_version,
    make_directory,
    read_json,
    require_same_config,
    write_text,
)

JOBS = "jobs.jsonl"
FREE = (*CHECKPOINTING, "training.allow", "dynamics.allow", "plugins")
"""Keys that change no result, and may differ in a directory of results."""


@contextmanager
def sole_writer(output: Path, world: World, *, directory: bool = True) -> Iterator[None]:
    """Lock an output against other runs within a block, which all ranks enter; rank 0 holds the lock.

    The output is a directory, which is created, or a file. Directories that are created and stay empty, because the
    block refuses its input, are removed again. Raises HpcspinError if another run writes there.
    """

    def end(message: str) -> None:
        with suppress(OSError):
            print(f"hpcspin: {message}", file=sys.stderr, flush=True)
        world.abort(1)

    lock, created = None, []
    if world.rank == 0:
        home = output if directory else output.parent
        created = [path for path in (home, *home.parents) if not path.exists()]
        make_directory(home)
        lock = OutputLock(output, end)
        lock.acquire()
    try:
        world.barrier()
        yield
    finally:
        if lock is not None:
            lock.release()
        with suppress(OSError):  # A directory with anything in it stays, as do those around it.
            for path in created:
                path.rmdir()


@contextmanager
def scratch(world: World, parent: Path | None = None) -> Iterator[Path]:
    """A new directory within a block of all ranks, below ``parent`` or in the system's place; rank 0 removes it."""
    options: dict[str, Any] = {"prefix": ".hpcspin-", "dir": parent, "ignore_cleanup_errors": True}
    with TemporaryDirectory(**options) if world.rank == 0 else nullcontext() as folder:
        yield Path(world.broadcast(folder))


@contextmanager
def recorded_job(
    directory: Path, world: World, config: Config | None = None, may_grow: tuple[str, ...] = (), element: str = ""
) -> Iterator[None]:
    """Be the `sole_writer` of a directory, and describe the job in its ``jobs.jsonl`` when it ends normally.

    The directory keeps the config, if one is given, as ``config.json``, and may belong only to a config that differs in
    the keys ``may_grow``, to do more of the same, or in `FREE`. An ``element`` of a batch array, such as ``3-of-16``,
    shares the directory with the others, locks only its own name, and writes its own ``jobs-3-of-16.jsonl``. Raises
    HpcspinError if another run writes there, or the directory belongs to another config.
    """
    with sole_writer(directory / f"task-{element}" if element else directory, world, directory=not element):
        start = time.monotonic()
        if config is not None:
            _claim(config, directory, world, may_grow)
        yield
        if world.rank == 0:
            job = {
                **({"task": element} if element else {}),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - start, 3),
                "ranks": world.size,
                "launcher": world.launcher,
                "processor": processor(),
                "cores": len(os.sched_getaffinity(0)),
                "gpus": gpu_names(),
                "code_version": code_version(),
            }
            append_line(directory / (f"jobs-{element}.jsonl" if element else JOBS), json.dumps(job))


def _claim(config: Config, directory: Path, world: World, may_grow: tuple[str, ...]) -> None:
    path = directory / "config.json"
    if world.rank == 0:
        if path.exists():
            stored = read_json(path, "choose another --output")
            with suppress(HpcspinError):  # Keys that the program gained since then have their default values.
                stored = parse_config(stored, str(path)).model_dump(mode="json")
            require_same_config(
                stored, config.model_dump(mode="json"), directory, "choose another --output", (*may_grow, *FREE)
            )
        write_text(path, config.as_json())
    world.barrier()


class Layout:
    """Names of the files of a reproduction below its directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        """The resolved config."""
        self.stages = root / "stages.json"
        """Seconds of each stage, over all restarts."""
        self.data = root / "data"
        """Label files of the training and validation trajectories."""
        self.test = root / "test"
        """Label files of the test trajectories."""
        self.model = root / "model"
        """Checkpoints, metrics and the saved force field, or those of each member of a committee."""
        self.evaluation = root / "evaluation.json"
        """Errors of the force field on the test trajectories."""
        self.figures = root / "figures"
        """The figures."""
        self.numbers = root / "numbers.json"
        """All numbers of the reproduction."""
        self.nonconservativity = root / "nonconservativity.json"
        """How far states of the first test trajectory are from any energy function."""

    def trajectory(self, field: str, name: str) -> Path:
        """Trajectory of one run under the field ``electrons`` or ``learned``."""
        return self.root / field / name / TRAJECTORY

    def labelled(self, name: str) -> Path:
        """Exact labels of some frames of a learned run of a closed lattice."""
        return self.root / "learned" / f"{name}-labels.h5"
