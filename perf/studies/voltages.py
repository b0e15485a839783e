"""Learned beside exact or corrected runs at several voltages, from the tables of two sweeps.

    python perf/study.py voltages --exact DIR --learned DIR [--quantity wall_velocity]
        [--output perf/results/voltages_WHAT.json]

Each DIR is one of ``hpcspin sweep --vary VOLTAGE --vary dynamics.seed``, and runs of one voltage and seed have the
same noise. For each voltage: means over the seeds with standard errors, and the mean of the differences between runs
of the same noise. For a quantity that changes sign: the voltage at which a line between the two means next to zero
vanishes, with the jackknife's error over the seeds. Runs without the quantity, such as those that have not nucleated,
are left out, and one of the two sweeps may have fewer voltages. Writes the JSON, and a figure beside it.
"""

from __future__ import annotations

import csv
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from shared import parser_of

from hpcspin.analysis.series import Estimate
from hpcspin.drawing.curves import LABELS
from hpcspin.drawing.style import save
from hpcspin.storage import provenance, read_attributes, write_json

Runs = dict[float, dict[int, float]]
"""A number for each voltage and seed."""


def read(directory: Path, quantity: str) -> Runs:
    """The finished runs of a sweep that have the quantity."""
    found: Runs = {}
    with (directory / "sweep.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            of_voltage = found.setdefault(float(row["voltage"]), {})
            if row.get(quantity):
                of_voltage[int(row["dynamics.seed"])] = float(row[quantity])
    return dict(sorted(found.items()))


def field_of(directory: Path) -> str:
    """``electrons``, ``corrected`` or ``learned``: what moved the spins of the sweep's runs."""
    run = next(directory.glob("run-*/trajectory.h5"))
    return str(read_attributes(run)["config"]["dynamics"]["field"])


def zero(runs: Runs) -> float | None:
    """Where a line between the means of the two voltages next to it vanishes; None where all have one sign."""
    means = [(voltage, float(np.mean(list(each.values())))) for voltage, each in runs.items()]
    for (low, below), (high, above) in pairwise(means):
        if below < 0 <= above or above < 0 <= below:
            return low + (high - low) * below / (below - above)
    return None


def crossing(runs: Runs) -> dict[str, float | None] | None:
    """`zero` with the jackknife's standard error over the seeds that all voltages have."""
    runs = {voltage: each for voltage, each in runs.items() if each}
    whole, seeds = zero(runs), sorted(set.intersection(*(set(each) for each in runs.values())))
    if whole is None:
        return None
    without = [
        zero({voltage: {s: x for s, x in each.items() if s != left} for voltage, each in runs.items()})
        for left in seeds
    ] if len(seeds) > 1 else []  # fmt: skip
    values = np.array([value for value in without if value is not None])
    whole_error = float(np.sqrt((len(values) - 1) * values.var())) if len(values) > 1 else None
    return {"voltage": whole, "error": whole_error}


def compare(exact: Runs, learned: Runs) -> dict[str, Any]:
    """Both means at each voltage, and their difference."""
    table = []
    for voltage in sorted(set(exact) | set(learned)):
        one, other = exact.get(voltage, {}), learned.get(voltage, {})
        both = sorted(set(one) & set(other))
        row: dict[str, Any] = {"voltage": voltage, "runs": len(both)}
        for name, values in (
            ("exact", list(one.values())), ("learned", list(other.values())),
            ("difference", [other[seed] - one[seed] for seed in both]),
        ):  # fmt: skip
            row[name] = asdict(Estimate.of(values)) if values else None
        table.append(row)
    return {"voltages": table, "zero": {"exact": crossing(exact), "learned": crossing(learned)}}


def draw(found: dict[str, Any], path: Path) -> None:
    """Both means with their standard errors against the voltage."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, mark in (("exact", "o"), ("learned", "s")):
        rows = [row for row in found["voltages"] if row[name]]
        axis.errorbar(
            [row["voltage"] for row in rows], [row[name]["mean"] for row in rows],
            [row[name]["error"] or 0.0 for row in rows], marker=mark, capsize=3, label=found["fields"][name],
        )  # fmt: skip
    if found["zero"]["exact"] or found["zero"]["learned"]:
        axis.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axis.set(xlabel=LABELS["voltage"], ylabel=LABELS.get(found["quantity"], found["quantity"].replace("_", " ")))
    axis.legend()
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "voltages.json")
    parser.add_argument("--exact", type=Path, required=True)
    parser.add_argument("--learned", type=Path, required=True)
    parser.add_argument("--quantity", default="wall_velocity")
    arguments = parser.parse_args()
    quantity, directories = arguments.quantity, {"exact": arguments.exact, "learned": arguments.learned}
    runs = {name: read(directory, quantity) for name, directory in directories.items()}
    for name, directory in directories.items():
        if not any(runs[name].values()):
            raise SystemExit(f"{directory}: no run has {quantity}; --quantity names another one of its sweep.csv")
    fields = {name: field_of(directory) for name, directory in directories.items()}
    found = {"quantity": quantity, "fields": fields, **provenance(), **compare(runs["exact"], runs["learned"])}
    write_json(arguments.output, found)
    draw(found, arguments.output.with_suffix(".png"))
    for row in found["voltages"]:
        means = {name: Estimate(**row[name]) for name in ("exact", "learned", "difference") if row[name]}
        print(row["voltage"], *(f"{name} {mean}" for name, mean in means.items()))
    print("zero:", found["zero"])


if __name__ == "__main__":
    main()
