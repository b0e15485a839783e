"""Sweeps shared by threads: the same labels, bit for bit, whatever the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from systems import driven, random_spins

from hpcspin.electrons import make_solver
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.workers import each, shares, workers

CPU = make_backend("torch", "cpu")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(count=st.integers(0, 200), most=st.integers(1, 30))
def test_shares_cover_everything_once_and_are_equal_to_one(count: int, most: int) -> None:
    parts = shares(CPU, count, most)
    assert np.array_equal(np.concatenate([np.arange(count)[:0], *(np.arange(count)[p] for p in parts)]), range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@pytest.mark.usefixtures("threads")
def test_results_keep_their_order_and_a_failure_is_passed_on() -> None:
    torch.set_num_threads(3)
    assert workers(CPU) == 3
    parts = shares(CPU, 20, 2)
    assert each(CPU, lambda part: part.start, parts) == [part.start for part in parts]
    assert torch.get_num_threads() == 3

    def broken(part: slice) -> int:
        return 1 // part.start

    with pytest.raises(ZeroDivisionError):
        each(CPU, broken, parts)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_a_label_does_not_depend_on_the_number_of_threads() -> None:
    system = driven("square", (8, 4), left=(1.0, -2.0), bath=(0.01, 0.0))
    spins = random_spins(system, 2, seed=1)
    fields = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        fields.append(make_solver("negf", system, 1e-6).solve(spins).field)
    assert np.array_equal(fields[0], fields[1])
    assert np.array_equal(fields[0], fields[2])


def test_large_matrices_can_be_inverted_after_a_label() -> None:
    """In a process of its own: with MKL the failure is an endless loop."""
    code = (
        "import torch\n"
        "from systems import driven, random_spins\n"
        "from hpcspin.electrons import make_solver\n"
        "system = driven('square', (8, 4), left=(1.0, -2.0), bath=(0.01, 0.0))\n"
        "make_solver('negf', system, 1e-4).solve(random_spins(system, 2, seed=1))\n"
        "matrices = torch.eye(600, dtype=torch.complex128) + 0.01 * torch.rand(3, 600, 600)\n"
        "print(float((torch.linalg.inv(matrices) @ matrices - torch.eye(600)).abs().max()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-9
