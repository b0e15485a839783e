"""Equilibrium of closed lattices by the kernel polynomial method: cost linear in the sites, any tolerance.

The tolerance determines the cost of a label. The number of moments and the kernel come from a pilot run on few probing
vectors: the change of the field from M/2 to M moments bounds the truncation error of M moments. Then two sets of
probing vectors with independent phases give the field (their mean) and its standard error. The number of colours grows
until four standard errors of the worst site are below the tolerance, or until unit vectors cost no more than the two
sets; with unit vectors nothing is random.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import make_backend
from hpcspin.electrons.closed import ClosedLattice, EquilibriumSolver, EquilibriumState
from hpcspin.electrons.kpm_estimates import KpmEstimate, LocalMoments, Probing
from hpcspin.electrons.kpm_host import HostRecursion, Recursion, host_pairs, library
from hpcspin.electrons.kpm_probes import Colouring, ProbeGroup, colouring, probe_groups, random_phases, unit_colouring
from hpcspin.electrons.kpm_recursion import ArrayRecursion, CudaRecursion, ScaledHamiltonian, scaled_hamiltonian
from hpcspin.electrons.kpm_series import Expansion, spectral_interval
from hpcspin.electrons.kpm_strips import Strip, strips_of_a_team
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

Real = NDArray[np.float64]

MOST_MOMENTS = 1 << 15
"""Largest number of moments; temperatures that need more are refused."""
_LEAST_MOMENTS = 256
"""Fewest moments of a pilot; the changes from an eighth of them on tell whether half of them are enough."""
_FALLING = 0.25
"""Ratio of successive changes below which the series counts as converging."""
_KERNELS = ("none", "jackson")
_FIRST_DISTANCE = 6
"""Steps between sites of the same colour in the pilot and at the first trial."""
_SETS = 2
_STANDARD_ERRORS = 4
_DECAY = 0.6
"""One more step between sites of a colour reduces the noise by a factor exp(-_DECAY) or less."""
_TRUNCATION_SHARE = 0.25
"""Fraction of the tolerance reserved for the truncation where there is also noise."""
_SAMPLED = 2048
"""Approximate number of sites on which the pilot measures the truncation error."""
_ROUNDING = 1e-15
"""Rounding error of a component that each moment adds."""
_COLOUR_BYTES = 128
"""Bytes for each site and colour: two vectors, two steps of each, two complex numbers."""
_MEMORY_SHARE = 0.5
"""Fraction of the free memory that is used for planning; tighter tolerances take more colours than the pilot."""


@dataclass(frozen=True)
class Plan:
    """Starting point of a snapshot's search for the cheapest sufficient settings."""

    distance: int
    """Steps between sites of the same colour."""
    moments: int
    """Moments of the pilot, a power of two; the resulting series has at least half as many."""


