"""Everything that a GPU must show, in three parts of at most nine minutes each.

    python perf/gpu.py --part 1 [--output perf/results] [--only NAME ...] [--pretend]

Part 1 says whether results are right, part 2 how long they take beside what the
card's arithmetic and memory allow, part 3 what one way of computing gains over
another in turn with it. After every figure ``gpu_CARD.json`` is written, with
what it held of other figures. Each figure has seconds of its own, leaves out
what these do not suffice for, and says so. With ``--pretend`` all of it runs
without a card, smaller and on the CPU, into ``pretended_gpu.json``, so that
mistakes in these scripts are found before; its numbers mean nothing.
Exits with 1 if a check failed.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_checks  # noqa: F401 figures register themselves
import gpu_motion  # noqa: F401
import gpu_pairs  # noqa: F401
import gpu_speed  # noqa: F401
import gpu_tools  # noqa: F401
import torch
from gpu_figures import FIGURES
from gpu_results import Results, line, passes
from gpu_worker import GRACE, Worker
from shared import RESULTS, parser_of

import hpcspin
from hpcspin.storage import provenance

LAST_SECONDS = 4.0
"""Kept for the table at the end."""
LEAST_SECONDS = 3.0
"""With fewer a figure does not begin."""


def sources_digest() -> str:
    """SHA-256 of the package's sources, which tells the code where a copy has no commit."""
    package = Path(hpcspin.__file__).parent
    measured = hashlib.sha256()
    for path in sorted(path for kind in ("py", "cu", "c") for path in package.rglob(f"*.{kind}")):
        measured.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return measured.hexdigest()


def environment(pretend: bool) -> dict[str, Any]:
    """Card, driver and versions, the commit among them."""
    measured: dict[str, Any] = {"card": "none, pretended", "versions": provenance(), "pretended": pretend}
    measured["sources_sha256"] = sources_digest()
    if pretend:
        return measured
    where = torch.cuda.get_device_properties(0)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = "unknown"
    return measured | {
        "card": where.name,
        "memory_bytes": where.total_memory,
        "compute_capability": f"{where.major}.{where.minor}",
        "multiprocessors": where.multi_processor_count,
        "driver": driver,
        "cuda_of_torch": torch.version.cuda,
    }


def file_of(card: str, pretend: bool) -> str:
    """Name of the JSON of a card."""
    return "pretended_gpu.json" if pretend else f"gpu_{re.sub(r'[^a-z0-9]+', '_', card.lower()).strip('_')}.json"


def measure(names: list[str], results: Results, pretend: bool, end: float) -> dict[str, dict[str, Any]]:
    """Run figures until the end, a monotonic time; what has no time left is left out."""
    worker, measured = Worker(FIGURES, pretend), {}
    try:
        for name in names:
            seconds = min(FIGURES[name].seconds, end - time.monotonic() - GRACE)
            if seconds > LEAST_SECONDS:
                one = worker.run(name, seconds, seconds + GRACE)
            else:
                one = {"result": "left out", "seconds": 0.0, "checks": [], "numbers": {}, "message": "no time was left"}
            measured[name] = one
            results.write(name, FIGURES[name].part, one)
            print(line(name, one), flush=True)
    finally:
        worker.stop()
    return measured


def main() -> None:
    """Enter from the command line."""
    start = time.monotonic()
    parser = parser_of(__doc__)
    parser.add_argument("--part", type=int, required=True, choices=(1, 2, 3))
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the JSON")
    parser.add_argument("--only", action="append", metavar="NAME", help="this figure of the part; may be repeated")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the part stops")
    parser.add_argument("--pretend", action="store_true", help="run without a card")
    arguments = parser.parse_args()
    of_part = [name for name, figure in FIGURES.items() if figure.part == arguments.part]
    if unknown := sorted(set(arguments.only or ()) - set(of_part)):
        parser.error(f"part {arguments.part} has no figure {unknown[0]}; choose from {', '.join(of_part)}")
    if not (arguments.pretend or torch.cuda.is_available()):
        sys.exit("error: torch finds no NVIDIA GPU on this machine; give --pretend to try the scripts without one")
    machine = environment(arguments.pretend)
    path = arguments.output / file_of(machine["card"], arguments.pretend)
    try:
        results = Results(path, machine)
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path}: is not what this script has written ({error}); move it away and begin anew")
    names = [name for name in of_part if not arguments.only or name in arguments.only]
    measured = measure(names, results, arguments.pretend, start + 60 * arguments.minutes - LAST_SECONDS)
    print(f"\n{passes(measured)}\n\n{path}, {time.monotonic() - start:.0f} s")
    sys.exit(int(any(one["result"] == "failed" for one in measured.values())))


if __name__ == "__main__":
    main()
