"""Whether a model was trained on the electrons that it is used for: those of a system, of labels, of trajectories."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcspin.config import Config
from hpcspin.parallel.world import World
from hpcspin.potential import GrandPotential, load_force
from hpcspin.storage import (
    Electrons,
    FrameReader,
    bias_range,
    describe_differences,
    differ_among_themselves,
    electrons_of,
    is_outside,
    read_attributes,
    require_learned,
    require_spin_rotations,
    sha256,
    stored_electrons,
    unseen_differences,
    voltages_outside,
)
from hpcspin.training import learned_files


def require_electrons(
    config: Mapping[str, Any], card: Mapping[str, Any], names: tuple[str, str], allow: Collection[str], world: World
) -> None:
    """Refuse a model for electrons that it has no input for; warn of a bias or open edges that it was not trained on.

    ``config`` is that of the system, or the one that a trajectory stores, and ``card`` that of the model; ``names`` are
    those of the model and of the config in messages.
    """
    model, where = names
    learned, given = stored_electrons(card.get("electrons"), model), electrons_of(config, where)
    if given is None:
        return
    require_spin_rotations(given, where, _drive(card))
    if learned is None:
        world.log(f"warning: {model}: {_NO_ELECTRONS}")
        return
    require_learned(learned, given, _drive(card), allow, names)
    for warning in [*_doubts(learned, given, _drive(card)), *_doubts_of_edges(config, card.get("config") or {})]:
        world.log(f"warning: {model}: {warning}")


def require_models(configs: Sequence[Config]) -> None:
    """Refuse electrons that the models of simulations do not know; what is warned of is said when these run."""
    cards: dict[str, Mapping[str, Any]] = {}
    for config in configs:
        dynamics = config.dynamics
        if dynamics and dynamics.model and dynamics.field in ("learned", "corrected"):
            name = dynamics.model
            card = cards[name] = cards.get(name) or load_force(name).card
            stored = config.model_dump(mode="json")
            require_electrons(stored, card, (name, "the config"), dynamics.allow, World(logs=False))


def _doubts_of_edges(config: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """A warning if the lattice has edges along an axis that was periodic in the config of the training."""
    here, learned = ((one.get("lattice") or {}).get("periodic", ()) for one in (config, trained))
    new = [axis for axis, mine, its in zip("xy", here, learned, strict=False) if its and not mine]
    return [
        f"it has learned on lattices that are periodic along {axis}, and here {axis} is open: its field near such an "
        "edge is wrong; the observer outside_share shows on how many sites"
        for axis in new
    ]


def warn_of_labels(
    files: Sequence[Path], model: Path, card: Mapping[str, Any], allow: Collection[str], world: World
) -> float | None:
    """Warn of label files that are no independent data for a model; return the bias assumed without a config."""
    learned = stored_electrons(card.get("electrons"), str(model))
    bias = bias_range(learned)[1] if learned else None
    doubts: dict[str, list[Path]] = {}
    if world.rank == 0:
        training_files = learned_files(card)
        for file in files:
            electrons = electrons_of(read_attributes(file).get("config"), str(file))
            require_spin_rotations(electrons, str(file), _drive(card))
            for doubt in _doubts_of_labels(electrons, learned, allow, bias, _drive(card)) or _beyond(file, card):
                doubts.setdefault(doubt, []).append(file)
            if training_files and sha256(file) in training_files:
                doubts.setdefault(_LEARNED, []).append(file)
    if learned is None:
        world.log(f"warning: {model}: {_NO_ELECTRONS}")
    for doubt, concerned in doubts.items():
        more = f" and {len(concerned) - 1} more" if len(concerned) > 1 else ""
        world.log(f"warning: {concerned[0]}{more}: {doubt}")
    return bias


def _beyond(file: Path, card: Mapping[str, Any]) -> list[str]:
    """Doubts about chemical potentials, given or found, at which a learned grand potential is refused in dynamics."""
    reference = (card.get("architecture") or {}).get("grand_potential")
    with FrameReader(file) as frames:
        if reference is None or "chemical_potential" not in frames.names:
            return []
        beyond = GrandPotential(*reference).is_beyond(frames.chemical_potential[:]).any()
    low, high, _ = reference
    learned = f"{low:.3g} to {high:.3g}, which the model has learned from"
    return [f"the chemical potentials of some of its labels lie outside {learned}"] if beyond else []


_NO_ELECTRONS = "its card does not say which electrons it has learned from; check that they are those of this system"
_LEARNED = "the model has learned from it, and the error is not that of independent data"


def _doubts_of_labels(
    electrons: Electrons | None,
    learned: Sequence[Electrons] | None,
    allow: Collection[str],
    bias: float | None,
    drive: str,
) -> list[str]:
    if electrons is None:
        assumed = (
            "the largest that the model has learned from"
            if bias is None
            else f"{bias:g}, as the model has learned from"
        )
        return [f"without a config in it, so its electrons are unknown and its bias is taken as {assumed}"]
    if learned is None:
        return []
    if differences := unseen_differences(learned, electrons, drive, allow):
        return [
            "its labels are of other electrons than those that the model has learned from: "
            f"{describe_differences(differences)}; --allow KEY says that this is meant"
        ]
    return _doubts(learned, electrons, drive)


def _drive(card: Mapping[str, Any]) -> str:
    """What a model takes as input from the reservoirs, so that it may differ."""
    return str((card.get("architecture") or {}).get("drive", "bias"))


def _doubts(learned: Sequence[Electrons], given: Electrons, drive: str) -> list[str]:
    """Warnings for electrons that agree."""
    doubts = []
    if not any("reservoirs" in entry for entry in learned):
        doubts.append("it has learned from labels without a config, so that their electrons are unknown")
    if drive != "bias":
        outside = voltages_outside(given, learned, "the model", drive)
        return [*doubts, f"what drives its electrons lies outside what it knows: {outside}"] if outside else doubts
    mixed = differ_among_themselves(learned)
    if mixed:
        doubts.append(
            f"it has learned from several electrons, which it cannot tell apart: {describe_differences(mixed)}"
        )
    if is_outside(given["bias"], learned):
        low, high = bias_range(learned)
        doubts.append(
            f"the bias {given['bias']:g} lies outside those that it has learned from, "
            + (f"{low:g} to {high:g}" if low < high else f"{high:g} alone")
        )
    return doubts
