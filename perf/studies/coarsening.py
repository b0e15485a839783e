"""Domains after a quench of a lattice larger than anyone can label: their size against time, and how it grows.

    python perf/study.py coarsening CONFIG --model MODEL --output RUNS [--size 192] [--seeds 1 2 3] [--duration 2000]
        [--measure chirality | puddles] [--from 100] [--checks 3] [--tolerance 0.01]

CONFIG is that of a closed lattice, such as configs/triangular_tetrahedral.yaml, and MODEL a force field trained on its
labels. From random spins each seed is a run of `hpcspin simulate` in RUNS/seed-N; a stopped study continues where it
was. With ``--measure chirality`` the size of the domains is measured in two ways: the distance at which the correlation
of the chirality has halved, and the area over the length of the walls between both chiralities. Each L(t) is fitted by
a power of the time, from ``--from`` until the domains are a quarter of the lattice; the exponent, the mean over the
seeds with its standard error, is compared with 1/2 (curvature drives the walls, Allen and Cahn) and with 1. With
``--measure puddles`` the size is the mean number of sites of a ferromagnetic puddle, and the fit is made in both halves
of the logarithm of the time: coarsening that arrests has a smaller exponent in the second one.
On ``--checks`` frames of the first seed the exact fields, by kernel polynomials of the given tolerance, tell the error
of the learned ones. Writes RUNS/coarsening.json and RUNS/coarsening.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray
from shared import parser_of

from hpcspin.analysis.series import Estimate
from hpcspin.assembly.system import build_system
from hpcspin.config import Config, load_config
from hpcspin.drawing.style import save
from hpcspin.parallel.world import World
from hpcspin.storage import TRAJECTORY, FrameReader, provenance, read_labels, write_json
from hpcspin.workflows.label import write_label_file
from hpcspin.workflows.simulate import simulate_directory

Array = NDArray[np.float64]
OBSERVERS = {
    "chirality": ("mean_chirality", "chirality_length", "chirality_walls"),
    "puddles": ("mean_bond", "bond_fractions", "puddles"),
}
EXPECTED = (0.5, 1.0)
_LARGEST = 1 / 4
"""Size of domains over the side of the lattice beyond which they feel that it is finite."""


def run_config(arguments: argparse.Namespace, seed: int) -> Config:
    """The quench of one seed."""
    size = f"[{arguments.size},{arguments.size}]"
    return load_config(
        arguments.config,
        [
            f"lattice.size={size}",
            "initial={kind: random}",
            "potential=null",
            "dynamics.field=learned",
            f"dynamics.model={arguments.model}",
            f"dynamics.seed={seed}",
            f"dynamics.duration={arguments.duration}",
            f"dynamics.record_interval={arguments.record_interval}",
            f"dynamics.observers=[{', '.join(OBSERVERS[arguments.measure])}]",
        ],
    )


def sizes(path: Path, measure: str, area: int) -> tuple[Array, dict[str, Array]]:
    """Times of a run, and the size of its domains by the name of its measure."""
    with FrameReader(path) as frames:
        time = np.asarray(frames.time)
        if measure == "puddles":
            return time, {"sites of a puddle": np.asarray(frames.puddles)[:, 1]}
        with np.errstate(divide="ignore"):
            walls = area / np.asarray(frames.chirality_walls)
        return time, {"correlation length": np.asarray(frames.chirality_length), "area over walls": walls}


def listed(size: Array) -> list[float | None]:
    """For JSON, which knows no NaN: that of a correlation which does not fall to one half, or of no walls."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in size]


def exponent(time: Array, size: Array) -> float:
    """Slope of log(size) against log(time), each factor of time with the same weight; NaN of fewer than 3 points."""
    good = np.isfinite(size) & (size > 0) & (time > 0)
    if good.sum() < 3:
        return float("nan")
    # Frames are equally spaced in time, hence dense at the end of its logarithm.
    weight = 1 / np.sqrt(time[good])
    return float(np.polyfit(np.log(time[good]), np.log(size[good]), 1, w=weight)[0])


def fitted(runs: list[tuple[Array, Array]], start: float, most: float) -> dict[str, Any]:
    """Exponents of all seeds from a time on until the mean size is too large, their mean and its error."""
    time = runs[0][0]
    mean = np.mean([size for _, size in runs], axis=0)
    too_large = np.flatnonzero((time >= start) & ~(mean <= most))
    end = time[too_large[0]] if len(too_large) else np.inf
    window = (time >= start) & (time < end)
    exponents = [exponent(time[window], size[window]) for _, size in runs]
    if not np.isfinite(exponents).all():
        raise SystemExit(
            f"coarsening: too few frames from t = {start:g} on; give a longer --duration or another --from"
        )
    estimate = Estimate.of(exponents)
    results: dict[str, Any] = {"runs": exponents, "mean": estimate.mean, "error": estimate.error}
    results |= {"from": float(time[window][0]), "until": float(time[window][-1])}
    if estimate.error:
        results["standard_errors_from"] = {f"{power:g}": (estimate.mean - power) / estimate.error for power in EXPECTED}
    return results


