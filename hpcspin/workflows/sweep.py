"""``hpcspin sweep``: one training for every combination of some keys of the config, and a record of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.table import Table

from hpcspin.assembly.outputs import sole_writer
from hpcspin.config import Config, load_config
from hpcspin.config_text import read_yaml
from hpcspin.drawing.tables import new_table, print_table
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential.files import card_path
from hpcspin.storage import write_text
from hpcspin.training.loop import METRICS, MODEL, DivergedError
from hpcspin.workflows.train import train_directory

RECORD = "sweep.jsonl"
Choice = dict[str, Any]
"""Dotted key to value."""


def sweep_directory(
    config: Path, overrides: Sequence[str], vary: Sequence[str], data: Sequence[Path], output: Path, world: World
) -> int:
    """Train every combination that is not done.

    Parameters
    ----------
    config, overrides
        What all trainings share; must name shards in ``training.validation``.
    vary
        ``KEY=V1,V2,...`` each, the values as YAML.
    data
        Directories of label files.
    output
        Receives a directory a combination, as `hpcspin train` makes it, and
        ``sweep.jsonl`` with a line a force field: ``overrides``, ``metrics`` on
        the validation shards, ``best_epoch``, ``seconds``, ``seed``, ``provenance``, ``directory``.
    world
        The ranks; each training is shared by all.

    Returns
    -------
    int
        Exit code: 0 when finished, 75 when stopped by a signal with a checkpoint.

    Raises
    ------
    HpcspinError
        If a key or value is wrong, or a training fails; one that diverges is left out of the record, the others go on.
    """
    chosen = _combinations(vary)
    configs = [load_config(config, [*overrides, *_as_overrides(choice)]) for choice in chosen]
    _require_validation(configs)
    with sole_writer(output, world):
        return _train_all(chosen, configs, data, output, world)


def _train_all(
    chosen: Sequence[Choice], configs: Sequence[Config], data: Sequence[Path], output: Path, world: World
) -> int:
    records: list[dict[str, Any]] = []
    for number, (choice, one) in enumerate(zip(chosen, configs, strict=True), 1):
        world.log(f"[{number}/{len(chosen)}] {' '.join(_as_overrides(choice))}")
        directory = output / _name(choice)
        try:
            code = train_directory(one, data, directory, world)
        except DivergedError as failure:
            world.log(f"warning: {failure}")
            continue
        if code:
            return code
        if world.rank == 0:
            records += [_record(choice, path, output) for path in sorted(directory.glob(f"**/{MODEL}"))]
            write_text(output / RECORD, "".join(f"{json.dumps(record)}\n" for record in records))
    if world.rank == 0:
        if not records:
            raise HpcspinError("every training of the sweep has diverged; lower training.learning_rate")
        print_table(_table(records), world, whole=len(chosen[0]))
        world.log_result(f"{output / RECORD}: {len(records)} force fields")
    return 0


def _combinations(vary: Sequence[str]) -> list[Choice]:
    values: dict[str, list[Any]] = {}
    for given in vary:
        key, separator, text = given.partition("=")
        try:
            parsed = read_yaml(f"[{text}]")
        except HpcspinError:
            parsed = None
        if not key or not separator or not parsed or key in values:
            raise HpcspinError(f"--vary {given!r}: write it as KEY=V1,V2,... and name each key once")
        values[key] = parsed
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def _as_overrides(choice: Choice) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in choice.items()]


def _require_validation(configs: Sequence[Config]) -> None:
    for config in configs:
        config.need("potential", "training")
        assert config.training is not None
        if not config.training.validation:
            raise HpcspinError(
                "training.validation: a sweep compares errors on validation shards; name some of the files of --data"
            )


def _name(choice: Choice) -> str:
    """Directory of a combination, wherever it stands in the list."""
    return "run-" + hashlib.sha256(json.dumps(choice, sort_keys=True).encode()).hexdigest()[:12]


def _record(choice: Choice, model: Path, output: Path) -> dict[str, Any]:
    card = json.loads(card_path(model).read_text())
    last = (model.parent / METRICS).read_text().splitlines()[-1]
    return {
        "overrides": choice,
        "metrics": card["metrics"],
        "best_epoch": card["best_epoch"],
        "seconds": json.loads(last)["seconds"],
        "seed": card["training"]["seed"],
        "provenance": card["provenance"],
        "directory": str(model.parent.relative_to(output)),
    }


def _table(records: Sequence[dict[str, Any]]) -> Table:
    keys = list(records[0]["overrides"])
    table = new_table("Validation errors, the smallest first")
    for heading in (*keys, "seed", "mse", "of variance", "epoch", "sec", "directory"):
        table.add_column(heading)
    for record in sorted(records, key=lambda record: record["metrics"]["mse"]):
        metrics = record["metrics"]
        error = f" ± {metrics['mse_error']:.1e}" if metrics.get("mse_error") is not None else ""
        table.add_row(
            *(json.dumps(record["overrides"][key]) for key in keys),
            str(record["seed"]),
            f"{metrics['mse']:.3e}{error}",
            f"{metrics['variance_fraction']:.2%}" if "variance_fraction" in metrics else "",
            str(record["best_epoch"]),
            f"{record['seconds']:.0f}",
            record["directory"],
        )
    return table
