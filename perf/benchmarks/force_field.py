"""Field evaluations x sites a second of the learned force fields, against arithmetic and against an exact label.

    python perf/benchmark.py force_field [--output perf/results/force_field.json] [--repeats 10]

The architecture is that of ``configs/driven_sd.yaml`` with random weights, all
kinds and descriptors in turn, and the shipped models. Flops are those of all
matrix products that torch makes without the compiled kernel, as it counts them; gathers and what is done element by
element are in the time and not in the flops. The fraction compares them with
the float32 matrix products that the same device does with the same threads. The
exact label is one of the same config's 30x24 system, timed in the same run, on
the CPU: of an initial wall, and of frames of exact trajectories, whose metal needs
more energies. All times are the least of several, on the CPU in processor seconds,
which other work on the machine changes less than the wall clock; memory is kept
as a simulation keeps it. The table of 30x24 goes to ``perf/README.md``.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from shared import parser_of, table, write_section
from torch.utils.flop_counter import FlopCounterMode

from hpcspin.assembly.system import build_system
from hpcspin.config import Config, load_config
from hpcspin.electrons import RecursiveSolver
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.devices import keep_freed_memory
from hpcspin.potential import (
    DESCRIPTORS,
    Architecture,
    CovariantField,
    ForceField,
    Neighbourhood,
    host_library,
    load_model,
    make_force_field,
)
from hpcspin.storage import provenance, read_spins

CONFIG = Path(__file__).parents[2] / "configs" / "driven_sd.yaml"
SIZES = ((12, 6), (30, 24), (120, 96))
PAPER = (30, 24)
TOLERANCE = 1e-6
EXACT = CONFIG.parent / "models" / "driven_sd_exact.h5"
BATCH = 12
SHIPPED = tuple(f"driven_sd{name}.safetensors" for name in ("", "_light", "_fast", "_pair"))
CPU = torch.device("cpu")


def seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Least time after one warm-up: of a GPU on the wall clock, of a CPU summed over its threads."""
    wait, clock = (
        (torch.cuda.synchronize, time.perf_counter) if device.type == "cuda" else (_nothing, time.process_time)
    )
    work()
    times = []
    for _ in range(repeats):
        wait()
        start = clock()
        work()
        wait()
        times.append(clock() - start)
    return min(times)


def _nothing() -> None:
    """Wait for a CPU."""


def product_rate(device: torch.device, repeats: int) -> float:
    """Flops a second of a large float32 matrix product: the practical limit of the device."""
    m = 8192 if device.type == "cuda" else 1024
    a = torch.randn(m, m, device=device)
    return 2 * m**3 / seconds(lambda: a @ a, device, repeats)


