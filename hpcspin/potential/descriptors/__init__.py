"""Descriptors: features of the spins around a centre."""

from hpcspin.potential.descriptors.base import DESCRIPTORS, Descriptor
from hpcspin.potential.descriptors.bispectrum import Bispectrum
from hpcspin.potential.descriptors.bonds import Bonds
from hpcspin.potential.descriptors.densities import Densities

__all__ = ["DESCRIPTORS", "Bispectrum", "Bonds", "Densities", "Descriptor"]
