"""Errors that count relative to the field of their snapshot."""

from __future__ import annotations

from pathlib import Path

import torch
from teacher import CPU, run, teacher_field, write_manifest, write_shard

from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import load_model
from hpcspin.training import evaluate
from hpcspin.training.loss import relative_weights


def test_an_error_in_proportion_to_the_field_counts_the_same_in_all_snapshots() -> None:
    draw = torch.Generator().manual_seed(3)
    spins = torch.nn.functional.normalize(torch.randn((4, 9, 3), generator=draw, dtype=torch.float64), dim=-1)
    field = torch.randn((4, 9, 3), generator=draw, dtype=torch.float64)
    field *= torch.tensor([1.0, 0.1, 1e-2, 1e-3], dtype=torch.float64)[:, None, None]
    own = perpendicular(spins, field).square().mean((1, 2)) * 1.5
    scale = own.mean().sqrt()
    torch.testing.assert_close(relative_weights(spins, field, scale, 1e-15) * own, torch.full_like(own, scale**2))
    # The floor bounds the weight of a snapshot without any field, and far above it all count the same.
    still = relative_weights(spins, torch.zeros_like(field), scale, 0.05)
    torch.testing.assert_close(still, torch.full_like(still, 21.0))
    torch.testing.assert_close(relative_weights(spins, field, scale, 1e9), torch.ones_like(own))


def test_snapshots_of_small_fields_are_learned_where_errors_are_relative(tmp_path: Path) -> None:
    """Two files whose fields differ by a factor: no model has both, and the loss decides which."""
    data = tmp_path / "data"
    data.mkdir()
    write_shard(data / "large.h5", 12, 1, 0.0)
    write_shard(data / "small.h5", 12, 2, 0.0, lambda *of: teacher_field(*of) / 30)
    write_manifest(data)
    left = {}
    for name, floor in (("same", None), ("relative", 1e-4)):
        settings = {"learning_rate": 1e-2, "epochs": 12, "relative_floor": floor, "validation": ()}
        trained = run(data, tmp_path / name, kind="conservative", **settings)
        model, _ = load_model(trained.model)
        left[name] = evaluate(model, [data / "small.h5"], World(), CPU)["variance_fraction"]
    assert left["relative"] < 1 < 100 * left["relative"] < left["same"]
