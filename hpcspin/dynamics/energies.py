"""Energies of fields on the whole lattice, and the temperature of spins in them."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.dynamics.fields import Field, FieldEvaluator, SumField, terms_of
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World


class Conservative:
    """Base of terms that derive from an energy of degree d in the spins, E = -(1/d) sum S_i·H_i (Euler)."""

    degree: ClassVar[int]

    def divergence(self, lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Divergence of a site's field under rotations of its own spin, the trace of dH_i/dS_i across S_i.

        Spins of shape (Lx, Ly, 3), result of shape (Lx, Ly); 0 where no field on a spin depends on that spin itself,
        and where zero vectors stand for spins that do not move.
        """
        return np.zeros(spins.shape[:2])


@runtime_checkable
class Energetic(Protocol):
    """A field that may have a known energy, from which it or its part h^eq derives."""

    def energy(self, lattice: Lattice, spins: NDArray[np.float64]) -> float | None:
        """Energy of spins of shape (Lx, Ly, 3) on the whole lattice; None if there is none."""


@runtime_checkable
class Responsive(Protocol):
    """A field of exact electrons, whose response to each spin is known if they are in equilibrium."""

    def response(self, spins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """What the last evaluation, on these spins, lacks from the exact field, and `Conservative.divergence`."""
        ...


def energy(field: Field, lattice: Lattice, spins: NDArray[np.float64], time: float = 0.0) -> float:
    """Energy of a field on the whole lattice: E = -(1/d) sum_i S_i·H_i of homogeneous terms, their own E of others.

    Parameters
    ----------
    field
        A term with a degree, closed electrons, a learned field with a potential E, or a sum of these.
    spins
        Shape (Lx, Ly, 3).
    time
        Time at which driven terms are evaluated.

    Raises
    ------
    HpcspinError
        If a term derives from no energy.
    """
    found = energy_if_known(field, lattice, spins, time)
    if found is None:
        raise _without_energy("energy")
    return found


def energy_if_known(field: Field, lattice: Lattice, spins: NDArray[np.float64], time: float) -> float | None:
    """`energy` of a field, None if it, or a term of the sum that it is, has none."""
    if isinstance(field, SumField):
        parts = [energy_if_known(term, lattice, spins, time) for term in field.terms]
        return None if None in parts else sum(part for part in parts if part is not None)
    if isinstance(field, Energetic) and (own := field.energy(lattice, spins)) is not None:
        return own
    if not isinstance(field, Conservative):
        return None
    everything = torch.as_tensor(spins, dtype=torch.float64)
    force = FieldEvaluator(field, Domain.cut(lattice, World(), field.halo))(everything, time)
    return -float((everything * force).sum()) / field.degree


def _without_energy(observer: str) -> HpcspinError:
    others = ", models of kind pair or conservative, or fields of your own with a method energy"
    return HpcspinError(
        f"dynamics.observers: {observer} needs a field with a known energy: classical terms but slonczewski, closed "
        f"electrons{others if observer == 'energy' else ''}; leave this observer out"
    )


def spin_temperature(
    field: Field,
    lattice: Lattice,
    spins: NDArray[np.float64],
    force: NDArray[np.float64],
    free: NDArray[np.bool_] | None = None,
) -> float:
    """Temperature of spins in equilibrium, from one configuration and the force on it; only ``free`` spins count.

    T = sum |S_i x H_i|^2 / sum (2 S_i·H_i - div_i H_i), the mean square gradient of the energy over its Laplacian on
    the spheres: W. B. Nurdin and K.-D. Schotte, Phys. Rev. E 61, 3579 (2000); without self-interaction this is the
    formula of P.-W. Ma et al., Phys. Rev. E 82, 031111 (2010). H is the exact field where a solver estimates it with
    noise. Raises HpcspinError if a term is neither classical nor that of closed electrons.
    """
    moving, own = spins if free is None else np.where(free[..., None], spins, 0), 0.0
    for term in terms_of(field):
        if isinstance(term, Conservative):
            own += float(term.divergence(lattice, moving).sum())
        elif isinstance(term, Responsive) and (found := term.response(spins)) is not None:
            force = force + found[0]
            own += float(found[1].sum() if free is None else found[1][free].sum())
        else:
            raise _without_energy("spin_temperature")
    return float((np.cross(moving, force) ** 2).sum() / (2 * (moving * force).sum() - own))
