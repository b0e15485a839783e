"""The Chebyshev recursion of probing vectors, on arrays of any library.

With H~ = (H - centre) / half width and a_0 = v,

    a_1 = H~ a_0,     a_{n+1} = 2 H~ a_n - a_{n-1},     a_n = T_n(H~) v.

H~ is never formed: a step is a stencil over the bonds of the lattice. Moments of a whole vector need half of the steps,

    <v|T_{2n}|v> = 2 <a_n|a_n> - <v|v>,     <v|T_{2n+1}|v> = 2 Re <a_n|a_{n+1}> - <v|H~|v>,

and the derivative of a sum of them by H~ is the reverse of the recursion, on which the a_n are computed anew, from the
last two back to the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_series import Interval
from hpcspin.electrons.system import ElectronSystem

Real = NDArray[np.float64]


@dataclass(frozen=True)
class ScaledHamiltonian:
    """2 H~ of one snapshot, as a table of bonds.

    Attributes
    ----------
    targets
        Sites to which the matrix of each hopping term leads from a site, and to which its adjoint leads; the number of
        sites beyond an open edge. int32, shape (sites, terms, 2).
    hopping
        Matrix of each term, complex128, shape (terms, 2, 2).
    on_site
        Coefficients of (1, sigma) on each site, shape (sites, 4).
    """

    targets: NDArray[np.int32]
    hopping: NDArray[np.complex128]
    on_site: Real

    @property
    def sites(self) -> int:
        """Number of sites."""
        return len(self.on_site)

    @property
    def is_plain(self) -> bool:
        """Whether hopping keeps the spin and is real: each matrix a number times the identity."""
        return bool(np.array_equal(self.hopping, self.hopping[:, :1, :1].real * np.eye(2)))


def scaled_hamiltonian(system: ElectronSystem, spins: Real, interval: Interval) -> ScaledHamiltonian:
    """2 (H - centre) / half width of one snapshot, spins of shape (Lx, Ly, 3)."""
    lattice, terms = system.lattice, system.hopping_terms
    offsets = np.array([term.offset for term in terms])
    targets = np.stack([lattice.shift(offsets), lattice.shift(-offsets)], axis=-1)
    targets[targets < 0] = lattice.num_sites
    scale = 2 / interval.half_width
    on_site = np.empty((*lattice.size, 4))
    on_site[..., 0] = scale * (np.asarray(system.on_site) - interval.centre)
    on_site[..., 1:] = -scale * np.asarray(system.exchange)[..., None] * spins
    hopping = scale * np.stack([term.matrix for term in terms]).astype(np.complex128)
    return ScaledHamiltonian(targets.astype(np.int32), hopping, on_site.reshape(-1, 4))


def adjoint_weights(series: Real) -> tuple[Real, Real]:
    """Weights of <a_n|a_n> and of Re <a_n|a_{n+1}> in sum_n w_n <v|T_n|v>, up to its constant part.

    Parameters
    ----------
    series
        w_n, shape (2 steps,).

    Returns
    -------
    tuple
        Each of shape (steps,).
    """
    even, odd = 2 * series[0::2], 2 * series[1::2]
    even[0] = 0
    odd[0] = series[1] - series[3::2].sum()
    return even, odd


class Recursion(Protocol):
    """A way to run the recursion of one snapshot's Hamiltonian."""

    pairs: int
    """Colours of a group."""

    def local_moments(self, group: ProbeGroup, count: int) -> Real:
        """Components of (T_n v)_i v_i† on the sites of a group, tr(m) and tr(sigma m), shape (count, k, 4)."""
        ...

    def total_moments(self, group: ProbeGroup, steps: int) -> tuple[Real, Any]:
        """Moments <v|T_n|v> summed over a group, shape (2 steps,), and where the way back starts."""
        ...

    def gradient(self, start: Any, even: Real, odd: Real) -> Real:
        """Derivative of the sum with `adjoint_weights` by the on-site blocks of H~, shape (sites, 4).

        ``start`` is what `total_moments` has returned; it is overwritten.
        """
        ...


