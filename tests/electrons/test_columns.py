"""Columns of sites divided over ranks: the same Green's function as undivided."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from columns_script import states
from systems import driven

from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.hamiltonian import make_coupling
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

SCRIPT = Path(__file__).with_name("columns_script.py")


@functools.cache
def states_of_one_rank():
    return states(World(), 1)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("launcher", "ranks", "column_ranks"),
    [("mpirun", 3, 3), ("torchrun", 4, 2)],
)
def test_divided_columns_change_nothing(request, tmp_path, launcher, ranks, column_ranks):
    """Blocks of G equal the dense inverse; steady states equal those of one rank."""
    done = request.getfixturevalue(launcher)(ranks, str(SCRIPT), str(tmp_path / "many.npz"), str(column_ranks))
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "many.npz") as many:
        assert int(many["ranks"]) == ranks
        assert many["worst"].shape == (16,)
        assert many["worst"].max() < 1e-12
        for name, value in states_of_one_rank().items():
            assert np.abs(many[name] - value).max() < 1e-12, name


def test_more_ranks_than_columns_are_refused():
    coupling = make_coupling(driven("square", (3, 3), bath=(0.1, 0.0)), make_backend("torch"))
    with pytest.raises(HpcspinError, match="3 columns of sites cannot be divided over 4 ranks"):
        ColumnTeam(World(0, 4), 3, coupling)
