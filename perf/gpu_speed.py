"""Part 2 of ``perf/gpu.py``: how long labels, fields, steps and training take, each beside what the card allows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu_checks import small_kernels
from gpu_figures import Bench, ceilings, figure
from gpu_systems import (
    EXACT,
    PAPER,
    SHIPPED,
    VECTOR_BYTES,
    Evaluation,
    anew,
    driven,
    kernel_problem,
    launches,
    learned,
    shipped,
    solver_of,
    stepper,
    take_fused,
    walls,
    window_limits,
)
from torch.utils.flop_counter import FlopCounterMode

from hpcspin.dynamics import Heisenberg
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.electrons import RecursiveSolver
from hpcspin.electrons.fused import FusedSweep
from hpcspin.lattice import make_lattice
from hpcspin.potential import CovariantField, ForceField, host_library
from hpcspin.storage import read_spins

LABEL_TOLERANCE = 1e-6
BATCH = 12
GROWTH = 5.0
"""From a square of sites to the next one of twice the side, with some air."""


@figure(2, 40)
def speed_rates(bench: Bench) -> None:
    """What this card reaches in large products and in a copy."""
    bench.numbers.update(ceilings(bench.device.type))


def split(bench: Bench, solver: RecursiveSolver, label: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one label: its equilibrium part, its windows, and the rest, which is the host's."""
    results = {"equilibrium": 0.0, "window": 0.0}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def within(*arguments: Any) -> Any:
            bench.wait()
            start = time.perf_counter()
            result = work(*arguments)
            bench.wait()
            results[name] += time.perf_counter() - start
            return result

        return within

    parts = [(solver.equilibrium, "solve", "equilibrium"), *((w, "integrate", "window") for w in solver.windows)]
    originals = [getattr(owner, method) for owner, method, _ in parts]
    for (owner, method, name), original in zip(parts, originals, strict=True):
        setattr(owner, method, timed(name, original))
    start = time.perf_counter()
    label()
    whole = time.perf_counter() - start
    for owner, method, _ in parts:
        delattr(owner, method)
    return {
        **{f"{name}_seconds": value for name, value in results.items()},
        "host_seconds": whole - sum(results.values()),
    }


def _label(bench: Bench, size: tuple[int, int], count: int, tolerance: float = LABEL_TOLERANCE) -> dict[str, Any]:
    """One call of the solver for so many snapshots, by the way that it chooses itself."""
    system, spins = driven(size), walls(size, count)
    solver = solver_of(bench, system, tolerance, bench.batched)
    label = anew(solver, spins)
    taken = bench.seconds(label, 5)
    before = solver.evaluations
    label()
    nodes = solver.evaluations - before
    chosen = {name: bool(value) for name, value in solver.get_state().items() if name.startswith("fused_")}
    results = {
        "snapshots": count,
        "window_nodes": nodes,
        "seconds_a_label": taken / count,
        **bench.beside_limits(taken, *window_limits(system, nodes), "complex128"),
        **split(bench, solver, label),
        **chosen,
        "card": launches(bench, label),
    }
    return results | _memory(bench)


def _memory(bench: Bench) -> dict[str, int]:
    """Bytes of the card that torch had taken at the most, and that CuPy's pool holds where CuPy has been used."""
    if bench.pretend:
        return {}
    results = {"torch_peak_bytes": torch.cuda.max_memory_allocated()}
    if cupy := sys.modules.get("cupy"):
        results["cupy_pool_bytes"] = int(cupy.get_default_memory_pool().total_bytes())
    return results


@figure(2, 60)
def label_speed(bench: Bench) -> None:
    """Labels of 30x24, alone and 8 and 32 at once."""
    for count in bench.while_time(bench.sizes((1, 8, 32), (1, 2)), 4):
        bench.numbers[str(count)] = _label(bench, bench.sizes(PAPER, (6, 4)), count)


@figure(2, 75)
def wide_label_speed(bench: Bench) -> None:
    """A label of 256x64, whose blocks no thread block holds."""
    for size in bench.while_time(bench.sizes(((64, 64), (256, 64)), ((8, 8),)), 5):
        bench.numbers[f"{size[0]}x{size[1]}"] = _label(bench, size, 1, 1e-4)


