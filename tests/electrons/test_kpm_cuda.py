"""The recursion's kernels in CUDA, one thread after the other on this CPU, against operations on arrays."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from systems import random_spins
from test_kpm_recursion import COUNT, EVERY, SYSTEMS

from hpcspin.electrons import ClosedLattice, KpmSolver, make_solver
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.kpm_probes import colouring, probe_groups, random_phases
from hpcspin.electrons.kpm_recursion import ArrayRecursion, CudaRecursion, adjoint_weights, scaled_hamiltonian
from hpcspin.electrons.kpm_series import spectral_interval
from hpcspin.lattice import make_lattice

HOST = Path(__file__).with_name("kpm_cuda_host.cpp")


@pytest.fixture
def launches(monkeypatch, tmp_path):
    """CuPy compiles and launches on NumPy's arrays; the kernels that were launched, in order."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    launched = []

    def module(code, options):
        built = tmp_path / f"{hashlib.sha256(repr(options).encode()).hexdigest()}.so"
        source = built.with_suffix(".cu")
        source.write_text(code)
        command = [
            compiler,
            "-O1",
            "-shared",
            "-fPIC",
            "-Wl,-Bsymbolic",
            "-w",
            f'-DKERNEL="{source}"',
            *options,
            str(HOST),
        ]
        subprocess.run([*command, "-o", str(built)], check=True)
        library = ctypes.CDLL(str(built))

        def function(name):
            def launch(grid, threads, arguments):
                assert threading.current_thread() is threading.main_thread(), "it would launch on the first GPU"
                launched.append(name)
                passed = []
                for part in arguments:
                    if isinstance(part, np.ndarray):
                        assert part.flags.c_contiguous
                        passed.append(ctypes.c_void_p(part.ctypes.data))
                    else:
                        passed.append({np.int64: ctypes.c_longlong, np.float64: ctypes.c_double}[type(part)](part))
                library[f"launch_{name}"](*grid, *threads, *passed)

            return launch

        return SimpleNamespace(get_function=function)

    pretended = SimpleNamespace(RawModule=module, ascontiguousarray=np.ascontiguousarray)
    monkeypatch.setitem(sys.modules, "cupy", pretended)
    return launched


@pytest.mark.parametrize("name", SYSTEMS)
def test_kernels_equal_operations_on_arrays(launches, name):
    kind, periodic, parameters = SYSTEMS[name]
    rng = np.random.default_rng(1)
    exchange, on_site = rng.normal(size=(2, 6, 5))
    lattice = make_lattice(kind, (6, 5), periodic)
    system = ClosedLattice(lattice, exchange=exchange, temperature=0.1, potential=0.0, on_site=on_site, **parameters)
    hamiltonian = scaled_hamiltonian(system, random_spins(system, 1, seed=2)[0], spectral_interval(system))
    weights, backend = adjoint_weights(rng.normal(size=COUNT)), make_backend("numpy")
    found = []
    for way in (ArrayRecursion, CudaRecursion):
        recursion = way(hamiltonian, backend, 15)
        (group,) = probe_groups(colouring(lattice, 3), random_phases(30, 0, 5, 1), 15)
        ((products, start),) = recursion.products([group], COUNT // 2)
        ((local, traces),) = recursion.local_moments([group], COUNT, [EVERY])
        found.append((local, traces, products, *recursion.gradients([start], *weights)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)
    # One launch a step: on half of the way for the sums, on the whole of it for the sites, and back.
    assert launches == ["advance"] * (COUNT // 2 + COUNT - 1) + ["reverse"] * (COUNT // 2 - 1)


def test_the_solver_takes_the_kernels_where_cupy_computes(launches, monkeypatch):
    system = ClosedLattice(make_lattice("square", (6, 7), (True, True)), 1.0, 2.0, 0.3, filling=0.8)
    spins = random_spins(system, 1, seed=2)
    alone = KpmSolver(system, 1e-6).solve(spins)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    backend = SimpleNamespace(**{**vars(make_backend("numpy")), "name": "cupy"}, on_gpu=True)
    for name in ("asarray", "to_numpy"):
        setattr(backend, name, getattr(make_backend("numpy"), name))
    monkeypatch.setattr("hpcspin.electrons.kpm.make_backend", lambda *_: backend)
    found = KpmSolver(system, 1e-6).solve(spins)
    assert set(launches) == {"advance"}
    np.testing.assert_allclose(found.field, alone.field, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize(("solver", "tolerance"), [("kpm", 0.1), ("diagonalization", 1e-6)])
def test_labels_of_a_closed_lattice_on_a_gpu_equal_those_of_the_cpu(solver, tolerance):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    system = ClosedLattice(make_lattice("square", (12, 12), (True, True)), 1.0, 6.0, 0.05, filling=0.97)
    spins = random_spins(system, 2, seed=3)
    device, host = (make_solver(solver, system, tolerance, device=place).solve(spins) for place in ("cuda", "cpu"))
    assert np.abs(device.field - host.field).max() < 1e-9
