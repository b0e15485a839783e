"""Force fields that see the polarisations of the electrodes, as frozen spins beyond the ends of x."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, perpendicular, random_spins, rotation
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Block, Neighbourhood, host_library

LATTICE = make_lattice("square", (13, 5), (False, True))
VOLTAGES = [0.7, -1.1]
LEFT, RIGHT = [0.1, 0.6, -0.3], [0.0, 0.2, 0.85]


def layered(kind: str, **changes: Any) -> Any:
    given = {"kind": kind, "layers": (1, 2), "channels": 3, "drive": "polarized", "drives": 2, "electrode_range": 4.0}
    return make_model(5, **{**given, **changes})


def driven(left: list[float] = LEFT, right: list[float] = RIGHT) -> Tensor:
    return torch.tensor([[*VOLTAGES, *left, *right]], dtype=torch.float64)


def field(model: Any, spins: Tensor, drive: Tensor, table: Neighbourhood | None = None) -> Tensor:
    found: Tensor = model(spins, table or model.neighbourhood(LATTICE), drive).field
    return found


@pytest.mark.parametrize("kind", ["direct", "pair"])
def test_the_field_turns_with_spins_and_polarisations(kind: str) -> None:
    model, spins, turn = layered(kind), random_spins(1, 65, 1), rotation(3)
    turned = driven(*((turn @ torch.tensor(p, dtype=torch.float64)).tolist() for p in (LEFT, RIGHT)))
    expected = perpendicular(spins, field(model, spins, driven())) @ turn.T
    found = perpendicular(spins @ turn.T, field(model, spins @ turn.T, turned))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    alone = perpendicular(spins @ turn.T, field(model, spins @ turn.T, driven()))
    assert (alone - expected).abs().max() > 1e-6


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["direct", "pair"])
def test_without_polarisation_the_bits_are_those_of_a_model_that_sees_none(kind: str, precision: str) -> None:
    model, plain = layered(kind, precision=precision), layered(kind, precision=precision, drive="potentials")
    spins, none = random_spins(1, 65, 2), [0.0, 0.0, 0.0]
    expected = field(plain, spins, torch.tensor([VOLTAGES], dtype=torch.float64))
    assert torch.equal(field(model, spins, driven(none, none)), expected)


def test_a_polarisation_is_seen_from_where_layers_reach_its_end() -> None:
    model, spins = layered("direct"), random_spins(1, 65, 2)
    difference = field(model, spins, driven()) - field(model, spins, driven(right=[0.0, 0.0, 0.0]))
    columns = difference.abs().amax((0, 2)).reshape(13, 5).amax(1)
    # Two reaches of two columns, one of them dilated twice: from column 13 - 6 on.
    assert columns[:7].max() == 0
    assert columns[7:].min() > 0


@pytest.mark.parametrize("kind", ["direct", "pair"])
def test_kernels_and_pytorch_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, spins = layered(kind, precision="float32"), random_spins(2, 65, 4)
    drives = torch.cat([driven(), driven(RIGHT, LEFT)])
    fast = field(model, spins, drives)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    slow = field(model, spins, drives)
    torch.testing.assert_close(fast, slow, atol=2e-5 * float(slow.abs().max()), rtol=0)
    assert not torch.equal(slow[0], field(model, spins[:1], drives[1:])[0])


@pytest.mark.parametrize("kind", ["direct", "pair"])
def test_training_sees_the_same(kind: str) -> None:
    model, spins = layered(kind), random_spins(2, 65, 5)
    drives = torch.cat([driven(), driven(RIGHT, LEFT)])
    expected = field(model, spins, drives)
    found = field(model.train(), spins, drives)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["direct", "pair"])
@pytest.mark.parametrize("cut", [(13,), (6, 7)])
def test_blocks_have_the_bits_of_the_whole_lattice(kind: str, precision: str, cut: tuple[int, ...]) -> None:
    model, spins = layered(kind, precision=precision), random_spins(1, 65, 6)
    expected = field(model, spins, driven()).reshape(13, 5, 3)
    grid, (hx, hy), start = spins.reshape(13, 5, 3), model.halo, 0
    for columns in cut:
        block = Block((columns, 5), (len(cut) == 1, True), LATTICE.periodic, (start, 13))
        x = np.arange(start - hx, start + columns + hx)
        around = grid[x.clip(0, 12)] * torch.from_numpy((x >= 0) & (x < 13))[:, None, None]
        window = torch.nn.functional.pad(around, (0, 0, hy, hy)).reshape(1, -1, 3)
        found = field(model, window, driven(), model.window(block)).reshape(columns, 5, 3)
        assert torch.equal(found, expected[start : start + columns])
        start += columns


def test_features_are_those_of_the_sites_alone() -> None:
    model, spins = layered("direct"), random_spins(2, 65, 7)
    table, drives = model.neighbourhood(LATTICE), torch.cat([driven(), driven()])
    assert len(model.features(spins, table, drives)) == 2 * 65


def test_a_lattice_without_ends_is_refused() -> None:
    with pytest.raises(HpcspinError, match="periodic there"):
        layered("direct", electrode_range=0.0).require(make_lattice("square", (8, 4), (True, True)), "x")
