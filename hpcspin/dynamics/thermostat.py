r"""Langevin noise that does not depend on ranks, restarts or devices.

The random field of a site is a pure function of (seed, stream; site, step, stage), by the counter-based generator
Philox4x32-10 of Salmon et al. (SC '11, doi:10.1145/2063384.2063405): key (seed, stream), counter (global site, step
low, step high, stage). Nothing is carried from step to step, so nothing needs to be saved or sent.

Strength (Brown 1963; Stratonovich):

.. math:: \langle \eta_i^a(t)\, \eta_j^b(t') \rangle = \frac{2 \alpha T}{\gamma}
          \delta_{ij} \delta_{ab} \delta(t - t')

which over a step dt is a field of variance 2 alpha T / (gamma dt), constant within the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcspin.dynamics.elementary import log, sincos_quarter
from hpcspin.errors import HpcspinError
from hpcspin.parallel.philox import WORD, philox

_TILE = {"cpu": 16384, "cuda": 1 << 22}
"""Number of sites computed at a time, by device type.

On a CPU the few hundred small kernels then run in cache: 144 ns per site instead of 348. On a GPU each of them must
keep the device busy, and the intermediate words take some hundreds of megabytes.
"""

_STREAM = 0
"""Second word of the key; `fastest_rate` uses another one."""


def box_muller(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal numbers (float64) from two random 32-bit words."""
    uniform = (radius_word.to(torch.float64) + 0.5) * 2.0**-32
    radius = (log(uniform) * -2).sqrt()
    turns = (angle_word + (1 << 29)) >> 30
    angle = (angle_word - (turns << 30)).to(torch.float64) * (2 * math.pi * 2.0**-32)
    sine, cosine = sincos_quarter(turns, angle)
    return radius * cosine, radius * sine


def normal_vectors(sites: Tensor, seed: int, stream: int, step: int, stage: int) -> Tensor:
    """Standard normal vectors of sites with given global indices, (*sites.shape, 3), float64, stored by components.

    Seed and stream, 32 bits each, are the generator's key, the step (64 bits) and its stage the counter.
    """
    flat = sites.reshape(-1)
    vectors = torch.empty((3, len(flat)), dtype=torch.float64, device=sites.device)
    at_once = _TILE[sites.device.type]
    for start in range(0, len(flat), at_once):
        tile = slice(start, start + at_once)
        r0, r1, r2, r3 = philox((flat[tile], step & WORD, step >> 32, stage), (seed, stream))
        # Both pairs of words at once: half the operations.
        vectors[::2, tile], others = box_muller(torch.stack([r0, r2]), torch.stack([r1, r3]))
        vectors[1, tile] = others[0]
    return vectors.reshape(3, *sites.shape).movedim(0, -1)


@dataclass(frozen=True)
class Thermostat:
    """Langevin field of a heat bath.

    Parameters
    ----------
    temperature
        T of the bath, in units of the hopping.
    damping
        Gilbert damping alpha.
    step
        Time step.
    seed
        Chooses the realisation; 0 <= seed < 2**32.

    Raises
    ------
    HpcspinError
        If the seed has more than 32 bits, or a temperature has no damping to balance it.
    """

    temperature: float
    damping: float
    step: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= WORD:
            raise HpcspinError(f"dynamics.seed: {self.seed} is outside 0 ... {WORD}; choose another")
        if self.temperature > 0 and self.damping == 0:
            raise HpcspinError("dynamics.temperature: a heat bath needs damping > 0; set dynamics.damping")

    def field(self, sites: Tensor, step: int, dtype: torch.dtype) -> Tensor | None:
        """Random field on the given sites during a step, shape (*sites.shape, 3); None at zero temperature."""
        if self.temperature == 0:
            return None
        strength = math.sqrt(2 * self.damping * self.temperature / self.step)
        return (normal_vectors(sites, self.seed, _STREAM, step, 0) * strength).to(dtype)
