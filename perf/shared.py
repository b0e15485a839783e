"""What the benchmarks have in common: timing, and tables in ``perf/README.md`` that are made from their JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time after one warm-up; waits for the GPU if there is one."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    work()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(script: str, text: str) -> None:
    """Replace what a script has written in ``perf/README.md``, between its two marks."""
    first, last = f"<!-- perf/{script} writes from here -->", f"<!-- perf/{script} ends here -->"
    before, rest = README.read_text().split(first)
    README.write_text(f"{before}{first}\n\n{text}\n\n{last}{rest.split(last)[1]}")
