"""The kernel of potentials of sums of products says what PyTorch says, and no centre knows of another."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins
from torch import Tensor

from hpcspin.lattice import Lattice, make_lattice
from hpcspin.potential import ForceField, Prediction, host_library
from hpcspin.potential.polynomials import Polynomials

BISPECTRUM: dict[str, Any] = {"kind": "pair", "descriptor": "bispectrum", "precision": "float32"}
PRECISIONS = ("float32", "float64")
BIAS = torch.full((1,), 1.3, dtype=torch.float64)

needs_kernel = pytest.mark.skipif(
    host_library.library(torch.float32, host_library.POTENTIALS) is None, reason="there is no C compiler, or it fails"
)


def predict(model: ForceField, lattice: Lattice, spins: Tensor) -> Prediction:
    found: Prediction = model(spins, model.neighbourhood(lattice), BIAS.expand(len(spins)))
    return found


@needs_kernel
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("square", {}),
        ("square", {"kind": "site", "symmetry": "full", "hidden": (24,)}),
        ("square", {"kind": "conservative", "time_reversal": "even", "electrode_range": 3.0, "hidden": (8, 24, 16)}),
        ("triangular", {"symmetry": "full", "time_reversal": "even"}),
        ("square", {"descriptor": "bonds"}),
        ("square", {"descriptor": "densities"}),
        ("triangular", {"descriptor": "densities", "symmetry": "full", "time_reversal": "even"}),
    ],
)
def test_it_is_the_field_of_the_network(monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]) -> None:
    """Against PyTorch in double precision, to the rounding of both precisions; one site of the lattice is missing."""
    lattice = make_lattice(kind, (11, 7))
    given = {"lattice": kind, **BISPECTRUM, **changes}
    single, double = (make_model(**{**given, "precision": name}) for name in PRECISIONS)
    double.load_state_dict(single.state_dict())
    spins = random_spins(2, lattice.num_sites, 3)
    spins[:, 17] = 0
    found, exactly = predict(single, lattice, spins), predict(double, lattice, spins)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    for name, expected in predict(double, lattice, spins)._asdict().items():
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(getattr(found, name).double(), expected, rtol=0, atol=2e-5 * scale)
        torch.testing.assert_close(getattr(exactly, name), expected, rtol=0, atol=1e-12 * scale)
    assert found.field.abs().max() > 1e-3
    assert not torch.equal(exactly.field, predict(double, lattice, spins).field)


@needs_kernel
@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_and_neighbours_in_the_batch_change_no_bit(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    lattice = make_lattice("square", (31, 17))
    model = make_model(**{**BISPECTRUM, "radius": 1.5, "precision": precision})
    spins = random_spins(2, lattice.num_sites, 8)
    together = predict(model, lattice, spins).field
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for one, field in zip(spins, together, strict=True):
            assert torch.equal(predict(model, lattice, one[None]).field[0], field)


@needs_kernel
def test_new_weights_are_noticed_and_copies_have_their_own() -> None:
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(**{**BISPECTRUM, "radius": 1.5}), random_spins(1, lattice.num_sites, 8)
    before = predict(model, lattice, spins).field
    for change in ("weights", "normalisation"):
        copied = copy.deepcopy(model)
        network = copied.networks[0]
        with torch.no_grad():
            (network.mean if change == "normalisation" else network.layers[0].weight).add_(0.5)  # type: ignore[operator]
        assert not torch.equal(predict(copied, lattice, spins).field, before)
        assert torch.equal(predict(model, lattice, spins).field, before)


def test_sums_of_products_are_written_in_the_order_of_their_rows() -> None:
    """Of two slots: S_0·(S_0 x S_1) vanishes, (S_0 x S_1)·(S_0 x S_1) = 1 - (S_0·S_1)²."""
    written, spins = Polynomials(2), random_spins(1, 2, 3)[0].numpy()
    crossed = written.crossed(written.spins[0], written.spins[1:])
    bond, none, square = written.dots(
        np.concatenate([written.spins[:1], written.spins[:1], crossed]),
        np.concatenate([written.spins[1:], crossed, crossed]),
    )
    (sum_of_both,) = written.mapped(np.array([[2.0, 3.0]]), np.array([bond, square]))
    ends, factors, left, right = written.tables()
    rows = [1.0, *spins.ravel(), 1.0, 1.0]
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        terms = range(first, last)
        rows.append(sum(factors[t] * rows[left[t]] * rows[right[t]] for t in terms))
    angle = float(spins[0] @ spins[1])
    expected = [angle, 0.0, 1 - angle**2, 2 * angle + 3 * (1 - angle**2)]
    np.testing.assert_allclose([rows[n] for n in (bond, none, square, sum_of_both)], expected, atol=1e-12)
