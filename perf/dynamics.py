"""Sites times steps a second of the dynamics on one rank, against the memory bandwidth of the same run.

    python perf/dynamics.py [--output perf/results/dynamics.json] [--quick]

The limit of the Heisenberg field is the time to read the spins once and write the field once at the
bandwidth that a large copy reaches in this run. Figures of other runs are not comparable, ratios are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcspin.dynamics import Field, FieldEvaluator, Heisenberg, make_integrator
from hpcspin.dynamics.torque import angular_velocity, components_first, normalise
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, ForceField
from hpcspin.storage import provenance
from hpcspin.workflows.fields import LearnedField

DAMPING, STEP = 0.1, 0.1
BYTES = 8 * 3


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def bandwidth(repeats: int) -> float:
    """Bytes read and written a second by a copy of 128 MB, far beyond the caches."""
    source = torch.ones(1 << 24, dtype=torch.float64)
    target = torch.empty_like(source)
    return 2 * 8 * source.numel() / seconds(lambda: target.copy_(source), repeats)


def standard_network() -> LearnedField:
    """The network of the config's defaults with random weights: its speed does not depend on them."""
    torch.manual_seed(1)
    return LearnedField(ForceField(Architecture("square", 2.3, (128,) * 5)).eval(), 3.2)


def random_block(domain: Domain) -> Tensor:
    """Random unit vectors on my sites."""
    torch.manual_seed(2)
    return components_first(normalise(torch.randn((*domain.shape, 3), dtype=torch.float64)))


def stepper(field: Field, domain: Domain) -> Callable[[], None]:
    """A function that moves random spins by one Heun step."""
    evaluate, advance = FieldEvaluator(field, domain), make_integrator("heun", noise=False).step
    spins, count = random_block(domain), 0

    def step() -> None:
        nonlocal spins, count
        spins = advance(
            spins, count * STEP, STEP, lambda at, moment: angular_velocity(at, evaluate(at, moment), DAMPING)
        )
        count += 1

    return step


def figures(field: Field, length: int, rate: float, repeats: int) -> dict[str, Any]:
    """Speed of one field on a square of the given side."""
    domain = Domain(make_lattice("square", (length, length), (False, True)), World(), (1, 1))
    evaluate, spins, sites = FieldEvaluator(field, domain), random_block(domain), length * length
    moments = iter(range(1 << 30))
    field_seconds = seconds(lambda: evaluate(spins, float(next(moments))), repeats)
    step_seconds = seconds(stepper(field, domain), repeats)
    return {
        "size": [length, length],
        "field_seconds": field_seconds,
        "field_times_bandwidth_limit": field_seconds / (2 * BYTES * sites / rate),
        "step_seconds": step_seconds,
        "sites_steps_a_second": sites / step_seconds,
    }


def measure(quick: bool) -> dict[str, Any]:
    """All figures of one run."""
    repeats = 3 if quick else 7
    rate = bandwidth(repeats)
    network = standard_network()
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load_before": os.getloadavg()[0],
        "provenance": provenance(),
        "copy_bytes_a_second": rate,
        "heisenberg": [figures(Heisenberg(1.0), side, rate, repeats) for side in (64, 256, 512, 1024)],
        "standard_network": [figures(network, side, rate, 1 if quick else 3) for side in (32, 64, 128)],
    }


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "dynamics.json")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    arguments = parser.parse_args()
    found = measure(arguments.quick)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