class KpmSolver(EquilibriumSolver):
    """Kernel polynomial method for any lattice, edges and hopping; time and memory linear in the sites.

    Parameters
    ----------
    system, tolerance, world, device, precision
        As for every solver. The ranks share the probing vectors and, where those do not divide evenly enough, the
        sites (see `strips_of_a_team`); results are bitwise equal on any number of ranks.

    Raises
    ------
    HpcspinError
        If the temperature is so low that it needs more than `MOST_MOMENTS` moments, or the system has vacancies.
    """

    name: ClassVar[str] = "kpm"
    is_random: ClassVar[bool] = True

    @classmethod
    def ranks_needed(cls, system: ClosedLattice, world: World, device: Any) -> int:
        """Number of ranks whose memory together holds the vectors of a pilot, however divided; see `Solver`."""
        backend = make_backend("auto", device)
        free = _MEMORY_SHARE * min(world.allgather(backend.free_memory() // backend.ranks_on_device(world)))
        needed = _COLOUR_BYTES * colouring(system.lattice, _FIRST_DISTANCE).count * system.lattice.num_sites
        if (ranks := max(1, math.ceil(needed / free))) > world.size:
            gigabytes = (f"{planned / _MEMORY_SHARE / 2**30:.3g} GiB" for planned in (needed, free))
            raise HpcspinError(
                "electrons.solver: kpm needs some {} for this lattice, and each rank has {} free".format(*gigabytes)
                + f"; use {ranks} ranks with as much each"
            )
        return ranks

    def _prepare(self) -> None:
        system = self.system
        if system.vacancies is not None:
            raise HpcspinError("electrons.vacancies: kpm cannot leave sites out; choose diagonalization")
        self.interval = spectral_interval(system)
        resolved = self.interval.half_width / (math.pi * system.temperature)
        if resolved > MOST_MOMENTS:
            raise self._too_cold()
        # A metal needs a few times the number of moments that resolves T; a gap may need fewer.
        self._first = Plan(_FIRST_DISTANCE, min(1024, _power_of_two(2 * resolved)))
        self._plan = self._first
        self._backend = make_backend("auto", self.device)
        self._strips: dict[int, Strip] = {}

    def _solve(self, spins: Real) -> EquilibriumState:
        found = [self._snapshot(one, self.number + k) for k, one in enumerate(spins)]
        components = np.stack([estimate.components.reshape(*self.system.lattice.size, 4) for estimate, _ in found])
        numbers = np.array([(one.energy, one.energy_error, one.potential, error) for one, error in found])
        return EquilibriumState.of(self.system, components, numbers)

    def _snapshot(self, spins: Real, number: int) -> tuple[KpmEstimate, float]:
        """Estimate of one snapshot, and the error of its field."""
        coloured = self._colouring(self._plan.distance)
        hamiltonian = scaled_hamiltonian(self.system, spins, self.interval, self._strip(coloured.count))
        probing = Probing(self.system, self._recursion(hamiltonian), self.world)
        if coloured.is_exact:
            return self._exact(probing)
        pilot = self._groups(probing, self._colouring(_FIRST_DISTANCE), number)
        expansion, truncation, _ = self._converged(probing, pilot, _SAMPLED, _TRUNCATION_SHARE * self.tolerance)
        distance, target = self._plan.distance, self.tolerance - truncation
        while not coloured.is_exact:
            sets = [
                probing.gradient(self._groups(probing, coloured, number, stage), expansion) for stage in range(_SETS)
            ]
            noise = self._noise(sets)
            steps = math.log(max(noise, sys.float_info.min) / target) / _DECAY
            if noise <= target:
                # Step back with a margin: the noise of the next snapshot is different.
                closer = max(_FIRST_DISTANCE, distance - max(0, math.floor(-steps) - 1))
                self._plan = Plan(closer, _power_of_two(expansion.count))
                return _mean(sets), truncation + noise
            distance, coloured = self._next_colouring(distance, math.ceil(steps), coloured)
        self._plan = Plan(distance, _power_of_two(expansion.count))
        return self._exact(probing)

    def _strip(self, colours: int) -> Strip:
        """The strip of this rank; the cuts are kept, since each has its own communicators."""
        pairs = host_pairs() if self._on_host else ArrayRecursion.pairs
        if not self._strips and len(set(self.world.allgather(pairs))) > 1:
            # Each would silently divide the vectors in a different way.
            raise HpcspinError(
                "kpm: the ranks have different processors or compilers, and would process different numbers of vectors "
                "at a time; run on nodes of one kind"
            )
        strips = strips_of_a_team(self.system, self.world.size, math.ceil(colours / pairs))
        if strips not in self._strips:
            team = World() if strips == 1 else self.world.split(self.world.size // strips)[1]
            self._strips[strips] = Strip.cut(self.system, team)
        return self._strips[strips]

    @property
    def _on_host(self) -> bool:
        return not self._backend.on_gpu and library() is not None

    def _recursion(self, hamiltonian: ScaledHamiltonian) -> Recursion:
        """The fastest implementation on this solver's device."""
        if self._backend.name == "cupy":
            return CudaRecursion(hamiltonian, self._backend)
        return HostRecursion(hamiltonian) if self._on_host else ArrayRecursion(hamiltonian, self._backend)

    def _colouring(self, distance: int) -> Colouring:
        """Colours for a distance; one for each site where that needs no more vectors than the two sets would."""
        coloured = colouring(self.system.lattice, distance)
        if _SETS * coloured.count >= self.system.lattice.num_sites:
            return unit_colouring(self.system.lattice)
        return coloured

    def _next_colouring(self, distance: int, steps: int, before: Colouring) -> tuple[int, Colouring]:
        """The next larger distance, at least ``steps`` larger, that gives more colours; and its colouring."""
        coloured = self._colouring(distance := distance + steps)
        while coloured.count <= before.count:
            coloured = self._colouring(distance := distance + 1)
        return distance, coloured

    def _groups(self, probing: Probing, coloured: Colouring, number: int, stage: int = 0) -> list[ProbeGroup]:
        phases = random_phases(self.system.lattice.num_sites, self.seed, number, stage)
        return probe_groups(coloured, phases, probing.recursion.pairs)

    def _exact(self, probing: Probing) -> tuple[KpmEstimate, float]:
        """Estimate from unit vectors, without noise, and its error."""
        sites = self.system.lattice.num_sites
        phases = np.tile([1.0, 0.0], (sites, 1))
        groups = probe_groups(unit_colouring(self.system.lattice), phases, probing.recursion.pairs)
        expansion, truncation, moments = self._converged(probing, groups, sites, self.tolerance, exact=True)
        return probing.densities(moments, expansion), truncation

    def _converged(
        self, probing: Probing, groups: list[ProbeGroup], sites: int, tolerance: float, *, exact: bool = False
    ) -> tuple[Expansion, float, LocalMoments]:
        """The shortest sufficient series, its error, and the moments of at most about ``sites`` sites.

        Changes of the series tell the error of Jackson's kernel only where there are many levels: one nearer to mu than
        the resolution of the series is half occupied with any number of moments. From unit vectors, ``exact``, it is
        therefore `Probing.bound`. Random ones shift mu, and the bound with it.
        """
        count = self._plan.moments
        while count <= MOST_MOMENTS:
            moments = probing.local_moments(groups, count, sites)
            fields: dict[tuple[int, str], Real] = {}
            for part in (count // 2, 3 * count // 4, count):
                for kernel in _KERNELS:
                    if exact and kernel == "jackson":
                        error = self.system.scale * probing.bound(moments, self._expansion(part, kernel))
                    else:
                        error = self._truncation(probing, moments, part, kernel, fields)
                    error += _ROUNDING * part * self.system.scale
                    if error <= tolerance:
                        return self._expansion(part, kernel), error, moments
            count *= 2
        raise self._too_cold()

    def _truncation(
        self, probing: Probing, moments: LocalMoments, count: int, kernel: str, fields: dict[tuple[int, str], Real]
    ) -> float:
        """Truncation error of the field with M = ``count`` moments.

        The larger of the changes from M/2 and from 3M/4 to M moments, D(M), bounds the truncation error. Once the
        changes fall, the next one is at most D(M) D(M) / D(M/2). Without a kernel they fall ever faster, and the error
        is taken as twice this value, but not less than D(M/2) allows where the coefficients fall no faster than by
        exp(-pi n T / half width): few levels may lie where two series happen to agree, and D(M) alone then tells
        nothing. With Jackson's kernel the changes fall as a power of M, and the error is taken as the geometric mean
        of this value and D(M).
        """

        def field(part: int) -> Real:
            if (part, kernel) not in fields:
                fields[part, kernel] = self.system.scale * probing.sample(moments, self._expansion(part, kernel))
            return fields[part, kernel]

        def change_to(whole: int) -> float:
            return max(float(np.abs(field(whole) - field(part)).max()) for part in (whole // 2, 3 * whole // 4))

        before, change = change_to(count // 2), change_to(count)
        ratio = change / before if before else 1.0
        if ratio < _FALLING and kernel == "none":
            slowest = math.exp(-math.pi * self.system.temperature / self.interval.half_width * count / 4)
            change = max(2 * ratio * change, slowest**2 * before)
        elif ratio < _FALLING:
            change *= math.sqrt(ratio)
        return change

    def _expansion(self, count: int, kernel: str) -> Expansion:
        return Expansion(self.interval, self.system.temperature, count, kernel)

    def _noise(self, sets: list[KpmEstimate]) -> float:
        """Four standard errors of the mean of two sets, on the worst site.

        Half the difference of the sets estimates the standard error of their mean; the variance of a site is averaged
        over the site and its neighbours.
        """
        lattice = self.system.lattice
        difference = self.system.scale * (sets[0].components - sets[1].components)[:, 1:] / 2
        variance = np.append((difference**2).sum(axis=1), np.nan)
        around = lattice.shift([(0, 0), *lattice.neighbours])
        return _STANDARD_ERRORS * math.sqrt(np.nanmean(variance[around], axis=1).max())

    def _too_cold(self) -> HpcspinError:
        return HpcspinError(
            f"electrons.temperature: {self.system.temperature:g} needs more than {MOST_MOMENTS} Chebyshev moments "
            f"for a tolerance of {self.tolerance:g}; raise electrons.temperature or electrons.tolerance, "
            "or choose diagonalization"
        )

    def reset(self) -> None:
        """Forget the settings that earlier snapshots needed."""
        self._plan = self._first

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Settings with which the next call starts."""
        return {"plan": np.array([self._plan.distance, self._plan.moments])}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Start from these settings: the next call then repeats, bit for bit, the call after `get_state`.

        Raises ValueError if these are not settings of this solver.
        """
        distance, moments = (int(number) for number in state["plan"])
        if distance < _FIRST_DISTANCE or not moments == _power_of_two(moments) <= MOST_MOMENTS:
            raise ValueError(f"plan of {distance} steps and {moments} moments does not belong to the solver kpm")
        self._plan = Plan(distance, moments)


def _power_of_two(count: float) -> int:
    """The next power of two, and at least `_LEAST_MOMENTS`."""
    return 1 << math.ceil(math.log2(max(_LEAST_MOMENTS, count)))


def _mean(sets: list[KpmEstimate]) -> KpmEstimate:
    """Mean of two sets; its energy has the standard error of that and what the kernel changes."""
    components = sum(estimate.components for estimate in sets) / len(sets)
    energy, potential, kernel = (
        sum(getattr(one, name) for one in sets) / len(sets) for name in ("energy", "potential", "energy_error")
    )
    # As for the field, half the difference of the two estimates the standard error of their mean.
    noise = abs(sets[0].energy - sets[1].energy) / 2
    return KpmEstimate(np.asarray(components), energy, potential, math.hypot(noise, kernel))
