"""Sites, neighbour shells, point groups, initial textures and measures of a texture."""

from hpcspin.lattice.domains import (
    chirality_correlation,
    chirality_walls,
    correlation_bins,
    correlation_length,
    puddle_sizes,
)
from hpcspin.lattice.lattice import LATTICES, SHAPES, Halo, Lattice, SquareLattice, TriangularLattice, make_lattice
from hpcspin.lattice.measures import (
    bond_columns,
    bond_fractions,
    bond_map,
    has_wall,
    nearest_bonds,
    scalar_chirality,
    structure_factor,
    structure_factors,
    topological_charge,
    topological_charges,
    wall_position,
)
from hpcspin.lattice.snapshots import Results, as_snapshots, one_snapshot, perpendicular
from hpcspin.lattice.textures import TEXTURES, make_texture

__all__ = [
    "LATTICES", "SHAPES", "TEXTURES", "Halo", "Lattice", "Results", "SquareLattice", "TriangularLattice",
    "as_snapshots", "bond_columns", "bond_fractions", "bond_map", "chirality_correlation", "chirality_walls",
    "correlation_bins", "correlation_length", "has_wall", "make_lattice", "make_texture", "nearest_bonds",
    "one_snapshot", "perpendicular", "puddle_sizes", "scalar_chirality", "structure_factor", "structure_factors",
    "topological_charge", "topological_charges", "wall_position",
]  # fmt: skip
