"""Part 3 of ``perf/gpu.py``: one way of computing against another, in turn with it, on the same card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu_figures import Bench, LeftOut, figure
from gpu_speed import BATCH, LABEL_TOLERANCE, training_step
from gpu_systems import (
    PAPER,
    Evaluation,
    anew,
    driven,
    learned,
    shipped,
    solver_of,
    stepper,
    take_fused,
    walls,
)

from hpcspin.electrons import RecursiveSolver, workers
from hpcspin.potential import CovariantField, tiles
from hpcspin.training.device import tensor_float32

LAYERED = ("driven_sd_fast", "driven_sd")


def within(context: Callable[[], Any], work: Callable[[], Any]) -> Callable[[], Any]:
    """Work that is done in a context."""

    def inside() -> Any:
        with context():
            return work()

    return inside


@figure(3, 75)
def fused_against_batched(bench: Bench) -> None:
    """First batched routines, second the fused kernel, for whole labels at three block sizes."""
    for rows in bench.while_time(bench.sizes((12, 24, 48), (4,)), 1.5):
        size = (bench.sizes(30, 6), rows)
        solver = solver_of(bench, driven(size), LABEL_TOLERANCE, bench.batched)
        label = anew(solver, walls(size, 1))
        if not take_fused(solver, False):
            bench.skip(f"m = {2 * rows}", "there is no fused kernel")
            continue
        ways = (_choosing(solver, fused, label) for fused in (False, True))
        bench.numbers[f"m = {2 * rows}"] = bench.paired(*ways, most=15)


def _choosing(solver: RecursiveSolver, fused: bool, label: Callable[[], Any]) -> Callable[[], Any]:
    def chosen() -> Any:
        take_fused(solver, fused)
        return label()

    return chosen


@figure(3, 40)
def precisions(bench: Bench) -> None:
    """First labels in complex128, second in complex64."""
    for kind in bench.while_time(("square", "triangular")):
        system = driven(bench.sizes(PAPER, (6, 4)), kind, 0.01)
        spins = walls(system.lattice.size, 1, kind)
        ways = (
            anew(solver_of(bench, system, 1e-4, bench.batched, precision), spins)
            for precision in ("complex128", "complex64")
        )
        bench.numbers[kind] = bench.paired(*ways, most=12)


@figure(3, 40)
def streams(bench: Bench) -> None:
    """First two streams that launch at the same time, second one alone."""
    if not hasattr(workers, "_STREAMS"):
        raise LeftOut("the number of streams has another name now")
    system = driven(bench.sizes(PAPER, (6, 4)))
    for count in bench.while_time(bench.sizes((1, 8), (1,)), 1.5):
        label = anew(solver_of(bench, system, LABEL_TOLERANCE, bench.batched), walls(system.lattice.size, count))
        one = within(lambda: patch.object(workers, "_STREAMS", 1), label)
        bench.numbers[f"{count} at once"] = bench.paired(label, one, most=12)


@figure(3, 40)
def backends(bench: Bench) -> None:
    """First labels by CuPy, second by torch on the same card."""
    system = driven(bench.sizes(PAPER, (6, 4)))
    spins = walls(system.lattice.size, 1)
    ways = (anew(solver_of(bench, system, LABEL_TOLERANCE, backend), spins) for backend in (bench.batched, "torch"))
    bench.numbers["30x24"] = bench.paired(*ways, most=20)


@figure(3, 90)
def tile_sizes(bench: Bench) -> None:
    """First the tiles as they are, second others: centres in a tile, and tiles evaluated together."""
    kind = bench.device.type
    variants = [("TILE", size) for size in bench.sizes((512, 1024, 4096, 8192), (48,))]
    variants += [("GROUP", size) for size in bench.sizes((16, 32, 128, 256), (4,))]
    sizes = bench.sizes((PAPER, (512, 512)), ((12, 6),))
    todo = [(name, size, variant) for name in LAYERED for size in sizes for variant in variants]
    for name, size, (what, value) in bench.while_time(todo, 2):
        evaluate = Evaluation(shipped(name, bench.device), walls(size, 1)).ready()
        other = within(lambda what=what, value=value: patch.dict(getattr(tiles, what), {kind: value}), evaluate)
        bench.numbers[f"{name}, {size[0]}x{size[1]}, {what} {value}"] = bench.paired(evaluate, other, most=2)


@figure(3, 40)
def tf32_fields(bench: Bench) -> None:
    """First fields in float32, second with TF32 products, and what these change."""
    for name in bench.while_time(LAYERED, 2):
        evaluate = Evaluation(shipped(name, bench.device), walls(bench.sizes((512, 512), (12, 6)), 1)).ready()
        plain, quick = (within(partial(tensor_float32, allowed), evaluate) for allowed in (False, True))
        change = (quick().double() - plain().double()).abs().max().item()
        bench.numbers[name] = bench.paired(plain, quick, most=6) | {"largest_change": change}


@figure(3, 90)
def training_ways(bench: Bench) -> None:
    """First the plain training step, second with TF32, in bfloat16, and compiled; the compiled ones last."""
    batch = bench.sizes(BATCH, 2)
    ways = [(name, way) for way in ("tf32", "bfloat16", "compiled", "compiled, bfloat16") for name in LAYERED]
    for name, way in bench.while_time(ways, 2):
        if "compiled" in way and bench.pretend:
            bench.skip(f"{name}, {way}", "takes a minute on a CPU")
            continue
        models = [shipped(name, bench.device) for _ in range(2)]
        if isinstance(models[1], CovariantField):
            models[1].fused = "compiled" in way
        plain = within(partial(tensor_float32, False), training_step(bench, models[0], False, batch))
        other = within(
            partial(tensor_float32, way == "tf32"), training_step(bench, models[1], "bfloat16" in way, batch)
        )
        bench.numbers[f"{name}, {way}"] = bench.paired(plain, other, most=4)


@figure(3, 60)
def launching(bench: Bench) -> None:
    """First an evaluation as Python launches it, second the same captured in a CUDA graph, with the same bits."""
    for name in bench.while_time(LAYERED, 2):
        evaluate = Evaluation(shipped(name, bench.device), walls(bench.sizes(PAPER, (12, 6)), 1)).ready()
        if bench.pretend:
            bench.skip(f"{name} in a graph", "needs a card")
            bench.numbers[name] = bench.paired(evaluate, evaluate, most=0.2)
            continue
        right, graph = evaluate().clone(), torch.cuda.CUDAGraph()
        bench.wait()
        try:
            with torch.cuda.graph(graph):
                results = evaluate()
        except RuntimeError as error:
            raise LeftOut(f"{name} cannot be captured: {' '.join(str(error).split())[:200]}") from error
        graph.replay()
        bench.require(f"{name}: a graph has the same bits", torch.equal(results, right))
        bench.numbers[name] = bench.paired(evaluate, graph.replay, most=5)


@figure(3, 30)
def spin_precisions(bench: Bench) -> None:
    """First Heun steps with noise under a float32 model, second under the same in float64."""
    size = bench.sizes((256, 256), (12, 6))
    ways = (
        stepper(learned("driven_sd_fast", bench.device, kind), size, bench.device) for kind in ("float32", "float64")
    )
    bench.numbers[f"{size[0]}x{size[1]}"] = bench.paired(*ways, most=8)


@figure(3, 20)
def the_same_twice(bench: Bench) -> None:
    """One evaluation against itself: how far from one a ratio is by chance."""
    evaluate = Evaluation(shipped("driven_sd_fast", bench.device), walls(bench.sizes(PAPER, (12, 6)), 1)).ready()
    bench.numbers["field"] = bench.paired(evaluate, evaluate, most=3)
    solver = solver_of(bench, driven(bench.sizes(PAPER, (6, 4))), LABEL_TOLERANCE, bench.batched)
    label = anew(solver, walls(solver.system.lattice.size, 1))
    bench.numbers["label"] = bench.paired(label, label, most=5)
    ratios = [one["ratio"] for one in bench.numbers.values()]
    bench.require("ratios are finite", bool(np.isfinite(ratios).all()))
