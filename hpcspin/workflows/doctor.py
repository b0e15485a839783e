"""``hpcspin doctor``: tries what hpcspin needs of a machine, and says what works."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch

from hpcspin.assembly.outputs import scratch
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.electrons import kpm_host
from hpcspin.errors import HpcspinError, one_line
from hpcspin.parallel.bandwidth import all_reduce, cores, halo_exchange, matrix_rate, seconds_of
from hpcspin.parallel.devices import pick_device, unique_name
from hpcspin.parallel.host_compiler import attempt
from hpcspin.parallel.world import World
from hpcspin.potential import host_library
from hpcspin.storage import OutputLock, make_directory
from hpcspin.storage.disk import DiskFile, create_hdf5
from hpcspin.workflows.info import aligned, describe

_NOISY = 2.0
"""Slowest over fastest repeat of the same work above which other work seems to share the cores."""
_UNEQUAL = 0.5
_SITES = 1 << 16
_LITTLE = 10 * 2**30
_BYTES = 1 << 25
_SMALL, _SYNCS = 4096, 5
_FILTERS = ("gzip", "lzf")


@dataclass(frozen=True)
class Finding:
    """What a trial has shown, and whether that is ``good``, a ``warning``, or something that ``fails``."""

    text: str
    grade: Literal["good", "warning", "fails"] = "good"


def examine(directory: Path, world: World) -> int:
    """Log what this installation is, what was tried on all ranks and in a directory, and a verdict; 1 if it is bad."""
    device = pick_device(world)
    lines, places = describe(world), world.allgather(_place(world, device))
    lines |= {f"rank {number}": text for number, (text, _, _) in enumerate(places)}
    findings = {"binding": _binding([(host, own) for _, host, own in places])}
    findings["GPUs of ranks"] = _gpus(world.allgather(unique_name(device)))
    findings["halo bandwidth"] = _messages(functools.partial(halo_exchange, world, device), world)
    findings["all-reduce"] = _messages(functools.partial(all_reduce, world, device), world)
    findings["matrix products"] = _matrices(world, device)
    findings["noise"] = _noise(world, device)
    findings["kernels"] = _kernels(world)
    if world.rank == 0:
        make_directory(directory)
    with scratch(world, directory.absolute()) as folder:
        findings["disk"] = _tried(lambda: _disk(folder), world)
        findings["HDF5"] = _tried(lambda: _hdf5(folder), world)
        findings["locks"] = _locks(folder, world)
    free = shutil.disk_usage(directory).free if directory.exists() else 0
    space = f"{free / 2**30:.3g} GiB at {directory.absolute()}"
    findings["free space"] = Finding(space, "good" if free > _LITTLE else "warning")
    lines |= {name: f"{one.grade}: {one.text}" for name, one in findings.items()}
    bad, doubts = ([name for name, one in findings.items() if one.grade == grade] for grade in ("fails", "warning"))
    lines["verdict"] = _verdict(bad, doubts)
    world.log_result(aligned(lines))
    return int(bool(bad))


def _verdict(bad: list[str], doubts: list[str]) -> str:
    if bad:
        return f"does not work here: {', '.join(bad)}"
    return f"works, but see {', '.join(doubts)}" if doubts else "all that was tried works"


def _place(world: World, device: torch.device) -> tuple[str, str, frozenset[int]]:
    """Description of this rank, its host and its cores."""
    gpu = unique_name(device)
    where = f"GPU {torch.cuda.get_device_name(device)} {gpu}" if gpu else "CPU"
    host, threads = socket.gethostname(), torch.get_num_threads()
    rank = f"local rank {world.local_rank} of {world.local_size}"
    text = f"host {host}, {rank}, cores {cores()}, {threads} thread(s), {where}"
    return text, host, frozenset(os.sched_getaffinity(0))


def _binding(places: list[tuple[str, frozenset[int]]]) -> Finding:
    for host in dict.fromkeys(host for host, _ in places):
        mine = [own for name, own in places if name == host]
        if len(mine) > len(frozenset().union(*mine)):
            return Finding(f"{len(mine)} ranks of {host} share {len(frozenset().union(*mine))} core(s)", "warning")
        if len(set(mine)) > 1 and sum(map(len, mine)) > len(frozenset().union(*mine)):
            return Finding(f"ranks of {host} are bound to cores that overlap", "warning")
    return Finding("as many cores as ranks, or more, on every host")


def _gpus(names: list[str | None]) -> Finding:
    used = [name for name in names if name is not None]
    if not used:
        return Finding("none, all ranks compute on CPUs")
    if len(set(used)) < len(used):
        return Finding(f"{len(used)} ranks share {len(set(used))}; NCCL refuses that, so trainings do", "warning")
    return Finding("one for each rank") if len(used) == len(names) else Finding("not for every rank", "fails")


def _messages(measure: Callable[[], tuple[float, int]], world: World) -> Finding:
    if world.size == 1:
        return Finding("one rank sends nothing")
    try:
        seconds, size = measure()
    except HpcspinError as failure:  # On all ranks.
        return Finding(str(failure), "warning")
    return Finding(f"{size / 2**20:.3g} MiB in {1e3 * seconds:.3g} ms, {size / seconds / 1e9:.3g} GB/s")


def _matrices(world: World, device: torch.device) -> Finding:
    rates, spreads = zip(*world.allgather(matrix_rate(device)), strict=True)
    text = f"{min(rates) / 1e9:.3g} Gflop/s on the slowest rank, complex128; repeats differ {max(spreads):.2g}-fold"
    if min(rates) < _UNEQUAL * max(rates):
        return Finding(f"{text}; the fastest rank has {max(rates) / 1e9:.3g}", "warning")
    return Finding(text, "warning" if max(spreads) > _NOISY else "good")


def _noise(world: World, device: torch.device) -> Finding:
    sites = torch.arange(_SITES, device=device)
    seconds = max(world.allgather(seconds_of(lambda: normal_vectors(sites, 1, 0, 0, 0), device)))
    return Finding(f"{_SITES / seconds / 1e6:.3g} million sites per second on the slowest rank")


def _kernels(world: World) -> Finding:
    tried = {
        "learned layers": host_library.SOURCE,
        "learned potentials": host_library.POTENTIALS,
        "kernel polynomials": kpm_host.SOURCE,
    }
    obstacles = {f"{name}: {found}" for name, source in tried.items() if isinstance(found := attempt(source), str)}
    missing = set().union(*world.allgather(obstacles))
    if missing:
        return Finding(f"{'; '.join(sorted(missing))}; PyTorch does the same, more slowly", "warning")
    return Finding(f"compiled: {', '.join(tried)}")


def _tried(trial: Callable[[], Finding], world: World) -> Finding:
    """The finding of a trial on rank 0, on all ranks."""
    finding = None
    if world.rank == 0:
        try:
            finding = trial()
        except Exception as failure:
            finding = Finding(one_line(failure), "fails")
    found: Finding = world.broadcast(finding)
    return found


def _disk(folder: Path) -> Finding:
    """Rate at which bytes reach the disk, and time until a small write does."""
    with DiskFile(folder / "bytes", create=True) as file:
        start = time.perf_counter()
        file.write_at(0, bytes(_BYTES))
        file.sync()
        rate = _BYTES / (time.perf_counter() - start)
        start = time.perf_counter()
        for number in range(_SYNCS):
            file.write_at(number * _SMALL, b"1" * _SMALL)
            file.sync()
        sync = (time.perf_counter() - start) / _SYNCS
    return Finding(f"{rate / 1e6:.3g} MB/s written, a small write reaches the disk in {1e3 * sync:.3g} ms")


def _hdf5(folder: Path) -> Finding:
    """Write and read a file with each filter that trajectories can use."""
    numbers = np.arange(4096.0)
    for name in _FILTERS:
        path = folder / f"{name}.h5"
        with DiskFile(path, create=True) as disk, create_hdf5(disk) as file:
            file.create_dataset("numbers", data=numbers, compression=name, shuffle=True)
        with h5py.File(path) as file:
            if not np.array_equal(file["numbers"][()], numbers):
                raise HpcspinError(f"{folder}: numbers written by HDF5 with {name} are read back as different ones")
    version = h5py.version.hdf5_version
    return Finding(f"version {version}; written and read with filters {', '.join(_FILTERS)}")


def _locks(folder: Path, world: World) -> Finding:
    """Whether rank 0's lock keeps out every rank, rank 0 itself included."""
    lock = OutputLock(folder, lambda message: None)
    taken = _tried(functools.partial(_take, lock), world)
    if taken.grade == "fails":
        return taken
    sees = folder.is_dir()
    answers = world.allgather((sees, sees and holds_lock(folder)))
    if world.rank == 0:
        lock.release()
    world.barrier()
    blind = [rank for rank, (sees, _) in enumerate(answers) if not sees]
    if blind:
        return Finding(f"rank(s) {blind} do not see the directory of rank 0", "warning")
    through = [rank for rank, (_, held) in enumerate(answers) if not held]
    if through:
        return Finding(f"rank(s) {through} pass the lock of rank 0; give one command at a time there", "warning")
    return Finding("on every rank only one run may write to an output")


def _take(lock: OutputLock) -> Finding:
    lock.acquire()
    return Finding("taken")


def holds_lock(folder: Path) -> bool:
    """Whether a lock on a folder, held by another process or by another object in this one, is respected here."""
    lock = OutputLock(folder, lambda message: None)
    try:
        lock.acquire()
    except HpcspinError:
        return True
    lock.release()
    return False
