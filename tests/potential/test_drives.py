"""Force fields that see the potential of each reservoir: what drives is a list of signed voltages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, perpendicular, random_spins
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Architecture, Prediction, host_library

LATTICE = make_lattice("square", (7, 5), (False, True))
VOLTAGES = torch.tensor([[0.7, -1.1]])
NONE = torch.zeros(1, 2)


def layered(kind: str, **changes: Any) -> Any:
    given = {"kind": kind, "layers": (1, 2), "channels": 3, "drive": "potentials", "drives": 2, "electrode_range": 4.0}
    return make_model(5, **{**given, **changes})


def predict(model: Any, spins: Tensor, voltages: Tensor) -> Prediction:
    found: Prediction = model(spins, model.neighbourhood(LATTICE), voltages)
    return found


@pytest.mark.parametrize("kind", ["pair", "conservative"])
def test_the_field_is_the_derivative_of_e_and_g_at_any_voltages(kind: str) -> None:
    model, spins = layered(kind), random_spins(1, LATTICE.num_sites, 1)
    found, step = predict(model, spins, VOLTAGES), 1e-5
    for site, axis in ((0, 0), (11, 1), (33, 2)):
        slopes = []
        for potential in ("energy", "toroidal"):
            ends = []
            for sign in (1, -1):
                moved = spins.clone()
                moved[0, site, axis] += sign * step
                ends.append(getattr(predict(model, moved, VOLTAGES), potential)[0])
            slopes.append((ends[0] - ends[1]) / (2 * step))
        assert float(found.equilibrium[0, site, axis]) == pytest.approx(-float(slopes[0]), abs=1e-8)
        # The component a of S x dG/dS needs the two others; rotated back, n = h x S is perpendicular to S.
        back = torch.linalg.cross(found.nonequilibrium[0, site], spins[0, site])
        if kind == "conservative":
            assert not found.nonequilibrium.any()
        else:
            along = spins[0, site, axis] * float(torch.dot(spins[0, site], gradient(model, spins, site)))
            assert float(back[axis]) == pytest.approx(-float(slopes[1] - along), abs=1e-8)


def gradient(model: Any, spins: Tensor, site: int, step: float = 1e-5) -> Tensor:
    """dG/dS of a site by central differences."""
    parts = []
    for axis in range(3):
        moved = spins.repeat(2, 1, 1)
        moved[0, site, axis] += step
        moved[1, site, axis] -= step
        ends = [predict(model, one[None], VOLTAGES).toroidal[0] for one in moved]
        parts.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(parts)


def test_without_voltages_the_field_is_a_gradient() -> None:
    model, spins = layered("pair"), random_spins(1, LATTICE.num_sites, 2)
    found = predict(model, spins, NONE)
    assert not found.nonequilibrium.any()
    assert not found.toroidal.any()
    assert found.equilibrium.any()
    driven = predict(model, spins, VOLTAGES)
    assert driven.nonequilibrium.abs().max() > 1e-6
    reversed_ = predict(model, spins, -VOLTAGES)
    assert not torch.allclose(driven.field, reversed_.field)


@pytest.mark.parametrize("kind", ["pair", "conservative", "direct"])
def test_each_configuration_of_a_batch_has_its_own_voltages(kind: str) -> None:
    model, spins = layered(kind), random_spins(3, LATTICE.num_sites, 3)
    voltages = torch.tensor([[0.7, -1.1], [0.0, 0.0], [-2.0, 0.3]])
    together = predict(model, spins, voltages).field
    for number in range(3):
        alone = predict(model, spins[number : number + 1], voltages[number : number + 1]).field
        assert torch.allclose(together[number], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["pair", "conservative", "direct"])
def test_kernels_and_pytorch_agree_on_several_voltages(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, spins = layered(kind, precision="float32"), random_spins(1, LATTICE.num_sites, 4)
    kernels = predict(model, spins, VOLTAGES)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    pytorch = predict(model, spins, VOLTAGES)
    for one, other in ((kernels.field, pytorch.field), (kernels.energy, pytorch.energy)):
        assert torch.allclose(one, other, rtol=2e-5, atol=2e-5 * float(other.abs().max()))
    assert torch.allclose(kernels.toroidal, pytorch.toroidal, rtol=1e-4, atol=1e-5)


def test_the_field_turns_with_the_spins_at_any_voltages() -> None:
    model, spins = layered("pair"), random_spins(1, LATTICE.num_sites, 6)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    turned = predict(model, spins @ quarter.T, VOLTAGES).field
    expected = predict(model, spins, VOLTAGES).field @ quarter.T
    assert torch.allclose(perpendicular(spins @ quarter.T, turned), perpendicular(spins @ quarter.T, expected))


@pytest.mark.parametrize("changes", [{"drives": 2}, {"drives": 0}, {"drive": "potentials", "drives": 0}])
def test_as_many_voltages_as_the_drive_has(changes: dict[str, Any]) -> None:
    with pytest.raises(HpcspinError, match="drives: "):
        Architecture("square", 1.0, (4,), kind="direct", layers=(1,), channels=3, **changes)


@pytest.mark.parametrize("drive", [0.7, (0.7,), (0.7, -1.1, 0.0)])
def test_other_numbers_of_voltages_than_the_model_sees_are_refused(drive: Any) -> None:
    spins = random_spins(1, LATTICE.num_sites, 6).reshape(1, *LATTICE.size, 3).numpy()
    with pytest.raises(HpcspinError, match=r"drive: the model sees 2 numbers, not [13]"):
        layered("pair").predict(spins, LATTICE, drive)


def test_the_card_of_a_model_of_one_bias_does_not_count_its_voltages() -> None:
    given = {"kind": "direct", "layers": (1,), "channels": 3}
    assert "drives" not in Architecture("square", 1.0, (4,), **given).as_dict()
    several = Architecture("square", 1.0, (4,), drive="potentials", drives=2, **given)
    assert Architecture(**several.as_dict()).drives == 2
    assert np.isclose(several.bias_reference, 1.0)
