"""Laws of the irreps and of the projection of bonds and chiralities onto them."""

from itertools import combinations

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins

from hpcspin.lattice import make_lattice
from hpcspin.potential.irreps import find_orbits, group_transform, irreps_of, slot_permutations, symmetry_operations
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.window import offsets_within

groups = pytest.mark.parametrize(
    ("kind", "symmetry"), [("square", "full"), ("square", "bias"), ("triangular", "full"), ("triangular", "bias")]
)
RADIUS = 2.0


def group(kind, symmetry):
    lattice = make_lattice(kind, (1, 1), (False, False))
    operations = symmetry_operations(lattice, symmetry)
    return lattice, operations, irreps_of(lattice, operations)


@groups
def test_irreps_are_homomorphisms_and_complete(kind, symmetry):
    _, operations, irreps = group(kind, symmetry)
    number = {op.tobytes(): n for n, op in enumerate(operations)}
    for irrep in irreps:
        for a, left in enumerate(operations):
            for b, right in enumerate(operations):
                product = number[np.ascontiguousarray(left @ right).tobytes()]
                np.testing.assert_allclose(irrep[a] @ irrep[b], irrep[product], atol=1e-12)
    assert sum(irrep.shape[1] ** 2 for irrep in irreps) == len(operations)


@groups
def test_characters_and_matrix_elements_are_orthogonal(kind, symmetry):
    _, operations, irreps = group(kind, symmetry)
    characters = np.stack([np.trace(irrep, axis1=1, axis2=2) for irrep in irreps])
    np.testing.assert_allclose(characters @ characters.T, len(operations) * np.eye(len(irreps)), atol=1e-12)
    matrix, rows = group_transform(irreps)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(rows)), atol=1e-12)


def test_character_table_of_d4():
    _, operations, irreps = group("square", "full")
    quarter, mirror = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])
    diagonal = quarter @ mirror
    chosen = [
        int(np.argmax((operations == op).all((1, 2)))) for op in (np.eye(2), quarter, -np.eye(2), mirror, diagonal)
    ]
    table = [np.trace(irrep[chosen], axis1=1, axis2=2).round().tolist() for irrep in irreps]
    a1, a2, b1, b2, e = [1, 1, 1, 1, 1], [1, 1, 1, -1, -1], [1, -1, 1, 1, -1], [1, -1, 1, -1, 1], [2, 0, -2, 0, 0]
    assert table == [a1, a2, b1, b2, e]


@groups
def test_coefficients_are_an_orthogonal_transform_of_all_bonds_and_chiralities(kind, symmetry):
    """Complete: as many as there are values. Orthonormal: the sum of squares is kept, for any values."""
    model = make_model(lattice=kind, symmetry=symmetry, radius=RADIUS)
    slots = len(model.offsets)
    spins = random_spins(50, slots, 1)
    pairs = np.array(list(combinations(range(slots), 2)))
    bonds = (spins[:, pairs[:, 0]] * spins[:, pairs[:, 1]]).sum(-1)
    triples = pairs[pairs[:, 0] > 0]
    crossed = torch.linalg.cross(spins[:, triples[:, 0]], spins[:, triples[:, 1]])
    values = torch.cat([bonds, (spins[:, :1] * crossed).sum(-1)], -1)
    coefficients = model.descriptor.coefficients(spins.permute(1, 2, 0)).T
    assert coefficients.shape == values.shape
    torch.testing.assert_close(coefficients.square().sum(-1), values.square().sum(-1))
    # Linear in the values and length-keeping on a spanning set: recover the map and check that it is orthogonal.
    many = random_spins(3 * values.shape[1], slots, 2)
    bonds = (many[:, pairs[:, 0]] * many[:, pairs[:, 1]]).sum(-1)
    crossed = torch.linalg.cross(many[:, triples[:, 0]], many[:, triples[:, 1]])
    values = torch.cat([bonds, (many[:, :1] * crossed).sum(-1)], -1)
    solution = torch.linalg.lstsq(values, model.descriptor.coefficients(many.permute(1, 2, 0)).T).solution
    torch.testing.assert_close(solution.T @ solution, torch.eye(len(solution), dtype=torch.float64), rtol=0, atol=1e-9)


@groups
def test_number_of_orbits_is_burnsides(kind, symmetry):
    """Orbits of bonds are the mean number of bonds an operation leaves alone; trivial irreps likewise with signs."""
    lattice, operations, _ = group(kind, symmetry)
    offsets = offsets_within(lattice, RADIUS)
    permutations = slot_permutations(offsets, operations)
    fixed = {"bond": 0, "signed chirality": 0}
    for permutation in permutations:
        for j, k in combinations(range(len(offsets)), 2):
            image = (permutation[j], permutation[k])
            fixed["bond"] += image in ((j, k), (k, j))
            fixed["signed chirality"] += (j > 0) * ((image == (j, k)) - (image == (k, j)))
    orbits = find_orbits(offsets, operations)
    assert sum(orbit.kind == "bond" for orbit in orbits) == fixed["bond"] / len(operations)
    model = make_model(lattice=kind, symmetry=symmetry, radius=RADIUS)
    assert model.descriptor.sizes[0] == sum(fixed.values()) / len(operations)


def test_features_of_the_square_lattice_are_counted():
    """R_c = 2: 12 neighbours, 78 bonds, 66 chiralities."""
    model = make_model(radius=2.0, symmetry="bias")
    assert len(model.offsets) == 13
    direct, others = model.descriptor.sizes
    assert direct + others == 144
    # The mirror leaves 14 bonds alone, and 6 chiralities; it changes the sign of 4 others.
    assert direct == (78 + 14) // 2 + (66 + 6 - 4) // 2


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 2.3, 3.0, 3.7])
def test_offsets_are_all_within_the_radius_and_closed_under_the_point_group(kind, radius):
    lattice = make_lattice(kind, (1, 1), (False, False))
    offsets = offsets_within(lattice, radius)
    wide = np.mgrid[-9:10, -9:10].reshape(2, -1).T
    expected = wide[np.linalg.norm(lattice.cartesian(wide), axis=-1) <= radius + 1e-9]
    assert {tuple(o) for o in offsets.tolist()} == {tuple(o) for o in expected.tolist()}
    assert offsets[0].tolist() == [0, 0]
    slot_permutations(offsets, lattice.point_group)


def test_missing_neighbours_add_nothing_but_their_absence():
    """A site at an open edge sees zero vectors, exactly as a window with zero rows does."""
    lattice = make_lattice("square", (3, 4), (False, True))
    model = make_model(radius=1.5)
    spins = random_spins(1, 12, 3)
    inside = model.features(spins, model.neighbourhood(lattice), torch.zeros(1))
    padded = torch.zeros((1, 5, 4, 3), dtype=torch.float64)
    padded[:, 1:4] = spins.reshape(1, 3, 4, 3)
    closed = make_lattice("square", (5, 4), (True, True))
    table = Neighbourhood.of_lattice(closed, model.offsets)
    outside = model.features(padded.reshape(1, 20, 3), table, torch.zeros(1)).reshape(5, 4, -1)[1:4].reshape(12, -1)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
