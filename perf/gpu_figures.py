"""What the figures of ``perf/gpu.py`` stand on: checks, time that is left, a process that may die, a JSON that grows.

A figure is a function of a `Bench`. It runs in a process of its own kind, the
worker: a kernel that reads beyond its memory ruins every later call of its
process, and one that never ends cannot be interrupted. The worker is then
ended, the figure recorded as failed, and the next one begins in a new worker.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from shared import table

from hpcspin.errors import one_line
from hpcspin.storage import atomic_path

GRACE = 8.0
"""Seconds beyond its own time after which a figure is ended."""


class LeftOut(Exception):
    """A figure that cannot be on this machine; the message says why."""


@dataclass
class Bench:
    """What a figure is given, and what it has found.

    Attributes
    ----------
    device
        The card, or the CPU in its place.
    pretend
        Whether there is no card: sizes are then small, NumPy stands in for CuPy, and no number means anything.
    until
        When the figure should have finished, on the monotonic clock.
    """

    device: torch.device
    pretend: bool
    until: float
    checks: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def batched(self) -> str:
        """Array library of exact labels on the card."""
        return "numpy" if self.pretend else "cupy"

    @property
    def left(self) -> float:
        """Seconds that are left for this figure."""
        return self.until - time.monotonic()

    def check(self, name: str, value: float, limit: float) -> None:
        """A number that must be finite and at most a limit."""
        value = float(value)
        self.checks.append({"name": name, "value": value, "limit": limit, "passed": value <= limit})

    def require(self, name: str, holds: bool) -> None:
        """Something that must be so."""
        self.checks.append({"name": name, "passed": bool(holds)})

    def skip(self, what: str, why: str) -> None:
        """Say that a part of the figure was left out."""
        self.left_out.append(f"{what}: {why}")

    def while_time(self, items: Iterable[Any], growth: float = 1.0) -> Iterator[Any]:
        """The items, one after the other, until the next one would take longer than is left.

        Parameters
        ----------
        items
            Sizes or names.
        growth
            How many times as long as one of them the next is expected to take.
        """
        rest, last = list(items), 0.0
        while rest:
            if self.left < growth * last:
                for item in rest:
                    self.skip(str(item), "no time was left")
                return
            start = time.monotonic()
            yield rest.pop(0)
            last = time.monotonic() - start

    def sizes(self, card: tuple[Any, ...], pretended: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is measured on a card, and what in its place."""
        return pretended if self.pretend else card

    def wait(self) -> None:
        """Wait for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 9, most: float = 5.0) -> float:
        """Median wall time after a warm-up; fewer repeats where they take longer than ``most`` seconds."""
        return statistics.median(self.times(work, repeats, most))

    def times(self, work: Callable[[], Any], repeats: int, most: float) -> list[float]:
        """Wall times after a warm-up, at least one."""
        self._timed(work)
        found, end = [self._timed(work)], time.monotonic() + min(most, self.left)
        while len(found) < repeats and time.monotonic() < end:
            found.append(self._timed(work))
        return found

    def _timed(self, work: Callable[[], Any]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def beside_limits(self, seconds: float, flops: float, moved: float, kind: str) -> dict[str, float]:
        """A time beside what its arithmetic and its bytes would take at the rates that this card reaches.

        Parameters
        ----------
        seconds
            As measured.
        flops, moved
            Real floating-point operations, and bytes read and written at the least.
        kind
            Which of the product rates of `ceilings` counts.
        """
        rates = ceilings(self.device.type)
        by_flops, by_bytes = flops / rates[kind], moved / rates["copy"]
        return {
            "seconds": seconds,
            "limit_by_flops_seconds": by_flops,
            "limit_by_bytes_seconds": by_bytes,
            "times_limit": seconds / max(by_flops, by_bytes),
        }

    def paired(
        self, first: Callable[[], Any], second: Callable[[], Any], most: float, fewest: int = 3
    ) -> dict[str, float]:
        """Two ways in turn, ABBA, for so many seconds: medians, and the quartiles of the ratio second / first."""
        first(), second()
        times: tuple[list[float], list[float]] = ([], [])
        end = time.monotonic() + min(most, self.left)
        while len(times[0]) < fewest or (time.monotonic() < end and len(times[0]) < 200):
            order = ((0, first), (1, second)) if len(times[0]) % 2 == 0 else ((1, second), (0, first))
            for which, work in order:
                times[which].append(self._timed(work))
        ratios = [b / a for a, b in zip(*times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        spread = [statistics.quantiles(part, n=4) for part in times]
        return {
            "pairs": len(ratios),
            "first_seconds": statistics.median(times[0]),
            "first_interquartile": spread[0][2] - spread[0][0],
            "second_seconds": statistics.median(times[1]),
            "second_interquartile": spread[1][2] - spread[1][0],
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
        }


Work = Callable[[Bench], None]


@dataclass(frozen=True)
class Figure:
    """One figure: its function, the part it belongs to, and the seconds it may take."""

    work: Work
    part: int
    seconds: float


FIGURES: dict[str, Figure] = {}


def figure(part: int, seconds: float) -> Callable[[Work], Work]:
    """Register a function under its own name, in the order of the source."""

    def register(work: Work) -> Work:
        FIGURES[work.__name__] = Figure(work, part, seconds)
        return work

    return register


@functools.cache
def ceilings(device: str) -> dict[str, float]:
    """Flops a second of large products of each type, and bytes a second read and written by a large copy."""
    m, length = (8192, 1 << 28) if device == "cuda" else (256, 1 << 20)
    bench = Bench(torch.device(device), device == "cpu", time.monotonic() + 10)

    def products(dtype: torch.dtype, side: int) -> float:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        flops = (8 if dtype.is_complex else 2) * side**3
        return flops / bench.seconds(lambda: a @ b, 7, 1.0)

    rates = {
        "float32": products(torch.float32, m),
        "float64": products(torch.float64, m // 2),
        "complex128": products(torch.complex128, m // 2),
        "complex64": products(torch.complex64, m // 2),
        "bfloat16": products(torch.bfloat16, m),
    }
    source = torch.randn(length, device=device)
    target = torch.empty_like(source)
    rates["copy"] = 2 * 4 * length / bench.seconds(lambda: target.copy_(source), 9, 1.0)
    return rates


def run(name: str, work: Work, pretend: bool, seconds: float) -> dict[str, Any]:
    """Result of one figure in this process, whatever it does.

    Returns
    -------
    dict
        ``result`` is passed, measured (without a check), failed or left out.
    """
    start = time.monotonic()
    bench = Bench(torch.device("cpu" if pretend else "cuda"), pretend, start + seconds)
    message = None
    try:
        work(bench)
        result = "measured" if not bench.checks else "passed"
    except LeftOut as why:
        result, message = "left out", str(why)
    except Exception as error:
        result, message = "failed", f"{type(error).__name__}: {one_line(error)}"
        bench.numbers["traceback"] = traceback.format_exc().splitlines()[-12:]
    if not all(check["passed"] for check in bench.checks):
        result = "failed"
    found = {"result": result, "seconds": time.monotonic() - start, "checks": bench.checks, "numbers": bench.numbers}
    if bench.left_out:
        found["left_out"] = bench.left_out
    return found | ({"message": message} if message else {})


def _free(pretend: bool) -> bool:
    """Give cached memory back to the card; whether the card still answers."""
    if pretend:
        return True
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        with suppress(ImportError):
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()
        return bool(torch.ones(1, device="cuda").item() == 1)
    except Exception:
        return False


def _serve(connection: Any, figures: dict[str, Figure], pretend: bool) -> None:
    """Run figures as they are asked for, until the connection ends or the card no longer answers."""
    os.setpgrp()
    with suppress(EOFError):
        while True:
            name, seconds = connection.recv()
            connection.send(run(name, figures[name].work, pretend, seconds))
            if not _free(pretend):
                return


class Worker:
    """A process that runs figures, replaced where it has died or does not return.

    Parameters
    ----------
    figures
        What it can run; their functions must be importable.
    pretend
        See `Bench`.
    """

    def __init__(self, figures: dict[str, Figure], pretend: bool) -> None:
        self._figures, self._pretend = figures, pretend
        self._process: Any = None

    def run(self, name: str, seconds: float, most: float) -> dict[str, Any]:
        """Result of a figure that is told to take ``seconds`` and ended after ``most``."""
        start = time.monotonic()
        try:
            if self._process is None or not self._process.is_alive():
                self._start()
            self._connection.send((name, seconds))
            if not self._connection.poll(most):
                why = f"did not return within {most:.0f} s and was ended"
            else:
                found: dict[str, Any] = self._connection.recv()
                return found
        except (EOFError, OSError):
            self._process.join(2)
            why = f"its process died with exit code {self._process.exitcode}"
        self.stop()
        return {
            "result": "failed", "seconds": time.monotonic() - start, "checks": [], "numbers": {}, "message": why,
        }  # fmt: skip

    def stop(self) -> None:
        """End the process and what it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            # It leads a group of its own, and may not have come so far.
            if os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._figures, self._pretend), daemon=True)
        self._process.start()
        theirs.close()


