"""The classical terms as a config names them."""

from pathlib import Path

import pytest

from hpcspin.assembly.system import build_lattice
from hpcspin.config import load_config
from hpcspin.dynamics import Heisenberg
from hpcspin.errors import HpcspinError


def terms(path: Path, *overrides: str) -> list[object]:
    config = load_config(path, [f"dynamics.classical.{override}" for override in overrides])
    assert config.dynamics is not None
    return list(config.dynamics.classical.terms(build_lattice(config.lattice)))


def test_a_number_or_a_list_of_shells(config: Path) -> None:
    assert terms(config, "heisenberg=-1") == [Heisenberg(-1.0, ((0, 1), (1, 0)))]
    assert terms(config, "heisenberg=[-1, 0, 0.2]")[1] == Heisenberg(0.2, ((0, 2), (2, 0)))


def test_drives_and_antisymmetric_exchange(config: Path) -> None:
    found = terms(config, "drives=[{kind: pulse, field: [0, 0, 1], centre: 2, width: 1}]", "dmi_bulk=0.3")
    assert [term.halo for term in found] == [(0, 0), (1, 1)]  # type: ignore[attr-defined]
    assert found[0].amplitude(2.0) == 1  # type: ignore[attr-defined]
    with pytest.raises(HpcspinError, match="known keys: centre, width"):
        terms(config, "drives=[{kind: pulse, field: [0, 0, 1], frequency: 2}]")
