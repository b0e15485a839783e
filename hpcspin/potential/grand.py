"""The learned grand potential: an energy of closed electrons as a function of the spins and of the chemical potential.

At a fixed number of electrons no force field of nearby spins is exact: the chemical potential mu depends on all spins,
and the field on each spin depends on mu. At fixed mu the field is local. The network therefore learns the local terms
of

    Omega(S, mu) + n N_sites (mu - mu_0) = Σ_k T_k(x) C_k(S),      C_k = Σ_i ε_ki,

with Chebyshev polynomials T_k of x = (mu - mu_0) / w. The centre mu_0 and the unit w are those of the range of mu in
the training data, and n is the mean number of electrons per site there. At a given filling, mu follows from
N = -∂Omega/∂mu, where Omega + mu N has its maximum; this takes a few sums over the lattice and a root of one
polynomial. The field then derives from the free energy F = Omega + mu N.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.chebyshev import chebder, chebroots, chebval
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError

if TYPE_CHECKING:
    from hpcspin.potential.prediction import Predictor

TERMS = 8
"""Number of polynomials of the chemical potential."""
_SAMPLED = 33
_BEYOND = 1.05
"""Largest |x| of a chemical potential, found or given, a little beyond the training data."""
_MISSED = 0.02
"""Largest error of the filling that is accepted at an end of this range, in electrons per site."""
_UNIT = 2.0**-32
"""Unit, in hoppings, of sums taken in integers, which have the same bits in any order."""


class GrandPotential(NamedTuple):
    """Reference values of the polynomials in the chemical potential."""

    lowest: float = -1.0
    """Smallest chemical potential in the training data, in hoppings."""
    highest: float = 1.0
    """Largest chemical potential in the training data."""
    filling: float = 1.0
    """Mean number of electrons per site in the training data."""

    @property
    def middle(self) -> float:
        """mu_0, where x = 0."""
        return (self.lowest + self.highest) / 2

    @property
    def unit(self) -> float:
        """The unit w of mu - mu_0."""
        return (self.highest - self.lowest) / 2 or 1.0

    def polynomials(self, potential: Tensor, derivative: int = 0) -> Tensor:
        """T_k at chemical potentials, or their first or second derivatives with respect to mu: (terms, *potentials)."""
        x = (potential.double() - self.middle) / self.unit
        powers = x ** torch.arange(TERMS, device=x.device).reshape(-1, *[1] * x.ndim)
        return torch.tensordot(_coefficients(derivative, x.device), powers, 1) / self.unit**derivative

    def energy(self, terms: Tensor, drive: Tensor, sites: int) -> Tensor:
        """Omega or, if a filling is given, the free energy F = Omega + mu N, shape (batch,).

        ``terms`` are the C_k, shape (batch, terms), and ``drive`` has the chemical potential and the electrons per
        site, the latter NaN at a fixed potential, shape (batch, 2); ``sites`` is the number of sites of the lattice.
        """
        potential, filling = drive.double().unbind(1)
        held = torch.nan_to_num(filling * potential)
        learned = (terms * self.polynomials(potential).T).sum(1)
        return learned + sites * (held - self.filling * (potential - self.middle))

    def electrons(self, terms: Tensor, drive: Tensor, sites: int) -> Tensor:
        """N = -∂Omega/∂mu, shape (batch,); arguments as for `energy`."""
        return sites * self.filling - (terms * self.polynomials(drive[:, 0], 1).T).sum(1)

    def compressibility(self, terms: Tensor) -> Tensor:
        """∂N/∂mu of the lattice at equally spaced chemical potentials of the range, shape (batch, n)."""
        potentials = torch.linspace(self.lowest, self.highest, _SAMPLED, dtype=torch.float64, device=terms.device)
        return -terms @ self.polynomials(potentials, 2)

    def is_beyond(self, potential: Any) -> Any:
        """Whether the polynomials mean nothing at chemical potentials; False where there is none, NaN."""
        return abs(potential - self.middle) > _BEYOND * self.unit

    def require(self, potential: float) -> None:
        """Raise HpcspinError for a given chemical potential outside the training data; NaN is none."""
        if self.is_beyond(potential):
            raise HpcspinError(
                f"the chemical potential {potential:g} lies outside {self.lowest:.3g} to {self.highest:.3g}, which the "
                "model has learned from; take another model, or train one on labels at such potentials"
            )

    def potential_at(self, sums: NDArray[np.float64], filling: float, sites: int, *, strict: bool = True) -> float:
        """The chemical potential mu at a filling, in electrons per site, where Omega + mu N has its maximum.

        Of several maxima the highest counts; without any, the end of the range with the higher value. ``sums`` are the
        C_k of the whole lattice, in hoppings, shape (terms,). Raises HpcspinError if mu lies outside the range of the
        training data, unless the model may miss the filling, for which ``strict`` is False.
        """
        free_energy = np.array(sums)
        free_energy[1] += (filling - self.filling) * sites * self.unit
        slope = chebder(free_energy)
        roots = chebroots(slope)
        inside = roots.real[(abs(roots.imag) < 1e-9) & (abs(roots.real) < _BEYOND)]
        maxima = inside[chebval(inside, chebder(slope)) < 0]
        candidates = maxima if len(maxima) else np.array([-_BEYOND, _BEYOND])
        x = float(candidates[np.argmax(chebval(candidates, free_energy))])
        missed = abs(float(chebval(x, slope))) / (self.unit * sites)
        if strict and abs(x) == _BEYOND and missed > _MISSED:
            raise HpcspinError(
                f"the chemical potential at a filling of {filling:g} lies outside {self.lowest:.3g} to "
                f"{self.highest:.3g}, which the model has learned from: it misses {missed:.2g} electrons a site there; "
                "take another model, or train one on labels of such spins"
            )
        return self.middle + self.unit * x


@functools.cache
def _coefficients(derivative: int, device: torch.device) -> Tensor:
    """Coefficients of x^m in the polynomials T_k, or in a derivative of them, shape (terms, terms); copied once."""
    rows = [Chebyshev.basis(k).deriv(derivative).convert(kind=Polynomial).coef for k in range(TERMS)]
    return torch.from_numpy(np.stack([np.pad(row, (0, TERMS - len(row))) for row in rows])).to(device)


def at_filling(
    model: Predictor,
    spins: Tensor,
    neighbourhood: Any,
    drive: Tensor,
    sites: int,
    total: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda mine: mine,
    *,
    strict: bool = True,
) -> tuple[Tensor, Sequence[Any]]:
    """Drive of configurations with the chemical potential of their filling, and the forward pass that determined it.

    Both are the last arguments of the model's ``forward``, which then does not repeat this pass.

    Parameters
    ----------
    model
        In evaluation mode.
    spins, neighbourhood
        As for its ``forward``.
    drive
        Chemical potential, NaN if it is to be determined, and electrons per site, shape (batch, 2).
    sites
        Number of sites of the lattice.
    total
        Function that sums integers over all ranks.
    strict
        See `GrandPotential.potential_at`; a model that is still in training misses every filling.

    Returns
    -------
    tuple
        The drive, shape (batch, 2), and the forward pass; for a model without a grand potential, or if no chemical
        potential is to be determined, the drive as given and an empty tuple.

    Raises
    ------
    HpcspinError
        See `GrandPotential.potential_at`.
    """
    grand = model.grand_potential
    if grand is None or not bool(drive[:, 0].isnan().any()):  # The test synchronises a GPU, but only for such a model.
        return drive, ()
    terms, forward_pass = model.terms(spins, neighbourhood)
    whole = (terms / _UNIT).round().long().sum(1)
    sums = total(whole.cpu().numpy()) * _UNIT
    potentials = [  # Labels at a given potential may share a batch with others at a filling.
        grand.potential_at(one, filling, sites, strict=strict) if math.isnan(given) else given
        for one, (given, filling) in zip(sums, drive.tolist(), strict=True)
    ]
    return torch.stack([drive.new_tensor(potentials), drive[:, 1]], 1), forward_pass
