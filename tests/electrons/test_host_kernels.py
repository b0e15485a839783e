"""Kernels that numba compiles have the same bits in the process that compiles them and in all later ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DIGESTS = """
import hashlib
import numpy as np
from hpcspin.electrons import host_kernels

rng = np.random.default_rng(0)


def random(*shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


layers = random(2, 5, 12, 12), np.array([0, 1, 0]), random(3), True
left, right = [(random(3, 12, 24), random(3, 12, 24)) for _ in range(2)]
crossed = host_kernels.transfer(*layers, random(3, 12, 12))
found = host_kernels.occupations(*layers, left, right, np.array([0, 12, 24]), rng.normal(size=(3, 2)))
print([hashlib.sha256(array.tobytes()).hexdigest() for array in (*crossed, found)])
"""


def test_code_from_numbas_cache_has_the_bits_of_code_just_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", DIGESTS], env=environment, capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert first == second
