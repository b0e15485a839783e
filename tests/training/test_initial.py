"""What a training begins with: a model of one voltage as one of the potentials of both electrodes."""

import pytest
import torch

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Architecture
from hpcspin.training.initial import continued, new_model

BIAS, LAYERS = 1.5, {"layers": [1, 2], "channels": 3, "symmetry": "bias", "electrode_range": 3.0}


def of_kind(kind: str) -> Architecture:
    return Architecture("square", 1.5, (8, 8), 1.2, kind=kind, precision="float64", **LAYERS)


@pytest.mark.parametrize("kind", ["direct", "conservative", "pair"])
def test_a_model_of_the_bias_goes_on_as_one_of_the_potentials(kind):
    """φ_2 - φ_1 is the bias, whichever of the electrodes has the voltage, and fields are equal to rounding."""
    architecture = of_kind(kind)
    model = new_model(architecture, seed=3).eval()
    wider = continued(model, architecture.changed(drive="potentials", drives=2)).eval()
    assert (wider.sees, wider.architecture.drives) == ("potentials", 2)
    lattice = make_lattice("square", (7, 5), (False, True))
    draw = torch.randn((1, lattice.num_sites, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spins = torch.nn.functional.normalize(draw, dim=-1)
    table = model.neighbourhood(lattice)
    expected = model(spins, table, torch.tensor([[BIAS]])).field
    for potentials in ([-BIAS, 0.0], [0.0, BIAS], [-1.0, 0.5]):
        found = wider(spins, table, torch.tensor([potentials])).field
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
    other = wider(spins, table, torch.tensor([[0.0, 0.0]])).field
    assert (other - expected).abs().max() > 1e-3 * expected.abs().max()


def test_a_model_of_the_bias_is_none_of_three_electrodes():
    architecture = of_kind("direct")
    with pytest.raises(HpcspinError, match=r"training\.start: the model has another drive"):
        continued(new_model(architecture, seed=3), architecture.changed(drive="potentials", drives=3))


def test_a_model_goes_on_with_the_symmetry_that_only_voltages_break():
    architecture = of_kind("direct")
    model = new_model(architecture, seed=3)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    wanted = architecture.changed(time_reversal="driven")
    going_on = continued(model, wanted)
    assert going_on.architecture == wanted
    assert all(torch.equal(weight, weights[name]) for name, weight in going_on.state_dict().items())
    with pytest.raises(HpcspinError, match=r"training\.start: the model has another time_reversal"):
        continued(going_on, architecture)
