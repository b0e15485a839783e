"""``hpcspin check``: whether a config will run here, and what it will cost, measured on a few steps."""

from __future__ import annotations

import math
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor

from hpcspin.assembly.fields import build_field
from hpcspin.assembly.system import build_lattice, build_solver, build_system, build_vacancies, initial_spins
from hpcspin.config import Config, DynamicsSection
from hpcspin.dynamics import Field
from hpcspin.dynamics.fields import Observed
from hpcspin.dynamics.motion import Motion
from hpcspin.dynamics.recording import observed_shapes
from hpcspin.dynamics.torque import components_first
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.bandwidth import seconds_once
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.domain import Domain, most_ranks
from hpcspin.parallel.world import World
from hpcspin.storage import check_spins
from hpcspin.workflows.info import aligned

_PATIENCE = 5.0
"""Seconds for further steps after the first one."""
_MOST_STEPS = 20
_NUMBER_BYTES = 8


def check_config(config: Config, output: Path, world: World) -> None:
    """Log what a config needs: halo, ranks, memory, time and disk; measured where it can be.

    With ``initial`` and ``dynamics`` a simulation is checked, otherwise one exact label. ``output`` need not exist; it
    is an error if the results do not fit on its disk.
    """
    lattice, device = build_lattice(config.lattice), pick_device(world, config.device)
    world.log("check: solves for one field and moves a few steps, which takes as long as in the run")
    lines = {"config": "valid", "lattice": f"{config.lattice.kind}, {lattice.size[0]} x {lattice.size[1]} sites"}
    size = 0
    if config.initial is not None and config.dynamics is not None:
        field = build_field(config, lattice, world, device)
        domain = Domain.cut(lattice, world, field.halo)
        lines |= _ranks(domain, field) | _steps(config, field, domain, device)
        size = output_bytes(config.dynamics, field, lattice)
    elif config.electrons is not None:
        lines |= _label(config, lattice, world)
    lines["memory a rank"] = _memory(world, device)
    free = shutil.disk_usage(_existing(output)).free
    if size:
        lines["output"] = f"at most {_shown(size)}"
    lines["free space"] = f"{_shown(free)} at {_existing(output)}"
    world.log_result(aligned(lines))
    if size > free:
        raise HpcspinError(
            f"{output}: {_shown(size)} are written at most and {_shown(free)} are free; choose another --output, or a "
            "larger dynamics.record_interval"
        )


def output_bytes(settings: DynamicsSection, field: Field, lattice: Lattice) -> int:
    """Most bytes that a simulation writes, uncompressed: all frames, and two checkpoints of spins and field."""
    vectors = 2 * 3 * lattice.num_sites
    others = sum(map(math.prod, observed_shapes(field, lattice, settings).values()))
    step_and_time = 2
    return _NUMBER_BYTES * (settings.capacity * (vectors + others + step_and_time) + 2 * vectors)


def _ranks(domain: Domain, field: Field) -> dict[str, str]:
    ranks = f"{domain.world.size}, blocks {domain.blocks[0]} x {domain.blocks[1]}"
    if field.halo is None:
        return {"halo": "the field needs the whole lattice", "ranks": f"{ranks}; they share the work of the field"}
    most = most_ranks(domain.lattice.size, field.halo)
    return {"halo": f"{field.halo[0]} x {field.halo[1]} sites", "ranks": f"{ranks}; at most {most} fit"}


def _steps(config: Config, field: Field, domain: Domain, device: torch.device) -> dict[str, str]:
    """Time of a step, from the config's initial spins; their frame is measured, to find what it would refuse."""
    initial, settings, lattice = config.section(InitialSettings), config.section(DynamicsSection), domain.lattice
    vacancies = build_vacancies(config, lattice)
    motion = Motion(field, domain, settings, device, vacancies)
    given = initial_spins(initial, lattice, settings.seed, vacancies)
    start = check_spins(given, lattice.size, "initial spins", vacancies=vacancies)
    spins, done = components_first(torch.as_tensor(start[domain.slices], device=device)), 0

    def look() -> None:
        motion.evaluate.renew(0, spins, 0.0)
        motion.evaluate(spins, 0.0)

    def move(steps: int) -> None:
        nonlocal spins, done
        for _ in range(steps):
            spins, done = motion(spins, done), done + 1
            motion.evaluate.renew(done, spins, done * settings.step)

    def seconds(steps: int) -> float:
        return _slowest(lambda: move(steps), domain.world, device)

    first = _slowest(look, domain.world, device)
    _measure(config, motion, domain, spins)
    first += seconds(1)
    further = min(_MOST_STEPS, int(_PATIENCE / first))
    rest = seconds(further) / further if further else first
    # With a corrected field each interval begins with an exact label, as the first step does.
    mean = rest + max(first - rest, 0.0) / (settings.exact_interval or math.inf)
    whole = settings.last_step
    return {
        "first step": f"{first:.3g} s, preparations included",
        "step": f"{mean:.3g} s" + (f", mean of {further}" if further else ", no more than the first one"),
        "run": f"{whole} steps, about {_time(mean * whole)}; frames, checkpoints and observers not counted",
    }


def _measure(config: Config, motion: Motion, domain: Domain, spins: Tensor) -> None:
    """Let the field and the observers measure a first frame, whose field has been evaluated."""
    field = motion.evaluate.field
    if isinstance(field, Observed):
        field.observe(0, lambda: domain.whole(spins))
    seen, force = domain.gather(spins), domain.gather(motion.evaluate(spins, 0.0))
    if seen is not None and force is not None:
        frame = motion.frame(seen, force, 0.0, build_system(config) if config.electrons else None)
        for observer in config.section(DynamicsSection).observers:
            observer.measure(frame)


def _label(config: Config, lattice: Lattice, world: World) -> dict[str, str]:
    system = build_system(config)
    spins = initial_spins(config.initial or InitialSettings(kind="random"), lattice, 1, system.vacancies)
    solver = build_solver(config, system, world)
    seconds = _slowest(lambda: solver.solve(spins[None]), world, torch.device("cpu"))
    return {"exact label": f"{seconds:.3g} s, the first one, for {'initial' if config.initial else 'random'} spins"}


def _slowest(work: Callable[[], object], world: World, device: torch.device) -> float:
    """Seconds that the slowest rank needs for some work."""
    world.barrier()
    return max(world.allgather(seconds_once(work, device)))


def _memory(world: World, device: torch.device) -> str:
    """Peak memory of the trial, and the memory of its node."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = max(world.allgather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))
    node = psutil.virtual_memory().total
    text = f"{_shown(host)} at most; the {world.local_size} rank(s) of this node share {_shown(node)}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        text += f"; {_shown(total - free)} of {_shown(total)} of the GPU are in use"
    return text


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"


def _shown(size: float) -> str:
    return f"{size / 2**20:.3g} MiB" if size < 2**30 else f"{size / 2**30:.3g} GiB"
