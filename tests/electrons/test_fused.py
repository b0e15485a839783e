"""The CUDA kernel's own source and its launch, threads emulated on a CPU, against dense inverses."""

from __future__ import annotations

import faulthandler
import multiprocessing
import time
from types import SimpleNamespace

import numpy as np
import pytest
from pretend_cupy import H200_SHARED, Card
from systems import KINDS, OWN_KINDS, driven, random_spins

from hpcspin.electrons import RecursiveSolver
from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.fused import SOURCE, Autotuned, FusedSweep, Kernel
from hpcspin.electrons.hamiltonian import effective_hamiltonian, layer_blocks, make_coupling
from hpcspin.electrons.memory import Batches
from hpcspin.electrons.sources import split_lesser
from hpcspin.parallel.world import World


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


def flagged(kernel: Kernel):
    """W between sites that the kernel's flags stand for."""
    rows = kernel.orbitals // 2
    hop = np.eye(rows)
    if kernel.diagonal:
        hop += np.eye(rows, k=-1)
        hop[0, -1] += kernel.periodic
    return hop.T if kernel.flipped else hop


def dense(kernel: Kernel, blocks, energies, owners, source, groups, weights):
    """The same from one dense inverse an energy and an explicit W."""
    (columns, m), rows = blocks.shape[1:3], kernel.orbitals // 2
    coupling = np.kron(flagged(kernel), np.eye(2))
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


def check(kernel: Kernel, case, to_device, to_host) -> None:
    blocks, energies, owners, source, groups, weights = case
    sweep = FusedSweep(kernel, source, groups)
    found = sweep.respond(*(to_device(part) for part in (blocks, energies, weights, owners)))
    tolerance = 1e-12 if kernel.precision == np.complex128 else 3e-5
    for one, right in zip(found, dense(kernel, *case), strict=True):
        assert np.abs(to_host(one) - right).max() < tolerance * np.abs(right).max()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: "-".join(map(str, vars(kernel).values())))
def test_the_kernel_equals_dense_inverses(kernel, kernels: Card):
    check(kernel, problem(kernel, 3, seed=kernel.orbitals), kernels.asarray, kernels.asnumpy)


def test_a_singular_energy_leaves_nothing_finite(kernels: Card):
    kernel = KERNELS[0]
    blocks, energies, owners, source, groups, weights = problem(kernel, 3, seed=1)
    blocks[1, 2] = energies[1] * np.eye(6)
    parts = (kernels.asarray(part) for part in (blocks, energies, weights, owners))
    response, spectral = (part.values for part in FusedSweep(kernel, source, groups).respond(*parts))
    assert not np.isfinite(response[1]).any()
    assert np.isfinite(response[[0, 2]]).all()
    assert np.isfinite(spectral[[0, 2]]).all()


BARRIERS = [number for number, line in enumerate(SOURCE.read_text().splitlines(), 1) if "__syncthreads" in line]


def runs_wrong(card: Card, sweep: FusedSweep, skipped: int, case) -> bool:
    """Whether the kernel without one barrier fails; in a process of its own, since it may write anywhere."""

    def compare() -> None:
        sweep._function.library.skip(skipped)
        faulthandler.disable()
        blocks, energies, owners, _, _, weights = case
        for _ in range(4):
            found = sweep.respond(*(card.asarray(part) for part in (blocks, energies, weights, owners)))
            for one, right in zip(found, dense(sweep.kernel, *case), strict=True):
                np.testing.assert_allclose(card.asnumpy(one), right, atol=1e-12 * np.abs(right).max())

    process = multiprocessing.get_context("fork").Process(target=compare)
    process.start()
    process.join()
    return process.exitcode != 0


def test_no_barrier_of_the_kernel_can_be_left_out(kernels: Card):
    assert BARRIERS
    kernel = Kernel(26, np.dtype(np.complex128), True, True, False)
    case = problem(kernel, 2, seed=7)
    sweep = FusedSweep(kernel, *case[3:5])
    assert not runs_wrong(kernels, sweep, 0, case)
    assert [line for line in BARRIERS if not runs_wrong(kernels, sweep, line, case)] == []


