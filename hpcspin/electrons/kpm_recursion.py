"""The Chebyshev recursion of probing vectors, with arrays of any library.

With H~ = (H - centre) / half width and a_0 = v,

    a_1 = H~ a_0,     a_{n+1} = 2 H~ a_n - a_{n-1},     a_n = T_n(H~) v.

H~ is never formed: a step is a stencil over the bonds of the lattice. Moments of a whole vector need half the steps,

    <v|T_{2n}|v> = 2 <a_n|a_n> - <v|v>,     <v|T_{2n+1}|v> = 2 Re <a_n|a_{n+1}> - <v|H~|v>,

and the derivative of a sum of moments with respect to H~ is a reverse sweep of the recursion, which recomputes the a_n
from the last two back to the first and carries the adjoints l_n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_series import Interval
from hpcspin.electrons.kpm_strips import Strip
from hpcspin.electrons.system import ElectronSystem
from hpcspin.parallel.world import World

Real = NDArray[np.float64]
SOURCE = Path(__file__).with_name("kpm_stencil.cu")
_THREADS = 256
Way = tuple[Array, Array, Array, Array, Array]
"""State of the reverse sweep: a_n, a_{n+1}, the adjoints l_{n+1}, l_{n+2}, and the sums so far."""


@dataclass(frozen=True)
class ScaledHamiltonian:
    """2 H~ of one snapshot on a strip, as a table of bonds."""

    strip: Strip
    """The strip of sites."""
    targets: NDArray[np.int32]
    """Rows that each hopping term connects to a site by its matrix and by the adjoint matrix, see `Strip.rows_of`;
    int32, shape (sites, terms, 2)."""
    hopping: NDArray[np.complex128]
    """Matrix of each term, complex128, shape (terms, 2, 2)."""
    on_site: Real
    """Coefficients of (1, sigma) on each site, shape (sites, 4)."""

    @property
    def sites(self) -> int:
        """Number of sites."""
        return len(self.on_site)

    @property
    def is_plain(self) -> bool:
        """Whether every hopping matrix is a real number times the identity, so that hopping conserves the spin."""
        return bool(np.array_equal(self.hopping, self.hopping[:, :1, :1].real * np.eye(2)))


def scaled_hamiltonian(
    system: ElectronSystem, spins: Real, interval: Interval, strip: Strip | None = None
) -> ScaledHamiltonian:
    """2 (H - centre) / half width of one snapshot, spins of shape (Lx, Ly, 3), on a strip or on all sites."""
    strip = strip or Strip.cut(system, World())
    lattice, terms, sites = system.lattice, system.hopping_terms, strip.sites
    offsets = np.array([term.offset for term in terms])
    targets = np.stack([strip.rows_of(lattice.shift(sign * offsets)[sites]) for sign in (1, -1)], axis=-1)
    scale = 2 / interval.half_width
    on_site = np.empty((*lattice.size, 4))
    on_site[..., 0] = scale * (np.asarray(system.on_site) - interval.centre)
    on_site[..., 1:] = -scale * np.asarray(system.exchange)[..., None] * spins
    hopping = scale * np.stack([term.matrix for term in terms]).astype(np.complex128)
    return ScaledHamiltonian(strip, targets, hopping, on_site.reshape(-1, 4)[sites])


def adjoint_weights(series: Real) -> tuple[Real, Real]:
    """Weights of <a_n|a_n> and Re <a_n|a_{n+1}> in sum_n w_n <v|T_n|v>, without its constant, shape (steps,) each."""
    even, odd = 2 * series[0::2], 2 * series[1::2]
    even[0] = 0
    odd[0] = series[1] - series[3::2].sum()
    return even, odd


def moments_of_products(products: Real) -> Real:
    """Moments <v|T_n|v> from alternating <a_n|a_n> and Re <a_n|a_{n+1}>, shape (2 steps,)."""
    moments = 2 * products
    moments[:2] = products[:2]
    moments[2:] -= np.tile(products[:2], len(products) // 2 - 1)
    return moments


class ArrayRecursion:
    """The recursion by operations of an array library, on a GPU or where there is no compiler.

    It is that of one snapshot's 2 H~ on a strip, for several groups of ``pairs`` colours side by side. The groups hold
    rows of the strip instead of sites, see `Strip.own`. All calls are collective in the strip's team.
    """

    pairs = 32
    """Number of colours in a group, enough to occupy a device."""

    def __init__(self, hamiltonian: ScaledHamiltonian, backend: Backend, pairs: int = pairs) -> None:
        self.pairs, self.on_gpu, self._backend, self._xp = pairs, backend.on_gpu, backend, backend.xp
        self.strip, self._sites = hamiltonian.strip, hamiltonian.sites
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
        """2 H~ x for vectors of shape (rows, 2, width), whose rows from other ranks have arrived."""
        xp = self._xp
        result = self._on_site @ vectors[: self._sites]
        for term, strength in enumerate(self._strengths):
            ahead, behind = (xp.take(vectors, self._targets[term, side], axis=0) for side in (0, 1))
            if self._plain:
                result = result + strength * (ahead + behind)
            else:
                result = result + self._matrices[term, 0] @ ahead + self._matrices[term, 1] @ behind
        return xp.concat([result, xp.zeros_like(vectors[self._sites :])])

    def _start(self, group: ProbeGroup) -> Array:
        vectors = np.zeros((self.strip.rows, 2, 2 * self.pairs), dtype=np.complex128)
        values = group.phases[:, 0] + 1j * group.phases[:, 1]
        vectors[group.sites, 0, 2 * group.pairs] = values
        vectors[group.sites, 1, 2 * group.pairs + 1] = values
        return self._backend.asarray(vectors)

    def _fill(self, arrays: Sequence[Array]) -> None:
        """Fill the borders of arrays of vectors with the rows that other ranks compute."""
        if self.strip.border:
            vectors = [self._backend.real_tensor(array).flatten(start_dim=1) for array in arrays]
            exchange = self.strip.exchange(vectors)
            exchange.start(vectors)
            exchange.finish(vectors)

    def _steps(self, groups: Sequence[ProbeGroup], count: int) -> Iterator[list[tuple[Array, Array]]]:
        """a_n and a_{n-1} of each group, for n = 0 ... ``count``; the next step may overwrite them."""
        pairs = [(near := self._start(group), self._xp.zeros_like(near)) for group in groups]
        yield pairs
        for n in range(count):
            self._fill([near for near, _ in pairs])
            pairs = [(self._advance(near, far, 1.0 if n else 0.5), near) for near, far in pairs]
            yield pairs

    def local_moments(self, groups: Sequence[ProbeGroup], count: int, kept: Sequence[slice]) -> list[tuple[Real, Real]]:
        """Components and traces of m = (T_n v)_i v_i† for each group.

        tr(m) and tr(sigma m) on the sites of the group selected by ``kept``, shape (count, k, 4); and tr(m) summed over
        all its sites on each line, shape (count, lines).
        """
        xp, backend = self._xp, self._backend
        rows, places = zip(*((backend.asarray(one) for one in self._places(group)) for group in groups), strict=True)
        phases = [backend.asarray((group.phases[:, 0] - 1j * group.phases[:, 1])[:, None]) for group in groups]
        found: list[list[Array]] = [[] for _ in groups]
        traces: list[list[Array]] = [[] for _ in groups]
        for pairs in self._steps(groups, count - 1):
            for number, (near, _) in enumerate(pairs):
                block = phases[number] * xp.reshape(xp.take(xp.reshape(near, (-1,)), places[number]), (-1, 4))
                uu, du, ud, dd = (block[:, k] for k in range(4))
                parts = [xp.real(uu + dd), xp.real(ud + du), xp.imag(du - ud), xp.real(uu - dd)]
                traces[number].append(self._on_lines(rows[number], parts[0]))
                # Only what is kept: a view would hold the moments of all sites, which take more than the vectors.
                found[number].append(xp.stack([part[kept[number]] for part in parts], axis=-1))
        moments, sums = ([backend.to_numpy(xp.stack(one)) for one in all_of] for all_of in (found, traces))
        return list(zip(moments, sums, strict=True))

    def _places(self, group: ProbeGroup) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of a group's sites, and positions of the elements of its two vectors in both their rows of a spin."""
        rows, width = group.sites.astype(np.int64), 2 * self.pairs
        first = rows * (4 * self.pairs) + 2 * group.pairs
        return rows, np.stack([first, first + width, first + 1, first + width + 1], axis=-1).reshape(-1)

    def _on_lines(self, rows: Array, values: Array) -> Array:
        """Values at some rows of my sites, summed on each line, shape (lines,)."""
        xp = self._xp
        everywhere = xp.zeros(self._sites, dtype=values.dtype, device=values.device)
        everywhere[rows] = values
        return xp.sum(xp.reshape(everywhere, (self.strip.lines, -1)), axis=-1)

    def products(self, groups: Sequence[ProbeGroup], steps: int) -> list[tuple[Real, Any]]:
        """Alternating <a_n|a_n> and Re <a_n|a_{n+1}>, and the start of the reverse sweep, for each group.

        The products are summed over the group's vectors on each line, shape (lines, 2 steps).
        """
        products: list[list[Array]] = [[] for _ in groups]
        pairs: list[tuple[Array, Array]] = []
        for n, pairs in enumerate(self._steps(groups, steps)):
            for found, (near, far) in zip(products, pairs, strict=True):
                found += [self._product(far, far), self._product(far, near)] if n else []
        sums = [self._backend.to_numpy(self._xp.stack(found, axis=-1)) for found in products]
        return list(zip(sums, pairs, strict=True))

    def gradients(self, starts: Sequence[Any], even: Real, odd: Real) -> list[Real]:
        """Derivative of each group's sum with `adjoint_weights` with respect to the on-site blocks of H~.

        Each of shape (sites, 4). ``starts`` comes from `products` and is overwritten.
        """
        xp = self._xp
        ways = [(far, near, float(odd[-1]) * far, xp.zeros_like(near), self._zero_sums()) for near, far in starts]
        for n in range(len(even) - 1, 0, -1):
            self._fill([vectors for near, _, later, *_ in ways for vectors in (near, later)])
            ways = [self._reverse(*way, float(even[n]), float(odd[n]), float(odd[n - 1])) for way in ways]
        return [
            self._backend.to_numpy(xp.sum(sums, axis=-1) + self._site_products(later, near))
            for near, _, later, _, sums in ways
        ]

    def _advance(self, near: Array, far: Array, scale: float) -> Array:
        """Vectors a_{n+1} from a_n and a_{n-1}; ``far`` may be overwritten."""
        return scale * self._apply(near) - far

    def _zero_sums(self) -> Array:
        """Storage for the sums of `_reverse`, shape (sites, 4, parts of the sum)."""
        return self._backend.asarray(np.zeros((self._sites, 4, 1)))

    def _reverse(self, near: Array, far: Array, later: Array, latest: Array, sums: Array, *weights: float) -> Way:
        """A step of the reverse sweep from n to n - 1, with the weights even[n], odd[n] and odd[n - 1].

        ``far``, ``latest`` and ``sums``, see `Way`, may be overwritten.
        """
        even, odd, before_odd = weights
        before = self._apply(near) - far
        local = 2 * even * near + odd * far + before_odd * before
        sums = sums + 2 * self._site_products(later, near)[..., None]
        return before, near, local + self._apply(later) - latest, later, sums

    def _product(self, left: Array, right: Array) -> Array:
        """Re <left|right> on each line, summed over all vectors, shape (lines,)."""
        xp, lines = self._xp, self.strip.lines
        products = xp.real(xp.conj(left[: self._sites]) * right[: self._sites])
        return xp.sum(xp.reshape(products, (lines, -1)), axis=-1)

    def _site_products(self, left: Array, right: Array) -> Array:
        """Re <left| 1, sigma |right> on each site, summed over all vectors, shape (sites, 4)."""
        xp, mine = self._xp, slice(self._sites)
        (up, down), (above, below) = ((part[mine, 0], part[mine, 1]) for part in (xp.conj(left), right))
        uu, dd, ud, du = up * above, down * below, up * below, down * above
        parts = (xp.real(uu + dd), xp.real(ud + du), xp.imag(ud - du), xp.real(uu - dd))
        return xp.stack([xp.sum(part, axis=-1) for part in parts], axis=-1)


