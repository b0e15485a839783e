"""A training whose steps do not fit into memory is refused before the first one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from teacher import run, write_data

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field
from hpcspin.training import memory

MIB = 2**20


def test_tensors_count_while_they_are_alive() -> None:
    with memory._Tensors(2.5 * MIB) as tensors:
        for _ in range(3):
            kept = torch.zeros(MIB, dtype=torch.uint8)
            view = kept[1:]
            view += 1
    assert tensors.peak == 2 * MIB  # The old one goes when the new one is there.
    with pytest.raises(memory._TooMany), memory._Tensors(2.5 * MIB):
        kept = torch.zeros(MIB, dtype=torch.uint8) + torch.zeros(MIB, dtype=torch.uint8)


@pytest.mark.parametrize(
    "changes", [{"kind": "pair"}, {"kind": "direct", "layers": (1, 1)}, {"kind": "pair", "layers": (1, 1)}]
)
def test_a_batch_that_does_not_fit_is_refused_and_a_smaller_one_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    data, needed = write_data(tmp_path / "data"), []
    trial = memory._bytes_of_a_step
    monkeypatch.setattr(memory, "_bytes_of_a_step", lambda *given: needed.append(trial(*given)) or needed[-1])
    run(data, tmp_path / "enough", epochs=1, batch=4, **changes)
    monkeypatch.setattr(memory, "available_memory", lambda: int(3 * memory._MORE * needed[0]))
    with pytest.raises(HpcspinError, match=r"4 snapshots of 5 x 4 sites .* a smaller training\.batch"):
        run(data, tmp_path / "much", epochs=1, batch=4, **changes)
    assert not list((tmp_path / "much").iterdir())
    run(data, tmp_path / "less", epochs=1, batch=2, **changes)
    monkeypatch.setattr(memory, "available_memory", lambda: int(0.9 * needed[0]))
    with pytest.raises(HpcspinError, match=r"on one snapshot .* give a smaller potential\.radius"):
        run(data, tmp_path / "single", epochs=1, batch=1, **changes)


def test_a_step_takes_the_same_memory_however_many_snapshots_there_are() -> None:
    model, found = make_force_field(Architecture("square", 1.0, (8,), kind="pair", layers=(1,), channels=4)), []
    one = memory.stand_in(model, make_lattice("square", (6, 4)), 1)
    for count in (1, 1, 1000):  # Tables that a first step makes are kept.
        share = replace(one, spins=one.spins.repeat(count, 1, 1), bias=one.bias.repeat(count, 1))
        found.append(memory._bytes_of_a_step(model, share, math.inf, False))
    assert found[1] == found[2]


@pytest.mark.parametrize("drive", ["bias", "potentials", "polarized", "chemical_potential"])
def test_a_step_is_tried_without_labels_whatever_the_force_field_sees(
    monkeypatch: pytest.MonkeyPatch, drive: str
) -> None:
    kind = "conservative" if drive == "chemical_potential" else "pair"
    model = make_force_field(Architecture("square", 1.0, (8,), kind=kind, layers=(1,), channels=4, drive=drive))
    trial = [memory.stand_in(model, make_lattice("square", (6, 4)), 8)]
    memory.require_room(model, trial, 8, World(), torch.device("cpu"), bfloat16=False)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(HpcspinError, match="8 snapshots of 6 x 4 sites"):
        memory.require_room(model, trial, 8, World(), torch.device("cpu"), bfloat16=False)
