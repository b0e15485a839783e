"""Metrics by sums and counts, shares of ranks, batches."""

import json
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher import BIAS, CPU, SIZE, write_data, write_shard

from hpcspin.errors import HpcspinError
from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, Committee, make_force_field
from hpcspin.storage import read_manifest, write_manifest
from hpcspin.training import Errors, calibrate, evaluate, examine
from hpcspin.training.dataset import epoch_batches, epoch_plan, load_shares, split_shards
from hpcspin.training.metrics import tangent_components
from hpcspin.training.optimisers import learning_rate_factor
from hpcspin.training.sources import read_source


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PLACES = np.stack([np.zeros(40, int), np.arange(40)], axis=1)
"""Of 40 snapshots of one file."""


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(draw(*shape, 3, seed=seed), dim=-1)


def test_tangent_components_hold_the_perpendicular_field():
    spins = torch.cat([unit(50, seed=1), torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    field = draw(56, 3, seed=2)
    components = tangent_components(spins, field)
    torch.testing.assert_close(components.square().sum(-1), perpendicular(spins, field).square().sum(-1))
    torch.testing.assert_close(tangent_components(spins, spins), torch.zeros(56, 2, dtype=torch.float64))


def test_metrics_are_what_they_say():
    """An error drawn with a known spread on top of a known field; nothing along the spin counts."""
    spins, exact = unit(40, 50), draw(40, 50, 3, seed=1)
    predicted = exact + 0.1 * draw(40, 50, 3, seed=2) + 7 * spins
    errors = Errors()
    errors.add(spins, predicted, exact, PLACES)
    summary = errors.summary()
    assert summary["mse"] == pytest.approx(0.01, rel=0.05)
    assert summary["sigma"] == pytest.approx(0.1, rel=0.03)
    assert summary["variance_fraction"] == pytest.approx(0.01, rel=0.08)
    assert summary["snapshots"] == 40
    by_hand = perpendicular(spins, predicted - exact).square().sum(-1).mean() / 2
    assert summary["mse"] == pytest.approx(float(by_hand), rel=1e-12)


def test_metrics_are_numbers_even_where_nothing_varies(tmp_path):
    """Fields along the spins have no perpendicular component, and equal members no spread."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spins"] = file["field"] = np.broadcast_to([0.0, 0.0, 1.0], (2, *SIZE, 3))
    found = evaluate(small_model(), [tmp_path / "a.h5"], World(), CPU)
    assert "variance_fraction" not in found
    committee = Committee([small_model(), small_model()])
    told = calibrate(committee, [tmp_path / "a.h5"], World(), CPU)
    assert (told["factor"], told["rank_correlation"]) == (None, None)
    assert "NaN" not in json.dumps([found, told])


def test_a_rank_without_a_snapshot_adds_nothing_to_a_calibration(tmp_path, monkeypatch):
    write_shard(tmp_path / "a.h5", 1, 1)
    others = np.arange(1.0, 5.0)
    monkeypatch.setattr(World, "allgather", lambda _, mine: [others, mine])
    told = calibrate(Committee([small_model(), small_model()]), [tmp_path / "a.h5"], World(1, 2), CPU)
    assert told["factor"] == 1
    assert [share["spread"] for share in told["bins"]] == others.tolist()


def test_a_zero_prediction_leaves_the_whole_variance():
    spins, exact = unit(40, 500), draw(40, 500, 3, seed=1)
    errors = Errors()
    errors.add(spins, torch.zeros_like(exact), exact, PLACES)
    assert errors.summary()["variance_fraction"] == pytest.approx(1.0, rel=1e-3)


@given(total=st.integers(1, 60), batch=st.integers(1, 12), epoch=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_visits_every_snapshot_once(total, batch, epoch):
    batches = epoch_batches(total, batch, 3, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(total))
    assert all(0 < len(members) <= batch for members in batches)
    for members in batches:
        assert len(set((members % batch).tolist())) == len(members)


def test_the_order_changes_from_epoch_to_epoch_and_with_the_seed():
    orders = {
        tuple(np.concatenate(epoch_batches(40, 8, seed, epoch)).tolist()) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_shares_of_the_ranks_are_the_data(tmp_path, ranks):
    data = write_data(tmp_path / "data", (7, 6, 1))
    shards = read_manifest(data)[:3]
    worlds = [World(rank, ranks) for rank in range(ranks)]
    sources = {shard.file: read_source(data / shard.file, "square", 0.0) for shard in shards}
    shares = [load_shares(data, shards, sources, world, 5, torch.float64)[0] for world in worlds]
    assert sorted(np.concatenate([share.numbers for share in shares]).tolist()) == list(range(14))
    assert {share.total for share in shares} == {14}
    whole = np.concatenate([h5py.File(data / shard.file)["spins"][:] for shard in shards]).reshape(14, -1, 3)
    for share in shares:
        np.testing.assert_array_equal(share.spins.numpy(), whole[share.numbers])
        assert share.bias[:, 0].tolist() == [BIAS] * len(share.numbers)
        np.testing.assert_array_equal(share.numbers[share.rows(np.arange(14))], share.numbers)
        np.testing.assert_array_equal(share.files, np.repeat([0, 1, 2], (7, 6, 1))[share.numbers])


def test_shards_are_split_by_file(tmp_path):
    data = write_data(tmp_path / "data")
    split = split_shards([data], ["z.h5"], World())
    assert split_shards([data], [str(data / "z.h5")], World()) == split
    assert [shard.file for shard in split.train] == ["a.h5", "b.h5"]
    assert [shard.file for shard in split.validation] == ["z.h5"]
    with pytest.raises(HpcspinError, match=r"'y\.h5' is not in the manifest"):
        split_shards([data], ["y.h5"], World())
    with pytest.raises(HpcspinError, match="leave some"):
        split_shards([data], ["a.h5", "b.h5", "z.h5"], World())


def test_a_spoilt_shard_is_refused(tmp_path):
    data = write_data(tmp_path / "data")
    with h5py.File(data / "b.h5", "r+") as file:
        file["field"][0] = 0
    with pytest.raises(HpcspinError, match=r"b\.h5.*SHA-256"):
        split_shards([data], ["z.h5"], World())


def test_shards_of_two_lattices_are_two_lists(tmp_path):
    data = write_data(tmp_path / "data")
    with h5py.File(data / "b.h5", "w") as file:
        file["spins"] = unit(2, 6, 4).numpy()
        file["field"] = draw(2, 6, 4, 3).numpy()
    shards = write_manifest(data)
    sources = {shard.file: read_source(data / shard.file, "square", 0.0) for shard in shards}
    wide, narrow = load_shares(data, shards, sources, World(), 1, torch.float64)
    assert narrow.lattice.size == (6, 4)
    assert narrow.total == 2
    assert wide.total + 2 == sum(shard.snapshots for shard in shards)
    assert wide.spins.shape[1] == wide.lattice.num_sites


@pytest.mark.parametrize("totals", [(5,), (7, 4), (3, 9, 1)])
def test_an_epoch_over_several_lists_visits_every_snapshot_of_each_once(totals):
    plan = epoch_plan(totals, 3, 1, 2)
    for number, total in enumerate(totals):
        members = np.concatenate([members for which, members in plan if which == number])
        assert sorted(members.tolist()) == list(range(total))
    if len(totals) > 1:
        assert [which for which, _ in plan] != sorted(which for which, _ in plan)


def errors_of(wrong, files, sites=72):
    """Errors of snapshots that are wrong by given amounts."""
    errors = Errors()
    for number, (amount, file) in enumerate(zip(wrong, files, strict=True)):
        spins = unit(1, sites, seed=number % 7)
        predicted = amount * draw(1, sites, 3, seed=1000 + number)
        errors.add(spins, predicted, torch.zeros_like(predicted), np.array([[file, number]]))
    return errors


def test_the_error_of_the_mean_is_its_scatter_over_repetitions():
    """Files of two sizes, of trajectories each wrong by an amount of its own."""
    found = []
    for repetition in range(300):
        errors, generator = Errors(), np.random.default_rng(repetition)
        for file, sites in enumerate((8, 24) * 6):
            spins, seed = unit(2, sites, seed=file), 1000 * repetition + file
            wrong = generator.exponential() * draw(2, sites, 3, seed=seed)
            errors.add(spins, wrong, torch.zeros_like(wrong), np.array([[file, 0], [file, 1]]))
        assert errors.mse.shape == (24,)
        found.append((errors.summary()["mse"], errors.summary()["mse_error"]))
    values, claimed = np.array(found).T
    assert np.sqrt(np.mean(claimed**2)) == pytest.approx(values.std(), rel=0.15)


def test_the_error_of_one_trajectory_counts_its_independent_snapshots():
    """An autoregressive series of errors: as many repetitions scatter as much as each of them claims."""
    found = []
    for repetition in range(200):
        generator, series = np.random.default_rng(repetition), [0.0]
        for _ in range(149):
            series.append(0.8 * series[-1] + 0.6 * generator.standard_normal())
        sums = np.tile([2.0, 0, 0, 0, 1], (150, 1))
        sums[:, 2] = 10 + np.array(series)
        errors = Errors(sums, np.stack([np.zeros(150, int), np.arange(150)], axis=1))
        found.append((errors.summary()["mse"], errors.standard_error))
    values, claimed = np.array([pair for pair in found if pair[1] is not None]).T
    assert len(values) > 150
    assert np.sqrt(np.mean(claimed**2)) == pytest.approx(values.std(), rel=0.25)


def test_an_error_that_drifts_along_one_trajectory_has_no_error():
    drift = np.sqrt(np.linspace(1e-3, 5e-4, 101))
    assert errors_of(drift, np.zeros(101, int)).standard_error is None
    halves = errors_of(drift, np.arange(101) // 51).standard_error
    assert halves == pytest.approx(1.2e-4, rel=0.4)  # half of the difference of the halves


def test_the_summary_does_not_depend_on_the_order_of_the_ranks():
    errors = errors_of(np.random.default_rng(1).exponential(size=30), np.zeros(30, int))
    order = np.random.default_rng(2).permutation(30)
    shuffled = Errors(errors.sums[order], errors.places[order], errors.energies[order])
    assert shuffled.gathered(World()).summary() == errors.summary()


def test_each_snapshot_has_its_error_in_the_order_of_its_file(tmp_path):
    write_shard(tmp_path / "a.h5", 3, 1)
    write_shard(tmp_path / "b.h5", 2, 2)
    found = examine(small_model(), [tmp_path / "a.h5", tmp_path / "b.h5"], World(), CPU)
    assert [len(part) for part in found.snapshot_mse.values()] == [3, 2]
    for row in range(2):
        with h5py.File(tmp_path / "b.h5") as file, h5py.File(tmp_path / "one.h5", "w") as one:
            one["spins"], one["field"] = file["spins"][row : row + 1], file["field"][row : row + 1]
            one.attrs["config"] = file.attrs["config"]
        alone = evaluate(small_model(), [tmp_path / "one.h5"], World(), CPU)
        assert alone["mse_error"] is None
        assert found.snapshot_mse[str(tmp_path / "b.h5")][row] == pytest.approx(alone["mse"], rel=1e-12)


def test_pictured_components_are_those_that_are_judged(tmp_path):
    write_shard(tmp_path / "a.h5", 4, 1)
    found = examine(small_model(), [tmp_path / "a.h5"], World(), CPU)
    assert found.components.shape == (2, 4 * 2 * SIZE[0] * SIZE[1])  # all, of a lattice so small
    assert np.mean(np.diff(found.components, axis=0) ** 2) == pytest.approx(found.errors.summary()["mse"], rel=1e-12)


def small_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_force_field(Architecture("square", 1.0, (4,), bias_reference=2.0, precision="float64"))


def test_evaluation_joins_files_of_any_size_and_needs_spins_and_field_alone(tmp_path):
    write_shard(tmp_path / "a.h5", 3, 1)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["spins"], file["field"] = unit(2, 7, 3).numpy(), draw(2, 7, 3, 3).numpy()
    model = small_model()
    parts = [evaluate(model, [tmp_path / name], World(), CPU) for name in ("a.h5", "b.h5")]
    joined = evaluate(model, [tmp_path / "a.h5", tmp_path / "b.h5"], World(), CPU)
    counts = np.array([3 * SIZE[0] * SIZE[1], 2 * 21])
    assert joined["mse"] == pytest.approx(np.average([part["mse"] for part in parts], weights=counts), rel=1e-12)
    assert joined["snapshots"] == 5


def test_evaluation_of_another_lattice_is_refused(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["spins"], file["field"] = unit(1, 4, 4).numpy(), draw(1, 4, 4, 3).numpy()
        file.attrs["config"] = json.dumps({"lattice": {"kind": "triangular"}})
    with pytest.raises(HpcspinError, match=r"t\.h5.*triangular"):
        evaluate(small_model(), [tmp_path / "t.h5"], World(), CPU)


def test_learning_rate_rises_then_falls_to_nothing():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:11] == pytest.approx([*np.linspace(0.1, 1, 10), 1.0])
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0, abs=1e-12)
