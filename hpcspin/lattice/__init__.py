"""Sites, neighbour shells, point groups, initial textures and measures of a texture."""

from hpcspin.lattice.lattice import LATTICES, SHAPES, Halo, Lattice, SquareLattice, TriangularLattice, make_lattice
from hpcspin.lattice.measures import (
    bond_columns,
    bond_map,
    has_wall,
    scalar_chirality,
    structure_factor,
    topological_charge,
    wall_position,
)
from hpcspin.lattice.snapshots import as_snapshots
from hpcspin.lattice.textures import TEXTURES, make_texture

__all__ = [
    "LATTICES",
    "SHAPES",
    "TEXTURES",
    "Halo",
    "Lattice",
    "SquareLattice",
    "TriangularLattice",
    "as_snapshots",
    "bond_columns",
    "bond_map",
    "has_wall",
    "make_lattice",
    "make_texture",
    "scalar_chirality",
    "structure_factor",
    "topological_charge",
    "wall_position",
]
