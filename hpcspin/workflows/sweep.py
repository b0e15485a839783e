"""``hpcspin sweep``: a verb for every combination of values of some config keys, with one table and one figure of all.

Runs are distributed over teams of ranks and over the tasks of a batch array. Each finished run leaves ``result.json``
in its directory, and each task that has finished its share writes the table of the results so far.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

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
from hpcspin.assembly.agreement import require_electrons
from hpcspin.assembly.outputs import FREE, recorded_job
from hpcspin.assembly.system import build_system
from hpcspin.config import Config, TrainingSection, load_config
from hpcspin.config_text import Choice, as_overrides, combinations
from hpcspin.drawing.curves import against_key, against_time, draw_curves
from hpcspin.drawing.tables import print_table, short, write_csv
from hpcspin.dynamics.interrupt import StopSignals
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import form_teams
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import TRAJECTORY, config_differences, read_attributes, read_json, write_json, write_text
from hpcspin.training.loop import DivergedError
from hpcspin.workflows.label import label_file
from hpcspin.workflows.learn import learn_directory
from hpcspin.workflows.minimise import minimise_directory
from hpcspin.workflows.reproduce import reproduce_directory
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.torque import torque_directory
from hpcspin.workflows.train import train_directory

RECORD, RESULT, LABELS = "sweep.jsonl", "result.json", "labels.h5"
_SEEDS = 100_000
"""Difference between the seeds of successive runs of a chain."""


@dataclass(frozen=True)
class Sweep:
    """The definition of a sweep; the runs share the config, its overrides, and the data or the spins of the verb."""

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
    """What a sweep runs: a function of the config, a directory, the ranks, and ``data`` or ``spins``.

    ``results`` returns a record for each result in a finished directory, with its numbers as ``metrics``; ``show`` are
    the quantities to show unless others are asked for; if the results have none of them, their first number is shown.
    """

    run: Callable[..., int | None]
    results: Callable[[Path], list[Row]]
    show: tuple[str, ...]


VERBS: dict[str, Verb] = {
    "label": Verb(
        lambda config, to, world, spins: label_file(config, spins, to / LABELS, world), of_frames(LABELS), ("error",)
    ),
    "learn": Verb(learn_directory, of_learning, ("mse",)),
    "minimise": Verb(minimise_directory, of_numbers, ("magnetization.z",)),
    "reproduce": Verb(reproduce_directory, of_numbers, ("test.mse",)),
    "simulate": Verb(simulate_directory, of_frames(TRAJECTORY), ("wall_velocity", "energy", "mean_bond")),
    "torque": Verb(torque_directory, of_torques, ()),
    "train": Verb(
        lambda config, to, world, data: train_directory(config, data, to, world),
        of_training,
        ("mse", "mse_error", "variance_fraction", "best_epoch", "seconds"),
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
    chains = _chains(sweep)
    _require_inputs(sweep, [run.config for chain in chains for run in chain])
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
        return max(world.allgather(code))


def _run_one(sweep: Sweep, run: _Run, world: World) -> int:
    verb, results = VERBS[sweep.verb], []
    inputs = {name: given for name in ("data", "spins") if (given := getattr(sweep, name))}
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
        _print_table(sweep, runs[0].choice, rows, show, world)
    left_over = f"; {missing} of {len(runs)} runs are not finished with these settings" if missing else ""
    what = "force fields" if sweep.verb == "train" else "results"
    if drawn:
        world.log_result(f"{sweep.output / 'curves.png'}: the curves, with their numbers in curves.csv")
    world.log_result(f"{sweep.output / RECORD}: {len(rows)} {what}{left_over}")


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
    inputs = [str(path.resolve()) for path in (*sweep.data, sweep.spins) if path]
    config = run.config.model_dump(mode="json") | ({"initial": None} if run.stage else {})
    return {**config, "sweep": {"verb": sweep.verb, "inputs": inputs}}


def _row(run: _Run, record: Row, verb: str) -> Row:
    """A line of the table: keys, numbers and directory of a run, and its voltage unless it has several."""
    keys = {
        key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in run.choice.items()
    }
    potentials = _potentials(run) if verb != "torque" else ()
    bias = {"voltage": max(potentials) - min(potentials)} if potentials else {}
    numbers = flat_numbers(
        {key: record[key] for key in record if key not in ("metrics", "provenance")} | record["metrics"]
    )
    return {**keys, **bias, "stage": run.stage, **numbers, "directory": record["directory"]}


def _draw(sweep: Sweep, runs: Sequence[_Run], rows: Sequence[Row], show: Sequence[str]) -> bool:
    """Write the curves of the quantities to show; return whether there is an axis to draw them against."""
    keys = list(runs[0].choice)
    against = sweep.against or _natural_axis(runs, sweep.verb)
    if against is None or not rows:
        return False
    axes = [*keys, *(name for name in rows[0] if name not in keys), "time"]
    if against not in axes:
        raise HpcspinError(f"--against {against}: choose a varied key, voltage or time: {', '.join(keys)}")
    if against != "time" and any(row.get(against) is None for row in rows):
        raise HpcspinError(f"--against {against}: a run has nothing there; choose a key or a quantity of all runs")
    axis = "" if against == "voltage" and not _follow_from_the_voltage(runs) else against
    others = [key for key in keys if not key.endswith("seed") and not _is_axis(key, axis)]
    lines = [key for key in others if axis not in keys or not _follows(key, axis, runs)]
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


def _natural_axis(runs: Sequence[_Run], verb: str) -> str | None:
    """The voltage where it varies and determines the potentials, else a varied key, rather one with numbers only."""
    keys = [key for key in runs[0].choice if not key.endswith("seed")]
    numeric = [key for key in keys if all(isinstance(run.choice[key], int | float) for run in runs)]
    voltage = verb != "torque" and any(_is_axis(key, "voltage") for key in numeric)
    return "voltage" if voltage and _follow_from_the_voltage(runs) else next(iter([*numeric, *keys]), None)


def _follow_from_the_voltage(runs: Sequence[_Run]) -> bool:
    """Whether runs at the same voltage have the same potentials, unlike those at 1 and at -1 beside 0."""
    potentials = {several for run in runs if (several := _potentials(run))}
    return len({max(several) - min(several) for several in potentials}) == len(potentials)


def _potentials(run: _Run) -> tuple[float, ...]:
    """Potentials of the reservoirs that drive the electrons of a run; those without a width do not."""
    electrons = run.config.electrons
    return tuple(one.potential for one in electrons.reservoirs if one.width) if electrons else ()


def _follows(key: str, axis: str, runs: Sequence[_Run]) -> bool:
    """Whether the values of the axis determine those of another key that varies, as of keys that change together."""
    pairs = {(json.dumps(run.choice[axis]), json.dumps(run.choice[key])) for run in runs}
    at, values = (len(set(side)) for side in zip(*pairs, strict=True))
    return values > 1 and at == len(pairs)


def _is_axis(key: str, against: str) -> bool:
    """Whether a key belongs to the horizontal axis: the potential of a reservoir is part of the voltage."""
    return key == against or (
        against == "voltage" and key.startswith("electrons.reservoirs.") and key.endswith(".potential")
    )


def _print_table(sweep: Sweep, choice: Choice, rows: Sequence[Row], show: Sequence[str], world: World) -> None:
    shown = [name for name in show if any(row.get(name) is not None for row in rows)]
    if sweep.verb == "train":
        rows = sorted(rows, key=lambda row: row["mse"])
    title = "Validation errors, the smallest first" if sweep.verb == "train" else f"Runs of {sweep.verb}"
    numbers = ([short(row[name]) if row.get(name) is not None else "" for name in shown] for row in rows)
    cells = ([*(str(row[key]) for key in choice), *of, row["directory"]] for row, of in zip(rows, numbers, strict=True))
    print_table(title, cells, world, (*choice, *shown, "directory"), len(choice))


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


def _require_inputs(sweep: Sweep, configs: Sequence[Config]) -> None:
    if sweep.verb not in VERBS:
        raise HpcspinError(f"--run {sweep.verb}: choose from {', '.join(VERBS)}")
    if sweep.chain is not None and sweep.verb not in ("simulate", "minimise"):
        raise HpcspinError(f"--chain: {sweep.verb} has no spins to go on from; it is for --run simulate and minimise")
    if sweep.against == "time" and sweep.verb != "simulate":
        raise HpcspinError(f"--against time: {sweep.verb} has no frames in time; it is for --run simulate")
    if sweep.against == "voltage" and sweep.verb == "torque":
        raise HpcspinError("--against voltage: each torque has the voltages torque.voltages; choose a varied key")
    if (sweep.verb == "label") != (sweep.spins is not None):
        raise HpcspinError("--spins: give it with --run label, and only there")
    if (sweep.verb == "train") != bool(sweep.data):
        raise HpcspinError("--data: give it to train, and only there")
    for config in configs if sweep.verb == "train" else ():
        config.need("potential")
        if not config.section(TrainingSection).validation:
            raise HpcspinError(
                "training.validation: a sweep compares errors on validation files; name some of the files of --data"
            )
    for config in configs:
        if config.electrons is not None:
            build_system(config)  # Refuses what the config alone does not, such as potentials too far apart.
    if sweep.verb == "simulate":
        _require_models(configs)


def _require_models(configs: Sequence[Config]) -> None:
    """Refuse electrons that a model does not know now, and not when their turn comes; what it warns of is said then."""
    cards: dict[str, Row] = {}
    for config in configs:
        dynamics = config.dynamics
        if dynamics and dynamics.model and dynamics.field in ("learned", "corrected"):
            name = dynamics.model
            card = cards[name] = cards.get(name) or load_force(name).card
            stored = config.model_dump(mode="json")
            require_electrons(stored, card, (name, "the config"), dynamics.allow, World(logs=False))


def _task(text: str) -> tuple[int, int]:
    given = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, tasks = map(int, given.groups()) if given else (0, 0)
    if not 1 <= number <= tasks:
        raise HpcspinError(f"--task {text!r}: write it as i/n, such as 3/16; the tasks are 1 to n")
    return number, tasks


def _name(choice: Choice) -> str:
    """Directory of a run, whatever its position in the list."""
    return "run-" + hashlib.sha256(json.dumps(choice, sort_keys=True).encode()).hexdigest()[:12]
