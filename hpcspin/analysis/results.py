"""Numbers of the directories that verbs write: for each result a record, whose ``metrics`` are its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcspin.analysis.runs import frame_numbers
from hpcspin.potential.files import card_path
from hpcspin.storage import read_json
from hpcspin.training.loop import METRICS, MODEL

Row = dict[str, Any]


def of_training(directory: Path) -> list[Row]:
    """Every force field of a training: one, or those of a committee."""
    return [_force_field(path, directory) for path in sorted(directory.glob(f"**/{MODEL}"))]


def _force_field(model: Path, directory: Path) -> Row:
    card = json.loads(card_path(model).read_text())
    last = (model.parent / METRICS).read_text().splitlines()[-1]
    return {
        "metrics": card["metrics"],
        "best_epoch": card["best_epoch"],
        "seconds": json.loads(last)["seconds"],
        "seed": card["training"]["seed"],
        "provenance": card["provenance"],
        "directory": str(Path(directory.name) / model.parent.relative_to(directory)),
    }


def of_frames(name: str) -> Callable[[Path], list[Row]]:
    """A trajectory or a file of labels with this name; see `frame_numbers`."""
    return lambda directory: [{"metrics": frame_numbers(directory / name), "directory": directory.name}]


def of_numbers(directory: Path) -> list[Row]:
    """``numbers.json`` of a verb that writes it."""
    numbers = read_json(directory / "numbers.json", "run the sweep again")
    numbers.pop("provenance", None)
    return [{"metrics": flat_numbers(numbers), "directory": directory.name}]


def of_torques(directory: Path) -> list[Row]:
    """``numbers.json`` of a torque, with Slonczewski's coefficients by field and voltage."""
    (row,), coefficients = of_numbers(directory), dict[str, float]()
    for one in read_json(directory / "numbers.json", "run the sweep again")["slonczewski"]:
        coefficients[f"slonczewski.{one['field']}.{one['voltage']:g}"] = one["coefficient"]
    return [{**row, "metrics": coefficients | row["metrics"]}]


def of_learning(directory: Path) -> list[Row]:
    """The last round of an active learning."""
    last = json.loads((directory / "rounds.jsonl").read_text().splitlines()[-1])
    return [{"metrics": flat_numbers(last), "directory": directory.name}]


def flat_numbers(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """The numbers in nested mappings, by dotted names."""
    found: dict[str, float | None] = {}
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[f"{prefix}{name}"] = value
    return found
