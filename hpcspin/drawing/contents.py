"""The contents of a report on an output of any verb."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.assembly.outputs import JOBS, Layout
from hpcspin.drawing import page, torque
from hpcspin.drawing.curves import in_words
from hpcspin.drawing.series import Series, film_of, read_series
from hpcspin.drawing.tables import REPRODUCTION, reproduction_rows
from hpcspin.errors import HpcspinError
from hpcspin.storage import MINIMUM, PATH, FrameReader, find_trajectory, open_hdf5, read_attributes, read_json
from hpcspin.storage.opening import parse_json
from hpcspin.training.loop import METRICS, MODEL
from hpcspin.training.metrics import describe_metrics

Sections = dict[str, list[str]]
"""Parts of a page by their headings."""
_Described = tuple[Sections, list[str], bool]
"""Sections, warnings, and whether there is more to do."""


def find_kind(output: Path) -> str:
    """The verb that wrote an output, ``label``, ``simulate``, ...; a single file is a label file."""
    if output.is_file():
        with open_hdf5(output):  # Whatever its name is.
            return "label"
    signs = {
        "learn": ("rounds.jsonl", "round-00", "round-01"),
        "sweep": ("sweep.jsonl", "run-*"),
        "torque": ("torque.csv", "labels"),
        "minimise": (MINIMUM, f"{MINIMUM}.partial"),
        "path": (PATH, f"{PATH}.partial"),
        "reproduce": ("config.json",),  # Others have one too, before their first results.
        "simulate": ("trajectory.h5", "trajectory.h5.partial"),
        "train": (METRICS, "member-*"),
        "label": ("*.h5", "*.h5.partial"),
    }
    for kind, patterns in signs.items():
        if not any(next(output.glob(pattern), None) for pattern in patterns):
            continue
        if kind != "reproduce" or read_json(output / "config.json", "give the --output of a verb").get("reproduce"):
            return kind
    raise HpcspinError(
        f"{output}: holds no config.json of `hpcspin reproduce`, no trajectory, training, sweep or labels; give the "
        "--output of a verb"
    )


def describe(directory: Path, kind: str) -> tuple[Sections, bool]:
    """Sections of the report of an output, and whether the job that makes it has more to do."""
    try:
        sections, doubts, unfinished = _DESCRIBED[kind](directory)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise HpcspinError(
            f"{directory}: one of its files does not hold what `hpcspin {kind}` writes ({type(error).__name__}: "
            f"{error}); copy the directory again, or give the command of the job again"
        ) from error
    jobs = [*read_lines(directory / JOBS)]
    jobs += [job for path in sorted(directory.glob("jobs-*.jsonl")) for job in read_lines(path)]
    if jobs:
        keys = [key for key in _JOB if any(key in job for job in jobs)]
        rows = [[_listed(job.get(key, "")) for key in keys] for job in jobs]
        sections["Jobs that ended in order"] = [page.table(rows, keys)]
    first: Sections = {"Warnings": [page.warnings(doubts)]} if doubts else {}
    return {**first, **sections}, unfinished


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value


_JOB = ("task", "ended", "seconds", "ranks", "launcher", "processor", "cores", "gpus", "code_version")
_MANY = 12
"""Label files, or trainings of a sweep, whose errors are drawn."""


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file of JSON lines, none where there is no file; the last line may be half written."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = parse_json(line)
        except ValueError:
            return
        if isinstance(record, dict):
            yield record


def _labels(directory: Path) -> _Described:
    files = [directory]
    if directory.is_dir():
        files = [path for path in sorted(directory.iterdir()) if path.name.endswith((".h5", ".h5.partial"))]
    rows, doubts, plots = [], [], []
    for path in files:
        stored = read_attributes(path)
        asked = (stored.get("config", {}).get("electrons") or {}).get("tolerance", math.inf)
        with FrameReader(path) as frames:
            error = np.asarray(frames.error[:] if "error" in frames.names else [])
            size = "×".join(map(str, frames.spins.shape[1:3]))
            largest = f"{error.max():.2g}" if len(error) else ""
            tolerance = "" if asked == math.inf else f"{asked:g}"
            rows.append([path.name, len(frames), size, largest, stored.get("precision", ""), tolerance])
        if len(error) and error.max() > asked:
            doubts.append(f"{path.name}: an error estimate of {error.max():.2g} is above the tolerance of {asked:g}")
        if len(error) > 1:
            curve = {"": (np.arange(float(len(error))), error)}
            plots.append(page.plot(f"error estimate (t), {path.name}", "snapshot", curve, log=True))
    partial = [path.name for path in files if path.suffix == ".partial"]
    doubts += [f"{name}: not finished; run `hpcspin label` again" for name in partial]
    head = ["file", "snapshots", "lattice", "largest error estimate (t)", "precision", "tolerance (t)"]
    sections = {"Labels": [page.table(rows, head), *plots[:_MANY]], "Snapshots": [film_of(files[0])]}
    return sections | _origin(read_attributes(files[0])), doubts, bool(partial)


def _simulation(directory: Path) -> _Described:
    path = find_trajectory(directory)
    series, stored, partial = read_series(directory), read_attributes(path), path.suffix == ".partial"
    config = stored.get("config", {})
    dynamics = config.get("dynamics") or {}
    doubts = list(_doubts(series, dynamics))
    if partial:
        doubts.append("the run is not finished; run the same command again to go on, unless it is running")
    facts = [("state", "not finished" if partial else "finished"), ("time reached", f"{series.time[-1]:g} ħ/t")]
    numbers = [
        (f"{what}: {name}" if name else what, *(f"{values[frame]:.4g}" for frame in (0, -1)))
        for what, curves in series.curves.items()
        for name, values in curves.items()
    ]
    sections = {
        "What was run": [page.table([*facts, *_settings(config)])],
        "Film": [film_of(path)],
        "Against time": _plots(series),
        "Numbers": [page.table(numbers, ["", "first frame", "last frame"])],
    }
    times = directory / "rank_times.json"
    if times.exists():
        ranks = read_json(times, "delete it", list)
        rows = [[number, *(f"{seconds:.2f}" for seconds in rank.values())] for number, rank in enumerate(ranks)]
        sections["Seconds of each rank"] = [page.table(rows, ["rank", *ranks[0]])]
    return sections | _origin(stored), doubts, partial


def _rest(directory: Path) -> _Described:
    """Contents for spins at rest, or for a path."""
    path = find_trajectory(directory)
    stored, partial = read_attributes(path), path.suffix == ".partial"
    sections: Sections = {"Film": [film_of(path)]}
    if path.name.startswith(PATH):
        sections["Along the path"] = _plots(read_series(directory))
    if not partial:
        numbers = read_json(directory / "numbers.json", "run the command again").items()
        sections["Numbers"] = [page.table((key, _shorter(str(one), 8)) for key, one in numbers)]
    doubts = ["not at rest yet; run the same command again to go on, unless it is running"] if partial else []
    return sections | _origin(stored), doubts, partial


_TORQUES = {
    "torque": "Torque against angle and voltage",
    "switching": "Growth of deviations",
    "runs": "Runs that may leave their direction",
}
"""Headings of the tables and figures in a directory of torques."""
_CRITICAL = {"critical_voltage": "critical voltage (t)", "critical_voltage_of_runs": "critical voltage of runs (t)"}


def _torque(directory: Path) -> _Described:
    sections: Sections = {}
    for name, heading in _TORQUES.items():
        path = directory / f"{name}.csv"
        if path.exists():
            figure = path.with_suffix(".png")  # Written after the table: a job that was killed may lack it.
            pictures = [page.picture(figure)] if figure.exists() else []
            sections[heading] = [*pictures, _csv(path, lambda name: torque.LABELS.get(name, name))]
    unfinished = not (directory / "numbers.json").exists()
    numbers = {} if unfinished else read_json(directory / "numbers.json", "run `hpcspin torque` again")
    rows = [
        (f"{words}, {field}", value if isinstance(value, str) else f"{value:.3g}")
        for key, words in _CRITICAL.items()
        for field, value in numbers.get(key, {}).items()
    ]
    if rows:
        sections = {"Switching": [page.table(rows)], **sections}
    doubts = ["not finished; run `hpcspin torque` again, unless it is running"] if unfinished else []
    config = read_json(directory / "config.json", "run `hpcspin torque` again")
    return sections | _origin({"config": config}), doubts, unfinished


_FACTS = {
    "electrons": ("exchange", "temperature", "filling", "potential"),
    "dynamics": ("field", "model", "integrator", "damping", "temperature", "step", "duration", "seed"),
}
"""Keys of the config that a report on a run shows, by their sections."""


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Words and values of the config of a run; a map of numbers of all sites is left to the whole config."""
    lattice = config["lattice"]
    edges = (
        f"{'periodic' if closed else 'open'} along {axis}"
        for axis, closed in zip("xy", lattice["periodic"], strict=True)
    )
    yield "lattice", f"{lattice['kind']}, {lattice['size'][0]}×{lattice['size'][1]} sites, {', '.join(edges)}"
    for section, keys in _FACTS.items():
        given = config.get(section) or {}
        for key in keys:
            if given.get(key) is not None and not isinstance(given[key], list):
                yield in_words(f"{section}.{key}").removeprefix(f"{section}."), str(given[key])
        for reservoir in given.get("reservoirs") or ():
            yield f"potential of {reservoir['name']} (t)", str(reservoir["potential"])