@pytest.mark.parametrize(("precision", "largest"), [(np.complex128, 96), (np.complex64, 128)])
def test_blocks_fit_an_h200_up_to_a_size(precision, largest):
    sizes = [m for m in range(2, 400, 2) if Kernel(m, np.dtype(precision), True, True, False).fits(H200_SHARED)]
    assert sizes == list(range(2, largest + 1, 2))


@pytest.mark.parametrize("kind", ["square", "triangular"])
@pytest.mark.parametrize(
    ("polarization", "corner"),
    [((0, 0, 0), {}), ((0.3, 0.5, 0.2), {}), ((0.6, 0, 0.8), {"corner": (0.4, 0.2)})],
    ids=["uniform", "polarised", "two potentials on one column"],
)
def test_sources_by_the_kernel_equal_sources_by_batched_routines(
    kind, polarization, corner, kernels: Card, monkeypatch
):
    system = driven(
        kind, (3, 3), periodic_y=False,
        left=(1.0, -1.0, polarization), right=(0.5, 0.6), bath=(0.3, 0.0), **corner,
    )  # fmt: skip
    spins, energies, owners = random_spins(system, 2, seed=3), np.array([-0.9, 0.1, 0.4 + 0j]), np.array([0, 1, 1])
    monkeypatch.setattr(Autotuned, "choose", lambda self, precision, first, second, case, world: None)
    monkeypatch.setattr(Autotuned, "__call__", lambda self, precision, first, second: second())
    results = []
    for backend in (make_backend("numpy"), make_backend("cupy", "cuda:0")):
        blocks, z, of = layer_blocks(system, spins, backend), backend.asarray(energies), backend.asarray(owners)
        sources = split_lesser(system, ColumnTeam(World(), 3, make_coupling(system, backend)), 1e-12)[1]
        results.append([])
        for source in sources:
            weights = backend.asarray(np.random.default_rng(1).random((3, len(source.groups))))
            if backend.name == "cupy":
                source.choose(blocks[:1], z, weights, World())
                (fused,) = source._fused.values()
                assert fused.kernel.flipped == (source.mirrored and fused.kernel.diagonal)
            results[-1].append([backend.to_numpy(part) for part in source.respond(blocks, z, weights, of)])
    for batched, fused in zip(*results, strict=True):
        for one, other in zip(batched, fused, strict=True):
            assert np.abs(one - other).max() < 1e-12


@pytest.fixture
def _nothing_timed_yet(monkeypatch):
    monkeypatch.setattr("hpcspin.electrons.fused._FASTER", {})


@pytest.mark.parametrize("kind", [*KINDS, *OWN_KINDS])
@pytest.mark.parametrize("periodic_y", [False, True])
def test_a_kernel_is_chosen_for_no_coupling_but_its_own(kind, periodic_y):
    """The coupling that the kernel's flags stand for is that of the lattice, or there is no kernel."""
    rows = 3
    system = driven(kind, (3, rows), periodic_y=periodic_y, bath=(0.3, 0.0))
    full = effective_hamiltonian(system, random_spins(system, 1, seed=1)[0]).reshape(3, rows, 2, 3, rows, 2)
    for coupling, actual in (
        (make_coupling(system, make_backend("numpy")), -full[0, :, 0, 1, :, 0].real),
        (make_coupling(system, make_backend("numpy")).mirrored(), -full[1, :, 0, 0, :, 0].real),
    ):
        kernel = Kernel.of(coupling, 2 * rows)
        if kernel is None:
            assert kind in OWN_KINDS
            continue
        assert np.array_equal(flagged(kernel), actual)


def sweep(value: float, seconds: float):
    def way():
        time.sleep(seconds)
        return np.array([value]), np.array([1.0])

    return way


