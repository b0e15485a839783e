"""``hpcspin evaluate``: error of a force field on exact labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, load_force
from hpcspin.storage import atomic_path, read_manifest
from hpcspin.training import calibrate, evaluate


def evaluate_files(model_path: Path, data: Path, output: Path, world: World) -> None:
    """Write the errors of a model as JSON.

    Parameters
    ----------
    model_path
        Saved force field, or the directory of a committee.
    data
        Label file, or directory of label files with a manifest.
    output
        JSON file: ``mse`` and ``sigma`` of a perpendicular field component,
        ``variance_fraction``, ``snapshots``; of a committee those of its mean,
        and ``calibration``, see `hpcspin.training.calibrate`.
    world
        The ranks share the snapshots.

    Raises
    ------
    HpcspinError
        If the model or a label file is unreadable, or they do not fit together.
    """
    model, _ = load_force(model_path)
    files, device = _label_files(data, world), pick_device(world)
    numbers: dict[str, Any] = dict(evaluate(model, files, world, device))
    if isinstance(model, Committee):
        numbers["calibration"] = calibrate(model, files, world, device)
    if world.rank == 0:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(numbers, indent=2) + "\n")
        world.say(json.dumps(numbers))


def _label_files(data: Path, world: World) -> list[Path]:
    if not data.is_dir():
        return [data]
    # Hashing all shards once is enough: rank 0 verifies, the others trust.
    shards = read_manifest(data, verify=world.rank == 0)
    if not shards:
        raise HpcspinError(f"{data}: its manifest lists no shards; label some spins into it first")
    return [data / shard.file for shard in shards]
