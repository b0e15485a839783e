"""Laws of the learned field: symmetry, differentiation, limits."""

import numpy as np
import pytest
import torch
from force_fields import carried, make_model, perpendicular, random_spins, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import DESCRIPTORS, Architecture, Block, Descriptor, Neighbourhood, Prediction, host_library
from hpcspin.potential.descriptors.invariants import Copy
from hpcspin.potential.irreps import symmetry_operations
from hpcspin.potential.tiles import GROUP

every_descriptor = pytest.mark.parametrize("descriptor", sorted(DESCRIPTORS))
both_lattices = pytest.mark.parametrize("kind", ["square", "triangular"])
ROUNDING = 1e-11


@pytest.fixture(params=["kernel", "torch"])
def arithmetic(request, monkeypatch):
    """With the kernels in C, where there is a compiler, and by PyTorch, as on a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(host_library, "usable", lambda *_: False)


def predict(model, lattice, spins, bias=1.3):
    return model(spins, model.neighbourhood(lattice), torch.full((len(spins),), bias, dtype=torch.float64))


@every_descriptor
@given(seed=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None)
def test_field_turns_with_the_spins(descriptor, seed):
    lattice, turn = make_lattice("square", (5, 4)), rotation(seed)
    model, spins = make_model(descriptor=descriptor), random_spins(2, lattice.num_sites, seed)
    still, turned = predict(model, lattice, spins), predict(model, lattice, spins @ turn.T)
    torch.testing.assert_close(turned.equilibrium, still.equilibrium @ turn.T, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(turned.nonequilibrium, still.nonequilibrium @ turn.T, rtol=0, atol=ROUNDING)


@both_lattices
@every_descriptor
def test_field_follows_the_point_group(kind, descriptor):
    lattice = make_lattice(kind, (6, 6), (True, True))
    model = make_model(lattice=kind, descriptor=descriptor, symmetry="full")
    spins = random_spins(1, lattice.num_sites, 1)
    field = predict(model, lattice, spins).field
    for operation in lattice.point_group:
        moved, expected = carried(lattice, operation, spins, field)
        torch.testing.assert_close(predict(model, lattice, moved).field, expected, rtol=0, atol=ROUNDING)


@both_lattices
@every_descriptor
def test_under_bias_the_y_mirror_is_left_and_the_x_mirror_is_not(kind, descriptor):
    lattice = make_lattice(kind, (6, 6), (True, True))
    model = make_model(lattice=kind, descriptor=descriptor, symmetry="bias")
    spins = random_spins(1, lattice.num_sites, 2)
    field = predict(model, lattice, spins).field
    errors = []
    for operation in (lattice.mirror_y, -lattice.mirror_y):
        moved, expected = carried(lattice, operation, spins, field)
        errors.append((predict(model, lattice, moved).field - expected).abs().max())
    assert errors[0] < ROUNDING
    assert errors[1] > 1e-3 * field.abs().max()


@both_lattices
@every_descriptor
def test_field_follows_translations(kind, descriptor):
    lattice = make_lattice(kind, (5, 6))
    model, spins = make_model(lattice=kind, descriptor=descriptor), random_spins(1, lattice.num_sites, 3)
    grid = lambda array: array.reshape(1, 5, 6, 3).roll(2, 2).reshape(1, -1, 3)  # noqa: E731
    torch.testing.assert_close(
        predict(model, lattice, grid(spins)).field, grid(predict(model, lattice, spins).field), rtol=0, atol=ROUNDING
    )


@both_lattices
@every_descriptor
@pytest.mark.parametrize("symmetry", ["full", "bias"])
def test_fields_are_derivatives_of_the_potentials(kind, descriptor, symmetry):
    """Central differences of E and G by every component of free spins, open and periodic edges."""
    lattice = make_lattice(kind, (4, 3))
    model = make_model(lattice=kind, descriptor=descriptor, symmetry=symmetry)
    spins = random_spins(1, lattice.num_sites, 4)
    step = 1e-5
    moves = step * torch.eye(spins.numel(), dtype=torch.float64).reshape(-1, *spins.shape[1:])
    plus, minus = predict(model, lattice, spins + moves), predict(model, lattice, spins - moves)
    dE = ((plus.energy - minus.energy) / (2 * step)).reshape(spins.shape)
    dG = ((plus.toroidal - minus.toroidal) / (2 * step)).reshape(spins.shape)
    predicted = predict(model, lattice, spins)
    torch.testing.assert_close(predicted.equilibrium, -dE, rtol=0, atol=1e-8)
    torch.testing.assert_close(predicted.nonequilibrium, -torch.linalg.cross(spins, dG), rtol=0, atol=1e-8)
    torch.testing.assert_close(predicted.field, predicted.equilibrium + predicted.nonequilibrium)
    assert dG.abs().max() > 1e-3


@every_descriptor
def test_without_bias_the_field_is_a_gradient(descriptor):
    lattice = make_lattice("square", (5, 4))
    unbiased = predict(make_model(descriptor=descriptor), lattice, random_spins(1, 20, 5), bias=0.0)
    assert torch.count_nonzero(unbiased.nonequilibrium) == 0
    assert torch.count_nonzero(unbiased.toroidal) == 0


def test_conservative_kind_has_no_toroidal_potential():
    lattice = make_lattice("square", (5, 4))
    predicted = predict(make_model(kind="conservative"), lattice, random_spins(1, 20, 6))
    assert torch.count_nonzero(predicted.nonequilibrium) == 0
    assert torch.equal(predicted.field, predicted.equilibrium)


@every_descriptor
def test_even_features_ignore_time_reversal(descriptor):
    lattice, spins = make_lattice("square", (5, 4)), random_spins(1, 20, 7)
    for time_reversal in ("even", "broken"):
        model = make_model(descriptor=descriptor, time_reversal=time_reversal)
        table = model.neighbourhood(lattice)
        bias = torch.zeros(len(spins))
        forward, backward = model.features(spins, table, bias), model.features(-spins, table, bias)
        parity = torch.from_numpy(model.descriptor.parity)
        torch.testing.assert_close(backward, forward * parity, rtol=0, atol=ROUNDING)
        assert bool((parity < 0).any()) == (time_reversal == "broken")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_toroidal_potential_equal_to_the_energy_damps(sign):
    """G = +λE is Landau-Lifshitz damping: dE/dt = -Σ |∇E|² λ along dS/dt = -S x H; G = -λE pumps."""
    lattice, rate = make_lattice("square", (5, 4)), 0.3
    model, spins = make_model(kind="conservative"), random_spins(1, 20, 8)
    gradient = -predict(model, lattice, spins).field
    field = -gradient - torch.linalg.cross(spins, sign * rate * gradient)
    velocity = -torch.linalg.cross(spins, field)
    power = (gradient * velocity).sum()
    expected = -sign * rate * perpendicular(spins, gradient).square().sum()
    torch.testing.assert_close(power, expected)
    damping = velocity + torch.linalg.cross(spins, -gradient)
    landau_lifshitz = -sign * rate * torch.linalg.cross(spins, torch.linalg.cross(spins, -gradient))
    torch.testing.assert_close(damping, landau_lifshitz)


def test_energy_never_rises_when_both_potentials_are_one(monkeypatch):
    """The model's own fields, with the network's two outputs made equal."""
    lattice = make_lattice("square", (5, 4))
    model, spins = make_model(), random_spins(1, 20, 9)
    last = model.network.layers[-1]
    with torch.no_grad():
        last.weight[1] = last.weight[0]
    predicted = predict(model, lattice, spins, bias=1.3)
    torch.testing.assert_close(predicted.toroidal, 1.3 / 2.0 * predicted.energy)
    velocity = -torch.linalg.cross(spins, predicted.field)
    assert -(predicted.equilibrium * velocity).sum() < -1e-3


def test_slonczewski_torque_from_a_uniform_polarisation():
    """E = 0, G = -p·ΣS gives h^neq = S x p and the torque -S x (S x p); G is a potential the kinds can express."""
    spins, p = random_spins(1, 20, 10), torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    free = spins.clone().requires_grad_()
    (dG,) = torch.autograd.grad(-(free @ p).sum(), free)
    nonequilibrium = -torch.linalg.cross(spins, dG)
    torque = -torch.linalg.cross(spins, nonequilibrium)
    expected = -torch.linalg.cross(spins, torch.linalg.cross(spins, p.expand_as(spins)))
    torch.testing.assert_close(torque, expected)


def test_fixed_layer_makes_a_slonczewski_torque_through_the_model(monkeypatch):
    """χ = -S_0·S_j with S_j the pinned polariser p: the model itself gives -S x (S x p) on the free spin.

    Open chain of two sites; the network is replaced by the feature it needs.
    """
    lattice = make_lattice("square", (2, 1), (False, False))
    model = make_model(radius=1.0, symmetry="full", hidden=(4,))

    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    model.network.forward = lambda features, bias, tile: torch.stack([0 * features[0], -features[0]])
    spins = random_spins(1, 2, 11)
    free, polariser = spins[0]
    predicted = predict(model, lattice, spins, bias=2.0)
    assert torch.count_nonzero(predicted.equilibrium) == 0
    torque = -torch.linalg.cross(free, predicted.nonequilibrium[0, 0])
    slonczewski = -torch.linalg.cross(free, torch.linalg.cross(free, polariser))
    # Two centres share the bond, and the symmetric mean of four bonds of a site is half their sum.
    torch.testing.assert_close(torque, 2 * 0.5 * slonczewski)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("whole", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("kind", ["square", "triangular"])
def test_a_window_with_a_halo_of_two_reaches_has_the_bits_of_the_whole_lattice(kind, whole, precision, arithmetic):
    """All centres that see the block are there; see test_borders.py for half as wide a halo."""
    size = (14, 13)
    lattice = make_lattice(kind, size)
    model = make_model(lattice=kind, radius=2.0, precision=precision, hidden=(16, 16))
    spins = random_spins(1, lattice.num_sites, 12)
    expected = predict(model, lattice, spins).field.reshape(*size, 3)
    start = tuple(0 if spans else 3 for spans in whole)
    shape = tuple(length if spans else 5 for length, spans in zip(size, whole, strict=True))
    halo = (2 * model.reach, 2 * model.reach)
    axes = [np.arange(s - width, s + n + width) for s, n, width in zip(start, shape, halo, strict=True)]
    inside = (axes[0] >= 0) & (axes[0] < size[0])
    grid = spins.reshape(*size, 3)
    window = grid[axes[0] % size[0]][:, axes[1] % size[1]] * torch.from_numpy(inside)[:, None, None]
    table = Neighbourhood.of_window(Block(shape, whole, lattice.periodic), halo, model.offsets)
    bias = torch.tensor([1.3], dtype=torch.float64)
    found = model(window.reshape(1, -1, 3), table, bias).field.reshape(*shape, 3)
    slices = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    assert torch.equal(found, expected[slices])


def test_evaluation_bits_do_not_depend_on_the_batch(arithmetic):
    lattice = make_lattice("square", (7, 5))
    model, spins = make_model(precision="float32", hidden=(16, 16)), random_spins(5, 35, 13)
    together = predict(model, lattice, spins).field
    alone = torch.cat([predict(model, lattice, spin[None]).field for spin in spins])
    assert torch.equal(together, alone)


@every_descriptor
def test_evaluation_bits_do_not_depend_on_how_many_tiles_go_together(descriptor, monkeypatch, arithmetic):
    lattice = make_lattice("square", (24, 24))
    model, spins = make_model(descriptor=descriptor, precision="float32"), random_spins(1, lattice.num_sites, 17)
    found = []
    for group in (1, 2, 8):
        monkeypatch.setitem(GROUP, "cpu", group)
        found.append(predict(model, lattice, spins).field)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@every_descriptor
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_evaluation_bits_do_not_depend_on_the_threads(descriptor, precision, arithmetic):
    """Layers wide enough for a library to divide its sums among the threads."""
    lattice = make_lattice("square", (24, 24))
    model = make_model(descriptor=descriptor, radius=2.3, precision=precision, hidden=(300, 200))
    spins, threads, found = random_spins(1, lattice.num_sites, 16), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(predict(model, lattice, spins).field)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@every_descriptor
@pytest.mark.parametrize("kind", ["conservative", "pair", "site"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"symmetry": "full"}, {"time_reversal": "even"}, {"lattice": "triangular"}, {"electrode_range": 2.0}],
)
def test_evaluation_has_the_fields_of_training(descriptor, kind, changes, arithmetic):
    """Training differentiates the potentials twice; in evaluation the kernels go back through the layers."""
    lattice = make_lattice(changes.get("lattice", "square"), (7, 5))
    model, spins = make_model(descriptor=descriptor, kind=kind, **changes), random_spins(3, 35, 14)
    quiet = predict(model, lattice, spins)
    model.train()
    loud = predict(model, lattice, spins)
    assert loud.field.requires_grad
    assert not quiet.field.requires_grad
    for one, other in zip(quiet, loud, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)
    assert isinstance(quiet, Prediction)


def test_weights_are_differentiated_through_the_fields():
    """The derivative of a force loss by a weight against a central difference."""
    lattice = make_lattice("square", (4, 3))
    model, spins = make_model().train(), random_spins(2, 12, 15)
    weight = model.network.layers[0].weight

    def loss():
        return predict(model, lattice, spins).field.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 1e-6
    for place in ((0, 0), (3, 17), (7, 40)):
        with torch.no_grad():
            weight[place] += step
            plus = loss()
            weight[place] -= 2 * step
            minus = loss()
            weight[place] += step
        torch.testing.assert_close(gradient[place], (plus - minus).detach() / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lattice": "cubic"}, "potential.lattice"),
        ({"kind": "triple"}, "potential.kind"),
        ({"descriptor": "moon"}, "potential.descriptor"),
        ({"symmetry": "none"}, "potential.symmetry"),
        ({"radius": 0.5}, "potential.radius"),
        ({"time_reversal": "odd"}, "potential.time_reversal"),
        ({"bias_reference": 0.0}, "bias_reference: must be greater than 0"),
    ],
)
def test_impossible_architectures_are_refused(changes, word):
    with pytest.raises(HpcspinError, match=word):
        make_model(**changes)


def test_model_of_another_lattice_is_refused():
    with pytest.raises(HpcspinError, match=r"a\.safetensors.*triangular.*square"):
        make_model().require(make_lattice("triangular", (4, 4)), "a.safetensors")


def test_symmetry_groups_have_their_orders():
    sizes = {
        kind: [len(symmetry_operations(make_lattice(kind, (3, 3)), name)) for name in ("full", "bias")]
        for kind in ("square", "triangular")
    }
    assert sizes == {"square": [8, 2], "triangular": [12, 2]}


class NearestBonds(Descriptor, registered=False):
    """The sum of S_0·S_j, derived automatically."""

    name = "nearest_bonds"

    def __init__(self, *given):
        super().__init__(*given)
        self.parity = np.array([1])

    def forward(self, spins, tile):
        return (spins[:1] * spins[1:]).sum((0, 1))[None]


class ByHand(torch.autograd.Function):
    """The same feature with its derivative: Σ_j S_j for the centre, S_0 for each neighbour."""

    uses = 0

    @staticmethod
    def forward(ctx, spins):
        ctx.save_for_backward(spins)
        return (spins[:1] * spins[1:]).sum((0, 1))[None]

    @staticmethod
    def backward(ctx, seeds):
        ByHand.uses += 1
        (spins,) = ctx.saved_tensors
        return torch.cat([spins[1:].sum(0, keepdim=True), spins[:1].expand_as(spins[1:])]) * seeds


class NearestBondsByHand(NearestBonds, registered=False):
    name = "nearest_bonds_by_hand"

    def forward(self, spins, tile):
        return ByHand.apply(spins)


@pytest.mark.parametrize("training", [False, True])
def test_a_descriptor_may_bring_its_derivative_and_needs_none(monkeypatch, training):
    """Evaluation and training, which differentiates the field again, agree with automatic differentiation."""
    lattice, spins, found = make_lattice("square", (5, 4)), random_spins(2, 20, 21), []
    for descriptor in (NearestBonds, NearestBondsByHand):
        monkeypatch.setitem(DESCRIPTORS, descriptor.name, descriptor)
        model = make_model(descriptor=descriptor.name, radius=1.0, symmetry="full").train(training)
        field = predict(model, lattice, spins).field
        loss = torch.autograd.grad(field.pow(2).sum(), list(model.parameters())) if training else ()
        found.append((field, *loss))
    assert ByHand.uses > 0
    for by_hand, automatic in zip(*found, strict=True):
        torch.testing.assert_close(by_hand, automatic, rtol=1e-12, atol=1e-14)


def test_architecture_survives_json():
    architecture = make_model().architecture
    assert Architecture(**architecture.as_dict()) == architecture


@pytest.mark.parametrize("descriptor", ["bonds", "bispectrum"])
def test_building_does_not_compare_every_copy_with_every_other(descriptor, monkeypatch):
    """They are some 100,000 at radius 10."""

    def compared(one, other):
        raise AssertionError("two copies were compared")

    monkeypatch.setattr(Copy, "__eq__", compared)
    make_model(descriptor=descriptor, time_reversal="even")
