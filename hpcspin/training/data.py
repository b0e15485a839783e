"""The data of a training, checked before the training starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.storage import Electrons, stored_electrons
from hpcspin.training.dataset import Split, split_shards
from hpcspin.training.overlap import learned_files, require_independent
from hpcspin.training.sources import LabelSource, agreed_sources


@dataclass(frozen=True)
class TrainingData:
    """Shards of independent trajectories with the same electrons.

    Attributes
    ----------
    split : Split
        The shards for training and those for validation.
    sources : dict
        System of each shard, by the name of its file.
    """

    split: Split
    sources: Mapping[str, LabelSource]


def find_data(
    directories: Sequence[Path],
    validation: Sequence[str],
    kind: str,
    world: World,
    *,
    start: Path | None = None,
    electrons: Electrons | None = None,
    allow: Collection[str] = (),
    drive: str = "bias",
    distil: bool = False,
    periodic: tuple[bool, bool] = (False, True),
) -> TrainingData:
    """Find the shards of a training and check that they belong together; a collective call.

    Parameters
    ----------
    directories, validation
        See `split_shards`.
    kind
        Kind of lattice for files without a config.
    world
        The ranks.
    start
        A saved force field whose training is continued.
    electrons
        Electrons of files without a config; for None see `agreed_sources`.
    allow
        Keys of the electrons in which the files, and the training data of ``start``, may differ.
    drive, distil, periodic
        See `agreed_sources`.

    Raises
    ------
    HpcspinError
        If the data are invalid or have different electrons, or if the validation data are not independent of the
        training data or are not exact labels.
    """
    split = split_shards(directories, validation, world)
    card = load_model(start)[1] if start else {}
    past = stored_electrons(card.get("electrons"), str(start))
    if start and past is None:
        world.log(f"warning: {start}: its card does not say which electrons it has learned from")
    files = {shard.file: split.directory / shard.file for shard in (*split.train, *split.validation)}
    sources = agreed_sources(files, kind, electrons, past or (), allow, world, drive, distil, periodic)
    for shard in split.validation:
        if not sources[shard.file].exact:
            raise HpcspinError(
                f"training.validation: {shard.file} has the fields of a force field; name files of exact labels"
            )
    drives = {name: source.drive for name, source in sources.items()}
    require_independent(split, drives, learned_files(card), world)
    return TrainingData(split, sources)
