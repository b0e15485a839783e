"""What benchmarks and studies have in common: their runner, timing, tables of ``perf/README.md``."""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.cli_run import write_logs
from hpcspin.config import Config, load_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, wall_position
from hpcspin.storage import make_directory, read_attributes, read_labels, write_labels, write_manifest

PERF = Path(__file__).parent
README = PERF / "README.md"
RESULTS = PERF / "results"
_SHORT = 1e-4
"""Time step that measures how fast a wall moves."""


def run_script(folder: str) -> None:
    """Run the script of a folder that the command line names with the arguments behind its name, or list all."""
    scripts = {path.stem: path for path in sorted((PERF / folder).glob("*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in scripts:
        for script, path in scripts.items():
            print(f"{script:16}{path.read_text().splitlines()[0].strip(chr(34))}")
        sys.exit(f"{name!r} is none of these; choose one" if name else 0)
    sys.argv = [str(scripts[name]), *sys.argv[2:]]
    sys.path.insert(0, str(PERF / folder))
    write_logs(debug=False)
    sys.excepthook = _report
    runpy.run_path(sys.argv[0], run_name="__main__")


def _report(kind: type[BaseException], failure: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught HpcspinError as the command line does, in one line, and others with their traceback."""
    if isinstance(failure, HpcspinError):
        print(f"hpcspin: {failure}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, failure, trace)


def config_of(path: Path, labels: Path, overrides: list[str]) -> Config:
    """A config with the voltages that a file of labels carries."""
    stored = read_attributes(labels).get("config", {}).get("electrons", {}).get("reservoirs", [])
    voltages = [f"electrons.reservoirs.{one['name']}.potential={one['potential']}" for one in stored]
    return load_config(path, [*voltages, *overrides])


def parser_of(docstring: str | None, output: str | None = None) -> argparse.ArgumentParser:
    """Parser of a script whose help is its docstring; with ``--output``, by default this file in `RESULTS`."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    if output is not None:
        parser.add_argument("--output", type=Path, default=RESULTS / output)
    return parser


def training_parser_of(docstring: str | None, output: str) -> argparse.ArgumentParser:
    """Parser of a study that trains the force field of a config several times, for ``parse_intermixed_args``."""
    parser = parser_of(docstring, output)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="directories of label files to learn from")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="files of other trajectories that judge")
    parser.add_argument("--runs", type=Path, required=True, help="directory for the trained models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    return parser


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time after one warm-up; waits for the GPU if there is one."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    work()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(
    script: str,
    measured: dict[str, Any],
    output: Path,
    summary: Callable[[dict[str, Any]], str],
    draw: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """Write the JSON and the picture of a benchmark, print its summary, and keep that in ``perf/README.md``.

    The README is left alone where the output goes to another folder than `RESULTS`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(measured, indent=2) + "\n")
    if draw is not None:
        draw(measured, output.with_suffix(".png"))
    if output.parent == RESULTS:
        write_section(script, summary(measured))
    print(summary(measured))


def write_section(script: str, text: str) -> None:
    """Replace what a script has written in ``perf/README.md``, between its two marks."""
    first, last = f"<!-- {script} writes from here -->", f"<!-- {script} ends here -->"
    before, rest = README.read_text().split(first)
    README.write_text(f"{before}{first}\n\n{text}\n\n{last}{rest.split(last)[1]}")


def choose_labels(
    files: Sequence[Path], validation: Sequence[Path], labels: int, target: Path, validating: int | None = None
) -> None:
    """Write a training set of so many labels, evenly spread over all in some files, and of those that validate.

    Of the latter all labels are taken, or as many as ``validating`` says. The files of the set are ``train-NN.h5`` and
    ``validation-NN.h5``. A set that is there already stays.
    """
    if (target / "manifest.json").exists():
        return
    make_directory(target)
    for role, paths, count in (("train", files, labels), ("validation", validation, validating)):
        read = [read_labels(path) for path in paths]
        numbers = np.concatenate([[0], np.cumsum([len(one.spins) for one in read])])
        if (count or 0) > numbers[-1]:
            raise HpcspinError(f"{count} labels asked for, there are {numbers[-1]}: {', '.join(map(str, paths))}")
        chosen = np.linspace(0, numbers[-1] - 1, numbers[-1] if count is None else count).round().astype(int)
        for number, (found, first) in enumerate(zip(read, numbers, strict=False)):
            rows = chosen[(chosen >= first) & (chosen < first + len(found.spins))] - first
            if len(rows):
                kept = {name: found.attributes[name] for name in ("config", "reservoirs") if name in found.attributes}
                others = {name: values[rows] for name, values in found.others.items()}
                path, attributes = target / f"{role}-{number:02}.h5", {"precision": "float64", **kept}
                write_labels(path, found.spins[rows], found.field[rows], attributes, **others)
    write_manifest(target)


def wall_rate(lattice: Lattice, spins: NDArray[np.float64], field: NDArray[np.float64], damping: float) -> float:
    """Velocity dX/dt that a field gives to the wall of a texture by the Landau-Lifshitz-Gilbert equation.

    It is linear in the field: rates of the parts of a field add up to that of the whole. Spins and field have the shape
    (Lx, Ly, 3).
    """
    torque = np.cross(spins, field)
    change = -(torque + damping * np.cross(spins, torque)) / (1 + damping**2)
    there, back = ((spins + sign * _SHORT * change) for sign in (1, -1))
    places = [wall_position(lattice, moved / np.linalg.norm(moved, axis=-1, keepdims=True)) for moved in (there, back)]
    return float(places[0] - places[1]) / (2 * _SHORT)
