"""The CUDA source as a card's compiler sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nvrtc import Nvrtc
from pretend_cupy import H200_SHARED

import hpcspin
from hpcspin.electrons import kpm_recursion
from hpcspin.electrons.fused import SOURCE, Kernel

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
SIZES = {
    precision: [m for m in range(2, 200, 2) if Kernel(m, np.dtype(precision), True, True, False).fits(H200_SHARED)]
    for precision in (np.complex128, np.complex64)
}
# Shapes that double precision has too are compiled in single precision once for each number of threads.
SIZES[np.complex64] = [16, 34, *(m for m in SIZES[np.complex64] if m > SIZES[np.complex128][-1])]


def all_shapes(precision: type) -> list[Kernel]:
    """One kernel for each shape of a thread's tile, by turns partly and wholly filled, each with another W."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for m in SIZES[precision]:
        side = Kernel(m, np.dtype(precision), True, True, False).side
        shapes.setdefault((side, -(-m // side)), []).append(m)
    return [
        Kernel(sizes[-(place % 2)], np.dtype(precision), place % 4 < 2, place % 3 > 0, place % 8 < 4)
        for place, sizes in enumerate(shapes.values())
    ]


def test_every_source_is_compiled_here():
    assert set(Path(hpcspin.__file__).parent.rglob("*.cu")) == {SOURCE, kpm_recursion.SOURCE}


@pytest.mark.slow
@pytest.mark.parametrize("precision", SIZES)
@pytest.mark.parametrize("number", range(3))
def test_blocks_of_all_shapes_compile_without_a_warning(precision, number):
    """Every shape, and every architecture with a third of them: the whole matrix takes minutes.

    112 sizes, four W and three architectures; one of the largest, complex64 at m = 128, compiles for 14 s.
    """
    for kernel in all_shapes(precision)[number::3]:
        Nvrtc().compile(SOURCE.read_text(), kernel.options, ARCHITECTURES[number])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("triangular", [False, True])
def test_a_block_of_30x24_lives_in_registers(triangular, architecture):
    kernel = Kernel(48, np.dtype(np.complex128), triangular, True, False)
    compiled = Nvrtc().compile(SOURCE.read_text(), kernel.options, architecture)
    assert compiled.registers <= 128
    assert compiled.spilled == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("plain", [False, True])
def test_the_chebyshev_recursion_compiles_without_a_warning_and_spills_nothing(plain, architecture):
    compiled = Nvrtc().compile(kpm_recursion.SOURCE.read_text(), kpm_recursion.cuda_options(64, 3, plain), architecture)
    assert compiled.spilled == 0
