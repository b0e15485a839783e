"""Part 1 of ``perf/gpu.py``, electrons: whether the fused kernel and exact labels on the card are right."""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import torch
from gpu_figures import Bench, LeftOut, ceilings, figure
from gpu_systems import (
    PAPER,
    dense_columns,
    driven,
    kernel_problem,
    solver_of,
    take_fused,
    walls,
)

from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.electrons import RecursiveSolver, SteadyState
from hpcspin.electrons.fused import FusedSweep, Kernel
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

TOLERANCE, SINGLE_TOLERANCE = 1e-9, 1e-4
FIELD_LIMIT = 1e-10
ORBITALS = (24, 48, 96)
"""Sizes of the fused kernel's blocks: both squares of threads, and the largest tile."""


def small_kernels() -> list[Kernel]:
    """The fused kernel at three block sizes, on the open square lattice."""
    return [Kernel(m, np.dtype(np.complex128), False, False, False) for m in ORBITALS]


def kernel_error(kernel: Kernel, columns: int, energies: int) -> float:
    """Largest deviation of the fused kernel's densities from dense inverses, relative to the largest."""
    import cupy

    problem = kernel_problem(kernel, columns, energies)
    blocks, at, owners, source, groups, weights = problem
    on_card = (cupy.asarray(part) for part in (blocks, at, weights, owners))
    results = cupy.asnumpy(FusedSweep(kernel, source, groups).respond(*on_card)[0])[..., 0]
    right = dense_columns(kernel, problem)
    return float(np.abs(results - right).max() / np.abs(right).max())


@figure(1, 40)
def imports(bench: Bench) -> None:
    """Everything that a job on the card imports."""
    for name in ("numpy", "scipy", "h5py", "numba", "pydantic", "mpi4py.MPI", "cupy"):
        start = time.monotonic()
        try:
            module: Any = importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            if name == "cupy" and bench.pretend:
                bench.skip(name, "needs a card")
            else:
                bench.numbers[name] = str(error)
                bench.require(f"{name} can be imported", False)
            continue
        version = getattr(module, "__version__", "") or getattr(module, "get_vendor", str)()
        bench.numbers[name] = {"version": str(version), "seconds": time.monotonic() - start}
        bench.require(f"{name} can be imported", True)
    if not bench.pretend:
        import cupy

        bench.require("cupy finds the card", cupy.cuda.is_available())
        bench.numbers["cuda_of_cupy"] = cupy.cuda.runtime.runtimeGetVersion()


@figure(1, 40)
def rates(bench: Bench) -> None:
    """Rates of products and of a copy, by which part 2 judges."""
    bench.numbers.update(ceilings(bench.device.type))
    bench.require("every rate is positive", min(bench.numbers.values()) > 0)


@figure(1, 20)
def noise(bench: Bench) -> None:
    """Noise of the card and of the CPU to the bit, over more than one tile, beyond 32 bits of steps."""
    sites = torch.arange(bench.sizes(1 << 20, 1 << 15))
    for step in (0, 7, (1 << 32) + 5):
        here, there = (normal_vectors(at, 3, 1, step, 2) for at in (sites, sites.to(bench.device)))
        bench.require(f"the bits of step {step}", torch.equal(here, there.cpu()))


@figure(1, 45)
def kernel(bench: Bench) -> None:
    """The fused kernel against dense inverses at three block sizes, more energies than blocks fit the card at once."""
    if bench.pretend:
        raise LeftOut("the fused kernel needs a card; tests/electrons/test_fused.py runs its source on the CPU")
    for one in small_kernels():
        bench.check(f"m = {one.orbitals}", kernel_error(one, 4, 700 if one.orbitals < 50 else 300), 1e-10)


@figure(1, 90)
def labels(bench: Bench) -> None:
    """Labels by each way of computing on the card against the CPU."""
    small = bench.sizes((12, 6), (6, 4))
    for kind, size, bath in bench.while_time(
        (("square", small, 0.001), ("triangular", small, 0.01), ("square", bench.sizes(PAPER, (8, 6)), 0.001)), 3
    ):
        system, spins = driven(size, kind, bath), walls(size, 2, kind)
        right = RecursiveSolver(system, TOLERANCE).solve(spins)
        where = f"{kind} {size[0]}x{size[1]}"
        for backend in (bench.batched, "torch"):
            solver = solver_of(bench, system, TOLERANCE, backend)
            choices = (True, False) if backend == "cupy" else (False,)
            for fused in choices:
                there = take_fused(solver, fused)
                if fused and not there:
                    bench.require(f"the fused kernel is there, {where}", False)
                    continue
                solver.reset()
                results = solver.solve(spins)
                _compare(bench, f"{backend}{', fused' if fused else ''}, {where}", results, right)


def _compare(bench: Bench, name: str, results: SteadyState, right: SteadyState) -> None:
    bench.check(f"field, {name}", np.abs(results.field - right.field).max(), FIELD_LIMIT)
    bench.check(f"current, {name}", np.abs(results.current - right.current).max(), FIELD_LIMIT)


@figure(1, 40)
def single_precision(bench: Bench) -> None:
    """Labels in complex64, within the error that they estimate."""
    for kind in ("square", "triangular"):
        size = bench.sizes((12, 6), (6, 4))
        system, spins = driven(size, kind, 0.01), walls(size, 3, kind)
        right = RecursiveSolver(system, 1e-8).solve(spins)
        solver = solver_of(bench, system, SINGLE_TOLERANCE, bench.batched, "complex64")
        for fused in (True, False) if take_fused(solver, False) else (False,):
            take_fused(solver, fused)
            solver.reset()
            results = solver.solve(spins)
            excess = np.abs(results.field - right.field).max((1, 2, 3)) / results.error
            bench.check(f"error over its estimate, {kind}{', fused' if fused else ''}", excess.max(), 1.0)


@figure(1, 30)
def singular_energy(bench: Bench) -> None:
    """A level that no reservoir touches, met exactly, is an error that says what to do."""
    for backend in (bench.batched, "torch"):
        solver = solver_of(bench, driven((3, 3), "triangular", 0.01), 1e-6, backend)
        for fused in (True, False) if take_fused(solver, False) else (False,):
            take_fused(solver, fused)
            window = solver.windows[0]
            nothing = solver.backend.asarray(np.zeros((1, 3, 6, 6), dtype=complex))
            said = ""
            try:
                # A rule's middle node is the energy 0, where these blocks vanish.
                window.integrate(nothing, [np.array([-1.0, 1.0])], World(), 0)
            except HpcspinError as error:
                said = str(error)
            bench.numbers[f"{backend}{', fused' if fused else ''}"] = said
            bench.require(f"{backend}{', fused' if fused else ''} names the level", "coupled to no reservoir" in said)