class ArrayRecursion:
    """The recursion by operations of an array library, on a GPU or where no compiler is.

    Parameters
    ----------
    hamiltonian
        2 H~ of the snapshot.
    backend
        Array library and device.
    pairs
        Colours of a group, as many as fill the device.
    """

    def __init__(self, hamiltonian: ScaledHamiltonian, backend: Backend, pairs: int = 32) -> None:
        self.pairs, self._backend, self._xp = pairs, backend, backend.xp
        self._sites = hamiltonian.sites
        self._targets = backend.asarray(np.moveaxis(hamiltonian.targets, 0, -1).astype(np.int64))
        matrices = np.stack([hamiltonian.hopping, hamiltonian.hopping.conj().swapaxes(-1, -2)], axis=1)
        self._plain = hamiltonian.is_plain
        self._strengths = matrices[:, 0, 0, 0].real.tolist()
        self._matrices = backend.asarray(matrices)
        c = hamiltonian.on_site
        blocks = np.empty((self._sites, 2, 2), dtype=np.complex128)
        blocks[:, 0, 0], blocks[:, 1, 1] = c[:, 0] + c[:, 3], c[:, 0] - c[:, 3]
        blocks[:, 0, 1] = c[:, 1] - 1j * c[:, 2]
        blocks[:, 1, 0] = blocks[:, 0, 1].conj()
        self._on_site = backend.asarray(blocks)

    def _apply(self, vectors: Array) -> Array:
        """2 H~ x; vectors have shape (sites + 1, 2, width), zero on the last site."""
        xp = self._xp
        result = self._on_site @ vectors[:-1]
        for term, strength in enumerate(self._strengths):
            ahead, behind = (xp.take(vectors, self._targets[term, side], axis=0) for side in (0, 1))
            if self._plain:
                result = result + strength * (ahead + behind)
            else:
                result = result + self._matrices[term, 0] @ ahead + self._matrices[term, 1] @ behind
        return xp.concat([result, xp.zeros_like(vectors[-1:])])

    def _start(self, group: ProbeGroup) -> Array:
        vectors = np.zeros((self._sites + 1, 2, 2 * self.pairs), dtype=np.complex128)
        values = group.phases[:, 0] + 1j * group.phases[:, 1]
        vectors[group.sites, 0, 2 * group.pairs] = values
        vectors[group.sites, 1, 2 * group.pairs + 1] = values
        return self._backend.asarray(vectors)

    def local_moments(self, group: ProbeGroup, count: int) -> Real:
        """See `Recursion`."""
        xp, asarray = self._xp, self._backend.asarray
        rows = group.sites.astype(np.int64) * (4 * self.pairs) + 2 * group.pairs
        width = 2 * self.pairs
        # Of each site its two vectors, up and down, in the rows of spin up and of spin down.
        places = asarray(np.stack([rows, rows + width, rows + 1, rows + width + 1], axis=-1).reshape(-1))
        phases = asarray((group.phases[:, 0] - 1j * group.phases[:, 1])[:, None])
        near = self._start(group)
        far, found = xp.zeros_like(near), []
        for n in range(count):
            block = phases * xp.reshape(xp.take(xp.reshape(near, (-1,)), places), (-1, 4))
            uu, du, ud, dd = (block[:, k] for k in range(4))
            parts = [xp.real(uu + dd), xp.real(ud + du), xp.imag(du - ud), xp.real(uu - dd)]
            found.append(xp.stack(parts, axis=-1))
            if n + 1 < count:
                near, far = self._advance(near, far, 1.0 if n else 0.5), near
        return self._backend.to_numpy(xp.stack(found))

    def total_moments(self, group: ProbeGroup, steps: int) -> tuple[Real, Any]:
        """See `Recursion`."""
        xp = self._xp
        near = self._start(group)
        far, products = xp.zeros_like(near), []
        for n in range(steps):
            near, far = self._advance(near, far, 1.0 if n else 0.5), near
            products += [_product(xp, far, far), _product(xp, far, near)]
        moments = self._backend.to_numpy(xp.stack(products))
        moments[2:] = 2 * moments[2:] - np.tile(moments[:2], steps - 1)
        return moments, (far, near)

    def gradient(self, start: Any, even: Real, odd: Real) -> Real:
        """See `Recursion`."""
        xp, (near, far) = self._xp, start
        later, latest = float(odd[-1]) * near, xp.zeros_like(near)
        sums = self._zero_sums()
        for n in range(len(even) - 1, 0, -1):
            weights = (float(even[n]), float(odd[n]), float(odd[n - 1]))
            before, earlier, sums = self._reverse(near, far, later, latest, sums, weights)
            near, far, later, latest = before, near, earlier, later
        return self._backend.to_numpy(xp.sum(sums, axis=-1) + _site_products(xp, later[:-1], near[:-1]))

    def _advance(self, near: Array, far: Array, scale: float) -> Array:
        """Vectors a_{n+1} from a_n and a_{n-1}; ``far`` may be overwritten."""
        return scale * self._apply(near) - far

    def _zero_sums(self) -> Array:
        """Where `_reverse` sums, shape (sites, 4, parts of the sum)."""
        return self._backend.asarray(np.zeros((self._sites, 4, 1)))

    def _reverse(
        self, near: Array, far: Array, later: Array, latest: Array, sums: Array, weights: tuple[float, float, float]
    ) -> tuple[Array, Array, Array]:
        """A step of the way back from n > 0: a_{n-1}, l_n and the sums.

        ``near`` is a_n, ``far`` a_{n+1}, ``later`` l_{n+1}, ``latest`` l_{n+2}; ``weights`` are even[n], odd[n] and
        odd[n - 1]. ``far``, ``latest`` and ``sums`` may be overwritten.
        """
        even, odd, odd_before = weights
        before = self._apply(near) - far
        local = 2 * even * near + odd * far + odd_before * before
        sums = sums + 2 * _site_products(self._xp, later[:-1], near[:-1])[..., None]
        return before, local + self._apply(later) - latest, sums


def _product(xp: Any, left: Array, right: Array) -> Array:
    """Re <left|right>, summed over all vectors."""
    return xp.sum(xp.real(xp.conj(left) * right))


def _site_products(xp: Any, left: Array, right: Array) -> Array:
    """Re <left| 1, sigma |right> on each site, summed over all vectors, shape (sites, 4)."""
    (up, down), (above, below) = ((part[:, 0], part[:, 1]) for part in (xp.conj(left), right))
    uu, dd, ud, du = up * above, down * below, up * below, down * above
    parts = (xp.real(uu + dd), xp.real(ud + du), xp.imag(ud - du), xp.real(uu - dd))
    return xp.stack([xp.sum(part, axis=-1) for part in parts], axis=-1)
