"""From an architecture to a force field with random weights."""

from __future__ import annotations

from hpcspin.potential.architecture import Architecture
from hpcspin.potential.covariant import CovariantField
from hpcspin.potential.layered import LayeredPotentials
from hpcspin.potential.model import ForceField
from hpcspin.potential.potentials import PotentialField


def make_force_field(architecture: Architecture) -> ForceField:
    """The force field of an architecture: a `CovariantField` if it has several layers, else a `PotentialField`."""
    if len(architecture.layers) == 1:
        return PotentialField(architecture)
    return (CovariantField if architecture.kind == "direct" else LayeredPotentials)(architecture)