def label_seconds(config: Config, repeats: int) -> dict[str, float]:
    """Time of one exact label by recursive Green's functions: of an initial wall, and in the mean of moved ones."""
    system = build_system(config)
    solver = RecursiveSolver(system, TOLERANCE)

    def taken(spins: NDArray[np.float64], repeats: int) -> float:
        def fresh() -> None:
            solver.reset()
            solver.solve(spins[None])

        return seconds(fresh, CPU, repeats)

    wall = make_texture("wall", system.lattice, 1, position=system.lattice.size[0] // 4, tilt=0.1)
    moved = read_spins(EXACT, system.lattice.size)[::4]
    return {
        "initial": taken(wall, min(repeats, 3)),
        "on_trajectories": float(np.mean([taken(spins, 1) for spins in moved])),
    }


def product_flops(evaluate: Callable[[], object]) -> int:
    """Real flops of PyTorch's matrix products in one evaluation, those of empty places in its last tile included."""
    with patch.object(host_library, "usable", return_value=False), FlopCounterMode(display=False) as counter:
        evaluate()
    return int(counter.get_total_flops())


def models(config: Config) -> Iterator[tuple[str, ForceField]]:
    """The shipped models, and all kinds and descriptors."""
    for name in SHIPPED:
        yield name, load_model(CONFIG.parent / "models" / name)[0]
    assert config.potential is not None
    section = config.potential.model_dump()
    for kind, descriptor in product(("conservative", "pair", "site"), DESCRIPTORS):
        torch.manual_seed(1)
        architecture = Architecture("square", bias_reference=3.2, **{**section, "kind": kind, "descriptor": descriptor})
        yield f"{kind}, {descriptor}", make_force_field(architecture)


def evaluations(config: Config, device: torch.device, repeats: int) -> Iterator[dict[str, Any]]:
    """Time of one field evaluation, for each model and size."""
    for name, force in models(config):
        model = force.to(device).eval()
        for size in SIZES:
            lattice = make_lattice("square", size)
            neighbours = model.neighbourhood(lattice)
            spins = torch.from_numpy(make_texture("random", lattice, 1)).reshape(1, -1, 3).to(device)
            bias = torch.full((1,), 3.2, device=device)
            evaluate = functools.partial(model, spins, neighbours, bias)
            taken = seconds(evaluate, device, repeats)
            yield {
                "model": name,
                "features": [len(network.mean) for network in model.networks],
                "size": size,
                "seconds": taken,
                "sites_a_second": lattice.num_sites / taken,
                "product_flops_a_site": product_flops(evaluate) / lattice.num_sites,
                "product_rate": product_rate(device, repeats),
            }


def training(repeats: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Time of one snapshot of 30x24 in a batch, forward and back, for each shipped field of several layers."""
    spins = torch.from_numpy(read_spins(EXACT, PAPER)[:BATCH]).flatten(1, 2).float().to(device)
    lattice, bias = make_lattice("square", PAPER), torch.full((BATCH,), 3.2, device=device)

    def step(model: CovariantField, table: Neighbourhood, mixed: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            field = model(spins, table, bias).field
        field.square().sum().backward()

    for name in SHIPPED:
        model = load_model(CONFIG.parent / "models" / name)[0].to(device).train()
        if not isinstance(model, CovariantField):
            continue
        near = model.neighbourhood(lattice)
        for fused, mixed in product((False, True), repeat=2):
            model.fused = fused
            taken = seconds(functools.partial(step, model, near, mixed), device, repeats) / BATCH
            yield {"model": name, "compile": fused, "mixed_precision": mixed, "seconds": taken}


def measure(repeats: int) -> dict[str, Any]:
    """All figures of one run."""
    keep_freed_memory()
    config = load_config(CONFIG)
    label = label_seconds(config, repeats)
    measured: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load": os.getloadavg()[0],
        "provenance": provenance(),
        "label": {"size": config.lattice.size, "tolerance": TOLERANCE, "seconds": label},
        "devices": {},
    }
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        device = torch.device(name)
        rows = list(evaluations(config, device, repeats))
        # Other work slows a measurement down and never speeds it up: the best of all times is the limit.
        rate = max(row.pop("product_rate") for row in rows)
        for row in rows:
            row["fraction_of_product_rate"] = row["product_flops_a_site"] * row["sites_a_second"] / rate
            if row["size"] == PAPER == config.lattice.size:
                row["evaluations_for_one_label"] = {kind: taken / row["seconds"] for kind, taken in label.items()}
        hardware = torch.cuda.get_device_name() if name == "cuda" else measured["machine"]["cpu"]
        measured["devices"][name] = {"name": hardware, "float32_product_rate_flops": rate, "evaluations": rows}
        measured["devices"][name]["training"] = list(training(repeats, device))
    return measured


def summary(measured: dict[str, Any]) -> str:
    """The paper's size as a table, with what the products alone would allow."""
    label, rows = measured["label"]["seconds"], []
    for name, device in measured["devices"].items():
        for row in device["evaluations"]:
            if tuple(row["size"]) == PAPER:
                flops = row["product_flops_a_site"] * PAPER[0] * PAPER[1]
                rows.append(
                    [
                        name,
                        row["model"],
                        f"{row['seconds'] * 1e3:.2f}",
                        f"{row['sites_a_second']:.2e}",
                        f"{flops / 1e6:.0f}",
                        f"{row['fraction_of_product_rate']:.0%}",
                        *(f"{taken / row['seconds']:.0f}" for taken in label.values()),
                        f"{label['on_trajectories'] * device['float32_product_rate_flops'] / flops:.0f}",
                    ]
                )
    header = ["device", "model", "ms an evaluation", "sites a second", "Mflop of products", "of the product rate"]
    header += ["evaluations for one label of an initial wall", "of exact trajectories", "if products were all"]
    steps = [
        [name, row["model"], *(str(row[key]) for key in ("compile", "mixed_precision")), f"{row['seconds'] * 1e3:.1f}"]
        for name, device in measured["devices"].items()
        for row in device["training"]
    ]
    return (
        f"One exact label of 30x24: {label['initial']:.2f} processor seconds of an initial wall, "
        f"{label['on_trajectories']:.2f} in the mean over frames of exact trajectories; CPU threads: "
        f"{measured['machine']['threads']}; load of the machine: {measured['load']:.1f}.\n\n{table(header, rows)}\n\n"
        "Training, a snapshot of 30x24 in a batch of twelve, forward and back:\n\n"
        + table(["device", "model", "training.compile", "training.mixed_precision", "ms a snapshot"], steps)
    )


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "force_field.json")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    measured = measure(arguments.repeats)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    write_section("force_field.py", summary(measured))
    print(summary(measured))


if __name__ == "__main__":
    main()
