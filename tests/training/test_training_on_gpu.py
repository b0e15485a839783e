"""A training on a pretended GPU learns what it learns on the CPU, and its steps ask the host for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_gpu import GPU, pretended_gpu
from safetensors.torch import load_file
from teacher import run, write_data

from hpcspin.training import loop

KINDS: dict[str, dict[str, Any]] = {
    "pair": {"optimiser": "adamw"},
    "direct": {"layers": (1, 1), "optimiser": "muon"},
}


@pytest.mark.parametrize(("kind", "resident"), [("pair", True), ("direct", False)])
def test_the_training_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, resident: bool) -> None:
    """Of a step only the batch travels, and the host waits for nothing; weights and errors are those of the CPU."""
    data = write_data(tmp_path / "data")
    short = {"epochs": 2, "checkpoint_interval": 2, "kind": kind, **KINDS[kind]}
    expected = run(data, tmp_path / "cpu", **short)
    asked, step = [], loop._Trainer._step
    with pretended_gpu() as gpu:
        if not resident:
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1))

        def counted(*given: Any) -> torch.Tensor:
            with gpu.counting() as counts:
                loss = step(*given)
            asked.append(counts)
            return loss

        monkeypatch.setattr(loop._Trainer, "_step", counted)
        found = run(data, tmp_path / "gpu", device=GPU, **short)
    assert len(asked) == 2 * 4
    for counts in asked[4:]:  # The first epoch makes tables for batches of each size.
        assert not counts.copies
        assert not counts.waits
        assert sum(counts.transfers.values()) == (1 if resident else 4)
    assert found.metrics["mse"] == pytest.approx(expected.metrics["mse"], rel=1e-9)
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("gpu", "cpu"))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-10)
