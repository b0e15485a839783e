"""A committee is the mean of its members, and its spread their disagreement about torques."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from force_fields import make_model, perpendicular, random_spins

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import MEMBER, Committee, ForceField, load_force, model_file, model_files, save_model

LATTICE = make_lattice("square", (5, 4), (False, True))
BIAS = torch.full((2,), 1.5)


def test_mean_and_spread_are_those_of_the_members() -> None:
    members = [make_model(seed) for seed in range(3)]
    committee, spins = Committee(members), random_spins(2, 20, seed=4)
    table = committee.neighbourhood(LATTICE)
    fields = torch.stack([member(spins, table, BIAS).field for member in members])
    predicted = committee(spins, table, BIAS)
    torch.testing.assert_close(predicted.field, fields.mean(0), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(predicted.field, predicted.equilibrium + predicted.nonequilibrium)
    torques = perpendicular(spins, fields)
    torch.testing.assert_close(
        committee.spread(spins, table, BIAS) ** 2, torques.var(0).sum(-1) / 2, rtol=1e-12, atol=1e-16
    )


def test_equal_members_agree() -> None:
    committee, spins = Committee([make_model(1), make_model(1)]), random_spins(2, 20, seed=5)
    assert torch.equal(committee.spread(spins, committee.neighbourhood(LATTICE), BIAS), torch.zeros(2, 20).double())


@pytest.mark.parametrize("members", [[make_model()], [make_model(), make_model(radius=1.0)]])
def test_what_is_no_committee_is_refused(members: list[ForceField]) -> None:
    with pytest.raises(HpcspinError, match=r"at least two|differs from the first in radius"):
        Committee(members)


def test_a_directory_holds_a_model_or_a_committee(tmp_path: Path) -> None:
    with pytest.raises(HpcspinError, match="neither"):
        load_force(tmp_path)
    members = [make_model(seed) for seed in range(2)]
    for number, member in enumerate(members):
        directory = tmp_path / MEMBER.format(number)
        directory.mkdir()
        save_model(directory / "model.safetensors", member, {})
    committee = load_force(tmp_path)
    assert isinstance(committee, Committee)
    spins, table = random_spins(2, 20, seed=6), committee.neighbourhood(LATTICE)
    assert torch.equal(committee(spins, table, BIAS).field, Committee(members)(spins, table, BIAS).field)
    with pytest.raises(HpcspinError, match=r"is a committee.*member-"):
        model_file(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    save_model(alone / "model.safetensors", members[1], {})
    assert model_file(alone) == alone / "model.safetensors"
    assert torch.equal(load_force(alone)(spins, table, BIAS).field, members[1](spins, table, BIAS).field)


def test_an_output_with_the_name_of_a_shipped_model_says_that_it_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``hpcspin torque CONFIG --output torque torque.model=torque`` makes it."""
    monkeypatch.chdir(tmp_path)
    assert len(model_files("torque")) == 1
    Path("torque").mkdir()
    with pytest.raises(HpcspinError, match=r"torque: holds neither .*rename torque, which hides the shipped model"):
        load_force("torque")


def test_neither_half_a_committee_nor_one_beside_another_model_is_taken_in_silence(tmp_path: Path) -> None:
    for number in range(3):
        directory = tmp_path / MEMBER.format(number)
        directory.mkdir()
        if number < 2:
            save_model(directory / "model.safetensors", make_model(number), {})
    with pytest.raises(HpcspinError, match=r"finished member-NN/model\.safetensors of a committee"):
        load_force(tmp_path)
    save_model(tmp_path / MEMBER.format(2) / "model.safetensors", make_model(2), {})
    assert len(model_files(tmp_path)) == 3
    save_model(tmp_path / "model.safetensors", make_model(3), {})
    with pytest.raises(HpcspinError, match=r"members of a committee and model\.safetensors from another training"):
        load_force(tmp_path)
