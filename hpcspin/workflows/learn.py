"""``hpcspin learn``: active learning of a force field from a handful of exact labels per round.

Labels are expensive, configurations are cheap, and frames of one exact trajectory are similar. Here the model of the
previous round moves the spins, from new initial spins each time, and only frames on which its committee disagrees are
labelled. Round 0 labels initial spins, unless an existing model, ``learning.start``, moves the spins of round 1. With
``learning.vary`` the trajectories differ in the electrons too, as in their voltages, and ``selection: pool`` chooses
spins and voltage together.

The labels of a round belong to trajectories that the previous model was not trained on. ``rounds.jsonl`` holds its
error on them: the error on independent data if frames are chosen at random, a larger one if the committee's spread
chooses them. The rounds end when this error is at most ``learning.target``; the last model is also trained on these
labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import build_lattice, build_system, initial_spins
from hpcspin.config import Config, DynamicsSection, LearningSection, TrainingSection, parse_config
from hpcspin.config_text import Override, as_overrides
from hpcspin.dynamics import ObserverSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Results
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import (
    MANIFEST,
    FrameReader,
    atomic_hdf5,
    describe_differences,
    electrons_of,
    make_directory,
    read_manifest,
    read_spins,
    unseen_differences,
    write_manifest,
    write_text,
)
from hpcspin.training import evaluate, is_new, spin_digests
from hpcspin.training.metrics import describe_metrics
from hpcspin.workflows.label import label_file
from hpcspin.workflows.simulate import simulate_all
from hpcspin.workflows.train import architecture_of, check_training, train_members

_SEEDS_A_ROUND = 10_000
_STRETCHES_A_LABEL = 4
"""With ``selection: pool``, stretches of the trajectories for each label; more of them leave more choice, but frames of
neighbouring stretches resemble each other."""


@dataclass(frozen=True)
class _Round:
    """Names of one round's files."""

    root: Path
    number: int

    @property
    def directory(self) -> Path:
        return self.root / f"round-{self.number:02d}"

    @property
    def model(self) -> Path:
        return self.directory / "model"

    def spins(self, role: str) -> Path:
        return self.directory / f"{role}.h5"

    def labels(self, role: str, condition: int | None = None) -> Path:
        """Labels of the spins of a role: all of them, or those of one of several conditions."""
        part = "" if condition is None else f"-{condition:02d}"
        return self.root / "data" / f"{role}-{self.number:02d}{part}.h5"


def learn_directory(config: Config, directory: Path, world: World) -> int:
    """Run all rounds that are not done; more rounds or a smaller target than before continue a finished directory."""
    config.need("electrons", "dynamics", "potential")
    learning = config.section(LearningSection)
    if learning.selection != "time" and config.section(TrainingSection).members == 1:
        raise HpcspinError(
            f"learning.selection: {learning.selection} needs the disagreement of a committee; set training.members to "
            "two or more, or selection: time"
        )
    check_training(config, world, learning.trajectories, learning.labels * (learning.rounds + 1))
    _check_conditions(config)
    with recorded_job(directory, world, config, ("learning.rounds", "learning.target")):
        return _learn(config, learning, directory, world)


def _learn(config: Config, learning: LearningSection, directory: Path, world: World) -> int:
    first = 0 if learning.start is None else 1
    numbers = range(first, learning.rounds + 1)
    started = [number for number in numbers if _Round(directory, number).directory.exists()]
    # The data of a later round would change the finished training before it.
    for number in range(world.broadcast(max(started, default=first)), numbers.stop):
        this = _Round(directory, number)
        world.log(f"round {number} of {learning.rounds}")
        code = _learn_round(config, this, world)
        if code:
            return code
        if world.broadcast(_reached(config, this)):
            world.log(f"learn: round {number} has reached learning.target")
            break
    world.log_result(f"{this.model}: the last model")
    return 0


def _learn_round(config: Config, this: _Round, world: World) -> int | None:
    """Choose spins, label them, evaluate the previous model on them, train the next one."""
    roles = ("train", "validation") if this.number else ("train",)
    if not world.broadcast(this.spins(roles[-1]).exists()):
        code = simulate_all(_trajectories(config, this), world) if this.number else 0
        if code:
            return code
        if world.rank == 0:
            make_directory(this.directory)
            _choose(config, this)
        world.barrier()
    conditions = _conditions(config)
    for part in world.broadcast(_parts(config, this, roles) if world.rank == 0 else None):
        if not world.broadcast(part.labels.exists()):
            varied = conditions[part.condition]
            # Labels depend on nothing else.
            system = Config(lattice=varied.lattice, electrons=varied.electrons, device=varied.device)
            code = label_file(system, part.spins, part.labels, world, part.origin, part.snapshots)
            if code:
                return code
    if this.number:
        _evaluate_previous(config, this, roles, world)
    if world.rank == 0 and not this.model.exists():
        write_manifest(this.root / "data")
    validation = world.broadcast(tuple(sorted(path.name for path in (this.root / "data").glob("validation-*.h5"))))
    training = config.section(TrainingSection).model_copy(update={"validation": validation})
    return train_members(config.model_copy(update={"training": training}), [this.root / "data"], this.model, world)


