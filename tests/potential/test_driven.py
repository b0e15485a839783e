"""Fields whose symmetry under time reversal only voltages break."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from force_fields import make_model, perpendicular, random_spins
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.potential import Architecture, host_library

LATTICE = make_lattice("square", (9, 5), (False, True))
VOLTAGES, P = [0.7, -1.1], [0.1, 0.6, -0.3]


def made(time_reversal: str = "driven", **changes: Any) -> Any:
    given = {"layers": (1, 2), "channels": 3, "drive": "polarized", "drives": 2, "electrode_range": 4.0, **changes}
    return make_model(5, kind="direct", time_reversal=time_reversal, **given)


def field(model: Any, spins: Tensor, voltages: list[float], sign: int = 1) -> Tensor:
    drive = torch.tensor([[*voltages, *(sign * p for p in P), 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = model(spins, model.neighbourhood(LATTICE), drive.expand(len(spins), -1)).field
    return perpendicular(spins, found)


@pytest.mark.parametrize("voltages", [[0.0, 0.0], VOLTAGES])
def test_the_field_changes_its_sign_with_all_spins_unless_there_is_a_voltage(voltages: list[float]) -> None:
    spins, even = random_spins(1, 45, 1), []
    for reversal in ("driven", "broken"):
        model = made(reversal)
        even.append((field(model, spins, voltages) + field(model, -spins, voltages, -1)).abs().max())
    assert even[1] > 1e-3
    assert (even[0] < 1e-15) == (not any(voltages))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_without_a_voltage_a_magnet_feels_no_damping_like_torque(precision: str) -> None:
    """Spins in a plane with the polarisation have a field in this plane; a small voltage adds to it in proportion."""
    model, p = made(precision=precision), torch.tensor(P, dtype=torch.float64)
    spin = torch.nn.functional.normalize(torch.tensor([0.3, 0.2, 0.9], dtype=torch.float64), dim=0)
    spins, across = spin.expand(1, 45, 3).contiguous(), torch.linalg.cross(spin, p)
    fields = [field(model, spins, [v, -v]).double() for v in (0.0, 0.01, 0.02)]
    none, one, two = (float((found @ across).abs().max()) for found in fields)
    assert none < 1e-6 * float(fields[0].abs().max())
    assert two == pytest.approx(2 * one, rel=0.05)
    assert float((field(made("broken", precision=precision), spins, [0.0, 0.0]).double() @ across).abs().max()) > one


def test_kernels_pytorch_and_training_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model, spins = made(drive="bias", drives=1), random_spins(3, 45, 4)
    table, bias = model.neighbourhood(LATTICE), torch.tensor([0.7, 0.2, 0.0], dtype=torch.float64)
    fast = model(spins, table, bias).field
    torch.testing.assert_close(model.train()(spins, table, bias).field, fast, atol=1e-12, rtol=0)
    monkeypatch.setattr(host_library, "usable", lambda *_: False)
    torch.testing.assert_close(model.eval()(spins, table, bias).field, fast, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({}, "must be 'broken' or 'even'"), ({"layers": (1,)}, "time_reversal: driven is that of kind: direct")],
)
def test_potentials_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HpcspinError, match=message):
        Architecture("square", 2.0, (8,), kind="pair", time_reversal="driven", **change)
