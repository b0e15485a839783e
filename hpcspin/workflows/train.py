"""``hpcspin train``: from a directory of labels to a saved force field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import build_lattice
from hpcspin.config import Config, TrainingSection
from hpcspin.dynamics import EXIT_REQUEUE
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import MEMBER, Architecture, load_model, make_force_field, model_file
from hpcspin.storage import electrons_of, ensure_manifest, require_spin_rotations
from hpcspin.training import find_data, require_possible, train
from hpcspin.training.dataset import listed_shards
from hpcspin.training.memory import require_room, stand_in
from hpcspin.training.metrics import describe_metrics
from hpcspin.workflows.simulate import require_blocks


def train_directory(config: Config, data: Sequence[Path], output: Path, world: World) -> int:
    """Train on directories of label files of any lattice sizes; missing manifests are written."""
    config.need("potential")
    training = config.section(TrainingSection)
    if world.rank == 0:
        for directory in data:
            ensure_manifest(directory)
        if not training.validation:
            world.log(
                "warning: training.validation names no label file: the last weights will be saved, and their error "
                "stays unknown; keep independent trajectories out of the training, as with "
                f"training.validation=[{listed_shards(data)[-1].file}]"
            )
    world.barrier()
    return train_members(config, data, output, world)


def train_members(config: Config, data: Sequence[Path], output: Path, world: World) -> int:
    """Train a force field, or all members of a committee, or continue from the directory's checkpoint.

    Each directory of label files must have a manifest. The output receives ``model.safetensors`` with its card,
    checkpoints and ``metrics.jsonl``; for a committee, a directory ``member-NN`` with these for each member.
    """
    training = config.section(TrainingSection)
    with recorded_job(output, world):
        training_data = find_data(
            data,
            training.validation,
            config.lattice.kind,
            world,
            start=_start(training),
            electrons=electrons_of(config.model_dump(mode="json"), "the config"),
            allow=training.allow,
            distil=training.distillation > 0,
            drive=architecture_of(config).drive,
            periodic=config.lattice.periodic,
        )
        for number in range(training.members):
            directory = output / MEMBER.format(number) if training.members > 1 else output
            with StopRequest(output / "STOP", world) as stop:
                outcome = train(
                    architecture_of(config),
                    training_data,
                    training.model_copy(update={"seed": training.seed + number}),
                    directory,
                    world,
                    pick_device(world, config.device),
                    start=_start(training),
                    card={"config": config.model_dump(mode="json")},
                    stop=stop.requested,
                )
            if not outcome.finished:
                world.log("train: stopped with a checkpoint")
                return EXIT_REQUEUE
            world.log_result(f"{outcome.model}: {describe_metrics(outcome.metrics)}")
    return 0


def check_training(config: Config, world: World, trajectories: int, labels: int | None = None) -> None:
    """Refuse, before other stages run, what the training after them would refuse; a collective call.

    So are ranks on which so many trajectories under the trained model, one for each team, would be refused. ``labels``
    is the largest number of them that the training may have; None stands for a batch or more.
    """
    architecture, lattice = architecture_of(config), build_lattice(config.lattice)
    training = config.section(TrainingSection)
    require_possible(architecture, training, world)
    require_spin_rotations(electrons_of(config.model_dump(mode="json"), "the config"), "the config", architecture.drive)
    model = make_force_field(architecture)
    model.require(lattice, "potential")
    require_blocks(lattice.size, model.halo, trajectories, world)
    model.neighbourhood(lattice)
    start = _start(training)
    if start is not None:
        load_model(start)
    if not training.compile:  # See `require_room`.
        trial = [stand_in(model, lattice, training.batch if labels is None else labels)]
        device = pick_device(world, config.device)
        require_room(model, trial, training.batch, world, device, bfloat16=training.mixed_precision)


def _start(training: TrainingSection) -> Path | None:
    return model_file(training.start) if training.start else None


def architecture_of(config: Config) -> Architecture:
    """Architecture of the force field that a config trains."""
    assert config.potential is not None
    return Architecture(lattice=config.lattice.kind, **config.potential.model_dump())
