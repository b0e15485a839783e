"""Time and memory of neighbour tables on the host, and what those of 4096 x 4096 would take.

    python perf/benchmark.py neighbours [--output perf/results/neighbours.json]

Each table is made in a process of its own. That of the largest lattice is not made: its time and memory are those of
1024 x 1024 times the ratio of the numbers of sites.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from shared import PERF, parser_of

from hpcspin import load_model
from hpcspin.lattice import make_lattice
from hpcspin.storage import provenance, write_json

SIDES, LARGEST = (256, 512, 1024), 4096
MODELS = ("driven_sd_fast", "driven_sd")


def peak_bytes() -> int:
    """Largest resident memory of this process so far; Linux counts in kB."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def worker(model: str, side: int) -> None:
    """Make the tables of all layers of a model; prints what that took."""
    field = load_model(model)
    before, start = peak_bytes(), time.perf_counter()
    neighbourhood = field.neighbourhood(make_lattice("square", (side, side)))
    table_seconds = time.perf_counter() - start
    tables = [neighbourhood.table(torch.device("cpu"), stretch) for stretch in neighbourhood.axes]
    took = time.perf_counter() - start
    held = sum(table.nbytes for table in tables)
    sizes = {"neighbours": [len(table) for table in tables], "bytes": held, "peak_bytes": peak_bytes() - before}
    print(json.dumps({"model": model, "side": side, "axes_seconds": table_seconds, "seconds": took, **sizes}))


def measure(model: str, side: int) -> dict[str, Any]:
    """What `worker` prints in a process of its own."""
    command = [sys.executable, str(PERF / "benchmark.py"), "neighbours", "--worker", model, str(side)]
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def main() -> None:
    """Measure all sides, write the JSON and print a line each."""
    parser = parser_of(__doc__, "neighbours.json")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker[0], int(arguments.worker[1]))
    rows = []
    for model in MODELS:
        rows += [measure(model, side) for side in SIDES]
        scale = (LARGEST / SIDES[-1]) ** 2
        sizes = {key: scale * rows[-1][key] for key in ("seconds", "bytes", "peak_bytes")}
        rows.append({**rows[-1], "side": LARGEST, **sizes, "in_proportion_to_sites": True})
        rows[-1].pop("axes_seconds")
    for row in rows:
        sizes = f"table {row['bytes'] / 1e9:.2f} GB, at most {row['peak_bytes'] / 1e9:.2f} GB"
        how = " (in proportion)" if "in_proportion_to_sites" in row else ""
        print(f"{row['model']} {row['side']}²: {row['seconds']:.2f} s, {sizes}{how}")
    machine = {"load": os.getloadavg()[0], "threads": torch.get_num_threads(), **provenance()}
    write_json(arguments.output, {"machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
