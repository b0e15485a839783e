"""Laws of training: it learns what the potentials can express, resumes exactly, and is the same on all ranks."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from teacher import BIAS, CPU, SIZE, run, site_local_field, teacher_field, write_data, write_shard

from hpcspin.config import parse_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_model
from hpcspin.storage import write_manifest
from hpcspin.training import evaluate, loop

TEACHER = str(Path(__file__).with_name("teacher.py"))


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def weights(directory):
    return load_file(directory / "model.safetensors")


def same_bits(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def records(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_two_potentials_learn_what_one_cannot(tmp_path):
    """The teacher's field has a nonconservative part: E alone is left with it, E and G are not."""
    data = write_data(tmp_path / "data", (40, 40))
    longer = {"epochs": 12, "checkpoint_interval": 12, "learning_rate": 1e-2, "ema": 0.98}
    pair, conservative = (
        run(data, tmp_path / kind, kind=kind, **longer).metrics["variance_fraction"]
        for kind in ("pair", "conservative")
    )
    assert pair < 0.01
    assert conservative > 10 * pair


def test_local_kinds_learn_what_no_global_pair_can(tmp_path):
    """The teacher's bonds act on one of their spins alone: only fields of the site's own can do so."""
    data = write_data(tmp_path / "data", (40, 40), site_local_field)
    longer = {"epochs": 14, "checkpoint_interval": 14, "learning_rate": 1e-2, "ema": 0.98}
    left = {
        kind: run(data, tmp_path / kind, kind=kind, **longer).metrics["variance_fraction"]
        for kind in ("pair", "site", "direct")
    }
    assert left["site"] < 0.02
    assert left["direct"] < 0.02
    assert left["pair"] > 0.2


def test_config_decides_on_time_reversal():
    content = {"lattice": {"size": [4, 4]}, "potential": {"kind": "site", "time_reversal": "even"}}
    section = parse_config(content, "test").potential
    assert Architecture(lattice="square", **section.model_dump()).settings.time_reversal == "even"
    with pytest.raises(HpcspinError, match="time_reversal"):
        parse_config({**content, "potential": {"time_reversal": "odd"}}, "test")


def test_training_records_what_it_does(data, tmp_path):
    outcome = run(data, tmp_path / "model", card={"config": {"key": 1}})
    model, card = load_model(outcome.model)
    assert outcome.finished
    assert model.architecture.bias_reference == BIAS
    assert card["metrics"] == outcome.metrics
    assert card["config"] == {"key": 1}
    assert [shard["file"] for shard in card["data"]["train"]] == ["a.h5", "b.h5"]
    assert [shard["file"] for shard in card["data"]["validation"]] == ["z.h5"]
    log = records(tmp_path / "model")
    assert [record["epoch"] for record in log] == [1, 2, 3, 4]
    assert log[-1]["loss"] < log[0]["loss"]
    assert {"lr", "seconds", "validation_mse", "validation_sigma", "validation_variance_fraction"} <= set(log[-1])
    assert card["metrics"]["mse"] == min(r["validation_mse"] for r in log if "validation_mse" in r)


def test_saved_weights_have_the_recorded_error(data, tmp_path):
    outcome = run(data, tmp_path / "model")
    model, _ = load_model(outcome.model)
    found = evaluate(model, [data / "z.h5"], World(), CPU)
    assert found.pop("mse_error") is outcome.metrics.pop("mse_error") is None
    assert found == pytest.approx(outcome.metrics, rel=1e-12)


def test_gauge_weight_makes_the_toroidal_part_small(tmp_path):
    data = write_data(tmp_path / "data", (20,))
    lattice, sizes = make_lattice("square", SIZE), []
    for gauge in (0.0, 10.0):
        model, _ = load_model(run(data, tmp_path / str(gauge), gauge=gauge, epochs=15).model)
        spins = torch.from_numpy(h5py.File(data / "z.h5")["spins"][:]).flatten(1, 2)
        predicted = model(spins, model.neighbourhood(lattice), torch.full((5,), BIAS))
        sizes.append(float(predicted.nonequilibrium.square().mean()))
    assert sizes[1] < 0.2 * sizes[0]


