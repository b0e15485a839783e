"""Classical spins driven by electrons, in equilibrium and far from it: exact fields, learned fields, dynamics.

The public interface for scripts and notebooks. A module is imported only when one of the names below is first used::

    import hpcspin as hs

    system = hs.load_system("configs/driven_sd.yaml")
    spins = system.texture("wall", position=8, seed=1)
    exact = system.solve(spins, tolerance=1e-3)
    model = hs.load_model("driven_sd_fast")
    run = hs.simulate(system, field=model, spins=spins, damping=0.2, temperature=0.01, step=0.4, duration=40)

Under ``mpiexec`` or ``torchrun`` all ranks make the same calls and share the work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcspin.api import Run, evaluate, label, landscape, load_model, load_system, open_labels, open_trajectory
    from hpcspin.api import simulate as simulate
    from hpcspin.api import train as train
    from hpcspin.electrons.closed import ClosedLattice
    from hpcspin.electrons.model import DrivenLattice, Reservoir
    from hpcspin.errors import HpcspinError
    from hpcspin.lattice import make_lattice, perpendicular

__version__ = "0.2.0"

_HOMES = {
    **dict.fromkeys(("DrivenLattice", "Reservoir"), "hpcspin.electrons.model"),
    "ClosedLattice": "hpcspin.electrons.closed",
    "HpcspinError": "hpcspin.errors",
    **dict.fromkeys(("make_lattice", "perpendicular"), "hpcspin.lattice"),
}
"""Module of each public name that is not defined in `hpcspin.api`."""

__all__ = [
    "ClosedLattice", "DrivenLattice", "HpcspinError", "Reservoir", "Run", "evaluate", "label", "landscape",
    "load_model", "load_system", "make_lattice", "open_labels", "open_trajectory", "perpendicular", "simulate", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hpcspin' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "hpcspin.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
