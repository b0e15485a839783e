"""The learned force field: derivatives of two local potentials, or a covariant network of several layers.

The room knows lattices, and nothing of electrons, dynamics or training.
"""

from hpcspin.potential.architecture import Architecture
from hpcspin.potential.borders import Side, Trade
from hpcspin.potential.committee import MEMBER, Committee, load_force, model_files, shipped_models, weights_digest
from hpcspin.potential.covariant import CovariantField
from hpcspin.potential.descriptors import DESCRIPTORS, Descriptor
from hpcspin.potential.factory import make_force_field
from hpcspin.potential.files import load_model, save_model
from hpcspin.potential.irreps import SYMMETRIES
from hpcspin.potential.kinds import KINDS, Prediction
from hpcspin.potential.layered import LayeredPotentials
from hpcspin.potential.model import ForceField
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.potentials import PotentialField
from hpcspin.potential.prediction import PredictedFields, Predictor, System
from hpcspin.potential.segments import segment_backend

__all__ = [
    "DESCRIPTORS",
    "KINDS",
    "MEMBER",
    "SYMMETRIES",
    "Architecture",
    "Committee",
    "CovariantField",
    "Descriptor",
    "ForceField",
    "LayeredPotentials",
    "Neighbourhood",
    "PotentialField",
    "PredictedFields",
    "Prediction",
    "Predictor",
    "Side",
    "System",
    "Trade",
    "load_force",
    "load_model",
    "make_force_field",
    "model_files",
    "save_model",
    "segment_backend",
    "shipped_models",
    "weights_digest",
]
