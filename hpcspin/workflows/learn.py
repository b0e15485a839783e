"""``hpcspin learn``: active learning of a force field from a handful of exact labels per round.

Labels are expensive, configurations are cheap, and frames of one exact trajectory are similar. Here the model of the
previous round moves the spins, from new initial spins each time, and only frames on which its committee disagrees are
labelled. Round 0 labels initial spins, unless an existing model, ``learning.start``, moves the spins of round 1.

The labels of a round belong to trajectories that the previous model was not trained on. ``rounds.jsonl`` holds its
error on them: the error on independent data if frames are chosen at random, a larger one if the committee's spread
chooses them. The rounds end when this error is at most ``learning.target``; the last model is also trained on these
labels.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import build_lattice, initial_spins
from hpcspin.config import Config, DynamicsSection, LearningSection, TrainingSection
from hpcspin.dynamics import ObserverSettings
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import (
    MANIFEST,
    FrameReader,
    atomic_hdf5,
    make_directory,
    read_manifest,
    read_spins,
    write_manifest,
    write_text,
)
from hpcspin.training import evaluate, is_new, spin_digests
from hpcspin.training.metrics import describe_metrics
from hpcspin.workflows.label import label_file
from hpcspin.workflows.simulate import simulate_all
from hpcspin.workflows.train import check_training, train_members

_SEEDS_A_ROUND = 10_000


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

    def labels(self, role: str) -> Path:
        return self.root / "data" / f"{role}-{self.number:02d}.h5"


def learn_directory(config: Config, directory: Path, world: World) -> int:
    """Run all rounds that are not done; more rounds or a smaller target than before continue a finished directory.

    The config must hold ``electrons``, ``dynamics``, ``potential``, ``training`` and ``learning``. The directory
    receives ``data`` with all labels, ``round-NN`` with the chosen spins, the trajectories and the model of each round,
    and ``rounds.jsonl``.
    """
    config.need("electrons", "dynamics", "potential")
    learning = config.section(LearningSection)
    if learning.selection == "spread" and config.section(TrainingSection).members == 1:
        raise HpcspinError(
            "learning.selection: spread is the disagreement of a committee; set training.members to two or more, "
            "or selection: time"
        )
    check_training(config, world)
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
    for role in roles:
        if not world.broadcast(this.labels(role).exists()):
            origin = world.broadcast(_origin(this, role) if world.rank == 0 else None)
            system = Config(lattice=config.lattice, electrons=config.electrons, device=config.device)
            label_file(system, this.spins(role), this.labels(role), world, origin)  # Labels depend on nothing else.
    if this.number:
        _evaluate_previous(config, this, roles, world)
    if world.rank == 0 and not this.model.exists():
        write_manifest(this.root / "data")
    validation = world.broadcast(tuple(sorted(path.name for path in (this.root / "data").glob("validation-*.h5"))))
    training = config.section(TrainingSection).model_copy(update={"validation": validation})
    return train_members(config.model_copy(update={"training": training}), [this.root / "data"], this.model, world)


def _previous_model(config: Config, this: _Round) -> Path:
    """The model that moves the spins of a round."""
    start = config.section(LearningSection).start
    return Path(start) if start is not None and this.number == 1 else _Round(this.root, this.number - 1).model


def _seed(config: Config, this: _Round, number: int) -> int:
    return (config.section(LearningSection).seed * 100 + this.number) * _SEEDS_A_ROUND + number


def _trajectories(config: Config, this: _Round) -> dict[Path, Config]:
    """Configs of the round's learned trajectories, each with its own initial spins."""
    learning, dynamics = config.section(LearningSection), config.section(DynamicsSection)
    names = ("wall_position", "spread") if learning.selection == "spread" else ("wall_position",)
    configs = {}
    for number in range(learning.trajectories):
        changes = {
            "field": "learned",
            "exact_interval": None,
            "model": str(_previous_model(config, this)),
            "seed": _seed(config, this, number),
            "observers": tuple(ObserverSettings(name=name) for name in names),
        }
        configs[this.directory / f"trajectory-{number:03d}"] = config.model_copy(
            update={
                "initial": learning.initial[(number + this.number) % len(learning.initial)],
                "dynamics": dynamics.model_copy(update=changes),
                "learning": None,
                "training": None,
                # A model from elsewhere need not have the architecture that is trained here.
                "potential": config.potential if learning.start is None else None,
            }
        )
    return configs