@pytest.mark.usefixtures("_nothing_timed_yet")
def test_the_faster_way_is_taken():
    autotuned = Autotuned(make_backend("numpy"))
    slow, fast = sweep(2.0, 0.02), sweep(2.0 + 1e-9, 0.0)
    assert autotuned("complex128", slow, fast)[0] == 2.0
    autotuned.choose("complex128", slow, fast, "a case", World())
    autotuned.choose("complex64", fast, slow, "another", World())
    assert autotuned("complex128", slow, fast)[0] == 2.0 + 1e-9
    assert autotuned("complex64", fast, slow)[0] == 2.0 + 1e-9
    assert autotuned.use_second == {"complex128": True, "complex64": False}


def test_a_way_is_timed_without_its_warm_up(monkeypatch):
    """The device goes on after a launch: what it still has to do of the warm-up is not counted."""
    now = busy = 0.0

    def way():
        nonlocal busy
        busy += 3.0
        return np.ones(1), np.ones(1)

    def to_numpy(part):
        nonlocal now
        now = busy
        return part

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert Autotuned(SimpleNamespace(to_numpy=to_numpy))._timed(way)[0] == 3.0


@pytest.mark.usefixtures("_nothing_timed_yet")
def test_a_case_is_timed_once():
    """Another solver of the same card, kernel and sizes takes what the first one has found."""
    first, second = Autotuned(make_backend("numpy")), Autotuned(make_backend("numpy"))
    first.choose("complex128", sweep(1.0, 0.02), sweep(1.0, 0.0), "a case", World())

    def not_again():
        raise AssertionError

    second.choose("complex128", not_again, not_again, "a case", World())
    assert second.use_second == {"complex128": True}
    second.choose("complex64", sweep(1.0, 0.0), sweep(1.0, 0.02), "another", World())
    assert second.use_second == {"complex128": True, "complex64": False}


@pytest.mark.usefixtures("_nothing_timed_yet")
def test_rank_0_decides():
    class Second(World):
        def broadcast(self, value, root=0):
            return True

    def nobody_asks():
        raise AssertionError

    autotuned = Autotuned(make_backend("numpy"))
    autotuned.choose("complex128", nobody_asks, nobody_asks, "a case", Second(1, 2))
    assert autotuned.use_second == {"complex128": True}


@pytest.mark.usefixtures("_nothing_timed_yet")
@pytest.mark.parametrize("wrong", [2.1, np.nan])
def test_a_way_that_disagrees_is_never_taken(wrong, caplog):
    autotuned = Autotuned(make_backend("numpy"))
    autotuned.choose("complex128", sweep(2.0, 0.02), sweep(wrong, 0.0), "a case", World())
    assert autotuned.use_second == {"complex128": False}
    assert "disagrees" in caplog.text


@pytest.mark.parametrize("precision", ["complex128", "complex64"])
def test_each_window_compares_its_ways_once(precision, kernels: Card, monkeypatch):
    """Both electrodes' kernels agree with batched routines on a solver's own example."""
    chosen = {}

    def choose(self, kind, first, second, case, world):
        near = 1e-10 if kind == "complex128" else 1e-2
        for one, other in zip(first(), second(), strict=True):
            one, other = kernels.asnumpy(one), kernels.asnumpy(other)
            assert np.abs(one - other).max() < near * np.abs(one).max()
        chosen[id(self)] = kind

    monkeypatch.setattr(Autotuned, "choose", choose)
    monkeypatch.setattr("hpcspin.electrons.negf.plan_batches", lambda *_: Batches(21, 1, 1))
    system = driven("triangular", (3, 3), periodic_y=False, left=(1.0, -1.0), right=(0.5, 0.6), bath=(0.3, 0.0))
    solver = RecursiveSolver(system, 1e-3, device="cuda:0", precision=precision)
    assert list(chosen.values()) == [precision, precision]
    solver.set_state({"fused_0": np.array(True), "fused_1": np.array(False)})
    assert [window.source.autotuned.use_second[precision] for window in solver.windows] == [True, False]
    assert {key: bool(value) for key, value in solver.get_state().items()} == {"fused_0": True, "fused_1": False}


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: "-".join(map(str, vars(kernel).values())))
def test_the_kernel_on_a_gpu_equals_dense_inverses(kernel):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    check(kernel, problem(kernel, 5, seed=kernel.orbitals), cupy.asarray, cupy.asnumpy)
