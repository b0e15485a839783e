"""Sites times steps a second of the dynamics in one process, against the memory bandwidth, and the memory it takes.

    python perf/benchmark.py dynamics [--network MODEL] [--output perf/results/dynamics.json] [--quick]

The limit of the Heisenberg field is the time to read the spins once and write the field once at the bandwidth that a
large copy reaches in this run. MODEL is a saved model, by default the shipped pair of potentials, or the word
`standard`: the network of the config's defaults with random weights. Where there is a GPU everything runs there, and
4096 x 4096 spins take 100 steps. Figures of other runs are not comparable, ratios are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from shared import PERF, parser_of, publish, seconds, table
from torch import Tensor

from hpcspin.assembly.fields import LearnedField
from hpcspin.drawing.style import save
from hpcspin.dynamics import Field, FieldEvaluator, Heisenberg, make_integrator
from hpcspin.dynamics.torque import angular_velocity, components_first, normalise
from hpcspin.lattice import make_lattice
from hpcspin.parallel.devices import keep_freed_memory
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_force, make_force_field
from hpcspin.storage import provenance

DAMPING, STEP, BIAS = 0.1, 0.1, 3.2
BYTES = 8 * 3
SHIPPED = str(Path(__file__).parents[2] / "configs" / "models" / "driven_sd_strips.safetensors")
GIGABYTE = 1e9
MEMORY_BAR = 16 * GIGABYTE
HUGE, HUGE_STEPS = 4096, 100
RATE = "sites × steps / s"


def network(model: str, device: torch.device) -> LearnedField:
    """A saved network, or the standard one; the speed of either does not depend on its weights."""
    if model != "standard":
        return LearnedField(load_force(model).to(device).eval(), BIAS)
    torch.manual_seed(1)
    return LearnedField(make_force_field(Architecture("square", 2.3, (128,) * 5)).to(device).eval(), BIAS)


def square(length: int) -> Domain:
    """The whole of a square lattice."""
    return Domain(make_lattice("square", (length, length), (False, True)), World(), (1, 1))


def random_block(domain: Domain, device: torch.device) -> Tensor:
    """Random unit vectors on my sites."""
    torch.manual_seed(2)
    return components_first(normalise(torch.randn((*domain.shape, 3), dtype=torch.float64).to(device)))


def stepper(field: Field, domain: Domain, device: torch.device) -> Callable[[], None]:
    """A function that moves random spins by one Heun step."""
    evaluate, advance = FieldEvaluator(field, domain), make_integrator("heun", noise=False).step
    spins, count = random_block(domain, device), 0

    def step() -> None:
        nonlocal spins, count
        spins = advance(
            spins, count * STEP, STEP, lambda at, moment: angular_velocity(at, evaluate(at, moment), DAMPING)
        )
        count += 1

    return step


def bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes read and written a second by a copy of 128 MB, far beyond the caches."""
    source = torch.ones(1 << 24, dtype=torch.float64, device=device)
    target = torch.empty_like(source)
    return 2 * 8 * source.numel() / seconds(lambda: target.copy_(source), repeats)


