"""What the study of locality freezes: the areas of its centres, and nothing else."""

import numpy as np
import pytest

from hpcspin.lattice import make_lattice

LATTICE = make_lattice("square", (30, 24), (False, True))


@pytest.mark.parametrize(("area", "line"), [("2", 1), ("6", 1), ("4x2", 1), ("14x6", 1), ("6x29", 24), ("29x4", 30)])
def test_all_that_a_centre_sees_is_frozen_and_nothing_else(study, area: str, line: int) -> None:
    """The frozen sites are those within the reach of the centres; those of a band are its middle line."""
    order = np.random.default_rng(3).permutation(LATTICE.num_sites)
    centres, frozen = study["freeze"](LATTICE, area, order, None)
    x, y = np.divmod(np.arange(LATTICE.num_sites), LATTICE.size[1])
    seen = np.zeros(LATTICE.num_sites, dtype=bool)
    for centre in centres:
        across, along = abs(x - x[centre]), abs(y - y[centre])
        along = np.minimum(along, LATTICE.size[1] - along)
        radii = [float(radius) for radius in area.split("x")]
        inside = np.hypot(across, along) <= radii[0] if len(radii) == 1 else (across <= radii[0]) & (along <= radii[1])
        seen |= inside
    assert np.array_equal(seen, frozen.reshape(-1))
    assert len(centres) % line == 0
    assert order[0] in centres
    assert len(np.unique(x[centres] if line == 24 else y[centres])) == len(centres) // line or line == 1


def test_areas_do_not_overlap(study) -> None:
    """No site belongs to two areas, so that each centre has the whole of its own."""
    centres, frozen = study["freeze"](LATTICE, "2x2", np.arange(LATTICE.num_sites), None)
    edges = np.sum((centres // 24 < 2) | (centres // 24 > 27))
    assert len(centres) > 3
    assert frozen.sum() >= 25 * (len(centres) - edges)
    assert frozen.sum() == sum(study["freeze"](LATTICE, "2x2", np.array([one]), 1)[1].sum() for one in centres)