def _choose(config: Config, this: _Round) -> None:
    """Write the spins to be labelled; those of trajectory 0 of a round are for validation."""
    if this.number == 0:
        _write_spins(this.spins("train"), _initial_textures(config, this))
        return
    paths = [directory / "trajectory.h5" for directory in _trajectories(config, this)]
    labels = config.section(LearningSection).labels
    rng = np.random.default_rng(_seed(config, this, 0))
    shares = [(labels + number) // len(paths) for number in range(len(paths))]
    chosen = [_frames(path, share, rng) for path, share in zip(paths, shares, strict=True)]
    labelled = {digest for path in (this.root / "data").glob("*.h5") for digest in spin_digests(read_spins(path, None))}
    for role, part in (("train", slice(1, None)), ("validation", slice(0, 1))):
        spins, steps, spreads = (np.concatenate(column) for column in zip(*chosen[part], strict=True))
        origin = np.repeat(np.arange(len(paths))[part], [len(frames[0]) for frames in chosen[part]])
        # Trajectories may start from the same spins; none are labelled twice, or used for both training and validation.
        new = is_new(spins, labelled)
        if not new.any():
            raise HpcspinError(
                f"learning.initial: all spins chosen for {role} in round {this.number} are labelled already, as starts "
                "without a tilt may be; give a tilt, or more labels"
            )
        labelled.update(spin_digests(spins))
        measured = {} if np.isnan(spreads).any() else {"spread": spreads[new]}
        _write_spins(this.spins(role), spins[new], trajectory=origin[new], step=steps[new], **measured)


def _initial_textures(config: Config, this: _Round) -> NDArray[np.float64]:
    learning, lattice = config.section(LearningSection), build_lattice(config.lattice)
    starts = zip(range(learning.labels), itertools.cycle(learning.initial), strict=False)
    return np.stack([initial_spins(start, lattice, _seed(config, this, number)) for number, start in starts])


def _frames(
    path: Path, share: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Choose from each of ``share`` equal stretches of a trajectory the frame of largest spread, or a random one.

    Returns
    -------
    tuple
        Spins, steps and root mean square spreads (NaN without a committee) of the frames.
    """
    with FrameReader(path) as frames:
        count, spread = len(frames), np.full(len(frames), np.nan)
        if "spread" in frames.names:
            spread = np.sqrt(np.mean(frames.spread[:] ** 2, axis=(1, 2)))
        # Random numbers replace a spread that was not measured.
        rank = rng.random(count) if np.isnan(spread).any() else spread
        stretches = [part for part in np.array_split(np.arange(count), share) if len(part)]
        chosen = np.array([part[np.argmax(rank[part])] for part in stretches])
        return frames.spins[chosen], frames.step[chosen], spread[chosen]


def _write_spins(path: Path, spins: NDArray[np.float64], **provenance: NDArray[Any]) -> None:
    with atomic_hdf5(path) as file:
        file["spins"] = spins
        for name, values in provenance.items():
            file[name] = values


def _origin(this: _Round, role: str) -> dict[str, Any]:
    """Where the spins of a round come from, for the attributes of their labels."""
    with FrameReader(this.spins(role)) as frames:
        measured = {name: getattr(frames, name)[:].tolist() for name in frames.names if name != "spins"}
        return {"round": this.number, **measured}


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
    numbers: dict[str, Any] = dict(
        evaluate(model, [this.labels(role) for role in roles], world, pick_device(world, config.device))
    )
    if world.rank > 0:
        return
    # Before the first labels there is no manifest.
    shards = read_manifest(this.root / "data", verify=False) if (this.root / "data" / MANIFEST).exists() else ()
    labels = sum(shard.snapshots for shard in shards if shard.file.startswith("train"))
    record = {"round": this.number, "labels_before": labels, **numbers}
    if config.section(LearningSection).selection == "spread":
        spreads = [_origin(this, role)["spread"] for role in roles]
        record["spread"] = float(np.mean(np.concatenate(spreads)))
    write_text(log, "\n".join([*lines, json.dumps(record)]) + "\n")
    world.log(f"round {this.number}: the previous model, on labels new to it: {describe_metrics(numbers)}")
