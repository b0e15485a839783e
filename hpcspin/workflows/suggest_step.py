"""``hpcspin suggest-step``: how long a step each integrator tolerates at the initial spins of a config."""

from __future__ import annotations

import torch

from hpcspin.assembly.fields import build_field
from hpcspin.assembly.system import build_lattice, build_vacancies, initial_spins
from hpcspin.config import Config, DynamicsSection
from hpcspin.dynamics import INTEGRATORS
from hpcspin.dynamics.integrators import largest_on
from hpcspin.dynamics.motion import Motion
from hpcspin.dynamics.step_bounds import DRIVE_ERROR, NOISE_ERROR, PHASE_ERROR, drives_of, fastest_rate, step_bounds
from hpcspin.dynamics.torque import components_first
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World


def suggest_step(config: Config, world: World, evaluations: int) -> str:
    """Table of the longest steps of the integrators for a config of `simulate`, from some evaluations of the field."""
    initial, dynamics = config.section(InitialSettings), config.section(DynamicsSection)
    lattice, device = build_lattice(config.lattice), pick_device(world, config.device)
    field = build_field(config, lattice, world, device)
    domain = Domain.cut(lattice, world, field.halo)
    # Without noise, which not all integrators take, and which gives no rate.
    still = dynamics.model_copy(update={"temperature": 0.0, "integrator": "heun", "tolerance": None})
    vacancies = build_vacancies(config, lattice)
    motion = Motion(field, domain, still, device, vacancies)
    start = torch.as_tensor(initial_spins(initial, lattice, dynamics.seed, vacancies)[domain.slices], device=device)
    rate = fastest_rate(motion.velocity, components_first(start), motion.sites, largest_on(world), evaluations)
    drives, lines = drives_of(field), []
    for name, scheme in sorted(INTEGRATORS.items()):
        temperature = dynamics.temperature if scheme.langevin else 0.0
        bounds = step_bounds(name, rate, drives, dynamics.duration, dynamics.damping, temperature)
        if not bounds:
            return "nothing moves: no field, or spins at rest in it; any step will do"
        cause = min(bounds, key=bounds.__getitem__)
        fits = "" if scheme.langevin or dynamics.temperature == 0 else "  (not with noise)"
        lines.append(f"  {name:<16} {bounds[cause]:8.3g}  {cause}{fits}")
    lines = [
        f"fastest rate at the initial spins: {rate:.4g} rad t/ħ ({evaluations} evaluations of the field)",
        f"longest step (ħ/t) with errors below {PHASE_ERROR} rad a period in the phase of that mode, "
        f"{DRIVE_ERROR:.0%} in the tilt by drives and {NOISE_ERROR:.1%} in the temperature, and what limits it:",
        *lines,
        f"the config has {dynamics.integrator} with {dynamics.step:.3g}",
    ]
    return "\n".join(lines)
