"""Laws of the bispectrum: invariant, as large as it should be, and complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpcspin.lattice import make_lattice
from hpcspin.potential import gather, segment_backend
from hpcspin.potential.descriptors import Bispectrum
from hpcspin.potential.gather import BACKENDS
from hpcspin.potential.irreps import find_orbits, invariant, irreps_of, slot_permutations

SIZES = {
    ("square", 1.5): (9, 117),
    ("square", 2.0): (13, 205),
    ("triangular", 1.0): (7, 76),
    ("triangular", 1.8): (13, 242),
    ("triangular", 2.0): (19, 429),
}
every_size = pytest.mark.parametrize(("kind", "radius"), SIZES)
both = pytest.mark.parametrize(("kind", "radius"), [("square", 1.5), ("triangular", 1.8)])


def model_of(lattice: str, radius: float, **changes: Any) -> Any:
    given = {"descriptor": "bispectrum", "symmetry": "full", "time_reversal": "even", **changes}
    return make_model(lattice=lattice, radius=radius, **given)


def features(descriptor: Bispectrum, spins: Tensor) -> Tensor:
    """Of configurations of shape (centres, slots, 3), shape (features, centres)."""
    found: Tensor = descriptor(spins.permute(1, 2, 0), len(spins))
    return found


@every_size
def test_sizes_grow_linearly_with_the_sites(kind: str, radius: float) -> None:
    """Beside the presence of the neighbours, which nothing but an open edge changes."""
    model = model_of(kind, radius)
    sites, size = SIZES[kind, radius]
    assert len(model.offsets) == sites
    assert len(model.descriptor.parity) - len(model.descriptor.presence_counts) == size


@both
@given(seed=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None)
def test_operations_and_time_reversal_change_nothing(kind: str, radius: float, seed: int) -> None:
    model = model_of(kind, radius)
    spins = random_spins(3, len(model.offsets), seed)
    expected = features(model.descriptor, spins)
    for permutation in slot_permutations(model.offsets, model.operations):
        torch.testing.assert_close(features(model.descriptor, spins[:, permutation]), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(features(model.descriptor, -spins), expected, rtol=0, atol=1e-12)


def changed(model: Any, coefficients: Tensor, chosen: list[bool], matrices: Any) -> Tensor:
    """Coefficients (coefficients, centres) of which the chosen copies are transformed like their irreps."""
    parts, start = [], 0
    for copy, changes in zip(model.descriptor.coefficients.copies, chosen, strict=True):
        part = coefficients[start : (start := start + len(copy.places))]
        parts.append(torch.from_numpy(matrices[copy.irrep]) @ part if changes else part)
    return torch.cat(parts)


def features_of(descriptor: Bispectrum, coefficients: Tensor, spins: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(descriptor.coefficients, "forward", lambda spins: coefficients)
        return features(descriptor, spins)


@both
def test_an_orbit_that_is_transformed_alone_is_seen(kind: str, radius: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind, radius)
    descriptor, spins = model.descriptor, random_spins(4, len(model.offsets), 1)
    irreps, coefficients = (
        irreps_of(model.geometry, model.operations),
        model.descriptor.coefficients(spins.permute(1, 2, 0)),
    )
    expected = features(descriptor, spins)
    orbits = [copy.places[0] // len(model.operations) for copy in descriptor.coefficients.copies]
    moved = 0
    for orbit in set(orbits):
        for operation in range(len(model.operations)):
            matrices = [irrep[operation] for irrep in irreps]
            other = changed(model, coefficients, [number == orbit for number in orbits], matrices)
            if (other - coefficients).abs().max() > 1e-6:
                moved += 1
                seen = features_of(descriptor, other, spins, monkeypatch) - expected
                assert bool((seen.abs().amax(0) > 1e-3).all()), (orbit, operation)
    assert moved > len(model.operations)


@both
def test_an_irrep_that_is_transformed_alone_is_seen_by_triple_products(
    kind: str, radius: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what an operation of the group does: the power spectrum and products with references see none of it."""
    model = model_of(kind, radius)
    descriptor, spins = model.descriptor, random_spins(4, len(model.offsets), 2)
    irreps, coefficients = (
        irreps_of(model.geometry, model.operations),
        model.descriptor.coefficients(spins.permute(1, 2, 0)),
    )
    expected, copies = features(descriptor, spins), descriptor.coefficients.copies
    others = [copy for copy in copies if copy.irrep or copy.parity < 0]
    second_order = len(copies) - len(others) + 2 * len(others)
    moved = 0
    for number, irrep in enumerate(irreps):
        for matrix in irrep:
            alone = [matrix if n == number else np.eye(other.shape[1]) for n, other in enumerate(irreps)]
            same = [np.isclose(other, one).all((1, 2)) for other, one in zip(irreps, alone, strict=True)]
            if np.logical_and.reduce(same).any():
                continue
            moved += 1
            other = changed(model, coefficients, [copy.irrep == number for copy in copies], alone)
            seen = (features_of(descriptor, other, spins, monkeypatch) - expected).abs()
            assert bool((seen.amax(0) > 1e-3).all()), number
            assert seen[:second_order].max() < 1e-12
    assert moved > len(irreps)


