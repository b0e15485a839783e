"""Textures are unit spins of the named order; measures read the order back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hpcspin.errors import HpcspinError
from hpcspin.lattice import bond_map, has_wall, make_lattice, make_texture, wall_position

LATTICE = make_lattice("square", (16, 6))


@pytest.mark.parametrize(("name", "parameters"), [("wall", {"position": 5}), ("antiferromagnet", {}), ("random", {})])
def test_textures_are_unit_length_and_follow_their_seed(name: str, parameters: dict[str, float]) -> None:
    spins = make_texture(name, LATTICE, 3, **parameters)
    np.testing.assert_allclose(np.linalg.norm(spins, axis=-1), 1, atol=1e-14)
    np.testing.assert_array_equal(spins, make_texture(name, LATTICE, 3, **parameters))
    assert np.abs(spins - make_texture(name, LATTICE, 4, **parameters)).max() > 0.01


def test_bonds_are_one_in_a_ferromagnet_and_minus_one_in_an_antiferromagnet() -> None:
    np.testing.assert_allclose(bond_map(LATTICE, make_texture("ferromagnet", LATTICE, 1, tilt=0.0)), 1, atol=1e-15)
    np.testing.assert_allclose(bond_map(LATTICE, make_texture("antiferromagnet", LATTICE, 1, tilt=0.0)), -1, atol=1e-15)


@given(st.integers(2, 13))
@settings(max_examples=12, deadline=None)
def test_a_sharp_wall_is_found_where_it_is(position: int) -> None:
    spins = make_texture("wall", LATTICE, 1, position=position, tilt=0.0)
    assert wall_position(LATTICE, spins) == pytest.approx(position - 0.5, abs=1e-12)


def test_wall_position_is_invariant_under_rotation_of_all_spins_and_counts_a_batch() -> None:
    spins = np.stack([make_texture("wall", LATTICE, seed, position=4 + seed) for seed in range(3)])
    rotated = spins @ Rotation.random(random_state=1).as_matrix().T
    np.testing.assert_allclose(wall_position(LATTICE, rotated), wall_position(LATTICE, spins), atol=1e-12)
    np.testing.assert_allclose(wall_position(LATTICE, spins), [3.5, 4.5, 5.5], atol=0.3)


def test_without_a_wall_the_position_is_at_an_end() -> None:
    assert wall_position(LATTICE, make_texture("antiferromagnet", LATTICE, 1)) == 0
    assert wall_position(LATTICE, make_texture("ferromagnet", LATTICE, 1)) == 16


def test_unknown_texture_is_refused() -> None:
    with pytest.raises(HpcspinError, match="choose one of"):
        make_texture("vortex", LATTICE, 1)


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize("size", [(6, 4), (12, 8)])
def test_only_a_wall_is_a_wall(kind: str, size: tuple[int, int]) -> None:
    lattice = make_lattice(kind, size)

    def share(name: str, **parameters: float) -> float:
        spins = np.stack([make_texture(name, lattice, seed, **parameters) for seed in range(50)])
        return float(has_wall(lattice, spins).mean())

    assert share("wall", position=size[0] / 2, tilt=0.2) > 0.9
    assert [share(name) for name in ("random", "ferromagnet", "antiferromagnet")] == [0, 0, 0]


def test_a_driven_metal_of_bent_spins_has_a_wall() -> None:
    """Its mean bond is 0.43, as of long runs of 12x6 sites; with 0.09 it is no metal any more."""

    def share(strength: float) -> tuple[float, float]:
        found, bonds = [], []
        for seed in range(50):
            spins = make_texture("wall", LATTICE, seed, position=8, tilt=0.2)
            spins[:8] += strength * np.random.default_rng(seed).standard_normal((8, *spins.shape[1:]))
            spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
            found.append(has_wall(LATTICE, spins))
            bonds.append(np.nanmean(bond_map(LATTICE, spins)[:7]))
        return float(np.mean(found)), float(np.mean(bonds))

    bent, bond = share(0.55)
    assert bent == 1
    assert bond == pytest.approx(0.43, abs=0.03)
    lost, bond = share(1.7)
    assert lost < 0.1
    assert bond == pytest.approx(0.09, abs=0.03)