@dataclass(frozen=True)
class _LabelPart:
    """Chosen spins of one role and one condition, and their labels."""

    spins: Path
    snapshots: range
    """Those of the file of spins."""
    condition: int
    labels: Path
    origin: dict[str, Any]
    """Where the spins come from, for the attributes of their labels."""


def _parts(config: Config, this: _Round, roles: Sequence[str]) -> list[_LabelPart]:
    """The label files of a round; without ``learning.vary`` one for each role."""
    varied, parts = bool(config.section(LearningSection).vary), []
    for role in roles:
        with FrameReader(this.spins(role)) as frames:
            measured = {name: getattr(frames, name)[:] for name in frames.names if name != "spins"}
            conditions = measured.pop("condition", np.zeros(len(frames), dtype=int))
        for condition in np.unique(conditions).tolist():
            # They are in the order of the conditions.
            first, after = (int(np.searchsorted(conditions, condition, side)) for side in ("left", "right"))
            origin = {"round": this.number, **{name: values[first:after].tolist() for name, values in measured.items()}}
            labels = this.labels(role, condition if varied else None)
            parts.append(_LabelPart(this.spins(role), range(first, after), condition, labels, origin))
    return parts


def _conditions(config: Config) -> list[Config]:
    """The config with each combination of the values of ``learning.vary``."""
    changed = []
    for choice in config.section(LearningSection).conditions:
        content = config.model_dump(mode="json")
        for text in as_overrides(choice):
            Override.parse(text).apply(content)
        changed.append(parse_config(content, f"learning.vary, {' '.join(as_overrides(choice))}"))
    return changed


def _check_conditions(config: Config) -> None:
    """Refuse conditions whose electrons are impossible, or differ in more than the inputs of the force field."""
    drive, allow = architecture_of(config).drive, config.section(TrainingSection).allow
    varied = _conditions(config)
    for one in varied:
        build_system(one)
    conditions = [electrons_of(one.model_dump(mode="json"), "learning.vary") or {} for one in varied]
    for electrons in conditions[1:]:
        differences = unseen_differences(conditions[:1], electrons, drive, allow)
        if differences:
            raise HpcspinError(
                f"learning.vary: the force field has no input for {describe_differences(differences)}; vary what "
                f"potential.drive describes, or give training.allow=[{', '.join(differences)}]"
            )


def _turn(config: Config, this: _Round, number: int) -> tuple[InitialSettings, int]:
    """Initial spins and condition of a trajectory of a round, taken in turn from all pairs of them."""
    learning = config.section(LearningSection)
    conditions = math.prod(len(values) for values in learning.vary.values())
    lap, condition = divmod(number + this.number * learning.validation, conditions)
    return learning.initial[lap % len(learning.initial)], condition


def _previous_model(config: Config, this: _Round) -> Path:
    """The model that moves the spins of a round."""
    start = config.section(LearningSection).start
    return Path(start) if start is not None and this.number == 1 else _Round(this.root, this.number - 1).model


def _seed(config: Config, this: _Round, number: int) -> int:
    return (config.section(LearningSection).seed * 100 + this.number) * _SEEDS_A_ROUND + number


def _trajectories(config: Config, this: _Round) -> dict[Path, Config]:
    """Configs of the round's learned trajectories, each with its own initial spins."""
    learning, conditions = config.section(LearningSection), _conditions(config)
    names = ("wall_position",) if learning.selection == "time" else ("wall_position", "spread")
    configs = {}
    for number in range(learning.trajectories):
        initial, condition = _turn(config, this, number)
        varied = conditions[condition]
        changes = {
            "field": "learned",
            "exact_interval": None,
            "model": str(_previous_model(config, this)),
            "seed": _seed(config, this, number),
            "observers": tuple(ObserverSettings(name=name) for name in names),
        }
        configs[this.directory / f"trajectory-{number:03d}"] = varied.model_copy(
            update={
                "initial": initial,
                "dynamics": varied.section(DynamicsSection).model_copy(update=changes),
                "learning": None,
                "training": None,
                # A model from elsewhere need not have the architecture that is trained here.
                "potential": config.potential if learning.start is None else None,
            }
        )
    return configs


