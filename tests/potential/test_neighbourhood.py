"""Neighbour tables are those of the lattice, and of a window those of the sites that stand there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from force_fields import make_model

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Block, Neighbourhood
from hpcspin.potential.window import Window, offsets_within

CPU = torch.device("cpu")
BATCH = 2


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize("periodic", [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_a_lattice_has_the_table_of_its_shifts(kind: str, periodic: tuple[bool, bool], dilation: int) -> None:
    lattice = make_lattice(kind, (5, 7), periodic)
    offsets, sites = offsets_within(lattice, 2.3), lattice.num_sites
    found = Neighbourhood.of_lattice(lattice, offsets, (1, dilation)).table(CPU, dilation, BATCH).numpy()
    one = lattice.shift(offsets * [dilation, 1]).T
    expected = [np.where(one >= 0, one + number * sites, BATCH * sites) for number in range(BATCH)]
    np.testing.assert_array_equal(found, np.concatenate(expected, 1))


@pytest.mark.parametrize("whole", [(False, True), (True, False), (False, False)])
def test_a_window_shows_its_centres_the_sites_that_the_lattice_has_there(whole: tuple[bool, bool]) -> None:
    """Site numbers are put where spins go, and come back through the table; the first columns touch an open edge."""
    size, start = (23, 19), tuple(0 if spans else 2 for spans in whole)
    lattice = make_lattice("square", size)
    model = make_model(kind="direct", layers=(1, 2), radius=1.5, electrode_range=4.0)
    shape = tuple(length if spans else 6 for length, spans in zip(size, whole, strict=True))
    window = model.window(Block(shape, whole, lattice.periodic, (start[0], size[0])))
    axes = [np.arange(s - w, s + n + w) for s, n, w in zip(start, shape, model.halo, strict=True)]
    there = ((axes[0] >= 0) & (axes[0] < size[0]))[:, None]
    site = np.where(there, axes[0][:, None] * size[1] + axes[1] % size[1], -1).ravel()
    centre = site[window.centre_rows(1, CPU)]
    for dilation in (1, 2):
        seen = np.append(site, -1)[window.table(CPU, dilation).numpy()]
        last = window.window.stages[0 if dilation == 1 else 1]
        expected = lattice.shift(model.offsets * [dilation, 1])[centre].T
        real = np.flatnonzero(centre[:last] >= 0)
        np.testing.assert_array_equal(seen[:, real], expected[:, real])
    rows, centres = window.outputs_of(1, CPU)
    block = np.arange(lattice.num_sites).reshape(size)[
        tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    ]
    np.testing.assert_array_equal(site[rows], block.ravel())
    np.testing.assert_array_equal(centre[centres], block.ravel())
    near = window.nearness_of(1, 16, 4.0, torch.float64, CPU).numpy()[:, : window.centres]
    real = centre >= 0
    ends = np.stack([centre // size[1], size[0] - 1 - centre // size[1]])
    np.testing.assert_allclose(near[:, real], np.exp(-ends / 4.0)[:, real], rtol=1e-15)
    mine = np.isin(np.arange(window.rows + 1), [*rows.tolist(), window.rows])
    alone = mine[window.table(CPU).numpy()].all(0)
    assert alone[: window.window.inner].all()
    assert not alone[window.window.inner : window.window.stages[-1]].any()


def test_more_spins_than_a_table_can_number_are_refused() -> None:
    few = np.zeros((1, 1), dtype=np.int64)
    huge = Neighbourhood(Window((30000, 30000), (slice(0, 1), slice(0, 1)), {1: (few, few)}))
    with pytest.raises(HpcspinError, match=r"900000000 spins .* use more ranks"):
        huge.table(CPU)
