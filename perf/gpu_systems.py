"""What ``perf/gpu.py`` puts on the card: driven lattices, shipped models, moving spins; how launches are counted."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_figures import Bench
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hpcspin.assembly.learned import LearnedField
from hpcspin.assembly.system import build_system
from hpcspin.config import load_config
from hpcspin.dynamics import Field, FieldEvaluator, Thermostat, make_integrator
from hpcspin.dynamics.torque import angular_velocity, components_first
from hpcspin.electrons import DrivenLattice, RecursiveSolver
from hpcspin.electrons.fused import Kernel
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, ForceField, load_model, make_force_field
from hpcspin.storage import read_spins

Size = tuple[int, int]

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "driven_sd.yaml"
MODELS = ROOT / "configs" / "models"
EXACT = MODELS / "driven_sd_exact.h5"
SHIPPED = ("driven_sd", "driven_sd_light", "driven_sd_fast", "driven_sd_pair", "driven_sd_strips")
PAPER: Size = (30, 24)
BIAS, DAMPING, TEMPERATURE, STEP = 3.2, 0.2, 0.01, 0.4
CPU = torch.device("cpu")
VECTOR_BYTES = 24
"""Of a spin or a field in float64."""


def driven(size: Size, kind: str = "square", bath: float = 0.001) -> DrivenLattice:
    """The paper's electrons on a lattice of any size and kind."""
    length, rows = size
    reservoirs = f"electrons.reservoirs.2.width={bath}"
    return build_system(load_config(CONFIG, [f"lattice.size=[{length},{rows}]", f"lattice.kind={kind}", reservoirs]))


