"""The shipped models, also in double precision."""

from __future__ import annotations

from pathlib import Path

from hpcspin.potential import ForceField, load_model

NAMES = ("driven_sd", "driven_sd_light", "driven_sd_fast", "driven_sd_pair", "driven_sd_family", "driven_sd_strips")
NAMES += ("driven_sd_voltages", "triangular_120", "triangular_tetrahedral", "square_double_exchange")
_MODELS = Path(__file__).parents[1] / "configs" / "models"


def shipped(name: str) -> ForceField:
    """A shipped model, to evaluate."""
    return load_model(_MODELS / f"{name}.safetensors")[0].eval()


def in_double(name: str) -> ForceField:
    """A shipped model in double precision, to evaluate."""
    return load_model(_MODELS / f"{name}.safetensors", "float64")[0].eval()