def check(config: Config, run: Path, output: Path, count: int, tolerance: float) -> list[dict[str, float]]:
    """Errors of the learned fields at some frames, equally spaced in the logarithm of the time."""
    with FrameReader(run) as frames:
        last = len(frames.time) - 1
        chosen = np.unique(np.geomspace(1, last, count).round().astype(int))
        time, spins, learned = (
            np.asarray(array) for array in (frames.time[chosen], frames.spins[chosen], frames.field[chosen])
        )
    assert config.electrons is not None
    electrons = config.electrons.model_copy(update={"solver": "kpm", "tolerance": tolerance})
    exact_config = config.model_copy(update={"electrons": electrons})
    if not output.exists():
        attributes = {"config": exact_config.model_dump(mode="json"), "frames": chosen.tolist()}
        write_label_file(
            build_system(exact_config), lambda n: spins[n : n + 1], len(spins), output, attributes, World.current()
        )
    labels = read_labels(output)
    across = [field - spins * (field * spins).sum(-1, keepdims=True) for field in (labels.field, learned)]
    return [
        {
            "time": float(when),
            "rms_error": float(np.sqrt(((results - exact) ** 2).mean() * 3 / 2)),
            "rms_field": float(np.sqrt((exact**2).mean() * 3 / 2)),
            "error_of_exact": float(bound),
        }
        for when, exact, results, bound in zip(time, *across, labels.others["error"], strict=True)
    ]


def draw(measured: dict[str, list[tuple[Array, Array]]], powers: tuple[float, ...], path: Path) -> None:
    """Sizes against time on logarithmic axes, with lines of some powers."""
    figure = Figure(figsize=(4.6 * len(measured), 3.6), layout="constrained")
    for axis, (name, runs) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True):
        for number, (time, size) in enumerate(runs):
            axis.loglog(time[1:], size[1:], label=f"run {number}")
        time, size = runs[0]
        good = np.flatnonzero(np.isfinite(size) & (time > 0))
        if len(good):
            middle = good[len(good) // 2]
            for power, style in zip(powers, (":", "--"), strict=False):
                line = size[middle] * (time[good] / time[middle]) ** power
                axis.loglog(time[good], line, style, color="black", linewidth=0.8, label=rf"$\propto t^{{{power:g}}}$")
        axis.set(xlabel="time (ħ/t)", ylabel=name if name.startswith("sites") else f"{name} (lattice constants)")
        axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axis.legend(frameon=False, fontsize=7)
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--measure", choices=sorted(OBSERVERS), default="chirality")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--duration", type=float, default=2000.0)
    parser.add_argument("--record-interval", type=int, default=20)
    parser.add_argument("--from", dest="start", type=float, default=100.0)
    parser.add_argument("--checks", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=0.01)
    arguments = parser.parse_args()

    directories = {seed: arguments.output / f"seed-{seed}" for seed in arguments.seeds}
    for seed, directory in directories.items():
        code = simulate_directory(run_config(arguments, seed), directory, World.current())
        if code:
            raise SystemExit(code)
    config = run_config(arguments, arguments.seeds[0])
    area = build_system(config).lattice.num_sites
    if arguments.measure == "chirality":
        area *= abs(np.linalg.det(build_system(config).lattice.primitive_vectors))
    measured: dict[str, list[tuple[Array, Array]]] = {}
    for directory in directories.values():
        time, results = sizes(directory / TRAJECTORY, arguments.measure, area)
        for name, size in results.items():
            measured.setdefault(name, []).append((time, size))
    most = np.inf if arguments.measure == "puddles" else arguments.size * _LARGEST
    numbers: dict[str, Any] = {"size": arguments.size, "seeds": arguments.seeds, "exponents": {}}
    middle = float(np.sqrt(arguments.start * arguments.duration))
    for name, runs in measured.items():
        numbers["exponents"][name] = fitted(runs, arguments.start, most)
        if arguments.measure == "puddles":
            first = [(time[time <= middle], size[time <= middle]) for time, size in runs]
            numbers["exponents"][f"{name}, first half"] = fitted(first, arguments.start, most)
            numbers["exponents"][f"{name}, second half"] = fitted(runs, middle, most)
    if arguments.checks:
        directory = directories[arguments.seeds[0]]
        output = arguments.output / "checks.h5"
        numbers["checks"] = check(config, directory / TRAJECTORY, output, arguments.checks, arguments.tolerance)
    numbers["time"] = measured[next(iter(measured))][0][0].tolist()
    numbers["sizes"] = {name: [listed(size) for _, size in runs] for name, runs in measured.items()}
    numbers["provenance"] = provenance()
    draw(measured, EXPECTED if arguments.measure == "chirality" else (), arguments.output / "coarsening.png")
    write_json(arguments.output / "coarsening.json", numbers)
    for name, value in numbers["exponents"].items():
        print(f"{name}: exponent {Estimate(value['mean'], value['error'])}")
    for one in numbers.get("checks", []):
        print(f"t = {one['time']:g}: learned field off by {one['rms_error']:.2g} of {one['rms_field']:.2g} (rms)")


if __name__ == "__main__":
    main()