def _doubts(series: Series, dynamics: Mapping[str, Any]) -> Iterator[str]:
    curves = {what: next(iter(named.values())) for what, named in series.curves.items()}
    wall = curves.get("wall position (columns)")
    if wall is not None and not np.isfinite(wall[-1]):
        gone = series.time[np.isfinite(wall)][-1]
        yield f"the wall is not there any more after time {gone:g}: it has left the lattice, or another order has come"
    outside = curves.get("outside share")
    if outside is not None and np.nanmax(outside) > 0.05:
        yield f"up to {np.nanmax(outside):.0%} of the sites have surroundings unlike all the training data"
    if dynamics.get("field") == "learned" and "deviation" not in curves:
        yield "the learned field was not compared with exact labels in this run; dynamics.check_interval does so"


def _training(directory: Path) -> _Described:
    members = sorted(path.parent for path in directory.glob(f"member-*/{METRICS}")) or [directory]
    curves: dict[str, dict[str, page.Curve]] = {"loss": {}, "validation_mse": {}}
    rows, doubts, unfinished, cards = [], [], False, []
    for member in members:
        name = "" if member == directory else member.name
        records = list(read_lines(member / METRICS))
        for what, found in curves.items():
            if any(what in record for record in records):
                found[name] = _against_epochs(records, what)
        path = (member / MODEL).with_suffix(".json")
        if not path.exists():
            unfinished = True
            doubts.append(f"{name or directory.name}: not finished; run the same command again, unless it is running")
            continue
        card = read_json(path, "train again")
        cards.append(card)
        if not card["metrics"]:
            doubts.append(f"{name or directory.name}: no validation files, the error of the force field is unknown")
        elif card["best_epoch"] == card["training"]["epochs"]:
            doubts.append(f"{name or directory.name}: the last epoch is the best one; more epochs may do better")
        seconds = float(records[-1]["seconds"]) if records else math.nan
        rows.append([name or MODEL, card["best_epoch"], f"{seconds:.0f}", describe_metrics(card["metrics"])])
    titles = {"loss": "loss", "validation_mse": "mean squared error on validation files (t²)"}
    plots = [page.plot(titles[what], "epoch", found, log=True) for what, found in curves.items() if found]
    sections = {"Training": [page.table(rows, ["force field", "best epoch", "seconds", "error"]), *plots]}
    if cards:
        data = [(one["file"], role, one["snapshots"]) for role, shards in cards[0]["data"].items() for one in shards]
        sections["Data"] = [page.table(data, ["file", "role", "snapshots"])]
        sections |= _origin(cards[0])
    return sections, doubts, unfinished


