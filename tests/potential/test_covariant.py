"""Laws of the fields of several layers: the direct one, and those with potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from force_fields import carried, make_model, random_spins, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, make_lattice
from hpcspin.potential import (
    Architecture,
    Block,
    Committee,
    ForceField,
    MessagePassing,
    Neighbourhood,
    load_model,
    save_model,
)
from hpcspin.potential.surroundings import Convolution
from hpcspin.potential.tiles import GROUP, TILE

LAYERS = {"kind": "direct", "layers": (1, 1, 1)}
DILATED = {**LAYERS, "layers": (1, 3, 2)}
PAIR = {**LAYERS, "kind": "pair", "layers": (1, 2), "radius": 1.5}
CONSERVATIVE = {**PAIR, "kind": "conservative"}
ROUNDING = 1e-11


def predict(model: ForceField, lattice: Lattice, spins: Tensor, bias: float = 1.3) -> Tensor:
    bias_of = torch.full((len(spins),), bias, dtype=torch.float64)
    return model(spins, model.neighbourhood(lattice), bias_of).field


@pytest.mark.parametrize("layers", [LAYERS, DILATED, PAIR, CONSERVATIVE])
@given(seed=st.integers(0, 2**20))
@settings(max_examples=5, deadline=None)
def test_the_field_turns_with_the_spins(layers: dict[str, Any], seed: int) -> None:
    lattice, turn = make_lattice("square", (7, 6)), rotation(seed)
    model, spins = make_model(**layers), random_spins(2, lattice.num_sites, seed)
    still, turned = predict(model, lattice, spins), predict(model, lattice, spins @ turn.T)
    assert still.abs().mean() > 1e-3
    torch.testing.assert_close(turned, still @ turn.T, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_the_field_follows_the_point_group(kind: str) -> None:
    lattice = make_lattice(kind, (6, 6), (True, True))
    model, spins = make_model(lattice=kind, symmetry="full", **LAYERS), random_spins(1, lattice.num_sites, 1)
    field = predict(model, lattice, spins)
    for operation in lattice.point_group:
        moved, expected = carried(lattice, operation, spins, field)
        torch.testing.assert_close(predict(model, lattice, moved), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("layers", [LAYERS, DILATED, PAIR, CONSERVATIVE])
def test_under_bias_the_y_mirror_is_left_and_the_x_mirror_is_not(layers: dict[str, Any]) -> None:
    lattice = make_lattice("square", (6, 6), (True, True))
    model, spins = make_model(**layers), random_spins(1, lattice.num_sites, 2)
    field, errors = predict(model, lattice, spins), []
    for operation in (lattice.mirror_y, -lattice.mirror_y):
        moved, expected = carried(lattice, operation, spins, field)
        errors.append((predict(model, lattice, moved) - expected).abs().max())
    assert errors[0] < ROUNDING
    assert errors[1] > 1e-4


@pytest.mark.parametrize("layers", [LAYERS, DILATED, PAIR, CONSERVATIVE])
def test_a_field_sees_as_many_reaches_as_its_layers_and_no_farther(layers: dict[str, Any]) -> None:
    lattice = make_lattice("square", (30, 25))
    model, spins = make_model(**layers), random_spins(1, lattice.num_sites, 3)
    assert isinstance(model, MessagePassing)
    # A field that is a derivative feels what the sites around it have heard of.
    reach = model.reach * (1 if layers["kind"] == "direct" else 2)
    assert model.halo == (sum(layers["layers"]) * reach, len(layers["layers"]) * reach)
    changed = spins.clone()
    changed[0, 15 * 25 + 12] = random_spins(1, 1, 4)[0, 0]
    difference = (predict(model, lattice, changed) - predict(model, lattice, spins)).abs().amax(-1).reshape(30, 25)
    for axis, centre, width in zip((1, 0), (15, 12), model.halo, strict=True):
        seen = difference.amax(axis).nonzero()[:, 0]
        assert (seen.min(), seen.max()) == (centre - width, centre + width)


def test_layers_are_dilated_along_x() -> None:
    """The field of one column reads, through a layer dilated n times, that of the columns n steps away."""
    lattice = make_lattice("square", (24, 5), (False, True))
    model, spins = make_model(**{**LAYERS, "layers": (1, 5)}, radius=1.0), random_spins(1, lattice.num_sites, 3)
    changed = spins.clone()
    changed[0, 12 * 5 + 2] = random_spins(1, 1, 4)[0, 0]
    difference = (predict(model, lattice, changed) - predict(model, lattice, spins)).abs().amax(-1).reshape(24, 5)
    assert difference.amax(1).nonzero()[:, 0].tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("whole", [(False, True), (True, False), (False, False), (True, True)])
@pytest.mark.parametrize("layers", [LAYERS, DILATED, PAIR, CONSERVATIVE])
def test_a_window_has_the_bits_of_the_whole_lattice(
    whole: tuple[bool, bool], precision: str, layers: dict[str, Any]
) -> None:
    """The block touches an open edge, so that its halo is missing there."""
    size = (29, 27)
    lattice = make_lattice("square", size)
    electrode_range = 0.0 if layers is LAYERS else 3.0
    model = make_model(precision=precision, electrode_range=electrode_range, **layers)
    grid = random_spins(1, lattice.num_sites, 6).reshape(*size, 3)
    expected = predict(model, lattice, grid.reshape(1, -1, 3)).reshape(*size, 3)
    start = tuple(0 if spans else 1 for spans in whole)
    shape = tuple(length if spans else 4 for length, spans in zip(size, whole, strict=True))
    axes = [np.arange(s - width, s + n + width) for s, n, width in zip(start, shape, model.halo, strict=True)]
    inside = torch.from_numpy((axes[0] >= 0) & (axes[0] < size[0]))[:, None, None]
    window = grid[axes[0] % size[0]][:, axes[1] % size[1]] * inside
    table = model.window(Block(shape, whole, lattice.periodic, (start[0], size[0]) if electrode_range else None))
    bias = torch.full((1,), 1.3, dtype=torch.float64)
    found = model(window.reshape(1, -1, 3), table, bias).field.reshape(*shape, 3)
    assert torch.equal(found, expected[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))])


def test_a_layer_is_given_no_centre_that_later_ones_do_not_see() -> None:
    model, reach = make_model(**DILATED), 2
    table = model.window(Block((4, 5), (False, False), (False, True)))
    assert table.window.stages == tuple((4 + 2 * x * reach) * (5 + 2 * y * reach) for x, y in ((5, 2), (2, 1), (0, 0)))
    width, rows = 5 + 2 * model.halo[1], table.centre_rows(1, torch.device("cpu")).numpy()
    for layer, (x, y) in enumerate(((5, 2), (2, 1), (0, 0))):
        centres = np.stack(np.divmod(rows[: table.window.stages[layer]], width)) - np.array([model.halo]).T
        assert centres.min(1).tolist() == [-x * reach, -y * reach]
        assert centres.max(1).tolist() == [3 + x * reach, 4 + y * reach]
    assert set(rows[: table.window.stages[-1]]) == set(table.outputs_of(1, torch.device("cpu"))[0].tolist())
    spanning = model.window(Block((29, 5), (True, False), (False, True)))
    assert spanning.window.stages == tuple(29 * (5 + 2 * y * reach) for y in (2, 1, 0))


@pytest.mark.parametrize("halo", [(10, 6), (12, 4)])
def test_a_halo_that_is_too_narrow_is_refused(halo: tuple[int, int]) -> None:
    """By the window, if it knows the layers, else by the model, which is given a window of fewer ones."""
    model, block = make_model(**DILATED), Block((4, 4), (False, False), (False, True))
    with pytest.raises(HpcspinError, match=f"halo of {halo[0]} x {halo[1]} sites for a reach of 2"):
        Neighbourhood.of_window(block, halo, model.offsets, layers=(1, 3, 2))
    narrow = Neighbourhood.of_window(block, halo, model.offsets, layers=(1, 3))
    with pytest.raises(HpcspinError, match="too narrow for this force field; give it 12 x 6"):
        model(random_spins(1, narrow.rows, 5), narrow, torch.ones(1))


def test_the_bits_do_not_depend_on_the_batch() -> None:
    lattice = make_lattice("square", (40, 2 * TILE["cpu"] * GROUP["cpu"] // 40))
    model, spins = make_model(precision="float32", **LAYERS), random_spins(2, lattice.num_sites, 8)
    together = predict(model, lattice, spins)
    for one, field in zip(spins, together, strict=True):
        assert torch.equal(predict(model, lattice, one[None])[0], field)


def test_training_and_evaluation_say_the_same_and_missing_sites_are_open_edges() -> None:
    lattice = make_lattice("square", (8, 5), (False, False))
    model, spins = make_model(**LAYERS), random_spins(2, lattice.num_sites, 9)
    evaluated = predict(model, lattice, spins)
    torch.testing.assert_close(predict(model.train(), lattice, spins), evaluated, rtol=0, atol=ROUNDING)
    wide = make_lattice("square", (10, 7), (False, False))
    padded = torch.nn.functional.pad(spins.reshape(2, 8, 5, 3), (0, 0, 1, 1, 1, 1)).reshape(2, -1, 3)
    for mode in (True, False):
        inside = predict(model.train(mode), wide, padded).reshape(2, 10, 7, 3)
        torch.testing.assert_close(inside[:, 1:-1, 1:-1].reshape(2, -1, 3), evaluated, rtol=0, atol=ROUNDING)
        assert not inside[:, 0].any()


def test_the_gradient_by_weights_is_that_of_finite_differences() -> None:
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(**LAYERS).train(), random_spins(2, lattice.num_sites, 10)
    target = random_spins(2, lattice.num_sites, 11)

    def loss() -> Tensor:
        return (predict(model, lattice, spins) - target).square().sum()

    loss().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            values = []
            for step in (1e-5, -2e-5):
                weight += step * direction
                values.append(loss())
            weight += 1e-5 * direction
        expected = (values[0] - values[1]) / 2e-5
        assert (weight.grad * direction).sum() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("periodic", [(False, True), (True, True), (False, False)])
def test_a_convolution_sums_what_the_tables_gather(periodic: tuple[bool, bool], dilation: int) -> None:
    """On a lattice that is shorter than what it wraps around it."""
    lattice = make_lattice("triangular", (7, 4), periodic)
    model = make_model(lattice="triangular", **LAYERS)
    table = Neighbourhood.of_lattice(lattice, model.offsets, (1, dilation))
    assert table.grid is not None
    generator = torch.Generator().manual_seed(1)
    x, kernels = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((3, 2 * 28 + 1, 5), (5 * len(model.offsets), 4))
    )
    x[:, -1] = 0
    gathered = table.tables(2, 8, x.device, dilation, 1)
    convolved = Convolution(table.grid, dilation)
    for name in ("own", "sums"):
        arguments = (x, kernels) if name == "sums" else (x,)
        expected = getattr(gathered, name)(*arguments)
        torch.testing.assert_close(getattr(convolved, name)(*arguments), expected, rtol=0, atol=1e-13)


def test_a_window_teaches_nothing() -> None:
    model = make_model(**LAYERS).train()
    window = model.window(Block((4, 4), (False, False), (False, True)))
    with pytest.raises(HpcspinError, match="learn from whole lattices"):
        model(random_spins(1, window.rows, 5), window, torch.ones(1))


@pytest.mark.parametrize("channels", [3, 12, 24])
def test_channels_widen_all_layers(channels: int) -> None:
    model = make_model(channels=channels, **LAYERS)
    assert isinstance(model, MessagePassing)
    lattice = make_lattice("square", (6, 5))
    spins = random_spins(1, lattice.num_sites, 3)
    evaluated = predict(model, lattice, spins)
    torch.testing.assert_close(predict(model.train(), lattice, spins), evaluated, rtol=0, atol=ROUNDING)
    assert [layer.writes.vectors for layer in model.layers] == 3 * [channels]
    assert model.layers[1].reads == (1 + channels, 4 * channels // 3)


def test_saved_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    lattice = make_lattice("square", (6, 5))
    model, spins = make_model(**LAYERS), random_spins(2, lattice.num_sites, 12)
    features = model.features(spins, model.neighbourhood(lattice), torch.ones(2))
    model.envelope = torch.stack([features.amin(0), features.amax(0)])
    save_model(tmp_path / "layers.safetensors", model, {})
    read, _ = load_model(tmp_path / "layers.safetensors")
    assert torch.equal(predict(read, lattice, spins), predict(model, lattice, spins))
    assert not read.outside(spins, read.neighbourhood(lattice), torch.ones(2)).any()
    strange = torch.zeros_like(spins) + torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert read.outside(strange, read.neighbourhood(lattice), torch.ones(2)).any()


def test_a_committee_of_layers_is_their_mean() -> None:
    lattice = make_lattice("square", (6, 5))
    members = [make_model(seed=seed, **LAYERS) for seed in (1, 2)]
    spins = random_spins(1, lattice.num_sites, 13)
    mean = (predict(members[0], lattice, spins) + predict(members[1], lattice, spins)) / 2
    committee = Committee(members)
    found = committee(spins, committee.neighbourhood(lattice), torch.full((1,), 1.3, dtype=torch.float64)).field
    torch.testing.assert_close(found, mean)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "site"}, r"potential\.kind: must be 'direct', 'pair' or 'conservative'"),
        ({"descriptor": "bonds"}, r"unknown key 'potential\.descriptor'"),
    ],
)
def test_what_has_no_layers_is_refused(change: dict[str, str], word: str) -> None:
    with pytest.raises(HpcspinError, match=word):
        Architecture("square", 2.0, (8,), **{**LAYERS, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "1 or more entries"),
        ({"layers": (1, 0)}, "at least 1"),
        ({"layers": (1, 2), "symmetry": "full"}, "single out the x direction"),
        ({"layers": (1, 2), "lattice": "triangular"}, "single out the x direction"),
    ],
)
def test_impossible_layers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HpcspinError, match=rf"potential.*layers.* {message}"):
        Architecture(**{"lattice": "square", "radius": 2.0, "hidden": (8,), **LAYERS, **change})
