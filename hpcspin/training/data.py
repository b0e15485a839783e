"""The data of a training, checked before anything is learned from them."""

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
from hpcspin.training.sources import Source, agreed_sources


@dataclass(frozen=True)
class TrainingData:
    """Shards of independent trajectories and of the same electrons.

    Attributes
    ----------
    split : Split
        Which are to learn from, and which are for validation.
    sources : dict
        System of each, by the name of its file.
    """

    split: Split
    sources: Mapping[str, Source]


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
) -> TrainingData:
    """Find the shards of a training, and check that they belong together; all ranks call together.

    Parameters
    ----------
    directories, validation
        See `split_shards`.
    kind
        Kind of lattice of files without a config.
    world
        The ranks.
    start
        The force field that is trained further.
    electrons
        Those of files without a config; None: see `agreed_sources`.
    allow
        Keys of the electrons in which files, and what the start has learned from, may differ.
    drive, distil
        See `agreed_sources`.

    Raises
    ------
    HpcspinError
        If the data are invalid, of different electrons, or not independent of those that validate, or if the latter
        are no exact labels.
    """
    split = split_shards(directories, validation, world)
    card = load_model(start)[1] if start else {}
    past = stored_electrons(card.get("electrons"), str(start))
    if start and past is None:
        world.log(f"warning: {start}: its card does not say which electrons it has learned from")
    files = {shard.file: split.directory / shard.file for shard in (*split.train, *split.validation)}
    sources = agreed_sources(files, kind, electrons, past or (), allow, world, drive, distil)
    for shard in split.validation:
        if not sources[shard.file].exact:
            raise HpcspinError(
                f"training.validation: {shard.file} has the fields of a force field; name files of exact labels"
            )
    drives = {name: source.drive for name, source in sources.items()}
    require_independent(split, drives, learned_files(card), world)
    return TrainingData(split, sources)
