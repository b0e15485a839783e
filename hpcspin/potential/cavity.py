r"""Green's functions of electrons that never go in circles: what they know of the spins around a site.

On a lattice without loops the Green's function of a site follows from those of its neighbours
with the site taken away, and these from theirs (R. Abou-Chacra, P. W. Anderson and
D. J. Thouless, J. Phys. C 6, 1734 (1973)):

.. math::

    g_{i \to j}(z) = [z + i\Gamma_i + J S_i \cdot \sigma - t^2 \sum_{k \ne j} g_{k \to i}(z)]^{-1}, \qquad
    G_{ii}(z) = [z + i\Gamma_i + J S_i \cdot \sigma - t^2 \sum_k g_{k \to i}(z)]^{-1}

Each is a complex 2 x 2 matrix a + b·σ. On a lattice with loops this is what walks that never
turn in a circle contribute, at a few operations a bond; away from the real axis few others
count. After n sweeps from nothing the spins up to n bonds away are in it. An exchange field is
an integral of b over energies: a network that is given b at a few of them has to learn only what
differs from walks on a tree, instead of the inverse of a matrix.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hpcspin.errors import HpcspinError
from hpcspin.potential.host_library import loaded, pointer, share_out, usable

_LANES, _PARTS = 8, 8
_TOGETHER = 1 << 22
"""Sites times energies that are taken together."""
_SMALL = 1e-2
"""Standard deviation below which a number is not blown up further."""


@dataclass(frozen=True)
class Cavity:
    """Which cavity Green's functions a force field reads.

    Attributes
    ----------
    exchange : float
        Exchange coupling J in units of the hopping.
    energies : tuple of pair of float
        Real and imaginary part of each energy z, in units of the hopping.
    width : float
        Level width Γ on the first and the last column; 0 for none.
    sweeps : int
        How many bonds away the spins are seen.

    Raises
    ------
    HpcspinError
        If a number is impossible.
    """

    exchange: float
    energies: tuple[tuple[float, float], ...]
    width: float = 0.0
    sweeps: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "energies", tuple((float(real), float(imag)) for real, imag in self.energies))
        if not self.energies:
            raise HpcspinError("potential.cavity.energies: there are none; give at least one pair [real, imaginary]")
        if min(imag for _, imag in self.energies) <= 0:
            raise HpcspinError(
                "potential.cavity.energies: an energy is not above the real axis, where distant sites would count; "
                "give positive imaginary parts"
            )
        if self.width < 0:
            raise HpcspinError(f"potential.cavity.width: {self.width} is negative; give a level width, or 0 for none")
        if self.sweeps < 1:
            raise HpcspinError(f"potential.cavity.sweeps: {self.sweeps} see no neighbour; give at least 1")


@dataclass(frozen=True)
class Bonds:
    """The nearest neighbours of all rows of spins, and where the electrodes are.

    Attributes
    ----------
    nearest : ndarray
        Row of the neighbour in each slot, the number of rows for a missing one, shape (rows, slots).
    ends : ndarray or None
        Whether a row is in the first or the last column of the lattice, shape (rows,); None if that is not known.
    """

    nearest: NDArray[np.int32]
    ends: NDArray[np.bool_] | None


class Walk(NamedTuple):
    """How far the cavity Green's functions of a site see, and along which bonds.

    Attributes
    ----------
    offsets : ndarray
        Lattice offset of the nearest neighbour in each slot, shape (slots, 2).
    steps : int
        Bonds that are passed.
    """

    offsets: NDArray[np.int64]
    steps: int


class CavityFunctions(nn.Module):
    """Scalars and vectors of each site from the cavity Green's functions.

    Of each energy the real and the imaginary part of a and of b, as differences from what a spin of the
    training data has on average, a mean and a multiple of the spin, in units of their scatter.

    Parameters
    ----------
    cavity
        Which.
    offsets
        Offset of the neighbour in each slot, shape (slots, 2); the opposite of each is among them.
    """

    means: Tensor
    scales: Tensor

    def __init__(self, cavity: Cavity, offsets: NDArray[np.int64]) -> None:
        super().__init__()
        self.cavity = cavity
        self._opposite = [int(np.flatnonzero((offsets == -offset).all(1))[0]) for offset in offsets]
        # Of the scalars, and of the vectors.
        self.register_buffer("means", torch.zeros(2, self.number))
        self.register_buffer("scales", torch.ones(2, self.number))

    @property
    def number(self) -> int:
        """How many vectors of a site there are, and as many scalars."""
        return 2 * len(self.cavity.energies)

    @torch.no_grad()
    def forward(self, spins: Tensor, bonds: Bonds) -> tuple[Tensor, Tensor]:
        """Vectors and scalars of all rows, zero where a site is missing, without derivative.

        Parameters
        ----------
        spins
            Shape (batch, rows, 3); a row of zeros is a missing site.
        bonds
            Of these rows.

        Returns
        -------
        tuple of Tensor
            Vectors (batch, rows, 3, 1 + 2 energies), the spin first, and scalars (batch, rows, 1 + 2 energies), of
            which the first one is 1 where there is a spin.

        Raises
        ------
        HpcspinError
            If electrodes have a width and it is not known where they are.
        """
        if self.cavity.width and bonds.ends is None:
            raise HpcspinError("cavity.width: the model sees electrodes at both ends of x, and here are none")
        ends = np.zeros(len(bonds.nearest), bool) if bonds.ends is None else bonds.ends
        if usable(spins.dtype, spins.device):
            both = zip(*(self._on_host(one, bonds.nearest, ends) for one in spins), strict=True)
            vectors, scalars = (torch.stack(part) for part in both)
            return vectors, scalars
        table = torch.from_numpy(bonds.nearest).to(spins.device)
        width = torch.from_numpy(self.cavity.width * ends).to(spins)
        together = max(1, _TOGETHER // spins[..., 0].numel())
        energies = torch.tensor(self.cavity.energies, dtype=spins.dtype, device=spins.device).split(together)
        found = torch.cat([self._swept(spins, table, width, those) for those in energies], -1)
        # From (2, 4, batch, rows, energies), real and imaginary parts of a and b.
        parts = found.unflatten(0, (2, 4)).movedim((0, 1), (-2, -3)).flatten(-2)
        there = present(spins)
        scalars = (parts[..., 0, :] - self.means[0]) * self.scales[0] * there
        vectors = (parts[..., 1:, :] - spins[..., None] * self.means[1]) * self.scales[1]
        return torch.cat([spins[..., None], vectors], -1), torch.cat([there, scalars], -1)

    @torch.no_grad()
    def normalise(self, means: Tensor, variances: Tensor) -> None:
        """Set the units from the moments of the training data, of the scalars and of the vectors.

        Parameters
        ----------
        means
            Of a and of b along the spin, shape (2, 2 energies).
        variances
            Of a, and of a component of what b is beside its mean along the spin, shape (2, 2 energies).
        """
        self.means.copy_(means)
        self.scales.copy_(1 / variances.sqrt().clamp(min=_SMALL))

    def _swept(self, spins: Tensor, nearest: Tensor, width: Tensor, energies: Tensor) -> Tensor:
        """All parts of G_ii, shape (8, batch, rows, energies), one operation for all sites at a time."""
        free = spins.new_zeros((_PARTS, *spins.shape[:2], len(energies)))
        free[0] += energies[:, 0]
        free[4] += energies[:, 1] + width[:, None]
        free[1:4] += self.cavity.exchange * spins.movedim(-1, 0)[..., None]
        there = present(spins)
        # Where a site is missing its functions are zero, as are those of the row after all.
        made = [functional.pad(torch.zeros_like(free), (0, 0, 0, 1))] * len(self._opposite)
        for _ in range(self.cavity.sweeps):
            known = self._known(made, nearest)
            without = _minus(free, known)
            made = [functional.pad(_inverse(without + from_) * there, (0, 0, 0, 1)) for from_ in known]
        return _inverse(_minus(free, self._known(made, nearest))) * there

    def _known(self, made: list[Tensor], nearest: Tensor) -> list[Tensor]:
        """Functions of the neighbours in all slots without the site itself."""
        return [made[opposite].index_select(2, rows) for opposite, rows in zip(self._opposite, nearest.T, strict=True)]

    def _on_host(self, spins: Tensor, nearest: NDArray[np.int32], ends: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Vectors and scalars of one configuration."""
        kernels, (rows, slots), number = loaded(), nearest.shape, len(self.cavity.energies)
        blocks = -(-number // _LANES)
        energies = np.zeros((blocks * _LANES, 2), np.float32)
        # Lanes without an energy must stay finite.
        energies[:] = self.cavity.energies[0]
        energies[:number] = self.cavity.energies
        energies = np.ascontiguousarray(energies.reshape(blocks, _LANES, 2).transpose(0, 2, 1))
        opposite = np.array(self._opposite, np.int32)
        cavity = _Cavity(slots, blocks, pointer(opposite), pointer(energies), self.cavity.exchange)
        given, width = spins.contiguous().numpy(), (self.cavity.width * ends).astype(np.float32)
        means, scales = (buffer.contiguous().numpy() for buffer in (self.means, self.scales))
        # Where a site is missing its functions are zero, as are those of the row after all.
        known, made = (np.zeros((rows + 1, slots, blocks, _PARTS, _LANES), np.float32) for _ in range(2))
        vectors = np.empty((rows, 3, 1 + self.number), np.float32)
        scalars = np.empty((rows, 1 + self.number), np.float32)

        def run(kernel: Callable[..., None], *more: Any) -> None:
            arrays = [pointer(array) for array in (given, nearest, width, known)]

            def work(first: int, last: int) -> None:
                kernel(ctypes.byref(cavity), *arrays, ctypes.c_int64(first), ctypes.c_int64(last), *more)

            share_out(work, rows, torch.get_num_threads())

        for _ in range(self.cavity.sweeps):
            run(kernels.hpcspin_cavity, pointer(made))
            known, made = made, known
        run(kernels.hpcspin_cavity_told, ctypes.c_int32(number), *map(pointer, (means, scales, vectors, scalars)))
        return torch.from_numpy(vectors), torch.from_numpy(scalars)


class _Cavity(ctypes.Structure):
    _fields_ = (
        ("slots", ctypes.c_int32),
        ("blocks", ctypes.c_int32),
        ("opposite", ctypes.c_void_p),
        ("energies", ctypes.c_void_p),
        ("exchange", ctypes.c_float),
    )


def present(spins: Tensor) -> Tensor:
    """One where there is a spin and zero where a site is missing: (..., 3) to (..., 1)."""
    return (spins.square().sum(-1, keepdim=True) > 0.5).to(spins.dtype)


def _minus(free: Tensor, known: list[Tensor]) -> Tensor:
    """What is left of z - H after the hopping to all neighbours, in a fixed order."""
    for part in known:
        free = free - part
    return free


def _inverse(m: Tensor) -> Tensor:
    """(a + b·σ)^-1 = (a - b·σ) / (a² - b·b) for the eight parts along the first axis.

    In real numbers: of each of these operations the bits are the same in any company.
    """
    a, b = m[0], m[1:4]
    c, d = m[4], m[5:8]
    (bx, by, bz), (dx, dy, dz) = b * b - d * d, b * d
    re = a * a - c * c - (bx + by + bz)
    im = 2 * (a * c - (dx + dy + dz))
    scale = 1 / (re * re + im * im)
    re, im = re * scale, -im * scale
    return torch.cat([(a * re - c * im)[None], d * im - b * re, (a * im + c * re)[None], -(b * im) - d * re])