def _choose(config: Config, this: _Round) -> None:
    """Write the spins to be labelled; those of the first trajectories of a round are for validation."""
    learning = config.section(LearningSection)
    if this.number == 0:
        turns = [_turn(config, this, number) for number in range(learning.labels)]
        lattice = build_lattice(config.lattice)
        spins = [initial_spins(start, lattice, _seed(config, this, n)) for n, (start, _) in enumerate(turns)]
        _write_spins(config, this.spins("train"), np.stack(spins), np.array([condition for _, condition in turns]))
        return
    trajectories = [directory / "trajectory.h5" for directory in _trajectories(config, this)]
    rng = np.random.default_rng(_seed(config, this, 0))
    count, kept = len(trajectories), learning.validation
    shares = [(learning.labels + number) // count for number in range(count)]
    wider = _STRETCHES_A_LABEL if learning.selection == "pool" else 1
    chosen = [
        _frames(path, share * (wider if number >= kept else 1), number, rng)
        for number, (path, share) in enumerate(zip(trajectories, shares, strict=True))
    ]
    labelled = {digest for path in (this.root / "data").glob("*.h5") for digest in spin_digests(read_spins(path, None))}
    for role, part in (("train", slice(kept, None)), ("validation", slice(0, kept))):
        frames = _largest(_Frames.joined(chosen[part]), sum(shares[part]))
        # Trajectories may start from the same spins; none are labelled twice, or used for both training and validation.
        frames = frames.at(is_new(frames.spins, labelled))
        if not len(frames.spins):
            raise HpcspinError(
                f"learning.initial: all spins chosen for {role} in round {this.number} are labelled already, as starts "
                "without a tilt may be; give a tilt, or more labels"
            )
        labelled.update(spin_digests(frames.spins))
        measured = {} if np.isnan(frames.spread).any() else {"spread": frames.spread}
        conditions = np.array([_turn(config, this, number)[1] for number in frames.trajectory])
        provenance = {"trajectory": frames.trajectory, "step": frames.step, **measured}
        _write_spins(config, this.spins(role), frames.spins, conditions, **provenance)


@dataclass(frozen=True, repr=False)
class _Frames(Results):
    """Frames of trajectories; the first axis of all arrays runs over them."""

    spins: NDArray[np.float64]
    trajectory: NDArray[np.int64]
    """Number of the trajectory in its round."""
    step: NDArray[np.int64]
    spread: NDArray[np.float64]
    """Root mean square disagreement of the committee; NaN without one."""

    def at(self, chosen: NDArray[Any]) -> _Frames:
        return self.map(lambda one: one[chosen])


def _frames(path: Path, count: int, number: int, rng: np.random.Generator) -> _Frames:
    """The frame of largest spread, or a random one, of each of ``count`` equal stretches of a trajectory."""
    with FrameReader(path) as frames:
        spread = np.full(len(frames), np.nan)
        if "spread" in frames.names:
            spread = np.sqrt(np.mean(frames.spread[:] ** 2, axis=(1, 2)))
        # Random numbers replace a spread that was not measured.
        rank = rng.random(len(frames)) if np.isnan(spread).any() else spread
        stretches = [part for part in np.array_split(np.arange(len(frames)), count) if len(part)]
        chosen = np.array([part[np.argmax(rank[part])] for part in stretches])
        return _Frames(frames.spins[chosen], np.full(len(chosen), number), frames.step[chosen], spread[chosen])


def _largest(frames: _Frames, count: int) -> _Frames:
    """The frames of largest spread, in their order; all of them if they are no more than ``count``."""
    if len(frames.spread) <= count:
        return frames
    return frames.at(np.sort(np.argsort(-frames.spread, kind="stable")[:count]))


def _write_spins(
    config: Config, path: Path, spins: NDArray[np.float64], conditions: NDArray[np.int64], **provenance: NDArray[Any]
) -> None:
    """Write chosen spins in the order of their conditions."""
    order = np.argsort(conditions, kind="stable")
    with atomic_hdf5(path) as file:
        file["spins"] = spins[order]
        for name, values in provenance.items():
            file[name] = values[order]
        if config.section(LearningSection).vary:
            file["condition"] = conditions[order]


def _reached(config: Config, this: _Round) -> bool:
    """Whether the error of the previous model on this round's labels has reached the target."""
    target, log = config.section(LearningSection).target, this.root / "rounds.jsonl"
    if target is None or this.number == 0:
        return False
    return float(json.loads(log.read_text().splitlines()[this.number - 1])["mse"]) <= target


def _evaluate_previous(config: Config, this: _Round, roles: tuple[str, ...], world: World) -> None:
    """Add the error of the previous model on this round's labels, which are new to it, to ``rounds.jsonl``."""
    log = this.root / "rounds.jsonl"
    lines = world.broadcast(log.read_text().splitlines() if world.rank == 0 and log.exists() else [])
    if len(lines) >= this.number:
        return
    model = load_force(_previous_model(config, this))
    parts = world.broadcast(_parts(config, this, roles) if world.rank == 0 else None)
    numbers: dict[str, Any] = dict(
        evaluate(model, [part.labels for part in parts], world, pick_device(world, config.device))
    )
    if world.rank > 0:
        return
    # Before the first labels there is no manifest.
    shards = read_manifest(this.root / "data", verify=False) if (this.root / "data" / MANIFEST).exists() else ()
    labels = sum(shard.snapshots for shard in shards if shard.file.startswith("train"))
    record = {"round": this.number, "labels_before": labels, **numbers}
    if config.section(LearningSection).selection != "time":
        record["spread"] = float(np.mean(np.concatenate([part.origin["spread"] for part in parts])))
    write_text(log, "\n".join([*lines, json.dumps(record)]) + "\n")
    world.log(f"round {this.number}: the previous model, on labels new to it: {describe_metrics(numbers)}")
