"""The learned force field: two local potentials of invariant features, and fields by differentiation.

The room knows lattices, and nothing of electrons, dynamics or training.
"""

from hpcspin.potential.committee import MEMBER, Committee, load_force
from hpcspin.potential.descriptors import DESCRIPTORS, Descriptor
from hpcspin.potential.files import load_model, save_model
from hpcspin.potential.irreps import SYMMETRIES
from hpcspin.potential.kinds import KINDS, Prediction
from hpcspin.potential.model import Architecture, ForceField
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.segments import segment_backend

__all__ = [
    "DESCRIPTORS",
    "KINDS",
    "MEMBER",
    "SYMMETRIES",
    "Architecture",
    "Committee",
    "Descriptor",
    "ForceField",
    "Neighbourhood",
    "Prediction",
    "load_force",
    "load_model",
    "save_model",
    "segment_backend",
]
