"""Spins that move on a pretended GPU go where they go on the CPU, and their steps ask the host for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, pretended_gpu, real, undisturbed
from run_simulation import corrected, every_term, simulation
from shipped import in_double, shipped
from test_simulation import assert_same_bits, contents
from torch import Tensor

from hpcspin.assembly.landscape import Landscape
from hpcspin.assembly.learned import LearnedField
from hpcspin.dynamics import INTEGRATORS, CorrectedField, Field, Simulation
from hpcspin.dynamics.thermostat import normal_vectors
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.potential import Committee, ForceField

SIZE = (12, 9)
BIAS = 3.2
LAUNCHES = {"driven_sd_fast": 701, "driven_sd": 1001, "driven_sd_light": 851, "driven_sd_strips": 1005}
"""Kernels of a thermal Heun step: 919 and 1291 of the first two before tables and parameters stayed on the device."""
ADAPTIVE = {"integrator": "dormand_prince", "temperature": 0.0, "tolerance": 1e-6}


def classical_terms() -> Field:
    return every_term(make_lattice("square", SIZE, (False, True)))


def fixed(name: str) -> dict[str, Any]:
    """Steps of an integrator, with noise where it takes any."""
    return {"integrator": name, "temperature": 0.05 if INTEGRATORS[name].langevin else 0.0}


def committee() -> Committee:
    """A shipped model and one whose weights are a little different."""
    members = [in_double("driven_sd_fast") for _ in range(2)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in members[1].parameters():
            weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return Committee(members).eval()


def assert_goes_the_same_way(
    directory: Path, field: Callable[[torch.device], Field], tolerance: float = 0.0, **changes: Any
) -> None:
    """All that a run records, on the CPU and on the device."""
    given = {"size": SIZE, "duration": 0.3, "record": 2, "checkpoint": 2, **changes}
    simulation(directory / "cpu", field(torch.device("cpu")), **given).run()
    with pretended_gpu():
        simulation(directory / "gpu", field(GPU), device=GPU, **given).run()
    if tolerance == 0:
        assert_same_bits(directory / "gpu", directory / "cpu")
    expected, found = contents(directory / "cpu"), contents(directory / "gpu")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "dtype"), [("heun", "float32"), *((name, "float64") for name in (*INTEGRATORS, "adaptive"))]
)
def test_integrators_and_classical_terms(tmp_path: Path, name: str, dtype: str) -> None:
    changes = ADAPTIVE if name == "adaptive" else fixed(name)
    assert_goes_the_same_way(tmp_path, lambda device: classical_terms(), dtype=dtype, **changes)


def test_corrected_dynamics(tmp_path: Path) -> None:
    """Also where the cheap field is a learned one."""
    assert_goes_the_same_way(tmp_path / "classical", lambda device: corrected(3, SIZE))

    def learned(device: torch.device) -> Field:
        model = in_double("driven_sd_fast").to(device)
        return CorrectedField(LearnedField(model, BIAS), corrected(3, SIZE).exact, SIZE, 3)

    assert_goes_the_same_way(tmp_path / "learned", learned, tolerance=1e-12)


@pytest.mark.parametrize("make", [committee, lambda: in_double("driven_sd_strips")], ids=["committee", "potentials"])
def test_learned_dynamics(tmp_path: Path, make: Callable[[], Committee | ForceField]) -> None:
    assert_goes_the_same_way(tmp_path, lambda device: LearnedField(make().to(device), BIAS), tolerance=1e-12)


def test_a_minimisation_under_a_learned_field() -> None:
    """Its spins are on the host, and the model is on the device."""
    model = in_double("triangular_120")
    lattice = make_lattice("triangular", SIZE, (True, True))
    spins, nowhere = make_texture("random", lattice, 1), np.zeros(SIZE, dtype=bool)

    def answers(device: torch.device) -> list[Any]:
        landscape = Landscape(lattice, LearnedField(model.to(device), 0.0), None, nowhere)
        return [*landscape(spins), landscape.slope(spins)]

    expected = answers(torch.device("cpu"))
    with pretended_gpu():
        for one, other in zip(answers(GPU), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_noise() -> None:
    """To the bit, in tiles that have the size of each device; beyond 2^32 steps."""
    sites = torch.arange(5, 20_005).reshape(100, 200)
    expected = normal_vectors(sites, 7, 1, (1 << 33) + 5, 2)
    with pretended_gpu() as gpu:
        there = sites.to(GPU)
        assert torch.equal(real(undisturbed(gpu, lambda: normal_vectors(there, 7, 1, (1 << 33) + 5, 2))), expected)


def ready(directory: Path, field: Field, **changes: Any) -> Callable[[], Any]:
    """A step of a run on the device whose first one is done."""
    run = simulation(directory, field, device=GPU, **{"size": SIZE, **changes})
    run._spins, run._step = after_a_step(run)
    return lambda: after_a_step(run)


def after_a_step(run: Simulation) -> tuple[Tensor, int]:
    """Spins and step that follow; the run itself stays where it is."""
    return run._motion(run._spins, run._step), run._step + 1


@pytest.mark.parametrize("name", [name for name, known in INTEGRATORS.items() if not known.implicit])
def test_a_step_under_classical_terms_asks_the_host_for_nothing(tmp_path: Path, name: str) -> None:
    with pretended_gpu() as gpu:
        undisturbed(gpu, ready(tmp_path, classical_terms(), **fixed(name)))


@pytest.mark.parametrize("changes", [{"integrator": "midpoint"}, ADAPTIVE], ids=["midpoint", "adaptive"])
def test_a_step_that_measures_itself_waits_for_the_largest_change_alone(tmp_path: Path, changes: Any) -> None:
    with pretended_gpu() as gpu:
        step = ready(tmp_path, classical_terms(), **changes)
        with gpu.counting() as counts:
            step()
    assert not counts.copies
    assert [place.partition(":")[0] for place in counts.waits] == ["dynamics/integrators.py"]


def test_a_step_between_exact_fields_asks_the_host_for_nothing(tmp_path: Path) -> None:
    with pretended_gpu() as gpu:
        run = simulation(tmp_path, corrected(3, SIZE), device=GPU, size=SIZE)
        for _ in range(2):
            run._renew()
            run._spins, run._step = after_a_step(run)
        undisturbed(gpu, lambda: (run._renew(), after_a_step(run)))


def test_a_committees_step_asks_the_host_for_nothing(tmp_path: Path) -> None:
    with pretended_gpu() as gpu:
        undisturbed(gpu, ready(tmp_path, LearnedField(committee().to(GPU), BIAS)))


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_of_a_thermal_step(tmp_path: Path, name: str) -> None:
    """No more than in the table, and nothing asked of the host."""
    with pretended_gpu() as gpu:
        step = ready(tmp_path, LearnedField(shipped(name).to(GPU), BIAS), size=(30, 24))
        undisturbed(gpu, step)
        with gpu.counting() as counts:
            step()
    assert sum(counts.launches.values()) <= LAUNCHES[name]


def test_no_step_waits_for_the_copy_of_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both copies of a frame arrive while the next steps are computed; only checkpoints are waited for at once."""
    diary: list[str] = []

    class Free:
        halo = (0, 0)

        def bind(self, domain: Any) -> Callable[[Tensor, float], Tensor]:
            return lambda spins, time: (diary.append("field"), 0.1 * spins)[1]

    with pretended_gpu() as gpu:
        run = simulation(tmp_path, Free(), device=GPU, size=SIZE, record=2, checkpoint=6, duration=0.6, temperature=0.0)
        monkeypatch.setattr(gpu, "synchronize", lambda real=gpu.synchronize: (diary.append("wait"), real()))
        monkeypatch.setattr(Simulation, "_warn_of_a_long_step", lambda self: None)
        with gpu.counting() as counts:
            run.run()
    assert not counts.copies
    assert sum(counts.transfers.values()) == 2 * (4 + 2)
    # Two steps and the frame behind them take four fields, since the first stage of a step takes the frame's.
    frame, two_steps = ["wait"] * 2, ["field"] * 4
    first = ["field", *frame, *frame]  # With the checkpoint of step 0.
    assert diary == [*first, *two_steps, *two_steps, *frame, *two_steps, *frame, *frame, *frame]
