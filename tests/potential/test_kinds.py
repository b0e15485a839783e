"""Laws of the kinds whose field on a site is that site's own: site potentials and the direct head."""

import numpy as np
import pytest
import torch
from force_fields import carried, make_model, random_spins, rotation

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import DESCRIPTORS, Block, Neighbourhood
from hpcspin.potential.window import Window

SITE = [{"kind": "site", "descriptor": descriptor} for descriptor in sorted(DESCRIPTORS)]
local_kinds = pytest.mark.parametrize("kind", [*SITE, {"kind": "direct"}], ids=lambda kind: " ".join(kind.values()))
every_descriptor = pytest.mark.parametrize("descriptor", sorted(DESCRIPTORS))
both_lattices = pytest.mark.parametrize("geometry", ["square", "triangular"])
ROUNDING = 1e-11


def predict(model, spins, table, bias=1.3):
    return model(spins, table, torch.full((len(spins),), bias, dtype=torch.float64))


@pytest.mark.parametrize(("kind", "reaches"), [("conservative", 2), ("pair", 2), ("site", 1), ("direct", 1)])
def test_fields_of_potentials_see_two_reaches_and_need_a_halo_of_one(kind, reaches):
    """Their terms come from centres one reach away, which see one reach farther in a block of their own."""
    lattice = make_lattice("square", (15, 13))
    model, spins = make_model(kind=kind, radius=2.3), random_spins(1, lattice.num_sites, 3)
    assert model.halo == (2, 2)
    changed, table = spins.clone(), model.neighbourhood(lattice)
    changed[0, 7 * 13 + 6] = random_spins(1, 1, 4)[0, 0]
    difference = (predict(model, changed, table).field - predict(model, spins, table).field).abs().amax(-1)
    for axis, centre in ((1, 7), (0, 6)):
        seen = difference.reshape(15, 13).amax(axis).nonzero()[:, 0]
        assert (seen.min(), seen.max()) == (centre - 2 * reaches, centre + 2 * reaches)


