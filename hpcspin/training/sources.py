"""The systems of label files, and whether they have the same electrons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, make_lattice
from hpcspin.parallel.world import World
from hpcspin.storage import (
    Electrons,
    chemical_potential,
    describe_differences,
    electron_differences,
    electrons_of,
    kinds_of_electrons,
    read_attributes,
    read_spins,
    require_spin_rotations,
    voltages,
    without_drive,
)


@dataclass(frozen=True)
class LabelSource:
    """The system of a label file."""

    lattice: Lattice
    """The lattice of its snapshots."""
    drive: tuple[float, ...]
    """Voltages in hoppings: the bias, or the potential of each reservoir relative to the bath's; or the chemical
    potential and the electrons per site, one of them NaN."""
    electrons: Electrons | None
    """See `hpcspin.storage.electrons_of`."""
    exact: bool = True
    """Whether its fields are exact rather than those of a force field."""


def read_source(
    path: Path,
    kind: str,
    bias: float,
    drive: str = "bias",
    *,
    periodic: tuple[bool, bool] = (False, True),
    distil: bool = False,
) -> LabelSource:
    """System of a label file, from its config; without one it has the given kind, bias and periodic sides.

    Raises HpcspinError if the file is invalid, its snapshots do not fit its lattice, a force field with this drive
    cannot represent its electrons, or its fields are not those of the electrons alone (with ``distil``, or of a force
    field).
    """
    attributes = read_attributes(path)
    config = attributes.get("config")
    config = config if isinstance(config, dict) else {}
    exact = True
    try:
        if attributes.get("kind") == "trajectory":
            exact = _is_exact(config.get("dynamics") or {}, path, distil)
        section = config.get("lattice") or {}
        size = read_spins(path, section.get("size"), 0).shape[1:3]
        electrons = electrons_of(config, str(path))
        require_spin_rotations(electrons, str(path), drive)
        lattice = make_lattice(section.get("kind", kind), size, tuple(section.get("periodic", periodic)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HpcspinError(f"{path}: its config is not one of hpcspin ({error}); label the spins again") from error
    return LabelSource(lattice, (bias if electrons is None else float(electrons["bias"]),), electrons, exact)


def agreed_sources(
    sources: Mapping[str, LabelSource],
    assumed: Electrons | None,
    past: Sequence[Electrons],
    allow: Collection[str],
    world: World,
    drive: str,
    periodic: tuple[bool, bool],
) -> dict[str, LabelSource]:
    """Systems of the label files of a training, which must have the same electrons except for the voltages.

    Files without a config, which were read with these ``periodic`` sides, have the ``assumed`` electrons, or else those
    of the other files, or else bias 0. ``past`` are the electrons of the training data of the model that the training
    starts from. The keys ``allow`` may differ, and so may what ``drive`` describes, see
    `hpcspin.storage.without_drive`. Rank 0 warns of files that do not state their electrons, or whose electrons differ
    along y. Raises HpcspinError if other keys differ.
    """
    sources = dict(sources)
    stated = {name: source.electrons for name, source in sources.items() if source.electrons is not None}
    unstated = [name for name, source in sources.items() if source.electrons is None]
    if unstated:
        which = "those of the training's config" if assumed else "those of the others" if stated else "unknown"
        assumed = assumed or next(iter(stated.values()), None) or {"bias": 0.0}
        world.log(
            f"warning: {_abridged(unstated)}: without a config in it, so its electrons are {which}, its bias is taken "
            f"as {assumed['bias']:g} and its lattice.periodic as {list(periodic)}; give the sections electrons and "
            "lattice in the config of the training, or label with them"
        )
        sources |= {
            name: replace(sources[name], drive=(float(assumed["bias"]),), electrons=assumed) for name in unstated
        }
    uneven = {name: keys for name, source in sources.items() if (keys := _differ_along_y(source))}
    if uneven:
        world.log(
            f"warning: {_abridged([*uneven])}: its electrons are not the same at all sites of a column "
            f"({', '.join(next(iter(uneven.values())))}), but a force field is, and cannot know which site it is at: "
            "expect a large error where they matter"
        )
    known = [without_drive(electrons, drive) for electrons in past]
    first = "training.start" if past else next(iter(sources))
    reference = [*past, *(source.electrons for source in sources.values() if source.electrons)][0]
    for name, source in sources.items():
        assert source.electrons is not None
        rest = without_drive(source.electrons, drive)
        differences = electron_differences(known, rest, allow, joined=True) if known else {}
        if differences:
            raise HpcspinError(
                f"{name}: its labels are of other electrons than {first}: {describe_differences(differences)}; a force "
                f"field has no input for them: leave the file out, or give training.allow=[{', '.join(differences)}]"
            )
        known = kinds_of_electrons([*known, rest])
        if drive == "chemical_potential":
            sources[name] = replace(source, drive=chemical_potential(source.electrons, name))
        elif drive != "bias":
            sources[name] = replace(source, drive=voltages(reference, source.electrons, name, drive))
    return sources


def _differ_along_y(source: LabelSource) -> list[str]:
    """Keys of the electrons whose values, or sites, are not the same all along y."""
    electrons = source.electrons or {}
    maps: dict[str, Any] = {f"electrons.{key}": electrons.get(key) for key in ("exchange", "on_site")}
    for number, one in enumerate(electrons.get("reservoirs") or ()):
        if not isinstance(sites := one.get("sites", ""), str):
            maps[f"electrons.reservoirs.{number}.sites"] = source.lattice.mask(sites).astype(float)
    return [key for key, values in maps.items() if np.ndim(values) == 2 and np.ptp(values, axis=1).any()]


def _is_exact(dynamics: Mapping[str, Any], path: Path, distil: bool) -> bool:
    """Whether the fields of a trajectory are exact; refuses fields that are not those of the electrons alone."""
    field = dynamics.get("field", "electrons")
    exact = field in ("electrons", "corrected")
    if not exact and not (distil and field == "learned"):
        raise HpcspinError(
            f"{path}: is a trajectory of dynamics.field: {field}, whose fields are no exact labels; "
            "label its spins with `hpcspin label`, or learn from a force field with training.distillation"
        )
    if not exact and dynamics.get("allow"):
        raise HpcspinError(
            f"{path}: its force field may have learned other electrons than those of the run (dynamics.allow), so that "
            "its fields are not theirs; run it again without dynamics.allow"
        )
    terms = [key for key, value in (dynamics.get("classical") or {}).items() if _acts(value)]
    if terms:
        raise HpcspinError(
            f"{path}: its fields hold the classical term {terms[0]}, which is not of the electrons; "
            "label its spins with `hpcspin label`"
        )
    return exact


def _acts(term: Any) -> bool:
    return any(map(_acts, term)) if isinstance(term, list) else bool(term)


def _abridged(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