def cuda_options(width: int, terms: int, plain: bool) -> tuple[str, ...]:
    """Compiler options of ``kpm_stencil.cu``."""
    return ("-std=c++17", f"-DWIDTH={width}", f"-DTERMS={terms}", f"-DPLAIN={int(plain)}")


class CudaRecursion(ArrayRecursion):
    """The recursion on an NVIDIA GPU, by CuPy: one launch per step for all vectors of a group.

    The source is tested on a CPU, and NVRTC compiles it for compute capabilities 8.0, 9.0 and 10.0; it has never run on
    a GPU.
    """

    def __init__(self, hamiltonian: ScaledHamiltonian, backend: Backend, pairs: int = ArrayRecursion.pairs) -> None:
        super().__init__(hamiltonian, backend, pairs)
        import cupy

        flags = cuda_options(2 * pairs, len(hamiltonian.hopping), hamiltonian.is_plain)
        module = cupy.RawModule(code=SOURCE.read_text(), options=flags)
        self._kernels = {name: module.get_function(name) for name in ("advance", "reverse")}
        self._table = tuple(cupy.ascontiguousarray(a) for a in (self._targets, self._matrices, self._on_site))

    def _launch(self, name: str, *arguments: Any) -> None:
        threads = self._sites * 2 * self.pairs
        self._kernels[name]((-(-threads // _THREADS),), (_THREADS,), (*self._table, np.int64(self._sites), *arguments))

    def _advance(self, near: Array, far: Array, scale: float) -> Array:
        self._launch("advance", np.float64(scale), near, far)
        return far

    def _zero_sums(self) -> Array:
        return self._backend.asarray(np.zeros((self._sites, 4, 2 * self.pairs)))

    def _reverse(self, near: Array, far: Array, later: Array, latest: Array, sums: Array, *weights: float) -> Way:
        self._launch("reverse", *map(np.float64, weights), near, far, later, latest, sums)
        return far, near, latest, later, sums