class Results:
    """The JSON of one card, written anew after every figure.

    Parameters
    ----------
    path
        Where; what is there already stays, figure by figure.
    environment
        Of this run: card, driver, versions, commit.
    """

    def __init__(self, path: Path, environment: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"runs": [], "figures": {}}
        if path.exists():
            self.content = json.loads(path.read_text())
        if environment not in self.content["runs"]:
            self.content["runs"].append(environment)
        self._run = self.content["runs"].index(environment)

    def write(self, name: str, part: int, found: dict[str, Any]) -> None:
        """Keep a figure."""
        stamp = {"part": part, "run": self._run, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self.content["figures"][name] = stamp | found
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=2) + "\n")


def line(name: str, found: dict[str, Any]) -> str:
    """A figure in one line: the check that is nearest to its limit, the message, what was left out."""
    notes = []
    if failed := [check for check in found["checks"] if not check["passed"]]:
        notes.append("not so: " + ", ".join(map(_said, failed)))
    elif limited := [check for check in found["checks"] if check.get("limit")]:
        notes.append(_said(max(limited, key=lambda check: check["value"] / check["limit"])))
    if "message" in found:
        notes.append(found["message"])
    notes += [f"left out {part}" for part in found.get("left_out", ())]
    return f"{found['result']:<9} {name:<22} {found['seconds']:6.1f} s  {'; '.join(notes)}"


def _said(check: dict[str, Any]) -> str:
    if "value" not in check:
        return str(check["name"])
    return f"{check['name']} {check['value']:.2g} (at most {check['limit']:.2g})"


def passes(found: dict[str, dict[str, Any]]) -> str:
    """The table that ends a part."""
    rows = [
        [
            name,
            one["result"],
            f"{sum(check['passed'] for check in one['checks'])} of {len(one['checks'])}",
            f"{one['seconds']:.1f}",
        ]
        for name, one in found.items()
    ]
    return table(["figure", "result", "checks", "seconds"], rows)
