"""Cavity Green's functions: exact without loops, and better the farther from the real axis with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, make_lattice
from hpcspin.potential import Architecture, Cavity, CavityFunctions, cavity, load_model, save_model
from hpcspin.potential.cavity import Walk
from hpcspin.potential.neighbourhood import Neighbourhood, offsets_within

EXCHANGE, WIDTH = 3.8, 0.7
ENERGIES = ((-3.2, 0.35), (0.2, 0.5), (-1.0, 1.5))
SIGMA = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
FIELD: dict[str, Any] = {
    "kind": "direct",
    "descriptor": "densities",
    "layers": (1, 2),
    "cavity": {"exchange": EXCHANGE, "energies": ENERGIES, "width": WIDTH, "sweeps": 3},
}


def functions(
    lattice: Lattice, spins: Tensor, sweeps: int, energies: tuple[tuple[float, float], ...] = ENERGIES
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """a (batch, sites, energies) and b (batch, sites, 3, energies) of G_ii."""
    offsets = offsets_within(lattice, 1.0)[1:]
    made = CavityFunctions(Cavity(EXCHANGE, energies, WIDTH, sweeps), offsets)
    bonds = Neighbourhood.of_lattice(lattice, offsets, walk=Walk(offsets, sweeps)).bonds
    assert bonds is not None
    vectors, scalars = made(spins, bonds)
    assert torch.equal(vectors[..., 0], spins)
    assert torch.equal(scalars[..., 0] > 0, spins.abs().sum(-1) > 0)
    found = (part[..., 1:].double().unflatten(-1, (2, -1)).numpy() for part in (scalars, vectors))
    a, b = (part[..., 0, :] + 1j * part[..., 1, :] for part in found)
    return a, b


def dense(
    lattice: Lattice, spins: NDArray[np.float64], energies: tuple[tuple[float, float], ...] = ENERGIES
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The same by the inverse of z - H, whose missing sites are left out."""
    there = np.flatnonzero(np.abs(spins).sum(-1))
    number, size = {site: n for n, site in enumerate(there)}, len(there)
    h = np.zeros((size, 2, size, 2), complex)
    for site, n in number.items():
        h[n, :, n, :] = -EXCHANGE * np.einsum("a,aij->ij", spins[site], SIGMA)
        if site // lattice.size[1] in (0, lattice.size[0] - 1):
            h[n, :, n, :] -= 1j * WIDTH * np.eye(2)
        for other in lattice.shift(offsets_within(lattice, 1.0)[1:])[site]:
            if other in number:
                h[n, :, number[other], :] -= np.eye(2)
    a = np.zeros((len(spins), len(energies)), complex)
    b = np.zeros((len(spins), 3, len(energies)), complex)
    for e, (real, imag) in enumerate(energies):
        g = np.linalg.inv((real + 1j * imag) * np.eye(2 * size) - h.reshape(2 * size, -1)).reshape(h.shape)
        own = np.einsum("nsnt->nst", g)
        a[there, e] = np.einsum("nss->n", own) / 2
        b[there, :, e] = np.einsum("nst,ats->na", own, SIGMA) / 2
    return a, b