@figure(2, 60)
def kernel_speed(bench: Bench) -> None:
    """The fused kernel alone at three block sizes, and energies a second of both ways in a solver."""
    sizes = bench.sizes(((30, 12), (30, 24), (30, 48)), ((6, 4),))
    for size in bench.while_time(sizes, 4):
        system, spins = driven(size), walls(size, 1)
        solver = solver_of(bench, system, LABEL_TOLERANCE, bench.batched)
        for fused in (True, False) if take_fused(solver, False) else (False,):
            take_fused(solver, fused)
            label = anew(solver, spins)
            taken, before = bench.seconds(label, 5), solver.evaluations
            label()
            nodes = solver.evaluations - before
            limits = bench.beside_limits(taken, *window_limits(system, nodes), "complex128")
            bench.numbers[f"m = {2 * size[1]}, {'fused' if fused else 'batched'}"] = limits | {"window_nodes": nodes}
    if bench.pretend:
        bench.skip("the kernel alone", "needs a card")
        return
    for kernel in bench.while_time(small_kernels(), 4):
        bench.numbers[f"m = {kernel.orbitals}, alone"] = _kernel_alone(bench, kernel)


def _kernel_alone(bench: Bench, kernel: Any, columns: int = 30, energies: int = 1024) -> dict[str, float]:
    """One sweep of many energies: its own flops are one inversion and two products a column and energy."""
    import cupy

    blocks, at, owners, source, groups, weights = kernel_problem(kernel, columns, energies)
    sweep = FusedSweep(kernel, source, groups)
    on_card = [cupy.asarray(part) for part in (blocks, at, weights, owners)]
    taken = bench.seconds(lambda: (sweep.respond(*on_card), cupy.cuda.Device().synchronize()), 7)
    m = kernel.orbitals
    flops, moved = 24.0 * m**3 * columns * energies, 2.0 * 16 * m**2 * columns * energies
    return bench.beside_limits(taken, flops, moved, "complex128")


def model_flops(evaluate: Callable[[], Any]) -> int:
    """Real flops of the matrix products of one evaluation, by torch and without the kernel for CPUs."""
    with patch.object(host_library, "usable", return_value=False), FlopCounterMode(display=False) as counter:
        evaluate()
    return int(counter.get_total_flops())


def _sides(bench: Bench) -> Iterable[tuple[int, int]]:
    squares = [(side, side) for side in (128, 256, 512, 1024, 2048, 4096)]
    return bench.while_time(bench.sizes((PAPER, *squares), ((12, 6), (16, 16))), GROWTH)


def _fields(bench: Bench, name: str) -> None:
    """Evaluations and Heun steps with noise of one model, from the paper's lattice to as large as time allows."""
    for size in _sides(bench):
        sites, results = size[0] * size[1], {}
        start = time.perf_counter()
        evaluate = Evaluation(shipped(name, bench.device), walls(size, 1)).ready()
        results["tables_seconds"] = time.perf_counter() - start
        few = 9 if sites < 1 << 19 else 3
        taken = bench.seconds(evaluate, few, 2.0)
        small = sites <= 1 << 18
        flops = model_flops(evaluate) if small else _flops_a_site(bench, name) * sites
        results["field"] = bench.beside_limits(taken, flops, 2 * VECTOR_BYTES * sites, "float32")
        step = stepper(learned(name, bench.device), size, bench.device)
        taken = bench.seconds(step, few, 2.0)
        results["step"] = bench.beside_limits(taken, 2 * flops, 4 * VECTOR_BYTES * sites, "float32")
        results["sites_steps_a_second"] = sites / taken
        if small:
            results["field_launches"], results["step_launches"] = launches(bench, evaluate), launches(bench, step)
        bench.numbers[f"{size[0]}x{size[1]}"] = results | _memory(bench)
        # The tables of a large lattice take as much memory as its fields.
        del evaluate, step
        if not bench.pretend:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _flops_a_site(bench: Bench, name: str) -> float:
    """Of a lattice that fills many tiles."""
    evaluate = Evaluation(shipped(name, bench.device), walls((128, 128), 1)).ready()
    return model_flops(evaluate) / 128**2