@local_kinds
def test_field_turns_with_the_spins(kind):
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(**kind), random_spins(2, lattice.num_sites, 1)
    table = model.neighbourhood(lattice)
    still = predict(model, spins, table)
    assert still.field.abs().max() > 1e-3
    for seed in range(3):
        turn = rotation(seed)
        turned = predict(model, spins @ turn.T, table)
        torch.testing.assert_close(turned.equilibrium, still.equilibrium @ turn.T, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(turned.nonequilibrium, still.nonequilibrium @ turn.T, rtol=0, atol=ROUNDING)


@local_kinds
@both_lattices
def test_field_follows_the_point_group(kind, geometry):
    lattice = make_lattice(geometry, (6, 6), (True, True))
    model = make_model(lattice=geometry, **kind, symmetry="full")
    table, spins = model.neighbourhood(lattice), random_spins(1, lattice.num_sites, 2)
    field = predict(model, spins, table).field
    for operation in lattice.point_group:
        moved, expected = carried(lattice, operation, spins, field)
        torch.testing.assert_close(predict(model, moved, table).field, expected, rtol=0, atol=ROUNDING)


@every_descriptor
@both_lattices
def test_site_fields_are_derivatives_of_the_sites_own_potentials(descriptor, geometry):
    """Central differences of ε_i and χ_i by S_i alone; a table of one centre gives its potentials."""
    lattice = make_lattice(geometry, (4, 3))
    model = make_model(lattice=geometry, kind="site", descriptor=descriptor)
    whole, spins = model.neighbourhood(lattice), random_spins(1, lattice.num_sites, 3)
    predicted, step = predict(model, spins, whole), 1e-5
    for site in range(lattice.num_sites):
        x, y = divmod(site, lattice.size[1])
        here = (slice(x, x + 1), slice(y, y + 1))
        axes = tuple(axis[place] for axis, place in zip(whole.window.axes[1], here, strict=True))
        alone = Neighbourhood(Window(lattice.size, here, {1: axes}))
        moves = torch.zeros((3, lattice.num_sites, 3), dtype=torch.float64)
        moves[:, site] = step * torch.eye(3, dtype=torch.float64)
        plus, minus = predict(model, spins + moves, alone), predict(model, spins - moves, alone)
        energy = (plus.energy - minus.energy) / (2 * step)
        toroidal = (plus.toroidal - minus.toroidal) / (2 * step)
        torch.testing.assert_close(predicted.equilibrium[0, site], -energy, rtol=0, atol=1e-8)
        expected = -torch.linalg.cross(spins[0, site], toroidal)
        torch.testing.assert_close(predicted.nonequilibrium[0, site], expected, rtol=0, atol=1e-8)
    assert predicted.nonequilibrium.abs().max() > 1e-3


def test_site_field_without_bias_has_no_nonequilibrium_part():
    lattice, model = make_lattice("square", (5, 4)), make_model(kind="site")
    predicted = predict(model, random_spins(1, 20, 4), model.neighbourhood(lattice), bias=0.0)
    assert torch.count_nonzero(predicted.nonequilibrium) == 0
    assert torch.equal(predicted.field, predicted.equilibrium)


@local_kinds
def test_field_on_a_site_ignores_spins_beyond_one_reach(kind):
    lattice, model = make_lattice("square", (9, 9), (False, False)), make_model(**kind)
    table, spins = model.neighbourhood(lattice), random_spins(1, 81, 5)
    corner = spins.clone()
    corner[0, 0] *= -1
    changed = predict(model, corner, table).field != predict(model, spins, table).field
    x, y = np.divmod(np.flatnonzero(changed[0].any(-1).numpy()), 9)
    assert (x.max(), y.max()) == model.halo == (model.reach, model.reach)


@local_kinds
@pytest.mark.parametrize("whole", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_window_of_one_reach_has_the_bits_of_the_whole_lattice(kind, whole, precision):
    size = (14, 13)
    lattice = make_lattice("square", size)
    model = make_model(**kind, precision=precision, hidden=(16, 16))
    grid = random_spins(1, lattice.num_sites, 6).reshape(*size, 3)
    expected = predict(model, grid.reshape(1, -1, 3), model.neighbourhood(lattice)).field.reshape(*size, 3)
    start = tuple(0 if spans else 4 for spans in whole)
    shape = tuple(length if spans else 5 for length, spans in zip(size, whole, strict=True))
    axes = [np.arange(s - width, s + n + width) for s, n, width in zip(start, shape, model.halo, strict=True)]
    inside = torch.from_numpy((axes[0] >= 0) & (axes[0] < size[0]))[:, None, None]
    window = grid[axes[0] % size[0]][:, axes[1] % size[1]] * inside
    table = Neighbourhood.of_window(Block(shape, whole, lattice.periodic), model.halo, model.offsets)
    found = predict(model, window.reshape(1, -1, 3), table).field.reshape(*shape, 3)
    slices = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    assert torch.equal(found, expected[slices])


def test_a_halo_that_is_too_narrow_is_refused():
    model, spins = make_model(kind="pair"), random_spins(1, 64, 9)
    block = Block((8 - 2 * model.reach,) * 2, (False, False), (False, True))
    with pytest.raises(HpcspinError, match="too narrow for this force field"):
        predict(model, spins, Neighbourhood.of_window(block, (model.reach, model.reach), model.offsets))
    for halo in ((1, 4), (4, 1)):
        with pytest.raises(HpcspinError, match=f"halo of {halo[0]} x {halo[1]} sites for a reach of 2"):
            Neighbourhood.of_window(Block((6, 6), (False, False), (False, True)), halo, model.offsets)


@local_kinds
def test_weights_are_differentiated_through_the_fields(kind):
    """The derivative of a force loss by a weight against a central difference."""
    lattice = make_lattice("square", (4, 3))
    model, spins = make_model(**kind).train(), random_spins(2, 12, 8)
    weight, table = model.networks[0].layers[0].weight, model.neighbourhood(lattice)

    def loss():
        return predict(model, spins, table).field.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 1e-6
    for place in ((0, 0), (7, 40)):
        with torch.no_grad():
            weight[place] += step
            plus = loss()
            weight[place] -= 2 * step
            minus = loss()
            weight[place] += step
        torch.testing.assert_close(gradient[place], (plus - minus).detach() / (2 * step), rtol=1e-6, atol=1e-8)