def comb(seed: int) -> tuple[Lattice, Tensor]:
    """A lattice whose sites are a comb, which has no loops, and holes."""
    lattice = make_lattice("square", (9, 5), (False, False))
    spins = random_spins(2, lattice.num_sites, seed).reshape(2, 9, 5, 3)
    spins[:, 1::2, 1:] = 0
    return lattice, spins.reshape(2, -1, 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_without_loops_they_are_exact(dtype: torch.dtype, tolerance: float) -> None:
    lattice, spins = comb(1)
    for one in spins:
        found, exact = functions(lattice, one[None].to(dtype), 20), dense(lattice, one.numpy())
        for mine, theirs in zip(found, exact, strict=True):
            assert np.abs(mine[0] - theirs).max() < tolerance
            assert not mine[0][one.abs().sum(-1) == 0].any()


@pytest.mark.parametrize(("kind", "shortest"), [("square", 4), ("triangular", 3)])
def test_loops_are_missing_to_the_order_of_the_shortest_one(kind: str, shortest: int) -> None:
    """A loop of n bonds adds a term of the order 1/z^(n + 1)."""
    lattice = make_lattice(kind, (8, 8))
    spins = random_spins(1, lattice.num_sites, 2)
    far = ((0.0, 40.0), (0.0, 80.0))
    found, exact = functions(lattice, spins, 12, far), dense(lattice, spins[0].numpy(), far)
    errors = np.abs(found[0][0] - exact[0]).max(0)
    assert errors[0] / errors[1] == pytest.approx(2 ** (shortest + 1), rel=0.05)


def test_they_see_as_many_bonds_as_there_are_sweeps() -> None:
    lattice = make_lattice("square", (13, 13))
    spins = random_spins(1, lattice.num_sites, 3)
    changed = spins.clone()
    changed[0, 6 * 13 + 6] = random_spins(1, 1, 4)[0, 0]
    before, after = (functions(lattice, given, 4)[1] for given in (spins, changed))
    x, y = np.abs(np.indices((13, 13)) - 6)
    assert np.array_equal(np.abs(after - before).max((0, 2, 3)).reshape(13, 13) > 0, x + y <= 4)


def test_both_ways_to_compute_them_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """More energies than fill a vector of the kernel, and PyTorch in parts."""
    lattice, spins = comb(5)
    energies = tuple((0.3 * n - 2, 0.4) for n in range(11))
    exact = functions(lattice, spins, 3, energies)
    single = functions(lattice, spins.float(), 3, energies)
    monkeypatch.setattr(cavity, "usable", lambda *_: False)
    monkeypatch.setattr(cavity, "_TOGETHER", 4 * spins[..., 0].numel())
    for others in (single, functions(lattice, spins.float(), 3, energies)):
        for mine, theirs in zip(others, exact, strict=True):
            assert np.abs(mine - theirs).max() < 3e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_units_are_differences_from_a_mean(dtype: torch.dtype) -> None:
    """A mean of the scalars, and of the vectors a multiple of the spin, which is nothing where a site is missing."""
    lattice, spins = comb(6)
    offsets = offsets_within(lattice, 1.0)[1:]
    made = CavityFunctions(Cavity(EXCHANGE, ENERGIES), offsets).to(dtype)
    bonds = Neighbourhood.of_lattice(lattice, offsets, walk=Walk(offsets, 4)).bonds
    assert bonds is not None
    spins = spins.to(dtype)
    vectors, scalars = made(spins, bonds)
    means, variances = torch.rand(2, 6, dtype=dtype), 0.1 + torch.rand(2, 6, dtype=dtype)
    made.normalise(means, variances)
    there = (spins.abs().sum(-1, keepdim=True) > 0).to(dtype)
    expected = (
        (vectors[..., 1:] - spins[..., None] * means[1]) / variances[1].sqrt(),
        (scalars[..., 1:] - means[0]) / variances[0].sqrt() * there,
    )
    for found, exact in zip(made(spins, bonds), expected, strict=True):
        torch.testing.assert_close(found[..., 1:], exact, rtol=0, atol=1e-5)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = make_lattice("square", (31, 17))
    spins = random_spins(1, lattice.num_sites, 8, torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = functions(lattice, spins, 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for mine, theirs in zip(alone, functions(lattice, spins, 3), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_model_keeps_them(tmp_path: Any) -> None:
    model, lattice = make_model(**FIELD), make_lattice("square", (9, 6))
    spins, bias = random_spins(1, lattice.num_sites, 1), torch.ones(1)
    model.cavity.normalise(torch.rand(2, 6), 0.1 + torch.rand(2, 6))  # type: ignore[union-attr, operator]
    save_model(tmp_path / "model.safetensors", model, {})
    again, _ = load_model(tmp_path / "model.safetensors")
    assert again.architecture == model.architecture
    expected = model(spins, model.neighbourhood(lattice), bias).field
    assert torch.equal(again(spins, again.neighbourhood(lattice), bias).field, expected)


def test_the_electrodes_must_be_known() -> None:
    model, spins = make_model(**FIELD), random_spins(1, 30, 1)
    ring = make_lattice("square", (6, 5), (True, True))
    with pytest.raises(HpcspinError, match="distance to electrodes at the ends of x, this lattice is periodic"):
        model.require(ring, "spins.h5")
    with pytest.raises(HpcspinError, match="electrodes at both ends of x, and here are none"):
        model(spins, model.neighbourhood(ring), torch.ones(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energies": ()}, "there are none"),
        ({"energies": ((0.0, 0.0),)}, "not above the real axis"),
        ({"width": -1.0}, "width: -1.0 is negative"),
        ({"sweeps": 0}, "sweeps: 0 see no neighbour"),
    ],
)
def test_impossible_ones_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HpcspinError, match=message):
        Cavity(**{"exchange": 1.0, "energies": ENERGIES, **changes})


def test_they_are_for_fields_of_several_layers() -> None:
    with pytest.raises(HpcspinError, match="fields of several layers"):
        Architecture("square", 2.0, (8,), cavity=FIELD["cavity"])
    with pytest.raises(HpcspinError, match="electrodes single out the x direction"):
        Architecture("square", 2.0, (8,), **{**FIELD, "layers": (1, 1), "symmetry": "full"})