def _sweep(directory: Path) -> _Described:
    records = list(read_lines(directory / "sweep.jsonl"))
    runs = {one.name: (one / "result.json").exists() for one in sorted(directory.glob("run-*"))}
    unfinished = [name for name, finished in runs.items() if not finished]
    doubts = [f"{name}: {_reached(directory / name)}; run the sweep again, unless it is running" for name in unfinished]
    if not records:  # No task has finished its share.
        rows = [(name, "finished" if finished else _reached(directory / name)) for name, finished in runs.items()]
        return {"Runs": [page.table(rows, ["run", "state"])]}, doubts, True
    names = [str(record["directory"]) for record in records[:_MANY]]
    curves = {name: _against_epochs(read_lines(directory / name / METRICS), "validation_mse") for name in names}
    validated = {name: curve for name, curve in curves.items() if len(curve[0])}
    parts = [_csv(directory / "sweep.csv", in_words)]
    if validated:
        parts.append(page.plot("mean squared error on validation files (t²)", "epoch", validated, log=True))
    if (directory / "curves.png").exists():
        parts.append(page.picture(directory / "curves.png"))
    return {"Runs": parts} | _origin(records[0]), doubts, bool(unfinished)


def _reached(run: Path) -> str:
    """How far an unfinished run of a sweep is."""
    path = next((path for path in (find_trajectory(run), *run.glob("*.h5.partial")) if path.exists()), None)
    if path is not None:
        with FrameReader(path) as frames:
            return f"not finished, {len(frames)} frames so far"
    epochs = sum(1 for _ in read_lines(run / METRICS))
    return f"not finished, {epochs} epochs so far" if epochs else "not finished"


