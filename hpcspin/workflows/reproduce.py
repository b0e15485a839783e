"""``hpcspin reproduce``: exact trajectories, training, the same spins under the learned field, figures.

For a closed lattice some frames of the learned trajectories are also labelled, with exact energies and densities. Every
stage resumes, so the verb can be stopped and run again, also on another number of ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hpcspin.assembly.outputs import Layout, recorded_job
from hpcspin.assembly.system import build_lattice, build_system, initial_spins
from hpcspin.config import Config, DynamicsSection, ReproduceSection, RunSection, TrainingSection
from hpcspin.dynamics import ClassicalSettings
from hpcspin.dynamics.interrupt import StopSignals
from hpcspin.electrons.settings import ElectronsSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.world import World
from hpcspin.settings import first_mistake
from hpcspin.storage import (
    FrameReader,
    make_directory,
    read_json,
    read_labels,
    write_json,
    write_labels,
    write_manifest,
)
from hpcspin.training import is_new, spin_digests
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.label import write_label_file
from hpcspin.workflows.report import draw_figures, labelled_frames, write_numbers
from hpcspin.workflows.simulate import simulate_all
from hpcspin.workflows.train import check_training, train_members


def run_names(section: ReproduceSection) -> dict[str, RunSection]:
    """All exact trajectories by name, such as ``train-000``."""
    return {
        f"{role}-{number:03d}": run
        for role in ("train", "validation", "test")
        for number, run in enumerate(getattr(section, role))
    }


def run_config(config: Config, run: RunSection, **dynamics: Any) -> Config:
    """Config of one trajectory: the common one with the changes of this run."""
    changes: dict[str, Any] = {"seed": run.seed, "exact_interval": None, **dynamics}
    for name in ("duration", "temperature"):
        if getattr(run, name) is not None:
            changes[name] = getattr(run, name)
    try:
        section = DynamicsSection.model_validate({**dict(config.section(DynamicsSection)), **changes})
    except ValidationError as failure:
        raise HpcspinError(f"reproduce, the run of seed {run.seed}: {first_mistake(failure).message}") from failure
    return config.model_copy(
        update={
            "initial": run.initial or config.initial,
            "dynamics": section,
            "reproduce": None,
            "training": None,
        }
    )


def reproduce_directory(config: Config, directory: Path, world: World) -> int:
    """Run all stages that are not done; for the results see `Layout`. Teams of ranks share the trajectories."""
    config.need("electrons", "initial", "dynamics", "potential", "training")
    section = config.section(ReproduceSection)
    runs = run_names(section)
    exact = {name: run_config(config, run, field="electrons", check_interval=None) for name, run in runs.items()}
    check_training(config, world, len(section.test))
    _require_electrons_alone(config)
    _require_independent_runs(exact)
    with recorded_job(directory, world, config):
        return _run_stages(config, runs, exact, Layout(directory), world)


def _run_stages(
    config: Config, runs: Mapping[str, RunSection], exact: dict[str, Config], layout: Layout, world: World
) -> int:
    learned = {
        name: run_config(config, run, field="learned", model=str(layout.model))
        for name, run in runs.items()
        if name.startswith("test")
    }
    reservoirs = config.section(ElectronsSettings).reservoirs
    exact_runs = {layout.trajectory("electrons", name).parent: run for name, run in exact.items()}
    learned_runs = {layout.trajectory("learned", name).parent: run for name, run in learned.items()}
    measured: dict[str, Any] = {}
    stages: list[tuple[str, Callable[[], int | None]]] = [
        ("exact trajectories", lambda: simulate_all(exact_runs, world)),
        ("shards", lambda: _shards(exact, layout, world)),
        ("training", lambda: _train(config, layout, world)),
        ("evaluation", lambda: _evaluate(layout, world)),
        ("learned trajectories", lambda: simulate_all(learned_runs, world)),
        *([] if reservoirs else [("labels of learned frames", lambda: _label_learned(learned, layout, world))]),
        ("figures", lambda: measured.update(draw_figures(layout, world))),
    ]
    with StopSignals(world) as signals:
        for number, (name, stage) in enumerate(stages, 1):
            world.log(f"[{number}/{len(stages)}] {name}")
            start = time.monotonic()
            code = stage()
            code = signals.code(code)  # All ranks have done the stage.
            _count(layout, name, time.monotonic() - start, world)
            if code:
                return code
    write_numbers(layout, measured, world)  # Now that the seconds of all stages are known.
    return 0


def _require_electrons_alone(config: Config) -> None:
    if config.section(DynamicsSection).classical != ClassicalSettings():
        raise HpcspinError(
            "dynamics.classical: the exact fields of a reproduction would contain these terms, and the learned runs "
            "would count them twice; leave them out, or label spins with `hpcspin label` and train on these"
        )


def _require_independent_runs(runs: Mapping[str, Config]) -> None:
    """Refuse a validation or test run that would repeat the trajectory of an earlier run."""
    known: dict[tuple[bytes, int | None], str] = {}
    for name, run in runs.items():
        dynamics = run.section(DynamicsSection)
        spins = initial_spins(run.section(InitialSettings), build_lattice(run.lattice), dynamics.seed)
        noisy = dynamics.temperature * dynamics.damping > 0
        trajectory = (spin_digests(spins[None])[0], dynamics.seed if noisy else None)
        first = known.setdefault(trajectory, name)
        if first != name and not name.startswith("train"):
            raise HpcspinError(
                f"reproduce: {name} would be the same trajectory as {first}, and no independent one; "
                "give it another seed, with noise or a tilt, or other initial spins"
            )


def _shards(configs: dict[str, Config], layout: Layout, world: World) -> None:
    """Turn the recorded frames of the exact trajectories into label files."""
    if world.rank > 0:
        return
    learned: set[bytes] = set()
    for name, config in configs.items():
        target = (layout.test if name.startswith("test") else layout.data) / f"{name}.h5"
        make_directory(target.parent)
        frames = read_labels(layout.trajectory("electrons", name), config.lattice.size)
        # Runs may start from the same spins: validation and test files leave out spins to train on.
        kept = is_new(frames.spins, learned)
        if name.startswith("train"):
            learned.update(spin_digests(frames.spins))
            kept[:] = True
        if target.exists():
            continue
        electrons = config.section(ElectronsSettings)
        attributes = {
            "config": frames.attributes["config"],
            "precision": electrons.precision,  # the trajectory's is that of its spins
            "reservoirs": [reservoir.name for reservoir in electrons.reservoirs],
            "source": f"electrons/{name}/trajectory.h5",
        }
        write_labels(
            target,
            frames.spins[kept],
            frames.field[kept],
            attributes,
            **{name: values[kept] for name, values in frames.others.items()},
        )
    for directory in (layout.data, layout.test):
        if not (directory / "manifest.json").exists():
            write_manifest(directory)


def _train(config: Config, layout: Layout, world: World) -> int | None:
    names = run_names(config.section(ReproduceSection))
    validation = tuple(f"{name}.h5" for name in names if name.startswith("validation"))
    training = config.section(TrainingSection).model_copy(update={"validation": validation})
    return train_members(config.model_copy(update={"training": training}), [layout.data], layout.model, world)


def _evaluate(layout: Layout, world: World) -> None:
    evaluate_files(layout.model, layout.test, layout.evaluation, world, force=True)


def _label_learned(configs: Mapping[str, Config], layout: Layout, world: World) -> int:
    """Exact labels of some frames of the learned trajectories; returns the exit code."""
    for name, config in configs.items():
        target = layout.labelled(name)
        if world.broadcast(target.exists()):
            continue
        path = layout.trajectory("learned", name)
        with FrameReader(path) as frames:
            spins = frames.spins[labelled_frames(len(frames.spins))]
        attributes = {"config": config.model_dump(mode="json"), "source": f"learned/{name}/{path.name}"}
        code = write_label_file(
            build_system(config), partial(_one, spins), len(spins), target, attributes, world, config.device
        )
        if code:
            return code
    return 0


def _one(spins: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    return spins[number : number + 1]


def _count(layout: Layout, name: str, seconds: float, world: World) -> None:
    """Add the seconds of a stage to what earlier runs of the same directory spent on it."""
    if world.rank > 0:
        return
    spent = read_json(layout.stages, "delete it") if layout.stages.exists() else {}
    spent[name] = round(spent.get(name, 0.0) + seconds, 3)
    write_json(layout.stages, spent)
