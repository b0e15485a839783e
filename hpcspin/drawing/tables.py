"""Tables on the terminal, in the log of a job, or as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from hpcspin.analysis.series import Estimate
from hpcspin.drawing import closed, driven
from hpcspin.parallel.world import World
from hpcspin.storage import write_text

REPRODUCTION = "Learned against exact, on independent trajectories"
_BETWEEN = 2
"""Spaces between two columns."""


def short(number: float) -> str:
    """Three digits, with an exponent where zeros would come before them."""
    return f"{number:.3g}" if not number or abs(number) >= 0.01 else f"{number:.2e}"


def print_table(
    title: str, rows: Iterable[Sequence[str]], world: World, head: Sequence[str] = (), whole: int = 1
) -> None:
    """Print a table as a result, with or without a line of headings: spaces between its columns, and no frame.

    The first ``whole`` columns are neither cut nor folded. Others are folded between words where the terminal is too
    narrow; where that is not enough, as in the log of a job, the table is wider.
    """
    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(*head, title=title, title_justify="left", show_header=bool(head), **look)
    for row in rows:
        table.add_row(*row)
    for number, column in enumerate(table.columns):
        column.no_wrap = number < whole
        cells = [str(cell) for cell in (column.header, *column.cells)]
        column.min_width = max(map(cell_len, cells if column.no_wrap else " ".join(cells).split()))
    console = Console()
    console.width = max(console.width, sum((column.min_width or 0) + _BETWEEN for column in table.columns))
    with console.capture() as capture:
        console.print(table, crop=False)
    world.log_result(capture.get().rstrip("\n"))


def print_runs(
    verb: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], show: Sequence[str], world: World
) -> None:
    """Print the varied keys, some quantities and the directory of runs of a sweep; those of `train` by their mse."""
    shown = [name for name in show if any(row.get(name) is not None for row in rows)]
    if verb == "train":
        rows = sorted(rows, key=lambda row: row["mse"])
    title = "Validation errors, the smallest first" if verb == "train" else f"Runs of {verb}"
    numbers = ([short(row[name]) if row.get(name) is not None else "" for name in shown] for row in rows)
    cells = ([*(str(row[key]) for key in keys), *of, row["directory"]] for row, of in zip(rows, numbers, strict=True))
    print_table(title, cells, world, (*keys, *shown, "directory"), len(keys))


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a CSV file with a column for each name in any of the rows; empty where a row lacks it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def reproduction_rows(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table `REPRODUCTION`, from the ``numbers.json`` of a reproduction."""
    test = numbers["test"]
    rows = [
        ("test snapshots", str(test["snapshots"])),
        ("mean squared error of a perpendicular field component", f"{Estimate(test['mse'], test.get('mse_error'))} t²"),
        ("standard deviation of its error", f"{test['sigma']:.3g} t"),
    ]
    if "variance_fraction" in test:
        rows.append(("fraction of its variance unexplained", f"{test['variance_fraction']:.2%}"))
    rows += (closed if "order" in numbers else driven).rows(numbers)
    for state in numbers["nonconservativity"]:
        value = f"{state['ratio']:.3g} ± {state['error']:.2g}"
        rows.append((f"nonconservativity of the exact field at time {state['time']:g}", value))
    return rows + [(f"seconds, {stage}", f"{seconds:.1f}") for stage, seconds in numbers["stage_seconds"].items()]
