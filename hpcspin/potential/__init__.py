"""Learned force fields: derivatives of two potentials, or a covariant field of message passing.

The package does not depend on electrons, dynamics or training.
"""

from hpcspin.potential.architecture import Architecture, make_force_field
from hpcspin.potential.committee import (
    MEMBER,
    Committee,
    load_force,
    model_file,
    model_files,
    shipped_models,
    weights_digest,
)
from hpcspin.potential.descriptors import DESCRIPTORS, Descriptor
from hpcspin.potential.equations import Prediction
from hpcspin.potential.files import load_model, save_model
from hpcspin.potential.gather import segment_backend
from hpcspin.potential.grand import GrandPotential, at_filling
from hpcspin.potential.layered_potentials import LayeredPotentials
from hpcspin.potential.message_passing import CovariantField, MessagePassing
from hpcspin.potential.model import ForceField
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.potentials import PotentialField
from hpcspin.potential.prediction import Drive, PredictedFields, Predictor, System
from hpcspin.potential.settings import FORCE_FIELDS, PotentialSection
from hpcspin.potential.window import Block

__all__ = [
    "DESCRIPTORS",
    "FORCE_FIELDS",
    "MEMBER",
    "Architecture",
    "Block",
    "Committee",
    "CovariantField",
    "Descriptor",
    "Drive",
    "ForceField",
    "GrandPotential",
    "LayeredPotentials",
    "MessagePassing",
    "Neighbourhood",
    "PotentialField",
    "PotentialSection",
    "PredictedFields",
    "Prediction",
    "Predictor",
    "System",
    "at_filling",
    "load_force",
    "load_model",
    "make_force_field",
    "model_file",
    "model_files",
    "save_model",
    "segment_backend",
    "shipped_models",
    "weights_digest",
]  # fmt: skip
