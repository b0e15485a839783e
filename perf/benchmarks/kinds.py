"""What potentials cost beside a direct field of the same message-passing layers: an evaluation, and a training step.

    python perf/benchmark.py kinds [--steps] [--output perf/results/kinds.json]

One evaluation of 30x24 on one thread, single precision, the kinds in turn: medians of processor time, which other work
changes less than the wall clock, with memory kept as a simulation keeps it, and their ratios to the direct one.
With --steps also a compiled step of a training with four snapshots; compiling takes minutes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from shared import parser_of

from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.devices import keep_freed_memory
from hpcspin.potential import Architecture, ForceField, make_force_field
from hpcspin.potential.message_passing import MessagePassing
from hpcspin.storage import provenance, write_json

KINDS = ("direct", "conservative", "pair")
WIDTHS = {6: (48, 48), 12: (96, 96)}
LATTICE = make_lattice("square", (30, 24))


def force_field(kind: str, channels: int) -> ForceField:
    """Three layers with random weights."""
    torch.manual_seed(1)
    return make_force_field(
        Architecture(
            "square", 2.3, WIDTHS[channels], kind=kind, layers=(1, 2, 4), channels=channels, electrode_range=6.0
        )
    )


def spins(batch: int) -> torch.Tensor:
    """Walls, shape (batch, sites, 3)."""
    walls = [make_texture("wall", LATTICE, seed, position=8, tilt=0.1).reshape(-1, 3) for seed in range(batch)]
    return torch.stack([torch.from_numpy(wall) for wall in walls]).float()


def evaluation(model: ForceField) -> Callable[[], Any]:
    """One field."""
    given = spins(1), model.eval().neighbourhood(LATTICE), torch.ones(1)
    return lambda: model(*given)


def step(model: ForceField) -> Callable[[], Any]:
    """One forward and backward pass, compiled."""
    assert isinstance(model, MessagePassing)
    given = spins(4), model.train().neighbourhood(LATTICE), torch.ones(4)
    model.fused = True

    def run() -> None:
        model.zero_grad()
        model(*given).field.square().sum().backward()

    return run


def medians(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of a processor of each, in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(measured) for name, measured in times.items()}


def main() -> None:
    """Measure, print a line for each width, write the JSON."""
    parser = parser_of(__doc__, "kinds.json")
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for channels in WIDTHS:
        for what, make, repeats in (("evaluation", evaluation, 100), ("step", step, 20)):
            if what == "step" and not arguments.steps:
                continue
            measured = medians({kind: make(force_field(kind, channels)) for kind in KINDS}, repeats)
            ratios = {kind: measured[kind] / measured["direct"] for kind in KINDS}
            rows.append({"channels": channels, "what": what, "milliseconds": measured, "ratios": ratios})
            words = ", ".join(f"{kind} {measured[kind]:.2f} ms ({ratios[kind]:.2f})" for kind in KINDS)
            print(f"{channels} channels, {what}: {words}")
    machine = {"load": os.getloadavg()[0], "threads": 1, **provenance()}
    write_json(arguments.output, {"machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