def figures(field: Field, length: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Speed of one field on a square of the given side."""
    domain, sites = square(length), length * length
    evaluate, spins = FieldEvaluator(field, domain), random_block(domain, device)
    moments = iter(range(1 << 30))
    field_seconds = seconds(lambda: evaluate(spins, float(next(moments))), repeats)
    step_seconds = seconds(stepper(field, domain, device), repeats)
    return {
        "side": length,
        "field_seconds": field_seconds,
        "step_seconds": step_seconds,
        "sites_steps_a_second": sites / step_seconds,
    }


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; Linux counts in kB."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_worker(model: str, length: int) -> None:
    """One step of a square on the CPU; prints seconds and peak memory."""
    keep_freed_memory()
    cpu = torch.device("cpu")
    step = stepper(network(model, cpu), square(length), cpu)
    start = time.perf_counter()
    step()
    print(json.dumps({"side": length, "seconds": time.perf_counter() - start, "peak_bytes": peak_memory()}))


def memory(model: str, length: int) -> dict[str, Any]:
    """What `memory_worker` prints in a process of its own."""
    worker = ["dynamics", "--network", model, "--memory-worker", str(length)]
    command = [sys.executable, str(PERF / "benchmark.py"), *worker]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured | {"within_16_GB": measured["peak_bytes"] <= MEMORY_BAR}


def huge(field: Field, device: torch.device) -> dict[str, Any]:
    """Seconds and memory of many steps of a huge lattice on a GPU."""
    step = stepper(field, square(HUGE), device)
    step()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(HUGE_STEPS):
        step()
    torch.cuda.synchronize(device)
    passed = time.perf_counter() - start
    return {
        "side": HUGE,
        "steps": HUGE_STEPS,
        "seconds": passed,
        "sites_steps_a_second": HUGE**2 * HUGE_STEPS / passed,
        "peak_bytes": torch.cuda.max_memory_allocated(device),
    }


def measure(model: str, quick: bool) -> dict[str, Any]:
    """All figures of one run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repeats, rate = (3 if quick else 9), bandwidth(device, 9)
    learned, exchange = network(model, device), Heisenberg(1.0)
    heisenberg = [figures(exchange, side, device, repeats) for side in (64, 128, 256, 512, 1024)]
    for row in heisenberg:
        row["field_times_bandwidth_limit"] = row["field_seconds"] * rate / (2 * BYTES * row["side"] ** 2)
    sides = (64,) if quick else (64, 128, 256)
    on_gpu = device.type == "cuda"
    return {
        "machine": {
            "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "load_before": os.getloadavg()[0],
        "provenance": provenance(),
        "network": Path(model).name,
        "copy_bytes_a_second": rate,
        "heisenberg": heisenberg,
        "learned": [figures(learned, side, device, 1 if quick else 3) for side in sides],
        "memory": memory(model, 128 if quick else 1024),
        "huge": {"heisenberg": huge(exchange, device), "learned": huge(learned, device)} if on_gpu else None,
    }


def summary(measured: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""
    learned = {row["side"]: row["sites_steps_a_second"] for row in measured["learned"]}
    rows = [
        [
            f"{row['side']}x{row['side']}",
            f"{row['sites_steps_a_second']:.2e}",
            f"{row['field_times_bandwidth_limit']:.1f}",
            f"{learned[row['side']]:.2e}" if row["side"] in learned else "",
        ]
        for row in measured["heisenberg"]
    ]
    held, machine = measured["memory"], measured["machine"]
    lines = [
        f"{machine['device']}, {machine['threads']} CPU threads, Heun, float64 spins, load "
        f"{measured['load_before']:.1f} at the start; a copy moves "
        f"{measured['copy_bytes_a_second'] / GIGABYTE:.1f} GB/s.",
        "",
        table(
            [
                "spins",
                "Heisenberg, sites x steps / s",
                "field x bandwidth limit",
                f"{measured['network']}, sites x steps / s",
            ],
            rows,
        ),
        "",
        f"A step of {held['side']}x{held['side']} spins under the network took {held['seconds']:.0f} s on the CPU and "
        f"{held['peak_bytes'] / GIGABYTE:.2f} GB at its peak.",
    ]
    for name, row in (measured["huge"] or {}).items():
        lines.append(
            f"{row['steps']} steps of {row['side']}x{row['side']} ({name}): {row['seconds']:.1f} s, "
            f"{row['peak_bytes'] / GIGABYTE:.1f} GB on the GPU."
        )
    return "\n".join(lines)


def draw(measured: dict[str, Any], path: Path) -> None:
    """Sites times steps a second against the number of sites."""
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for key, label in (("heisenberg", "Heisenberg"), ("learned", Path(measured["network"]).stem)):
        sites = [row["side"] ** 2 for row in measured[key]]
        axis.loglog(sites, [row["sites_steps_a_second"] for row in measured[key]], "o-", label=label)
    axis.set(xlabel="sites", ylabel=RATE)
    axis.legend()
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "dynamics.json")
    parser.add_argument("--network", default=SHIPPED, metavar="MODEL")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller lattices")
    parser.add_argument("--memory-worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_worker:
        memory_worker(arguments.network, arguments.memory_worker)
        return
    keep_freed_memory()
    measured = measure(arguments.network, arguments.quick)
    publish("dynamics.py", measured, arguments.output, summary, draw)


if __name__ == "__main__":
    main()
