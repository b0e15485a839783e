"""The data of a training, checked before the training starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.storage import Electrons, stored_electrons
from hpcspin.training.dataset import TrainingData, split_shards
from hpcspin.training.overlap import learned_files, require_independent
from hpcspin.training.sources import agreed_sources, read_source


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
        See `read_source`.

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
    sources = {
        shard.file: read_source(split.directory / shard.file, kind, 0.0, drive, periodic=periodic, distil=distil)
        for shard in (*split.train, *split.validation)
    }
    sources = agreed_sources(sources, electrons, past or (), allow, world, drive, periodic)
    for shard in split.validation:
        if not sources[shard.file].exact:
            raise HpcspinError(
                f"training.validation: {shard.file} has the fields of a force field; name files of exact labels"
            )
    drives = {name: source.drive for name, source in sources.items()}
    require_independent(split, drives, learned_files(card), world)
    return replace(split, sources=sources)
