"""The CUDA source as a card's compiler sees it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pretend_cupy import H200_SHARED

import hpcspin
from hpcspin.electrons.fused import SOURCE, Kernel

sys.path.insert(0, str(Path(__file__).parents[1]))
from nvrtc import Nvrtc

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
SIZES = {
    precision: [m for m in range(2, 200, 2) if Kernel(m, np.dtype(precision), True, True, False).fits(H200_SHARED)]
    for precision in (np.complex128, np.complex64)
}


def ends_of_tiles(precision: type) -> list[int]:
    """The least and the largest size of each shape of a thread's tile: partly and wholly filled."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for m in SIZES[precision]:
        side = Kernel(m, np.dtype(precision), True, True, False).side
        shapes.setdefault((side, -(-m // side)), []).append(m)
    return sorted({size for sizes in shapes.values() for size in (sizes[0], sizes[-1])})


def test_every_source_is_compiled_here():
    assert list(Path(hpcspin.__file__).parent.rglob("*.cu")) == [SOURCE]


@pytest.mark.slow
@pytest.mark.parametrize("precision", SIZES)
@pytest.mark.parametrize("number", range(3))
def test_blocks_of_all_shapes_compile_without_a_warning(precision, number):
    """Every size on one architecture, every architecture with every third size."""
    for place, m in enumerate(ends_of_tiles(precision)):
        if place % 3 == number:
            coupling = (place % 2 == 0, place % 4 < 2, place % 8 < 4)
            Nvrtc().compile(
                SOURCE.read_text(), Kernel(m, np.dtype(precision), *coupling).options, ARCHITECTURES[number]
            )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("triangular", [False, True])
def test_a_block_of_30x24_lives_in_registers(triangular, architecture):
    kernel = Kernel(48, np.dtype(np.complex128), triangular, True, False)
    compiled = Nvrtc().compile(SOURCE.read_text(), kernel.options, architecture)
    assert compiled.registers <= 128
    assert compiled.spilled == 0
