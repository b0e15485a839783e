"""Columns of sites divided over ranks: the same Green's function as undivided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from systems import driven

from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.hamiltonian import make_coupling
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_divided_columns_equal_the_dense_inverse(mpirun, tmp_path, ranks):
    done = mpirun(ranks, str(Path(__file__).with_name("columns_script.py")), str(tmp_path / "worst.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "worst.json").read_text())
    assert result["ranks"] == ranks
    assert len(result["worst"]) == 8
    assert max(result["worst"].values()) < 1e-12, result


def test_more_ranks_than_columns_are_refused():
    coupling = make_coupling(driven("square", (3, 3), bath=(0.1, 0.0)), make_backend("torch"))
    with pytest.raises(HpcspinError, match="3 columns of sites cannot be divided over 4 ranks"):
        ColumnTeam(World(0, 4), 3, coupling)
