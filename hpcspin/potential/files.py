"""Saved force fields: safetensors weights with a JSON card beside them; loading executes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hpcspin.errors import HpcspinError, one_line
from hpcspin.potential.architecture import Architecture, make_force_field
from hpcspin.potential.model import ForceField
from hpcspin.storage import atomic_file, provenance, read_json, sha256

FORMAT = "hpcspin force field"
SCHEMA_VERSION = 2


def card_path(path: str | Path) -> Path:
    """Path of the card of a model."""
    return Path(path).with_suffix(".json")


def save_model(path: str | Path, model: ForceField, card: Mapping[str, Any]) -> None:
    """Write a force field, each file whole or not at all.

    Parameters
    ----------
    path
        File of the weights, ``NAME.safetensors``; the card becomes ``NAME.json``.
    model
        The force field.
    card
        Further JSON values: training data, metrics, config.

    Raises
    ------
    HpcspinError
        If the name has another suffix.
    """
    path = _checked(path)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    binary = save(weights, metadata={"format": FORMAT})
    content = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "architecture": model.architecture.as_dict(),
        "weights_sha256": hashlib.sha256(binary).hexdigest(),
        "provenance": provenance(),
        **card,
    }
    # Both files are on the disk before either gets its final name.
    with atomic_file(card_path(path)) as card_file, atomic_file(path) as weights_file:
        card_file.write_at(0, (json.dumps(content, indent=2) + "\n").encode())
        card_file.sync()
        weights_file.write_at(0, binary)


def load_model(path: str | Path, precision: str | None = None) -> tuple[ForceField, dict[str, Any]]:
    """Read a force field and its card.

    ``precision``, ``float32`` or ``float64``, replaces the precision of its training.

    Returns
    -------
    tuple of ForceField and dict
        The model, on the CPU and in evaluation mode, and the card.

    Raises
    ------
    HpcspinError
        If a file is missing, corrupt or not a saved force field, or the two do not belong together.
    """
    path = _checked(path)
    card = _read_card(path)
    try:
        weights = load(path.read_bytes())
    except OSError as error:
        raise HpcspinError(
            f"{path}: the model cannot be read ({error.strerror}); train one or correct the path"
        ) from error
    except SafetensorError as error:
        raise HpcspinError(f"{path}: is no intact safetensors file ({error}); train or copy the model again") from error
    if sha256(path) != card.get("weights_sha256"):
        raise HpcspinError(f"{path}: does not belong to the card beside it; copy both files of the model again")
    architecture = _architecture(card, path)
    if precision:
        architecture = architecture.changed(precision=precision)
    _require_shapes(architecture, weights, path)
    model = make_force_field(architecture)
    _fill(model, weights, path)
    return model.eval(), card


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise HpcspinError(f"{path}: a model is a .safetensors file with a JSON card beside it; give that file")
    return path


def _read_card(path: Path) -> dict[str, Any]:
    where = card_path(path)
    try:
        card = read_json(where, "copy or train the model again")
    except FileNotFoundError as error:
        missing = where if path.exists() else path
        raise HpcspinError(f"{missing}: no such file; a model is NAME.safetensors with NAME.json beside it") from error
    if card.get("format") != FORMAT:
        raise HpcspinError(f"{where}: is not the card of a force field; give a model that `hpcspin train` has written")
    if card.get("schema_version") != SCHEMA_VERSION:
        raise HpcspinError(
            f"{where}: has schema version {card.get('schema_version')}, and this program reads {SCHEMA_VERSION}; "
            "train the model again"
        )
    return card


def _architecture(card: dict[str, Any], path: Path) -> Architecture:
    content = card.get("architecture")
    try:
        architecture = Architecture(**content)  # type: ignore[arg-type]
    except (TypeError, HpcspinError) as error:
        raise HpcspinError(f"{card_path(path)}: the architecture is invalid ({error}); train again") from error
    if architecture.as_dict() != content:
        raise HpcspinError(f"{card_path(path)}: the architecture is incomplete or foreign; train the model again")
    return architecture


def _require_shapes(architecture: Architecture, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Refuse weights whose shapes differ from the card's, before allocating memory for those, which may be huge."""
    try:
        with torch.device("meta"):
            wanted = make_force_field(architecture).state_dict()
    except (TypeError, RuntimeError, MemoryError) as error:  # Sizes that overflow an integer.
        raise HpcspinError(
            f"{card_path(path)}: architecture: it cannot be built without its weights: {one_line(error)}; copy both "
            "files of the model again, or correct the plugin of its kind"
        ) from error
    for name, tensor in wanted.items():
        if name not in weights or weights[name].shape != tensor.shape:
            found = list(weights[name].shape) if name in weights else "no such weights"
            raise HpcspinError(
                f"{card_path(path)}: architecture: asks for {name} of the shape {list(tensor.shape)}, and {path.name} "
                f"has {found}; copy both files of the model again"
            )


def _fill(model: ForceField, weights: dict[str, torch.Tensor], path: Path) -> None:
    if "envelope" in weights:
        mean = model.networks[-1].mean
        model.envelope = mean.new_empty((2, len(mean)))
    if "energy_offset" in weights:
        model.energy_offset = torch.empty((), dtype=torch.float64)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise HpcspinError(f"{path}: the weights do not fit the architecture of the card; copy both again") from error
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise HpcspinError(f"{path}: {name} holds NaN or infinity; train the model again")
