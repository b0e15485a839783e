"""The CUDA kernel's own source, its threads emulated on a CPU, against dense inverses."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import driven, random_spins

from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.fused import SOURCE, Fastest, FusedSweep, Kernel
from hpcspin.electrons.hamiltonian import layer_blocks, make_coupling
from hpcspin.electrons.sources import partition
from hpcspin.parallel.world import World

HOST = Path(__file__).with_name("host_cuda.cpp")
H200_SHARED = 232_448


def build(kernel: Kernel, folder: Path) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    library = folder / f"fused_{abs(hash(kernel))}.so"
    if library.exists():
        return ctypes.CDLL(str(library))
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", f'-DKERNEL="{SOURCE}"', *kernel.options]
    subprocess.run([*command, str(HOST), "-o", str(library)], check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


def run(kernel: Kernel, folder: Path, blocks, energies, owners, source, groups, weights, grid: int = 2):
    """What `FusedSweep.respond` returns, and the flags of singular energies."""
    (columns, m), batch, exact = blocks.shape[1:3], len(energies), kernel.precision
    padded = np.zeros((m, m), dtype=exact)
    padded[:, : source.shape[1]] = source
    group = np.zeros(m, dtype=np.int32)
    group[: len(groups)] = groups
    inputs = [blocks.astype(exact), energies.astype(exact), owners.astype(np.int64), padded, group, weights]
    outputs = [np.empty((grid, columns, m, m), exact), np.full((batch, columns, m // 2, 4), np.nan)]
    outputs += [np.full((batch, m // 2, 4), np.nan), np.full(batch, -1, dtype=np.int32)]
    pointers = [[ctypes.c_void_p(part.ctypes.data) for part in parts] for parts in (inputs, outputs)]
    sizes = [weights.shape[1], columns, batch]
    assert build(kernel, folder).launch(grid, *pointers[0], *sizes, *pointers[1]) == 0
    return outputs[1:]


def problem(kernel: Kernel, columns: int, seed: int):
    """Random blocks that dissipate, with zeros on their diagonals so that pivots must be sought."""
    m, rng = kernel.orbitals, np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    blocks = normal(2, columns, m, m) / 2
    # Single precision must not be asked about levels that it cannot resolve.
    width = 0.3 if kernel.precision == np.complex128 else 3.0
    blocks = blocks + blocks.conj().swapaxes(-1, -2) - 1j * width * np.eye(m)
    blocks[..., range(0, m, 3), range(0, m, 3)] = 0.4
    energies = np.array([0.4, 0.4, -0.7 + 0.2j])
    return blocks, energies, np.array([0, 1, 1]), normal(m, m - 3), rng.integers(0, 2, m - 3), rng.random((3, 2))


def dense(kernel: Kernel, blocks, energies, owners, source, groups, weights):
    """The same from one dense inverse an energy and an explicit W."""
    (columns, m), rows = blocks.shape[1:3], kernel.orbitals // 2
    hop = np.eye(rows)
    if kernel.diagonal:
        hop += np.eye(rows, k=-1)
        hop[0, -1] += kernel.periodic
    coupling = np.kron(hop.T if kernel.flipped else hop, np.eye(2))
    response, spectral = np.empty((len(energies), columns, rows, 4)), np.empty((len(energies), rows, 4))
    for e, (z, owner) in enumerate(zip(energies, owners, strict=True)):
        full = np.zeros((columns, m, columns, m), dtype=complex)
        for x in range(columns):
            full[x, :, x] = blocks[owner, x] - z * np.eye(m)
            if x + 1 < columns:
                full[x, :, x + 1], full[x + 1, :, x] = -coupling, -coupling.T
        last = np.linalg.inv(full.reshape(columns * m, -1)).reshape(full.shape)
        column = last[:, :, 0] @ source
        rho = np.einsum("xaj,j,xbj->xab", column, weights[e, groups], column.conj())
        # u_0 = U_0, the diagonal block of the first column.
        response[e], spectral[e] = sites(rho), sites(1j * (last[0, :, 0] - last[0, :, 0].conj().T))
    return response, spectral


def sites(matrices):
    pauli = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    rows = matrices.shape[-1] // 2
    split = matrices.reshape(*matrices.shape[:-2], rows, 2, rows, 2)
    return np.einsum("kab,...ibia->...ik", pauli, split).real


KERNELS = [
    Kernel(6, np.dtype(np.complex128), False, True, False),
    Kernel(8, np.dtype(np.complex128), True, True, False),
    Kernel(8, np.dtype(np.complex128), True, False, True),
    Kernel(20, np.dtype(np.complex128), True, True, True),
    Kernel(26, np.dtype(np.complex128), False, False, False),
    Kernel(34, np.dtype(np.complex128), True, False, False),
    Kernel(20, np.dtype(np.complex64), True, True, False),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: "-".join(map(str, vars(kernel).values())))
def test_the_kernel_equals_dense_inverses(kernel, tmp_path):
    case = problem(kernel, 3, seed=kernel.orbitals)
    response, spectral, singular = run(kernel, tmp_path, *case)
    exact = dense(kernel, *case)
    tolerance = 1e-12 if kernel.precision == np.complex128 else 3e-5
    for found, right in zip((response, spectral), exact, strict=True):
        assert np.abs(found - right).max() < tolerance * np.abs(right).max()
    assert not singular.any()


def test_a_singular_energy_is_flagged(tmp_path):
    kernel = KERNELS[0]
    blocks, energies, owners, *rest = problem(kernel, 3, seed=1)
    blocks[1, 2] = energies[1] * np.eye(6)
    _, _, singular = run(kernel, tmp_path, blocks, energies, owners, *rest)
    assert singular.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("precision", "largest"), [(np.complex128, 96), (np.complex64, 128)])
def test_blocks_fit_an_h200_up_to_a_size(precision, largest):
    sizes = [m for m in range(2, 400, 2) if Kernel(m, np.dtype(precision), True, True, False).fits(H200_SHARED)]
    assert sizes == list(range(2, largest + 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("orbitals", [24, 48, 96])
@pytest.mark.parametrize("precision", [np.complex128, np.complex64])
def test_the_source_compiles_for_an_h200_with_its_tile_in_registers(orbitals, precision, tmp_path):
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc on this machine")
    kernel = Kernel(orbitals, np.dtype(precision), True, True, False)
    command = [compiler, "-arch=sm_90", "-cubin", "-Xptxas", "-v", *kernel.options, str(SOURCE), "-o"]
    done = subprocess.run([*command, str(tmp_path / "fused.cubin")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stack = int(re.findall(r"(\d+) bytes stack frame", done.stderr)[0])
    tile = -(-orbitals // kernel.side)
    assert stack < tile**2 * kernel.precision.itemsize / 2


class HostSweep:
    """`FusedSweep` on a CPU."""

    def __init__(self, kernel: Kernel, source, groups, folder: Path) -> None:
        self.kernel, self.source, self.groups, self.folder = kernel, source, groups, folder

    def respond(self, blocks, energies, weights, snapshots):
        owners = np.zeros(len(energies)) if snapshots is None else snapshots.numpy()
        root = np.eye(self.kernel.orbitals) if self.source is None else self.source
        parts = (blocks.numpy(), energies.numpy(), owners, root, self.groups, weights.numpy())
        response, spectral, _ = run(self.kernel, self.folder, *parts)
        return torch.from_numpy(response), torch.from_numpy(spectral)


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize(
    ("polarization", "corner"),
    [((0, 0, 0), {}), ((0.3, 0.5, 0.2), {}), ((0.6, 0, 0.8), {"corner": (0.4, 0.2)})],
    ids=["uniform", "polarised", "two potentials on one column"],
)
def test_sources_by_the_kernel_equal_sources_by_batched_routines(kind, polarization, corner, tmp_path, monkeypatch):
    system = driven(
        kind, (3, 3), periodic_y=False,
        left=(1.0, -1.0, polarization), right=(0.5, 0.6), bath=(0.3, 0.0), **corner,
    )  # fmt: skip
    backend = make_backend("torch")
    columns = ColumnTeam(World(), 3, make_coupling(system, backend))
    blocks = layer_blocks(system, random_spins(system, 2, seed=3), backend)
    energies, owners = torch.tensor([-0.9, 0.1, 0.4], dtype=torch.complex128), torch.tensor([0, 1, 1])
    made = []

    def emulated(coupling, precision, orbitals, source, groups):
        made.append((coupling.flipped, len(groups)))
        return HostSweep(Kernel.of(coupling, orbitals, precision), source, groups, tmp_path)

    for source in partition(system, columns).sources:
        weights = torch.from_numpy(np.random.default_rng(1).random((3, len(source.groups))))
        batched = source.respond(blocks, energies, weights, owners)
        source._fused.clear()
        with monkeypatch.context() as patch:
            patch.setattr("hpcspin.electrons.sources.fused_sweep", emulated)
            patch.setattr("hpcspin.electrons.sources.Fastest.__call__", lambda self, precision, one, two: two())
            fused = source.respond(blocks, energies, weights, owners)
        for one, other in zip(batched, fused, strict=True):
            assert (one - other).abs().max() < 1e-12
    assert len(made) == 2
    assert {flipped for flipped, _ in made} == {True, False}


def sweep(value: float, seconds: float):
    def way():
        time.sleep(seconds)
        return np.array([value]), np.array([1.0])

    return way


def test_the_faster_way_is_taken_and_remembered():
    fastest = Fastest(make_backend("numpy"))
    slow, fast = sweep(2.0, 0.02), sweep(2.0 + 1e-9, 0.0)
    assert fastest("complex128", slow, fast)[0] == 2.0 + 1e-9
    assert fastest("complex128", slow, sweep(7.0, 0.0))[0] == 7.0
    assert fastest("complex64", fast, slow)[0] == 2.0 + 1e-9
    assert fastest.second == {"complex128": True, "complex64": False}


@pytest.mark.parametrize("wrong", [2.1, np.nan])
def test_a_way_that_disagrees_is_never_taken(wrong, caplog):
    fastest = Fastest(make_backend("numpy"))
    assert fastest("complex128", sweep(2.0, 0.02), sweep(wrong, 0.0))[0] == 2.0
    assert "disagrees" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: "-".join(map(str, vars(kernel).values())))
def test_the_kernel_on_a_gpu_equals_dense_inverses(kernel):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    blocks, energies, owners, source, groups, weights = problem(kernel, 5, seed=kernel.orbitals)
    sweep = FusedSweep(kernel, source, groups)
    found = sweep.respond(*(cupy.asarray(part) for part in (blocks, energies, weights, owners)))
    tolerance = 1e-12 if kernel.precision == np.complex128 else 3e-5
    for one, right in zip(found, dense(kernel, blocks, energies, owners, source, groups, weights), strict=True):
        assert np.abs(cupy.asnumpy(one) - right).max() < tolerance * np.abs(right).max()
