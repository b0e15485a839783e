"""What the laws of dynamics are tested with: spins, a loop without files, and a fit."""

import numpy as np
import torch

from hpcspin.dynamics import FieldEvaluator, Thermostat, make_integrator
from hpcspin.dynamics.torque import angular_velocity, components_first
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

OPEN = (False, False)


def random_spins(size, seed=0):
    spins = np.random.default_rng(seed).normal(size=(*size, 3))
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def single_domain(size, periodic=OPEN, kind="square"):
    return Domain(make_lattice(kind, size, periodic), World(), (1, 1))


def evolve(field, spins, dt, steps, *, damping, integrator="heun", domain=None, bath=None, visit=None):
    """Move spins (Lx, Ly, 3) by a number of steps; `visit(step, spins)` sees them after each."""
    domain = domain or single_domain(spins.shape[:2])
    evaluate = FieldEvaluator(field, domain)
    bath = bath or Thermostat(0.0, damping, dt, seed=1)
    advance = make_integrator(integrator, noise=bath.temperature > 0).step
    sites = torch.as_tensor(domain.sites)
    now = components_first(torch.as_tensor(spins))
    for step in range(steps):
        noise = bath.field(sites, step, now.dtype)

        def omega(at, time, noise=noise):
            force = evaluate(at, time)
            return angular_velocity(at, force if noise is None else force + noise, damping)

        now = advance(now, step * dt, dt, omega)
        if visit is not None:
            visit(step + 1, now.numpy())
    return now.numpy().copy()


def fitted_order(steps, errors):
    """Slope of log(error) against log(step)."""
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]