@every_size
def test_all_spins_are_seen_but_for_a_common_rotation(kind: str, radius: float) -> None:
    """Rank of the Jacobian over the two tangents of every spin."""
    model = model_of(kind, radius)
    spins = random_spins(1, len(model.offsets), 3)[0]
    of_one = torch.autograd.functional.jacobian(lambda spins: model.descriptor(spins[..., None], 1)[:, 0], spins)
    jacobian = of_one.movedim(0, 1)
    first = torch.linalg.cross(spins, random_spins(1, len(spins), 4)[0])
    tangents = torch.stack([first, torch.linalg.cross(spins, first)], -1)
    values = torch.linalg.svdvals(torch.einsum("sfx,sxt->fst", jacobian, tangents).flatten(1))
    rank = 2 * len(spins) - 3
    assert values[rank - 1] > 1e-6 * values[0]
    assert values[rank:].max() < 1e-12 * values[0]


@pytest.mark.skipif(segment_backend() != BACKENDS[0], reason="torch-scatter is not installed (see launch/test.sh)")
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("training", [False, True])
def test_both_backends_make_the_same_bits(precision: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for backend in BACKENDS:
        monkeypatch.setattr(gather, "segment_backend", lambda backend=backend: backend)
        model = model_of("triangular", 1.8, kind="conservative", precision=precision).train(training)
        lattice, spins = make_lattice("triangular", (6, 5), (True, True)), random_spins(2, 30, 5)
        prediction = model(spins, model.neighbourhood(lattice), torch.zeros(2))
        found.append(prediction.field.detach())
        if training:
            prediction.field.square().sum().backward()
            found[-1] = torch.cat([found[-1].flatten(), *(w.grad.flatten() for w in model.parameters())])
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_invariant_vectors_are_invariant_and_as_many_as_characters_tell(kind: str) -> None:
    model = model_of(kind, 1.0)
    irreps = irreps_of(model.geometry, model.operations)
    for one in irreps:
        for two in irreps:
            for three in irreps:
                traces = [np.trace(irrep, axis1=1, axis2=2) for irrep in (one, two, three)]
                count = round(np.prod(traces, 0).mean())
                vector = invariant(one, two, three)
                assert count == (vector is not None)
                if vector is None:
                    continue
                assert np.isclose(np.linalg.norm(vector), 1)
                turned = np.einsum("gad,gbe,gcf,def->gabc", one, two, three, vector)
                np.testing.assert_allclose(turned, np.broadcast_to(vector, turned.shape), atol=1e-12)


def test_only_neighbours_close_to_each_other_have_bonds_and_chiralities() -> None:
    """Every close pair once; the bonds with the centre are there at any distance."""
    model = model_of("square", 2.0)
    members = {kind: set[tuple[int, int]]() for kind in ("bond", "chirality")}
    numbers = {copy.places[0] // len(model.operations) for copy in model.descriptor.coefficients.copies}
    places = model.offsets
    close = {
        (j, k)
        for j in range(1, len(places))
        for k in range(j + 1, len(places))
        if np.abs(places[j] - places[k]).max() == 1
    }
    for orbit in find_orbits(places, model.operations, sorted(close)):
        members[orbit.kind] |= orbit.members
    assert members["chirality"] == close
    assert members["bond"] == close | {(0, j) for j in range(1, len(places))}
    assert len(numbers) == len(find_orbits(places, model.operations, sorted(close)))