def walls(size: Size, count: int, kind: str = "square") -> NDArray[np.float64]:
    """Walls at different places, of the paper's lattice frames of exact trajectories, shape (count, Lx, Ly, 3)."""
    if size == PAPER and kind == "square":
        frames = read_spins(EXACT, size)
        return frames[np.arange(count) * 5 % len(frames)]
    lattice = make_lattice(kind, size)
    places = [size[0] // 4 + seed % max(1, size[0] // 2) for seed in range(count)]
    return np.stack([make_texture("wall", lattice, seed, position=place) for seed, place in enumerate(places)])


def solver_of(
    bench: Bench, system: DrivenLattice, tolerance: float, backend: str, precision: str = "complex128"
) -> RecursiveSolver:
    """Exact labels on the card by ``cupy`` or ``torch``; by NumPy where there is none."""
    return RecursiveSolver(system, tolerance, device=bench.device, precision=precision, backend=backend)


def take_fused(solver: RecursiveSolver, fused: bool) -> bool:
    """Insist on the fused kernel, or on batched routines; whether there is a choice."""
    state = solver.get_state()
    chosen = {name: np.array(fused) for name in state if name.startswith("fused_")}
    solver.set_state(state | chosen)
    return bool(chosen)


def anew(solver: RecursiveSolver, spins: NDArray[np.float64]) -> Callable[[], Any]:
    """A label that remembers no other."""

    def label() -> Any:
        solver.reset()
        return solver.solve(spins)

    return label


def window_limits(system: DrivenLattice, nodes: int) -> tuple[float, float]:
    """Flops and bytes of the plain recursion at so many window energies.

    One inversion and one product of 8 m³ real flops each a column of sites; u_x is written once and read once.
    """
    columns, rows = system.lattice.size
    m = 2 * rows
    return 16.0 * m**3 * columns * nodes, 2.0 * 16 * m**2 * columns * nodes


def kernel_problem(kernel: Kernel, columns: int, energies: int) -> tuple[NDArray[Any], ...]:
    """Random blocks that dissipate, their energies, owners, source, groups and weights, for the fused kernel."""
    m, rng = kernel.orbitals, np.random.default_rng(kernel.orbitals)
    blocks = rng.standard_normal((2, columns, m, m)) + 1j * rng.standard_normal((2, columns, m, m))
    blocks = (blocks + blocks.conj().swapaxes(-1, -2)) / 2 - 3j * np.eye(m)
    source = rng.standard_normal((m, m)) + 1j * rng.standard_normal((m, m))
    at = np.linspace(-1, 1, energies).astype(np.complex128)
    owners, groups = np.arange(energies) % 2, rng.integers(0, 2, m)
    return blocks, at, owners, source, groups, rng.random((energies, 2))


def dense_columns(kernel: Kernel, problem: tuple[NDArray[Any], ...]) -> NDArray[np.float64]:
    """Densities of sum_s w_s Y Y† on all sites by dense inverses, shape (energies, Lx, Ly); W the identity."""
    blocks, energies, owners, source, groups, weights = problem
    columns, m = blocks.shape[1:3]
    results = np.empty((len(energies), columns, m // 2))
    for e, (z, owner) in enumerate(zip(energies, owners, strict=True)):
        full = np.zeros((columns, m, columns, m), dtype=complex)
        for x in range(columns):
            full[x, :, x] = blocks[owner, x] - z * np.eye(m)
            if x + 1 < columns:
                full[x, :, x + 1], full[x + 1, :, x] = -np.eye(m), -np.eye(m)
        column = np.linalg.inv(full.reshape(columns * m, -1)).reshape(full.shape)[:, :, 0] @ source
        results[e] = (np.abs(column) ** 2 @ weights[e, groups]).reshape(columns, m // 2, 2).sum(-1)
    return results


@functools.cache
def _shipped(name: str) -> ForceField:
    return load_model(MODELS / f"{name}.safetensors")[0]


def shipped(name: str, device: torch.device, precision: str = "float32") -> ForceField:
    """A shipped model on a device, in either precision, to evaluate."""
    model = _shipped(name)
    if model.architecture.settings.precision == precision:
        return copy.deepcopy(model).to(device).eval()
    other = make_force_field(model.architecture.changed(precision=precision))
    weights = model.state_dict()
    weights.pop("envelope", None)
    other.load_state_dict(weights)
    return other.to(device).eval()


def committee(name: str, device: torch.device, precision: str = "float32") -> Committee:
    """A shipped model and one whose weights are a little different."""
    one, other = (shipped(name, CPU, precision) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    return Committee([one, other]).to(device).eval()


@dataclass(frozen=True)
class Evaluation:
    """A model at given spins of one lattice, shape (n, Lx, Ly, 3), on the model's device."""

    model: ForceField | Committee
    spins: NDArray[np.float64]

    def ready(self) -> Callable[[], Tensor]:
        """The field, shape (n, sites, 3), of spins that are on the device already."""
        device = next(self.model.parameters()).device
        size = self.spins.shape[1:3]
        table = self.model.neighbourhood(make_lattice("square", size))
        flat = torch.from_numpy(self.spins).flatten(1, 2).to(device)
        bias = torch.full((len(flat),), BIAS, device=device)
        return lambda: self.model(flat, table, bias).field

    def field(self) -> Tensor:
        """The field on the host, in float64."""
        return self.ready()().detach().double().cpu()


def learned(name: str, device: torch.device, precision: str = "float32") -> LearnedField:
    """A shipped model as the dynamics sees it."""
    return LearnedField(shipped(name, device, precision), BIAS)


def stepper(field: Field, size: Size, device: torch.device, temperature: float = TEMPERATURE) -> Callable[[], None]:
    """A function that moves spins by one Heun step with noise, as a simulation does."""
    domain = Domain(make_lattice("square", size), World(), (1, 1))
    start = make_texture("wall", domain.lattice, 1, position=size[0] // 4)
    spins = components_first(torch.from_numpy(start).to(device))
    evaluate, advance = FieldEvaluator(field, domain), make_integrator("heun", noise=True).step
    bath, sites = Thermostat(temperature, DAMPING, STEP, 1), torch.as_tensor(domain.sites, device=device)
    count = 0

    def step() -> None:
        nonlocal spins, count
        noise = bath.field(sites, count, spins.dtype)

        def omega(at: Tensor, moment: float) -> Tensor:
            field = evaluate(at, moment)
            return angular_velocity(at, field if noise is None else field + noise, DAMPING)

        spins = advance(spins, count * STEP, STEP, omega)
        count += 1

    return step


class _Counted(TorchDispatchMode):
    """Operations of torch that compute something, and the numbers that they write."""

    _FREE = ("empty", "detach", "alias", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        view = any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
        if not view and not any(word in func.__name__ for word in self._FREE):
            self.operations += 1
            for part in results if isinstance(results, (tuple, list)) else (results,):
                self.elements += part.numel() if isinstance(part, Tensor) else 0
        return results


def launches(bench: Bench, work: Callable[[], Any]) -> dict[str, float]:
    """Operations of torch in one call and the numbers they write; on a card also its kernels and their time."""
    work()
    with _Counted() as counted:
        work()
    results: dict[str, float] = {"operations": counted.operations, "elements": counted.elements}
    if bench.pretend:
        return results
    from torch.profiler import ProfilerActivity, profile

    bench.wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        bench.wait()
    rows = profiled.key_averages()
    busy = sum(row.self_device_time_total for row in rows) / 1e6
    kernels = sum(row.count for row in rows if row.self_device_time_total and not row.key.startswith("Mem"))
    copies = {way: sum(row.count for row in rows if way in row.key) for way in ("HtoD", "DtoH")}
    return results | {"kernels": kernels, "card_busy_seconds": busy, **copies}
