"""``hpcspin sweep``: a verb for every combination of values of some config keys, with one table and one figure of all.

Runs are distributed over teams of ranks and over the tasks of a batch array. Each finished run leaves ``result.json``
in its directory, and each task that has finished its share writes the table of the results so far.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpcspin.analysis.runs import (
    Row,
    flat_numbers,
    frame_series,
    of_frames,
    of_learning,
    of_numbers,
    of_torques,
    of_training,
)
from hpcspin.assembly.agreement import require_models
from hpcspin.assembly.outputs import FREE, recorded_job
from hpcspin.assembly.system import build_system
from hpcspin.config import Config, TrainingSection, load_config
from hpcspin.config_text import Choice, as_overrides, combinations
from hpcspin.drawing.axes import follow_from_the_voltage, follows, is_axis, natural_axis, potentials
from hpcspin.drawing.curves import against_key, against_time, draw_curves
from hpcspin.drawing.tables import print_runs, write_csv
from hpcspin.dynamics.interrupt import StopSignals
from hpcspin.errors import HpcspinError, nearest
from hpcspin.parallel.devices import form_teams
from hpcspin.parallel.world import World
from hpcspin.storage import TRAJECTORY, config_differences, read_attributes, read_json, write_json, write_text
from hpcspin.training.loop import DivergedError
from hpcspin.workflows.evaluate import evaluate_config, label_files, labels_like
from hpcspin.workflows.label import label_file
from hpcspin.workflows.learn import learn_directory
from hpcspin.workflows.minimise import minimise_directory
from hpcspin.workflows.path import path_directory
from hpcspin.workflows.reproduce import reproduce_directory
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.torque import torque_directory
from hpcspin.workflows.train import train_directory

RECORD, RESULT, LABELS, NUMBERS = "sweep.jsonl", "result.json", "labels.h5", "numbers.json"
_SEEDS = 100_000
"""Difference between the seeds of successive runs of a chain."""


@dataclass(frozen=True)
class Sweep:
    """The definition of a sweep; the runs share the config, its overrides, and the files that the verb needs."""

    config: Path
    vary: Sequence[str]
    """Items ``KEY=V1,V2,...``, with values as YAML; keys joined by commas change together: ``A,B=[a1,b1],[a2,b2]``."""
    output: Path
    """Receives a directory per run, as its verb makes it; ``sweep.jsonl`` and ``sweep.csv`` with a line per result; and
    ``curves.csv`` and ``curves.png``."""
    overrides: Sequence[str] = ()
    verb: str = "train"
    """A name in `VERBS`."""
    data: Sequence[Path] = ()
    spins: Path | None = None
    """A file or directory of spins; where it is the output of another sweep, its run with the same keys, as also for
    the spins ``first`` and ``last`` at both ends of a path."""
    first: Path | None = None
    last: Path | None = None
    chain: str | None = None
    """A varied key along which each run starts from the last spins of the one before, in the order given."""
    task: str = "1/1"
    """``i/n``: the i-th of n equal shares of the runs, counted from 1."""
    show: Sequence[str] = ()
    """Quantities to show; none for those of the verb."""
    against: str | None = None
    """Horizontal axis of the curves: a varied key, ``voltage`` or ``time``; None for the voltage where it varies, else
    the first varied key with numbers, or the first one."""


@dataclass(frozen=True)
class Verb:
    """What a sweep runs: a function of the config, a directory, the ranks, and what it ``needs`` of a `Sweep`.

    ``results`` returns a record for each result in a finished directory, with its numbers as ``metrics``; ``show`` are
    the quantities to show unless others are asked for; if the results have none of them, their first number is shown.
    ``uses`` are sections and keys of the config on which the results depend; empty for any.
    """

    run: Callable[..., int | None]
    results: Callable[[Path], list[Row]]
    show: tuple[str, ...]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


VERBS: dict[str, Verb] = {
    "evaluate": Verb(
        lambda config, to, world, data: evaluate_config(config, data, to / NUMBERS, world),
        of_numbers,
        ("mse", "mse_error", "variance_fraction", "snapshots"),
        ("data",),
        ("electrons", "dynamics.model", "dynamics.allow"),
    ),
    "label": Verb(
        lambda config, to, world, spins: label_file(config, spins, to / LABELS, world),
        of_frames(LABELS),
        ("error",),
        ("spins",),
        ("lattice", "electrons"),
    ),
    "learn": Verb(learn_directory, of_learning, ("mse",)),
    "minimise": Verb(minimise_directory, of_numbers, ("magnetization.z",)),
    "path": Verb(
        lambda config, to, world, first, last: path_directory(config, first, last, to, world),
        of_numbers,
        ("barrier", "barrier_back"),
        ("first", "last"),
    ),
    "reproduce": Verb(reproduce_directory, of_numbers, ("test.mse",)),
    "simulate": Verb(simulate_directory, of_frames(TRAJECTORY), ("wall_velocity", "energy", "mean_bond")),
    "torque": Verb(torque_directory, of_torques, ()),
    "train": Verb(
        lambda config, to, world, data: train_directory(config, data, to, world),
        of_training,
        ("mse", "mse_error", "variance_fraction", "best_epoch", "seconds"),
        ("data",),
        ("lattice", "potential", "training"),
    ),
}
"""The verbs that a sweep can run."""


@dataclass(frozen=True)
class _Run:
    choice: Choice
    config: Config
    directory: Path
    stage: int


def sweep_directory(sweep: Sweep, world: World) -> int:
    """Run every combination that is not done; those of a chain one after the other. The exit code is 0 when all have.

    A run that fails ends the sweep, but a training that diverges is left out and the others continue.
    """
    if sweep.verb == "evaluate":  # Listed once: their checksums are compared with those of a manifest.
        sweep = replace(sweep, data=[file for path in sweep.data for file in label_files(path, world)])
    chains = _chains(sweep)
    _require_inputs(sweep, [run for chain in chains for run in chain])
    _require_durations(chains)
    number, tasks = _task(sweep.task)
    with recorded_job(sweep.output, world, element=f"{number}-of-{tasks}" if tasks > 1 else ""):
        code = _run_all(sweep, chains[number - 1 :: tasks], world)
        if code == 0 and world.rank == 0:
            _collect(sweep, [run for chain in chains for run in chain], world)
    return code


def _run_all(sweep: Sweep, chains: Sequence[Sequence[_Run]], world: World) -> int:
    teams = max(1, min(world.size, len(chains)))
    device = next((run.config.device for chain in chains for run in chain), "cpu")
    number, team = form_teams(world, teams, device)
    mine = [run for chain in chains[number::teams] for run in chain]
    code = 0
    with StopSignals(team) as signals:  # A team that waits for others must not end the job before their checkpoints.
        for done, run in enumerate(mine, 1):
            team.log(f"[{done}/{len(mine)}] {' '.join(as_overrides(run.choice))}")
            code = signals.code(_run_one(sweep, run, team))
            if code:
                break
            if done == 1:
                _doubt_quantities(sweep, run, team)
        return max(world.allgather(code))


def _run_one(sweep: Sweep, run: _Run, world: World) -> int:
    verb, results = VERBS[sweep.verb], []
    inputs = {name: _input(sweep, name, run) for name in verb.needs}
    try:
        code = verb.run(run.config, run.directory, world, **inputs)
    except DivergedError as failure:
        world.log(f"warning: {failure}")
    else:
        if code:
            return code
        results = verb.results(run.directory) if world.rank == 0 else []
    if world.rank == 0:
        write_json(run.directory / RESULT, {"of": _origin(sweep, run), "results": results})
    return 0


def _doubt_quantities(sweep: Sweep, run: _Run, world: World) -> None:
    """Warn after a first run if it lacks what is to be shown: it is misspelt, or others have it."""
    for record in (_results(sweep, run) or ())[:1] if world.rank == 0 else ():
        timed = sweep.against == "time"
        known = frame_series(run.directory / TRAJECTORY) if timed else _row(run, record, sweep.verb)
        for name in sorted(set(sweep.show) - {*known}):
            world.log(
                f"warning: --show {name}: the first run has no such quantity, {nearest(name, known)}; unless others "
                "have it, give the command again with another --show after the runs, which are kept"
            )


def _collect(sweep: Sweep, runs: Sequence[_Run], world: World) -> None:
    """Write table and figure of all finished runs; again if other tasks finish runs meanwhile."""
    written = None
    while (found := [_results(sweep, run) for run in runs]) != written:
        written = found
        pairs = [(run, record) for run, records in zip(runs, found, strict=True) for record in records or ()]
        if not pairs and None not in found:
            raise HpcspinError("every training of the sweep has diverged; lower training.learning_rate")
        records = [{"overrides": run.choice, **record} for run, record in pairs]
        rows = [_row(run, record, sweep.verb) for run, record in pairs]
        known = [name for name in VERBS[sweep.verb].show if any(row.get(name) is not None for row in rows)]
        show = sweep.show or known or [name for record in records[:1] for name in record["metrics"]][:1]
        write_csv(rows, sweep.output / "sweep.csv")
        # A report needs the table of a directory that has this file.
        write_text(sweep.output / RECORD, "".join(f"{json.dumps(record)}\n" for record in records))
        drawn = _draw(sweep, runs, rows, show if sweep.show else show[:1])
    missing = found.count(None)
    if rows:
        print_runs(sweep.verb, list(runs[0].choice), rows, show, world)
    left_over = f"; {missing} of {len(runs)} runs are not finished with these settings" if missing else ""
    if drawn:
        world.log_result(f"{sweep.output / 'curves.png'}: the curves, with their numbers in curves.csv")
    world.log_result(f"{sweep.output / RECORD}: {len(rows)} results{left_over}")


def _results(sweep: Sweep, run: _Run) -> list[Row] | None:
    """Results of a run; None where there are none, or the directory has those of other settings from another task."""
    path = run.directory / RESULT
    stored = read_json(path, "delete it and run the sweep again", object) if path.exists() else None
    if not isinstance(stored, dict) or config_differences(stored.get("of") or {}, _origin(sweep, run), FREE):
        return None
    results: list[Row] = stored["results"]
    return results


def _origin(sweep: Sweep, run: _Run) -> Row:
    """What determines the results of a run; in a chain its directory tells from which spins it starts."""
    inputs = [str(path.resolve()) for path in (*sweep.data, sweep.spins, sweep.first, sweep.last) if path]
    config = run.config.model_dump(mode="json") | ({"initial": None} if run.stage else {})
    return {**config, "sweep": {"verb": sweep.verb, "inputs": inputs}}


def _row(run: _Run, record: Row, verb: str) -> Row:
    """A line of the table: keys, numbers and directory of a run, and its voltage unless it has several."""
    keys = {
        key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in run.choice.items()
    }
    given = potentials(run) if verb != "torque" else ()
    bias = {"voltage": max(given) - min(given)} if given else {}
    rest = {key: value for key, value in record.items() if key not in ("metrics", "provenance")}
    numbers = flat_numbers(rest | record["metrics"])
    return {**keys, **bias, "stage": run.stage, **numbers, "directory": record["directory"]}


def _draw(sweep: Sweep, runs: Sequence[_Run], rows: Sequence[Row], show: Sequence[str]) -> bool:
    """Write the curves of the quantities to show; return whether there is an axis to draw them against."""
    keys = list(runs[0].choice)
    against = sweep.against or natural_axis(runs, voltage=sweep.verb != "torque")
    if against is None or not rows:
        return False
    axes = [*keys, *(name for name in rows[0] if name not in keys), "time"]
    if against not in axes:
        raise HpcspinError(f"--against {against}: choose a varied key, voltage or time: {', '.join(keys)}")
    if against != "time" and any(row.get(against) is None for row in rows):
        raise HpcspinError(f"--against {against}: a run has nothing there; choose a key or a quantity of all runs")
    axis = "" if against == "voltage" and not follow_from_the_voltage(runs) else against
    others = [key for key in keys if not key.endswith("seed") and not is_axis(key, axis)]
    lines = [key for key in others if axis not in keys or not follows(key, axis, runs)]
    known = {name for row in rows for name in row if row[name] is not None}
    if against == "time":
        series = {row["directory"]: frame_series(sweep.output / row["directory"] / TRAJECTORY) for row in rows}
        points = against_time(rows, lines, show, lambda row: series[row["directory"]])
        known = {name for one in series.values() for name in one}
    else:
        points = against_key(rows, lines, against, show)
    if unknown := [name for name in show if all(point.quantity != name or not point.runs for point in points)]:
        names = sorted(known - {*keys, "directory", "stage", "time", "step"})
        raise HpcspinError(f"--show {unknown[0]}: no run has this quantity; they have {', '.join(names)}")
    write_csv([asdict(point) for point in points], sweep.output / "curves.csv")
    draw_curves(points, against, sweep.output / "curves.png")
    return True


def _chains(sweep: Sweep) -> list[list[_Run]]:
    """All runs, those of a chain in one list."""
    choices, key = combinations(sweep.vary, chain=sweep.chain), sweep.chain
    if key is not None and key not in choices[0]:
        raise HpcspinError(f"--chain {key}: name one of the varied keys: {', '.join(choices[0])}")
    groups: dict[str, list[Choice]] = {}
    for number, choice in enumerate(choices):
        others = str(number) if key is None else json.dumps({**choice, key: None})
        groups.setdefault(others, []).append(choice)
    return [_chain(sweep, group) for group in groups.values()]


def _chain(sweep: Sweep, choices: Sequence[Choice]) -> list[_Run]:
    runs: list[_Run] = []
    for stage, choice in enumerate(choices):
        name, overrides = choice, [*sweep.overrides, *as_overrides(choice)]
        if sweep.chain is not None:
            name = {**choice, sweep.chain: [one[sweep.chain] for one in choices[: stage + 1]]}
        if stage:
            before = {"kind": "file", "path": str(runs[-1].directory)}
            overrides.append(f"initial={json.dumps(before)}")
        config = load_config(sweep.config, overrides)
        if stage and config.dynamics is not None:  # Each run of a chain has noise of its own.
            seed = config.dynamics.seed + stage * _SEEDS
            config = config.model_copy(update={"dynamics": config.dynamics.model_copy(update={"seed": seed})})
        runs.append(_Run(choice, config, sweep.output / _name(name), stage))
    return runs


def _require_durations(chains: Sequence[Sequence[_Run]]) -> None:
    """Refuse to prolong a run of a chain from whose last spins the next one has gone on: the next would not fit it."""
    for run, after in (pair for chain in chains for pair in pairwise(chain)):
        path, dynamics = run.directory / TRAJECTORY, run.config.dynamics
        if dynamics is not None and path.exists() and after.directory.exists():
            stored = read_attributes(path)["config"]["dynamics"]["duration"]
            if stored != dynamics.duration:
                raise HpcspinError(
                    f"{run.directory}: the next run of the chain goes on from its spins at {stored:g}, so that "
                    "dynamics.duration cannot change; restore it, or choose another --output"
                )


def _input(sweep: Sweep, name: str, run: _Run) -> Any:
    """What a run is given of what its verb needs: of the output of another sweep the run of the same keys."""
    given = getattr(sweep, name)
    if not isinstance(given, Path) or next(given.glob("run-*/"), None) is None:
        return given
    if not (same := given / run.directory.name).exists():
        raise HpcspinError(
            f"{given}: this sweep has no run of {' '.join(as_overrides(run.choice))}; give one with "
            "the same --vary, or spins for all runs"
        )
    return same


def _require_inputs(sweep: Sweep, runs: Sequence[_Run]) -> None:
    if (verb := VERBS.get(sweep.verb)) is None:
        raise HpcspinError(f"--run {sweep.verb}: makes no numbers from a config; choose from {', '.join(VERBS)}")
    if sweep.chain is not None and sweep.verb not in ("simulate", "minimise"):
        raise HpcspinError(f"--chain: {sweep.verb} has no spins to go on from; it is for --run simulate and minimise")
    if sweep.against == "time" and sweep.verb != "simulate":
        raise HpcspinError(f"--against time: {sweep.verb} has no frames in time; it is for --run simulate")
    if sweep.against == "voltage" and sweep.verb == "torque":
        raise HpcspinError("--against voltage: each torque has the voltages torque.voltages; choose a varied key")
    for name, option in {"data": "--data", "spins": "--spins", "first": "--from", "last": "--to"}.items():
        if (name in verb.needs) != bool(getattr(sweep, name)):
            takers = " and ".join(one for one in VERBS if name in VERBS[one].needs)
            raise HpcspinError(f"{option}: give it with --run {takers}, and only there")
    for key in runs[0].choice:
        if verb.uses and not key.startswith(verb.uses):
            raise HpcspinError(
                f"--vary {key}: changes no result of {sweep.verb}, which uses {', '.join(verb.uses)}; vary one of these"
            )
    for run in runs:
        if sweep.verb == "train" and not run.config.section(TrainingSection).validation:
            raise HpcspinError(
                "training.validation: a sweep compares errors on validation files; name some of the files of --data"
            )
        if run.config.electrons is not None:
            build_system(run.config)  # Refuses what the config alone does not, such as potentials too far apart.
        for name in verb.needs:
            _input(sweep, name, run)
        if sweep.verb == "evaluate":
            labels_like(run.config, sweep.data)  # Refuses a run without labels.
    if sweep.verb == "simulate":
        require_models([run.config for run in runs])


def _task(text: str) -> tuple[int, int]:
    given = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, tasks = map(int, given.groups()) if given else (0, 0)
    if not 1 <= number <= tasks:
        raise HpcspinError(f"--task {text!r}: write it as i/n, such as 3/16; the tasks are 1 to n")
    return number, tasks


def _name(choice: Choice) -> str:
    """Directory of a run, whatever its position in the list."""
    return "run-" + hashlib.sha256(json.dumps(choice, sort_keys=True).encode()).hexdigest()[:12]