def _csv(path: Path, label: Callable[[str], str]) -> str:
    """The table of a file, whose columns get labels for their names."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    return page.table(([_shorter(cell) for cell in row] for row in rows), [label(name) for name in head])


def _shorter(cell: str, digits: int = 5) -> str:
    """A decimal number rounded for reading; the file holds all digits."""
    try:
        return f"{float(cell):.{digits}g}" if "." in cell else cell
    except ValueError:
        return cell


def _against_epochs(records: Iterable[Mapping[str, Any]], what: str) -> page.Curve:
    points = [(record["epoch"], record[what]) for record in records if what in record]
    epochs, values = np.array(points, dtype=float).reshape(-1, 2).T
    return epochs, values


def _learning(directory: Path) -> _Described:
    rounds = list(read_lines(directory / "rounds.jsonl"))
    last = max(directory.glob("round-*"), key=lambda one: (len(one.name), one.name))  # 100 comes after 99.
    sections: Sections = {}
    if rounds:
        labels, errors = (np.array([one[key] for one in rounds], dtype=float) for key in ("labels_before", "mse"))
        head = ["round", "labels before", "mse", "of variance"]
        rows = [[one["round"], one["labels_before"], f"{one['mse']:.2e}", _share(one)] for one in rounds]
        plot = page.plot("error on labels new to the model", "labels learned from", {"": (labels, errors)}, log=True)
        sections["Error of each round's model on the next round's labels"] = [page.table(rows, head), plot]
    found: list[str] = []
    unfinished = True
    if (last / "model").exists():
        trained, found, unfinished = _training(last / "model")
        sections |= {f"{last.name}: {heading}": parts for heading, parts in trained.items()}
    moved = [path for path in (find_trajectory(one) for one in sorted(last.glob("trajectory-*"))) if path.exists()]
    if moved:
        sections[f"{last.name}: first trajectory"] = [film_of(moved[0])]
    return sections, [f"{last.name}: {doubt}" for doubt in found], unfinished


def _share(record: Mapping[str, Any]) -> str:
    return f"{record['variance_fraction']:.2%}" if "variance_fraction" in record else ""


def _reproduction(directory: Path) -> _Described:
    layout = Layout(directory)
    config = read_json(directory / "config.json", "run `hpcspin reproduce` again")
    sections: Sections = {"What was run": [page.table(_settings(config))]}
    unfinished = not layout.numbers.exists()
    if not unfinished:
        numbers = read_json(layout.numbers, "run `hpcspin report` again")
        sections[REPRODUCTION] = [page.table(reproduction_rows(numbers))]
        sections["Figures"] = [page.picture(path) for path in sorted(layout.figures.glob("*.png"))]
    elif layout.stages.exists():
        spent = read_json(layout.stages, "delete it")
        sections["Seconds of the stages so far"] = [page.table(spent.items())]
    doubts = ["not all stages are done; run `hpcspin reproduce` again, unless it is running"] if unfinished else []
    for field in ("electrons", "learned"):
        path = find_trajectory(layout.trajectory(field, "test-000").parent)
        if path.exists():
            sections[f"Test run 0 under the {'exact' if field == 'electrons' else field} field"] = [film_of(path)]
    if layout.model.exists():
        trained, found, _ = _training(layout.model)
        sections, doubts = sections | trained, doubts + found
    return sections, doubts, unfinished


_ORIGIN = ("spins_sha256", "origin", "source", "precision", "units")


def _origin(stored: Mapping[str, Any]) -> Sections:
    """Config, versions and other provenance that a file holds."""
    rows = list((stored.get("provenance") or {}).items())
    config = {name: part for name, part in (stored.get("config") or {}).items() if part is not None}
    rows += [(name, stored[name]) for name in _ORIGIN if name in stored]
    return {"Provenance": [page.table(rows), page.folded("config", json.dumps(config, indent=2))]}


def _plots(series: Series) -> list[str]:
    return [
        page.plot(what, series.axis, {name: (series.time, values) for name, values in curves.items()})
        for what, curves in series.curves.items()
    ]


_DESCRIBED: dict[str, Callable[[Path], _Described]] = {
    "label": _labels,
    "simulate": _simulation,
    "minimise": _rest,
    "path": _rest,
    "torque": _torque,
    "train": _training,
    "sweep": _sweep,
    "learn": _learning,
    "reproduce": _reproduction,
}
