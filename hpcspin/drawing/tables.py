"""Tables on the terminal, in the log of a job, or as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from hpcspin.drawing import closed, driven
from hpcspin.parallel.world import World
from hpcspin.storage import write_text

_BETWEEN = 2
"""Spaces between two columns."""


def new_table(title: str, *, header: bool = True) -> Table:
    """A table that leaves the width to the numbers: spaces between its columns, and no frame."""
    return Table(
        title=title,
        title_justify="left",
        show_header=header,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def short(number: float) -> str:
    """Three digits, with an exponent where zeros would come before them."""
    return f"{number:.3g}" if not number or abs(number) >= 0.01 else f"{number:.2e}"


def print_table(table: Table, world: World, whole: int = 1) -> None:
    """Print a table as a result.

    The first ``whole`` columns identify the rows, and are neither cut nor folded. Others are folded between words where
    the terminal is too narrow. Where that is not enough, as with the 80 characters assumed for the log of a job, the
    table is wider.
    """
    needed = 0
    for number, column in enumerate(table.columns):
        column.no_wrap = number < whole
        cells = [str(cell) for cell in (column.header, *column.cells)]
        words = cells if column.no_wrap else [word for cell in cells for word in cell.split()]
        column.min_width = max(map(cell_len, words))
        needed += column.min_width + _BETWEEN
    console = Console()
    console.width = max(console.width, needed)
    with console.capture() as capture:
        console.print(table, crop=False)
    world.log_result(capture.get().rstrip("\n"))


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a CSV file with a column for each name in any of the rows; empty where a row lacks it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def reproduction_table(numbers: Mapping[str, Any]) -> Table:
    """Table of the ``numbers.json`` of a reproduction."""
    test = numbers["test"]
    table = new_table("Learned against exact, on independent trajectories", header=False)
    table.add_row("test snapshots", str(test["snapshots"]))
    table.add_row("mean squared error of a perpendicular field component", f"{test['mse']:.3g}")
    table.add_row("sigma of its error", f"{test['sigma']:.3g}")
    if "variance_fraction" in test:
        table.add_row("fraction of its variance unexplained", f"{test['variance_fraction']:.2%}")
    for row in (closed if "order" in numbers else driven).rows(numbers):
        table.add_row(*row)
    for state in numbers["nonconservativity"]:
        value = f"{state['ratio']:.3g} ± {state['error']:.2g}"
        table.add_row(f"nonconservativity of the exact field at time {state['time']:g}", value)
    for stage, seconds in numbers["stage_seconds"].items():
        table.add_row(f"seconds, {stage}", f"{seconds:.1f}")
    return table
