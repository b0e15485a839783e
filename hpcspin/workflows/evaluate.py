"""``hpcspin evaluate``: error of a force field on exact labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import erf, isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.agreement import warn_of_labels
from hpcspin.assembly.outputs import sole_writer
from hpcspin.config import Config, DynamicsSection, allowed_key
from hpcspin.drawing import figures
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_force, model_files
from hpcspin.potential.files import card_path
from hpcspin.storage import (
    MANIFEST,
    Electrons,
    all_or_none,
    data_files,
    describe_differences,
    electron_differences,
    electrons_of,
    read_attributes,
    read_manifest,
    require_absent,
    require_output,
    write_json,
)
from hpcspin.storage.agreement import Differences
from hpcspin.training import calibrate, examine


def evaluate_files(
    model_path: Path,
    data: Path | Sequence[Path],
    output: Path,
    world: World,
    allow: Collection[str] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the errors of a model as JSON and, as NAME.png, a picture of them; return the numbers of `evaluate`.

    The ``model_path`` may be the directory of a committee; ``data`` is a path, see `label_files`, or
    several label files. The log warns of labels whose electrons differ from those that the model has learned from,
    except in the keys ``allow``, and of files that it has learned from. With ``force`` numbers and a picture that are
    there are replaced.
    Raises HpcspinError if a key of ``allow`` is none, the model or a label file is unreadable, they do not fit
    together, or the output has the picture's name, is there already or cannot be written.
    """
    picture = output.with_suffix(".png")
    if picture == output:
        raise HpcspinError(f"{output}: is the name of the picture; give a .json file")
    for key in allow:
        try:
            allowed_key(key)
        except ValueError as error:
            raise HpcspinError(f"--allow {error}") from error
    model, files = load_force(model_path), label_files(data, world) if isinstance(data, Path) else data
    if world.rank == 0:
        weights = model_files(model_path)
        require_output(output, *files, *weights, *map(card_path, weights))
        require_absent(output, picture, force=force)
    with sole_writer(output, world, directory=False):
        bias = warn_of_labels(files, model_path, model.card, allow, world)
        numbers, components = evaluate(model, files, world, bias)
        if numbers["mse_error"] is None:
            world.log(
                "evaluate: mse_error is null: too few snapshots of one trajectory are independent; "
                "give a directory of several files, each of a trajectory of its own"
            )
        if world.rank == 0:
            bins = numbers.get("calibration", {}).get("bins", [])
            with all_or_none(lambda: filter(Path.is_file, (output, picture))):
                figures.field_errors(components, numbers["sigma"], bins, picture)
                write_json(output, numbers)
            world.log(f"evaluate: numbers in {output}, picture in {picture}")
    return {key: value for key, value in numbers.items() if key != "snapshot_mse"}


def evaluate_config(config: Config, data: Sequence[Path], output: Path, world: World) -> None:
    """Write the errors of ``dynamics.model`` on the `labels_like` those of a config; a run of a sweep."""
    dynamics, files = config.section(DynamicsSection), labels_like(config, data)
    assert dynamics.model is not None
    evaluate_files(Path(dynamics.model), files, output, world, dynamics.allow, force=True)


def labels_like(config: Config, files: Sequence[Path]) -> list[Path]:
    """The label files among some with the electrons of a config, whatever their spins, solver and lattice size.

    Raises HpcspinError if there is none, telling in what the nearest one differs, or the config names no model.
    """
    config.need("electrons")
    if (model := config.section(DynamicsSection).model) is None:
        raise HpcspinError("dynamics.model: is missing; name the force field to evaluate")
    model_files(Path(model))  # Refuses a name of none.
    given = electrons_of(config.model_dump(mode="json"), "the config")
    differ = {file: _differences(file, given or {}) for file in files}
    if all(differ.values()):
        closest = min(differ, key=lambda file: len(differ[file]))
        raise HpcspinError(
            f"--data: no label file has the electrons of every run; {closest} differs from one in "
            f"{describe_differences(differ[closest])}; label spins with these, as by hpcspin sweep --run label"
        )
    return [file for file in files if not differ[file]]


def _differences(file: Path, given: Electrons) -> Differences:
    stored = electrons_of(read_attributes(file).get("config"), str(file))
    if stored is None:
        return {"electrons": ("unknown, without a config", "those of the run")}
    bias = {} if isclose(stored["bias"], given["bias"], abs_tol=1e-6) else {"voltage": (stored["bias"], given["bias"])}
    return electron_differences([stored], given) | bias


def evaluate(
    model: ForceField | Committee, files: Sequence[Path], world: World, bias: float | None, device: str = "auto"
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Errors of a model on label files, which the ranks share; the same numbers on all ranks.

    They are those of `hpcspin.training.Errors.summary`; ``half_width_68``, within which 68.3 % of the errors of a
    sample of sites lie, equal to sigma if they are normally distributed; ``energy_shift``, the mean error of the energy
    per site, where the model and the labels have one; ``snapshot_mse`` of each snapshot of each file; and for a
    committee, whose mean is taken, ``calibration``, see `hpcspin.training.calibrate`. On rank 0 the exact and predicted
    components of the sample follow, shape (2, sampled).
    """
    picked = pick_device(world, device)
    examined = examine(model, files, world, picked, bias)
    numbers: dict[str, Any] = dict(examined.errors.summary())
    if isinstance(model, Committee):
        numbers["calibration"] = calibrate(model, files, world, picked, bias)
    if model.energy_of_a_site is not None and len(examined.errors.energy_errors):
        numbers["energy_shift"] = float(np.mean(examined.errors.energy_errors))
    exact, predicted = examined.components
    half_width = float(np.quantile(abs(predicted - exact), erf(0.5**0.5))) if world.rank == 0 else 0.0
    numbers["half_width_68"] = world.broadcast(half_width)
    return {**numbers, "snapshot_mse": examined.snapshot_mse}, examined.components


def label_files(data: Path, world: World) -> list[Path]:
    """The label files of a path: one file, those of a directory or a sweep, or the trajectory of a simulation."""
    if not data.is_dir():
        return [data]
    files: list[Path] = []
    if world.rank == 0:  # Hashing all files once is enough.
        listed = (data / MANIFEST).exists()
        inside = (file for place in (data, *sorted(data.glob("run-*/"))) for file in data_files(place))
        files = [data / shard.file for shard in read_manifest(data)] if listed else list(inside)
    files = world.broadcast(files)
    if not files:
        raise HpcspinError(f"{data}: holds no label files (*.h5); label some spins into it first")
    return files
