"""What is compared of two runs."""

from __future__ import annotations

import numpy as np

from hpcspin.drawing.comparison import near_wall


def test_sites_near_the_wall_are_whole_columns() -> None:
    mask = near_wall(np.array([3.5, 0.0]), (8, 3), reach=1.0)
    np.testing.assert_array_equal(mask[0].all(axis=1), [False, False, False, True, True, False, False, False])
    np.testing.assert_array_equal(mask[1].any(axis=1), [True, True, False, False, False, False, False, False])