@pytest.mark.parametrize(("stopped_after", "optimiser"), [(1, "adamw"), (2, "muon"), (3, "adamw")])
def test_a_stopped_training_resumes_exactly(data, tmp_path, stopped_after, optimiser):
    whole = run(data, tmp_path / "whole", optimiser=optimiser)
    asked = iter(range(1, 10))
    first = run(data, tmp_path / "parts", optimiser=optimiser, stop=lambda: next(asked) == stopped_after)
    assert not first.finished
    assert not first.model.exists()
    second = run(data, tmp_path / "parts", optimiser=optimiser)
    assert second.finished
    assert second.metrics == whole.metrics
    assert same_bits(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    without = [{k: v for k, v in record.items() if k != "seconds"} for record in records(tmp_path / "parts")]
    assert without == [{k: v for k, v in record.items() if k != "seconds"} for record in records(tmp_path / "whole")]


def test_a_killed_training_repeats_from_its_checkpoint(data, tmp_path):
    """What was logged after the checkpoint is written again, not twice."""

    def kill():
        if len(records(tmp_path / "killed")) == 3:
            raise KeyboardInterrupt
        return False

    whole = run(data, tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "metrics.jsonl").write_text("")
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "killed", stop=kill)
    (tmp_path / "killed" / "metrics.jsonl").open("a").write('{"epoch": 4, "lo')
    again = run(data, tmp_path / "killed")
    assert again.metrics == whole.metrics
    assert same_bits(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert [record["epoch"] for record in records(tmp_path / "killed")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("step", "rate", "judged", "epoch"),
    [
        (8, np.inf, True, 3),  # the loss of the steps that follow
        (10, np.inf, False, 3),
        (19, np.inf, False, 4),  # the weights after the very last step
        (15, 1e300, True, 4),  # finite weights whose validation error is not
    ],
)
def test_a_training_that_diverges_stops_and_keeps_what_was_saved(
    data, tmp_path, monkeypatch, step, rate, judged, epoch
):
    validation, directory, tame = ("z.h5",) if judged else (), tmp_path / "model", loop.learning_rate_factor
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_factor", lambda now, *rest: tame(now, *rest) if now < step else rate)
        with pytest.raises(loop.DivergedError) as failure:
            run(data, directory, validation=validation)
    for word in (f"{directory}: ", f"diverged in epoch {epoch}", "lower training.learning_rate and run again"):
        assert word in str(failure.value)
    assert not (directory / "model.safetensors").exists()
    assert [record["epoch"] for record in records(directory)] == list(range(1, epoch))
    run(data, directory, validation=validation)
    run(data, tmp_path / "whole", validation=validation)
    assert same_bits(weights(directory), weights(tmp_path / "whole"))


@pytest.mark.mpi
def test_a_training_that_diverges_on_two_ranks_ends_with_one_line(mpirun, data, tmp_path):
    result = mpirun(2, TEACHER, str(data), str(tmp_path / "model"), "4", "2", "1e300")
    assert result.returncode != 0
    assert result.stderr.count("diverged in epoch 1") == 1
    assert not (tmp_path / "model" / "checkpoint.h5").exists()


def test_a_saved_model_is_trained_further(data, tmp_path):
    """Hardly moved it is still the same field, in its own units; moved, it has learned more."""
    first = run(data, tmp_path / "first", epochs=2)
    more = write_data(tmp_path / "more", (12, 12))
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "ema": 0.0}
    run(more, tmp_path / "same", start=first.model, epochs=2, **still)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "same")
    assert before.keys() == after.keys()
    assert all(np.allclose(before[name], after[name], rtol=1e-12) for name in before if name != "envelope")
    further = run(data, tmp_path / "further", start=first.model)
    (_, past), (_, card) = load_model(first.model), load_model(further.model)
    assert "start" not in past
    assert card["start"] == {name: past[name] for name in ("weights_sha256", "data", "electrons")}
    assert further.metrics["mse"] < 0.8 * first.metrics["mse"]


def test_a_training_with_a_start_resumes_exactly(data, tmp_path):
    first = run(data, tmp_path / "first", epochs=2).model
    run(data, tmp_path / "whole", start=first)
    answers = iter([True])
    assert not run(data, tmp_path / "parts", start=first, stop=lambda: next(answers, False)).finished
    with pytest.raises(HpcspinError, match="start"):
        run(data, tmp_path / "parts")
    run(data, tmp_path / "parts", start=first)
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_start_of_another_architecture_is_refused(data, tmp_path):
    first = run(data, tmp_path / "first", epochs=2).model
    with pytest.raises(HpcspinError, match=r"training\.start: the model has another kind than"):
        run(data, tmp_path / "other", kind="site", start=first)
    with pytest.raises(HpcspinError, match="no such file"):
        run(data, tmp_path / "other", start=tmp_path / "none.safetensors")


def test_a_finished_training_is_not_repeated(data, tmp_path):
    first = run(data, tmp_path / "model")
    before = weights(tmp_path / "model")
    again = run(data, tmp_path / "model")
    assert again == first
    assert same_bits(weights(tmp_path / "model"), before)