@figure(2, 110)
def fast_fields(bench: Bench) -> None:
    """driven_sd_fast, to 4096 x 4096."""
    _fields(bench, "driven_sd_fast")


@figure(2, 60)
def accurate_fields(bench: Bench) -> None:
    """driven_sd."""
    _fields(bench, "driven_sd")


@figure(2, 40)
def pair_fields(bench: Bench) -> None:
    """driven_sd_strips."""
    _fields(bench, "driven_sd_strips")


@figure(2, 30)
def heisenberg_steps(bench: Bench) -> None:
    """Heun steps with noise under nearest-neighbour exchange; the numbers that torch writes count as flops."""
    for size in _sides(bench):
        sites = size[0] * size[1]
        step = stepper(Heisenberg(1.0), size, bench.device)
        counted = launches(bench, step)
        taken = bench.seconds(step, 9, 1.0)
        limits = bench.beside_limits(taken, counted["elements"], 4 * VECTOR_BYTES * sites, "float64")
        still = stepper(Heisenberg(1.0), size, bench.device, temperature=0.0)
        bench.numbers[f"{size[0]}x{size[1]}"] = {
            **limits,
            "launches": counted,
            "without_noise": {"seconds": bench.seconds(still, 9, 1.0), "launches": launches(bench, still)},
        }


@figure(2, 20)
def noise_speed(bench: Bench) -> None:
    """Noise alone; the numbers that torch writes count as flops."""
    for size in _sides(bench):
        sites = torch.arange(size[0] * size[1], device=bench.device)

        def draw(sites: torch.Tensor = sites) -> torch.Tensor:
            return normal_vectors(sites, 1, 0, 3, 0)

        counted = launches(bench, draw)
        taken = bench.seconds(draw, 9, 1.0)
        limits = bench.beside_limits(taken, counted["elements"], (VECTOR_BYTES + 8) * len(sites), "float64")
        bench.numbers[f"{size[0]}x{size[1]}"] = limits | {"launches": counted}


def training_step(bench: Bench, model: ForceField, mixed: bool, batch: int) -> Callable[[], None]:
    """Forward and back on frames of exact trajectories."""
    spins = torch.from_numpy(np.resize(read_spins(EXACT, PAPER), (batch, *PAPER, 3))).flatten(1, 2).float()
    spins, bias = spins.to(bench.device), torch.full((batch,), 3.2, device=bench.device)
    table = model.train().neighbourhood(make_lattice("square", PAPER))

    def step() -> None:
        model.zero_grad()
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=mixed):
            field = model(spins, table, bias).field
        field.square().sum().backward()

    return step


@figure(2, 100)
def training_speed(bench: Bench) -> None:
    """Milliseconds a snapshot of 30x24, forward and back, plain, in bfloat16 and compiled."""
    batch = bench.sizes(BATCH, 2)
    variants = [(name, *which) for which in product((False, True), repeat=2) for name in SHIPPED]
    # The way back makes two products for each one of the way there.
    flops = {
        name: 3 * batch * model_flops(Evaluation(shipped(name, bench.device), walls(PAPER, 1)).ready())
        for name in SHIPPED
    }
    for name, fused, mixed in bench.while_time(variants, 2):
        model = shipped(name, bench.device)
        if fused and (bench.pretend or not isinstance(model, CovariantField)):
            continue
        if isinstance(model, CovariantField):
            model.fused = fused
        step = training_step(bench, model, mixed, batch)
        taken = bench.seconds(step, 9, 3.0)
        kind = "bfloat16" if mixed else "float32"
        limits = bench.beside_limits(taken, flops[name], 2 * VECTOR_BYTES * batch * 720, kind)
        bench.numbers[f"{name}{', compiled' if fused else ''}{', bfloat16' if mixed else ''}"] = {
            "ms_a_snapshot": 1e3 * taken / batch, **limits, **_memory(bench),
        }  # fmt: skip
    if bench.pretend:
        bench.skip("compiled layers", "take a minute on a CPU; perf/force_field.py measures them there")
