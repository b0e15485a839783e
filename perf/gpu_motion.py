"""Part 1 of ``perf/gpu.py``, models, dynamics, training and ranks: whether the card gives what the CPU gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gpu_figures import Bench, LeftOut, figure
from gpu_systems import (
    BIAS,
    CONFIG,
    CPU,
    DAMPING,
    EXACT,
    MODELS,
    PAPER,
    ROOT,
    SHIPPED,
    TEMPERATURE,
    Evaluation,
    Size,
    committee,
    learned,
    shipped,
    walls,
)
from numpy.typing import NDArray

from hpcspin.config import load_config
from hpcspin.dynamics import (
    INTEGRATORS,
    Anisotropy,
    DynamicsSettings,
    DzyaloshinskiiMoriya,
    Field,
    Heisenberg,
    Simulation,
    Slonczewski,
    SumField,
    Zeeman,
)
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Block, Committee, ForceField
from hpcspin.workflows.train import train_directory

LIMITS = {"float32": 1e-6, "float64": 1e-12}
PATH_LIMIT, TRAINING_LIMIT, RANKS_LIMIT = 1e-9, 1e-4, 1e-10
STEPS = 200
CLASSICAL_STEP = 0.05
FAST = "driven_sd_fast"


@figure(1, 60)
def models(bench: Bench) -> None:
    """Shipped models and a committee, in both precisions, on the card against the CPU."""
    sizes = bench.sizes((PAPER, (120, 96)), ((12, 6),))
    for size in sizes:
        spins = walls(size, 3 if size == sizes[0] else 1)
        for precision, limit in LIMITS.items():
            for name in bench.while_time((*SHIPPED, "committee")):
                here, there = (
                    Evaluation(_model(name, device, precision), spins).field() for device in (CPU, bench.device)
                )
                which = f"{name}, {precision}, {size[0]}x{size[1]}"
                bench.check(which, (there - here).abs().max().item(), limit)


def _model(name: str, device: torch.device, precision: str = "float32") -> ForceField | Committee:
    return committee(FAST, device, precision) if name == "committee" else shipped(name, device, precision)


@figure(1, 40)
def bits(bench: Bench) -> None:
    """A lattice alone and in a batch, and a window and the whole: the same bits on the card."""
    size = bench.sizes((90, 24), (60, 16))
    for name in bench.while_time((*SHIPPED, "committee")):
        model = _model(name, bench.device)
        spins = walls(size, 3)
        together = Evaluation(model, spins).field()
        alone = [Evaluation(model, spins[number : number + 1]).field()[0] for number in range(len(spins))]
        bench.require(f"{name}: alone and in a batch", torch.equal(together, torch.stack(alone)))
        if name == "driven_sd_strips":
            bench.skip(f"the window of {name}", "its terms cross to other blocks; two_ranks shows it")
            continue
        part = slice(model.halo[0] // 2, size[0] - model.halo[0])
        results = _window(model, spins[0], part)
        bench.require(f"{name}: window and whole", torch.equal(results, together[0].unflatten(0, size)[part]))


def _window(model: ForceField | Committee, spins: NDArray[np.float64], part: slice) -> torch.Tensor:
    """Field on some columns, from a window whose halo leaves the lattice on one side at the least."""
    (hx, hy), (length, rows) = model.halo, spins.shape[:2]
    columns = np.arange(part.start - hx, part.stop + hx)
    inside = (columns >= 0) & (columns < length)
    around = np.pad(spins, ((0, 0), (hy, hy), (0, 0)), mode="wrap")[columns % length] * inside[:, None, None]
    shape = (part.stop - part.start, rows)
    table = model.window(Block(shape, (False, True), (False, True), (part.start, length)))
    device = next(model.parameters()).device
    flat, bias = torch.from_numpy(around).reshape(1, -1, 3).to(device), torch.full((1,), BIAS, device=device)
    results: torch.Tensor = model(flat, table, bias).field[0].double().cpu().unflatten(0, shape)
    return results


def _classical(size: Size) -> Field:
    lattice = make_lattice("square", size)
    return SumField(
        [
            Heisenberg(1.0),
            Heisenberg(-0.2, lattice.shell(2)),
            DzyaloshinskiiMoriya.interfacial(lattice, 0.3),
            Anisotropy(0.1),
            Zeeman((0.05, 0.0, 0.1)),
            Slonczewski((0.0, 0.05, 0.0)),
        ]
    )


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _run(
    directory: Path, field: Field, size: Size, device: torch.device, integrator: str, steps: int, step: float
) -> dict[str, NDArray[Any]]:
    """A trajectory from a wall, with noise where the integrator takes it; every tenth frame."""
    settings = DynamicsSettings(
        damping=DAMPING,
        temperature=TEMPERATURE if INTEGRATORS[integrator].langevin else 0.0,
        step=step,
        duration=steps * step,
        integrator=integrator,
        record_interval=10,
        checkpoint_interval=10,
    )
    config = {"integrator": integrator, "dynamics": {"duration": steps * step}}
    lattice = make_lattice("square", size)
    Simulation(lattice, field, walls(size, 1)[0], settings, directory, config=config, device=device).run()
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: file[name][()] for name in ("spins", "field")}


@figure(1, 60)
def classical_paths(bench: Bench) -> None:
    """200 steps of every integrator under classical fields on the card and on the CPU."""
    size, steps = bench.sizes((32, 24), (8, 6)), bench.sizes(STEPS, 20)
    for name in bench.while_time(INTEGRATORS):
        with _directory() as where:
            here, there = (
                _run(where / device.type / str(number), _classical(size), size, device, name, steps, CLASSICAL_STEP)
                for number, device in enumerate((CPU, bench.device))
            )
        bench.check(name, np.abs(here["spins"] - there["spins"]).max(), PATH_LIMIT)
        bench.numbers[f"{name}, the same bits"] = bool(np.array_equal(here["spins"], there["spins"]))


@figure(1, 90)
def learned_paths(bench: Bench) -> None:
    """200 steps of every integrator under a float64 model; fields of float32 models along the way of the CPU."""
    size, steps = bench.sizes(PAPER, (12, 6)), bench.sizes(STEPS, 10)
    for name in bench.while_time(INTEGRATORS):
        with _directory() as where:
            here, there = (
                _run(where / str(number), learned(FAST, device, "float64"), size, device, name, steps, 0.4)
                for number, device in enumerate((CPU, bench.device))
            )
        bench.check(f"{FAST} in float64, {name}", np.abs(here["spins"] - there["spins"]).max(), PATH_LIMIT)
    for name in bench.while_time(SHIPPED):
        with _directory() as where:
            here = _run(where, learned(name, CPU), size, CPU, "heun", steps // 4 or 10, 0.4)
        fields = Evaluation(shipped(name, bench.device), here["spins"]).field().reshape(here["field"].shape)
        bench.check(f"fields of {name} in float32", np.abs(fields.numpy() - here["field"]).max(), LIMITS["float32"])


@figure(1, 30)
def resume(bench: Bench) -> None:
    """A run of the card in two parts has the bits of one."""
    size = bench.sizes(PAPER, (12, 6))
    for name, field in (("classical", _classical(size)), (FAST, learned(FAST, bench.device))):
        with _directory() as where:
            whole = _run(where / "whole", field, size, bench.device, "heun", 40, 0.1)
            _run(where / "parts", field, size, bench.device, "heun", 20, 0.1)
            parts = _run(where / "parts", field, size, bench.device, "heun", 40, 0.1)
        bench.require(f"{name}: the same bits", all(np.array_equal(whole[key], parts[key]) for key in whole))


def _train(directory: Path, device: str, epochs: int, **changes: bool) -> list[dict[str, float]]:
    """Metrics of each epoch of a training that goes on from a shipped model, four steps an epoch."""
    data = directory / "data"
    if not data.exists():
        data.mkdir(parents=True)
        shutil.copy(EXACT, data / "exact.h5")
        shutil.copy(MODELS / "driven_sd_test.h5", data / "test.h5")
    chosen = {
        "device": device,
        "training.start": str(MODELS / f"{FAST}.safetensors"),
        "training.epochs": epochs,
        "training.batch": 6,
        "training.checkpoint_interval": 1,
        "training.validation": "[test.h5]",
        "training.compile": False,
        "training.mixed_precision": False,
        **{f"training.{name}": value for name, value in changes.items()},
    }
    config = load_config(CONFIG.with_name(f"{FAST}.yaml"), [f"{key}={value}" for key, value in chosen.items()])
    output = directory / "-".join([device, *(name for name, value in changes.items() if value)])
    train_directory(config, [data], output, World())
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@figure(1, 45)
def training(bench: Bench) -> None:
    """Twenty steps of a training on the card and on the CPU."""
    with _directory() as where:
        epochs = bench.sizes(5, 1)
        here, there = (
            _train(where / str(number), device.type, epochs) for number, device in enumerate((CPU, bench.device))
        )
    for name in ("loss", "validation_mse"):
        apart = max(abs(b[name] / a[name] - 1) for a, b in zip(here, there, strict=True))
        bench.check(f"{name} over {len(here)} epochs, relative", apart, TRAINING_LIMIT)


def launcher() -> str:
    """The mpiexec of this machine, or of a wheel that was installed aside.

    Raises
    ------
    LeftOut
        If there is none.
    """
    aside = [str(Path(part) / "bin") for part in (*os.environ.get("PYTHONPATH", "").split(os.pathsep), sys.prefix)]
    results = shutil.which("mpiexec") or shutil.which("mpiexec", path=os.pathsep.join(aside))
    if results is None:
        raise LeftOut("there is no mpiexec; launch/wheels.sh brings one")
    return results


def _program(bench: Bench, ranks: int, arguments: Sequence[str]) -> None:
    command = [launcher(), "-n", str(ranks), sys.executable, "-m", "hpcspin", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, bench.left), check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{ranks} rank(s) ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")


@figure(1, 100)
def two_ranks(bench: Bench) -> None:
    """Two MPI ranks on one card: trajectories to the bit, labels to rounding."""
    device = f"device={bench.device.type}"
    system = ["lattice.size=[12,6]" if bench.pretend else "lattice.size=[60,24]", "electrons.tolerance=1e-8"]
    moves = ["dynamics.field=learned", "potential=null", "dynamics.duration=4", "dynamics.record_interval=1"]
    # A block of the small lattice would be thinner than the halo of layers.
    names = ("driven_sd_strips",) if bench.pretend else (FAST, "driven_sd_strips")
    with _directory() as where:
        for name in bench.while_time(names):
            model = f"dynamics.model={MODELS / name}.safetensors"
            results = []
            for ranks in (1, 2):
                output = where / f"{name}-{ranks}"
                _program(
                    bench, ranks, ["simulate", str(CONFIG), device, *system, *moves, model, "--output", str(output)]
                )
                with h5py.File(output / "trajectory.h5") as file:
                    results.append(file["spins"][()])
            bench.require(f"trajectory of {name}, the same bits", np.array_equal(*results))
        size = (12, 6)
        with h5py.File(where / "spins.h5", "w") as file:
            file["spins"] = walls(size, 2)
        for _ in bench.while_time(["labels"]):
            fields = []
            for ranks in (1, 2):
                output = where / f"labels-{ranks}.h5"
                small = ["lattice.size=[12,6]", system[1], "--spins", str(where / "spins.h5")]
                _program(bench, ranks, ["label", str(CONFIG), device, *small, "--output", str(output)])
                with h5py.File(output) as file:
                    fields.append(file["field"][()])
            bench.check("labels", np.abs(fields[1] - fields[0]).max(), RANKS_LIMIT)


@figure(1, 90)
def training_variants(bench: Bench) -> None:
    """Mixed precision and compiled layers learn what the plain training learns."""
    with _directory() as where:
        plain = _train(where, bench.device.type, 2)[-1]["loss"]
        for name, limit in (("mixed_precision", 0.2), ("compile", 1e-3)):
            if name == "compile" and bench.pretend:
                bench.skip(name, "takes a minute on a CPU; tests/training/test_faster_steps.py runs it")
                continue
            results = _train(where, bench.device.type, 2, **{name: True})[-1]["loss"]
            bench.numbers[name] = {"loss": results, "plain": plain}
            bench.check(f"{name}: loss, relative", abs(results / plain - 1), limit)
