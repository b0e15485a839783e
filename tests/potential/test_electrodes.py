"""Models that see the electrodes: what decides is the distance to both ends of x, and far away nothing."""

import json

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Block, Neighbourhood, load_model, save_model
from hpcspin.potential.files import card_path

WIDTH = 6


def fields(model, spins):
    """Fields of spins (Lx, Ly, 3) on a strip that is open along x."""
    lattice = make_lattice("square", spins.shape[:2])
    bias = torch.tensor([1.3], dtype=torch.float64)
    return model(spins.reshape(1, -1, 3), model.neighbourhood(lattice), bias).field.reshape(spins.shape)


def strip(length, repeat=4):
    """A random texture that repeats itself along x."""
    cell = random_spins(1, repeat * WIDTH, 1).reshape(repeat, WIDTH, 3)
    return cell.repeat(length // repeat, 1, 1)


def test_alike_surroundings_differ_by_the_distance_alone():
    spins = strip(24)
    for electrode_range, moves in ((0.0, False), (3.0, True)):
        field = fields(make_model(electrode_range=electrode_range), spins)
        assert torch.allclose(field[8:12], field[12:16], rtol=0, atol=1e-12) != moves


def test_far_from_both_ends_a_longer_lattice_makes_no_difference():
    model = make_model(electrode_range=0.5)
    short, long = fields(model, strip(48)), fields(model, strip(96))
    for part, same in (((20, 28), (60, 68)), ((0, 28), (0, 28)), ((20, 48), (68, 96))):
        torch.testing.assert_close(short[slice(*part)], long[slice(*same)], rtol=0, atol=1e-12)


def test_the_mirror_of_y_is_kept():
    model, spins = make_model(electrode_range=3.0), random_spins(1, 8 * WIDTH, 2).reshape(8, WIDTH, 3)
    torch.testing.assert_close(fields(model, spins.flip(1)), fields(model, spins).flip(1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["pair", "direct"])
@pytest.mark.parametrize("first", [0, 5, 11])
def test_a_window_has_the_bits_of_the_whole_lattice(kind, first):
    size, shape = (16, 13), (5, 13)
    model = make_model(kind=kind, electrode_range=3.0, precision="float32", hidden=(16, 16))
    spins, halo = random_spins(1, size[0] * size[1], 3).reshape(*size, 3), (2 * model.reach, 2 * model.reach)
    x, y = np.arange(first - halo[0], first + shape[0] + halo[0]), np.arange(-halo[1], size[1] + halo[1])
    inside = torch.from_numpy((x >= 0) & (x < size[0]))[:, None, None]
    window = spins[x % size[0]][:, y % size[1]] * inside
    table = Neighbourhood.of_window(Block(shape, (False, True), (False, True), (first, size[0])), halo, model.offsets)
    bias = torch.tensor([1.3], dtype=torch.float64)
    found = model(window.reshape(1, -1, 3), table, bias).field.reshape(*shape, 3)
    assert torch.equal(found, fields(model, spins)[first : first + shape[0]])


def test_lattices_without_electrodes_at_the_ends_are_refused():
    model, ring = make_model(electrode_range=3.0), make_lattice("square", (8, WIDTH), (True, True))
    with pytest.raises(HpcspinError, match=r"run.yaml: the model measures the distance to electrodes"):
        model.require(ring, "run.yaml")
    halo = (2 * model.reach, 2 * model.reach)
    window = Neighbourhood.of_window(Block((8, WIDTH), (False, True), (False, True)), halo, model.offsets)
    for table in (model.neighbourhood(ring), window):
        with pytest.raises(HpcspinError, match="here are none"):
            model(random_spins(1, table.rows, 4), table, torch.ones(1))


@pytest.mark.parametrize(
    ("changes", "word"), [({"electrode_range": -1.0}, "at least 0"), ({"symmetry": "full"}, "bias")]
)
def test_impossible_settings_are_refused(changes, word):
    with pytest.raises(HpcspinError, match=f"electrode_range.*{word}"):
        make_model(**{"electrode_range": 2.0, **changes})


def test_the_card_says_it_and_one_that_does_not_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, make_model(electrode_range=3.0), {})
    assert load_model(path)[0].architecture.settings.electrode_range == 3.0
    save_model(path, make_model(), {})
    card = json.loads(card_path(path).read_text())
    del card["architecture"]["electrode_range"]
    card_path(path).write_text(json.dumps(card))
    with pytest.raises(HpcspinError, match="architecture is incomplete"):
        load_model(path)