def test_a_finished_model_is_not_written_again_unless_it_is_spoilt(data, tmp_path, monkeypatch):
    """Whatever rests on it counts on its bits, and other ranks would round the scales of its features otherwise."""
    path = run(data, tmp_path / "model").model
    before = path.read_bytes()
    monkeypatch.setattr(loop, "set_envelope", lambda *_: pytest.fail("written again"))
    run(data, tmp_path / "model")
    monkeypatch.undo()
    for spoilt in (path, path.with_suffix(".json")):
        spoilt.write_bytes(b"{}")
        run(data, tmp_path / "model")
        assert load_model(path)
        assert path.read_bytes() == before


def test_another_config_or_other_data_are_refused_on_the_same_directory(data, tmp_path):
    run(data, tmp_path / "model")
    with pytest.raises(HpcspinError, match=r"training\.learning_rate"):
        run(data, tmp_path / "model", learning_rate=1e-3)
    with pytest.raises(HpcspinError, match=r"potential\.kind"):
        run(data, tmp_path / "model", kind="conservative")
    write_shard(data / "b.h5", 6, 77)
    write_manifest(data)
    with pytest.raises(HpcspinError, match=r"data\.train"):
        run(data, tmp_path / "model")


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_two_ranks_take_the_steps_of_one(request, data, tmp_path, launcher):
    """13 snapshots in batches of 4: the last batch holds one, and a rank of two none."""
    one = run(data, tmp_path / "one", epochs=2, checkpoint_interval=1)
    output = tmp_path / "two"
    result = request.getfixturevalue(launcher)(2, TEACHER, str(data), str(output), "4", "2", timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    alone, together = weights(tmp_path / "one"), weights(output)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-8, atol=1e-10, err_msg=name)
    card = json.loads((output / "model.json").read_text())
    without_error = {name: value for name, value in one.metrics.items() if value is not None}
    assert card["metrics"] == {**one.metrics, **{n: pytest.approx(v, rel=1e-8) for n, v in without_error.items()}}
    losses = [[record["loss"] for record in records(directory)] for directory in (tmp_path / "one", output)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


@pytest.mark.mpi
def test_lattices_of_two_sizes_are_learned_together_on_any_number_of_ranks(mpirun, tmp_path):
    """Each set, and the validation of both, takes part; shards are named with their directories."""
    wide = write_data(tmp_path / "wide", (7, 6))
    narrow = write_data(tmp_path / "narrow", (9,), size=(5, 3))
    judges = tuple(str(directory / "z.h5") for directory in (wide, narrow))
    outcome = run([wide, narrow], tmp_path / "judged", validation=judges, epochs=30, learning_rate=1e-2)
    assert outcome.metrics["snapshots"] == 10
    assert outcome.metrics["variance_fraction"] < 0.2
    model, card = load_model(outcome.model)
    assert evaluate(model, [Path(judge) for judge in judges], World(), CPU) == pytest.approx(outcome.metrics, rel=1e-12)
    assert [shard["file"] for shard in card["data"]["train"]] == [
        str(wide / "a.h5"),
        str(wide / "b.h5"),
        str(narrow / "a.h5"),
    ]
    one = run([wide, narrow], tmp_path / "one", epochs=2)
    result = mpirun(2, TEACHER, f"{wide}:{narrow}", str(tmp_path / "two"), "4", "2", timeout=120)
    assert result.returncode == 0, result.stderr
    alone, together = weights(one.model.parent), weights(tmp_path / "two")
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.mpi
def test_more_ranks_than_a_batch_are_refused_without_hanging(mpirun, data, tmp_path):
    result = mpirun(3, TEACHER, str(data), str(tmp_path / "model"), "2", "1", timeout=60)
    assert result.returncode != 0
    assert "training.batch" in result.stderr


def test_training_without_validation_keeps_the_last_weights(tmp_path):
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "a.h5", 5, 1)
    write_manifest(tmp_path / "data")
    outcome = run(tmp_path / "data", tmp_path / "model", validation=())
    assert outcome.metrics == {}
    assert json.loads((tmp_path / "model" / "model.json").read_text())["best_epoch"] == 4


def test_unbiased_data_are_learned_by_the_energy_alone(tmp_path):
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data" / "a.h5", 12, 1, bias=0.0)
    write_manifest(tmp_path / "data")
    model, _ = load_model(run(tmp_path / "data", tmp_path / "model", validation=()).model)
    lattice = make_lattice("square", SIZE)
    spins = torch.from_numpy(h5py.File(tmp_path / "data" / "a.h5")["spins"][:2]).flatten(1, 2)
    predicted = model(spins, model.neighbourhood(lattice), torch.zeros(2))
    assert torch.count_nonzero(predicted.nonequilibrium) == 0
    assert torch.equal(predicted.field, predicted.equilibrium)
    assert teacher_field(spins, lattice, 0.0).shape == spins.shape
