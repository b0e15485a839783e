"""What the figures of ``perf/gpu.py`` stand on: checks, the time that is left, rates of the card, pairs in turn.

A figure is a function of a `Bench`, registered under its name.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


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
        results, end = [self._timed(work)], time.monotonic() + min(most, 0.2 if self.pretend else self.left)
        while len(results) < repeats and time.monotonic() < end:
            results.append(self._timed(work))
        return results

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
        end = time.monotonic() + min(most, 0.2 if self.pretend else self.left)
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
    """Register a function under its own name, in the order of the source; a name stands once."""

    def register(work: Work) -> Work:
        if work.__name__ in FIGURES:
            raise ValueError(f"two figures are called {work.__name__}")
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
