"""The learned grand potential: an energy of closed electrons as a function of the spins and of the chemical potential.

At a fixed number of electrons no force field of the spins nearby is exact: the chemical potential mu depends on all
spins, and the field on each of them depends on mu. At a fixed mu the field is local. So the network learns the local
terms of

    Omega(S, mu) + n N_sites (mu - mu_0) = Σ_k T_k(x) C_k(S),      C_k = Σ_i ε_ki,

Chebyshev polynomials T_k of x = (mu - mu_0) / w, whose unit the range of mu in the training data decides, n the mean
electrons a site there. At a filling mu follows from N = -∂Omega/∂mu, where Omega + mu N is largest: a few sums over the
lattice, and a root of one polynomial. The energy whose gradient the field is then is the free energy F = Omega + mu N.
"""

from __future__ import annotations

import functools
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
"""Polynomials of the chemical potential."""
_SAMPLED = 33
_BEYOND = 1.05
"""Range of x in which the chemical potential is looked for: a little more than the training data have."""
_MISSED = 0.02
"""Electrons a site by which a filling may be missed at an end of this range."""
_UNIT = 2.0**-32
"""Of sums in whole numbers, in hoppings: they have the same bits in any order."""


class GrandPotential(NamedTuple):
    """What the polynomials in the chemical potential refer to.

    Attributes
    ----------
    lowest, highest : float
        Chemical potentials of the training data, in hoppings.
    filling : float
        Mean electrons a site of the training data.
    """

    lowest: float = -1.0
    highest: float = 1.0
    filling: float = 1.0

    @property
    def middle(self) -> float:
        """mu_0, where x = 0."""
        return (self.lowest + self.highest) / 2

    @property
    def unit(self) -> float:
        """The unit w of mu - mu_0."""
        return (self.highest - self.lowest) / 2 or 1.0

    def polynomials(self, potential: Tensor, derivative: int = 0) -> Tensor:
        """T_k of chemical potentials, or their first or second derivatives by them, shape (terms, *potentials)."""
        x = (potential.double() - self.middle) / self.unit
        powers = x ** torch.arange(TERMS, device=x.device).reshape(-1, *[1] * x.ndim)
        return torch.tensordot(_coefficients(derivative).to(x.device), powers, 1) / self.unit**derivative

    def energy(self, terms: Tensor, drive: Tensor, sites: int) -> Tensor:
        """Omega or, where a filling is given, the free energy F = Omega + mu N, shape (batch,).

        Parameters
        ----------
        terms
            C_k, shape (batch, terms).
        drive
            Chemical potential and electrons a site, NaN where the potential is what is fixed, shape (batch, 2).
        sites
            Of the lattice.
        """
        potential, filling = drive.double().unbind(1)
        held = torch.nan_to_num(filling * potential)
        learned = (terms * self.polynomials(potential).T).sum(1)
        return learned + sites * (held - self.filling * (potential - self.middle))

    def electrons(self, terms: Tensor, drive: Tensor, sites: int) -> Tensor:
        """N = -∂Omega/∂mu, shape (batch,); arguments as of `energy`."""
        return sites * self.filling - (terms * self.polynomials(drive[:, 0], 1).T).sum(1)

    def compressibility(self, terms: Tensor) -> Tensor:
        """∂N/∂mu at equally spaced chemical potentials of the range, of the lattice: (batch, n)."""
        potentials = torch.linspace(self.lowest, self.highest, _SAMPLED, dtype=torch.float64, device=terms.device)
        return -terms @ self.polynomials(potentials, 2)

    def potential_at(self, sums: NDArray[np.float64], filling: float, sites: int, *, strict: bool = True) -> float:
        """The chemical potential mu at a filling, where Omega + mu N has its maximum.

        The largest one, if the polynomial has several; without any inside the range the larger end of it.

        Parameters
        ----------
        sums
            C_k of the whole lattice, in hoppings, shape (terms,).
        filling
            Electrons a site.
        sites
            Of the lattice.
        strict
            Whether to refuse a filling that the model misses.

        Raises
        ------
        HpcspinError
            If mu lies outside what the model has learned from.
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
def _coefficients(derivative: int) -> Tensor:
    """Coefficients of x^m in the polynomials T_k, or in a derivative of them, shape (terms, terms)."""
    rows = [Chebyshev.basis(k).deriv(derivative).convert(kind=Polynomial).coef for k in range(TERMS)]
    return torch.from_numpy(np.stack([np.pad(row, (0, TERMS - len(row))) for row in rows]))


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
    """The drive of configurations with the chemical potential that their filling asks for, and the forward pass to it.

    Both are the last arguments of the model's ``forward``, which then does not repeat that pass.

    Parameters
    ----------
    model
        In evaluation mode.
    spins, neighbourhood
        As of its ``forward``.
    drive
        Chemical potential, NaN where it is to be found, and electrons a site, shape (batch, 2).
    sites
        Of the lattice.
    total
        Sum of the outputs' whole numbers over all ranks.
    strict
        See `GrandPotential.potential_at`; a model that is still learning misses every filling.

    Returns
    -------
    tuple
        The drive, shape (batch, 2), and the forward pass; of a model without a grand potential, and where no chemical
        potential is to be found, the drive as given and nothing.

    Raises
    ------
    HpcspinError
        See `GrandPotential.potential_at`.
    """
    grand = model.grand_potential
    if grand is None or not bool(drive[:, 0].isnan().any()):  # On a GPU this waits, for such a model alone.
        return drive, ()
    terms, forward_pass = model.terms(spins, neighbourhood)
    whole = (terms / _UNIT).round().long().sum(1)
    sums = total(whole.cpu().numpy()) * _UNIT
    pairs = zip(sums, drive[:, 1].tolist(), strict=True)
    potentials = [grand.potential_at(one, filling, sites, strict=strict) for one, filling in pairs]
    return torch.stack([drive.new_tensor(potentials), drive[:, 1]], 1), forward_pass
