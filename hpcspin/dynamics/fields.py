"""What drives the spins: one protocol, sums of fields, and fields that need the whole lattice.

A field maps the spins of a domain with a halo to the field on the domain.  The halo holds copies of
periodic images and of other ranks' spins, and zero vectors beyond open edges, so that every bond and
chirality with a missing site vanishes by itself.  A field that needs more from other ranks than their
spins asks the domain for it when it is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.torque import components_first
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

BoundField = Callable[[Tensor, float], Tensor]


class Field(Protocol):
    """What every field offers."""

    @property
    def halo(self) -> Halo | None:
        """The halo (hx, hy) it needs around a domain; None: it needs the whole lattice."""
        ...

    def bind(self, domain: Domain) -> BoundField:
        """Prepare for a domain.

        Returns
        -------
        callable
            ``(spins, time) -> field``: spins of shape (nx + 2 hx, ny + 2 hy, 3), or (Lx, Ly, 3) if
            `halo` is None; field of shape (nx, ny, 3), type and device as the spins.  All ranks call it
            together.
        """
        ...


@runtime_checkable
class HeadStart(Protocol):
    """A bound field that can begin while the halo is still on its way."""

    def begin(self, spins: Tensor, time: float) -> None:
        """Do what reads no other rank's spins; the call that follows, with the same arguments, does the rest."""
        ...


@runtime_checkable
class Renewed(Protocol):
    """A bound field that may change between two steps, such as one with a correction that is held for some."""

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        """Begin a step at the spins of my block, shape (nx, ny, 3); whether the field is another one now.

        All ranks call together, once a step, before they ask for the field there.  A run that resumes does not call
        for the step of its checkpoint: the state is that of after the call.
        """
        ...


@runtime_checkable
class Observed(Protocol):
    """A field that knows more than the field: density, currents, its own error.

    Attributes
    ----------
    observable_shapes : mapping
        Name to shape of each observable of one frame.
    observables : mapping
        Their values at the last evaluation.
    """

    observable_shapes: Mapping[str, tuple[int, ...]]
    observables: Mapping[str, NDArray[np.float64]]


@runtime_checkable
class Watching(Protocol):
    """A field that looks at the frames that are recorded, such as one that is compared with another now and then."""

    def watch(self, step: int, whole: Callable[[], Tensor]) -> None:
        """Look at a frame before it is recorded; `whole()` joins its spins on every rank. All ranks call together."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A field whose next value depends on its past, such as an adaptive energy grid kept from step to step.

    The state is the same on all ranks; checkpoints hold it.
    """

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays that describe the state."""
        ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to a state."""
        ...


@runtime_checkable
class Homogeneous(Protocol):
    """A field that derives from an energy of degree d in the spins, so that E = -(1/d) sum S_i·H_i (Euler)."""

    degree: int


@runtime_checkable
class Energetic(Protocol):
    """A field that may know an energy from which it, or its part h^eq, derives."""

    def energy(self, lattice: Lattice, spins: NDArray[np.float64]) -> float | None:
        """Energy of spins of shape (Lx, Ly, 3) on the whole lattice; None if there is none."""
        ...


@runtime_checkable
class SelfInteracting(Protocol):
    """A field on a spin that depends on that spin itself."""

    def divergence(self, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Divergence of a site's field under rotations of its own spin, the trace of dH_i/dS_i across S_i.

        Spins of shape (Lx, Ly, 3), result of shape (Lx, Ly).
        """
        ...


def _narrow(spins: Tensor, domain: Domain, have: Halo | None, need: Halo | None) -> Tensor:
    """From the halo at hand to a smaller one."""
    if have == need:
        return spins
    assert need is not None, "a sum with a whole-lattice term is itself one"
    if have is None:
        return domain.window(spins, need)
    x, y = have[0] - need[0], have[1] - need[1]
    return spins[x : spins.shape[0] - x, y : spins.shape[1] - y]


def _widest(halos: Sequence[Halo | None]) -> Halo | None:
    """The widest along each axis; None if one is the whole lattice."""
    widths = [halo for halo in halos if halo is not None]
    if len(widths) < len(halos):
        return None
    return max(hx for hx, _ in widths), max(hy for _, hy in widths)


class SumField:
    """Sum of fields, added in the order given.

    Parameters
    ----------
    terms
        At least one field.
    """

    def __init__(self, terms: Sequence[Field]) -> None:
        self.terms = tuple(terms)
        self.halo = _widest([term.halo for term in self.terms])

    def bind(self, domain: Domain) -> BoundField:
        """Bind all terms; see :class:`Field`."""
        return _BoundSum([(term.halo, term.bind(domain)) for term in self.terms], domain, self.halo)

    @property
    def observable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Observables of all terms."""
        return {name: shape for term in self._observed() for name, shape in term.observable_shapes.items()}

    @property
    def observables(self) -> dict[str, NDArray[np.float64]]:
        """Values of all terms' observables at the last evaluation."""
        return {name: value for term in self._observed() for name, value in term.observables.items()}

    def watch(self, step: int, whole: Callable[[], Tensor]) -> None:
        """Let those terms look that want to."""
        for term in self.terms:
            if isinstance(term, Watching):
                term.watch(step, whole)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """States of the terms that have one."""
        return {
            f"{index}/{name}": array
            for index, term in enumerate(self.terms)
            if isinstance(term, Stateful)
            for name, array in term.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return the terms to their states."""
        for index, term in enumerate(self.terms):
            if isinstance(term, Stateful):
                mine = f"{index}/"
                term.load_state_dict({k.removeprefix(mine): v for k, v in state.items() if k.startswith(mine)})

    def _observed(self) -> list[Observed]:
        return [term for term in self.terms if isinstance(term, Observed)]


class _BoundSum:
    """A sum of fields on a block."""

    def __init__(self, terms: list[tuple[Halo | None, BoundField]], domain: Domain, halo: Halo | None) -> None:
        self._terms, self._domain, self._halo = terms, domain, halo

    def begin(self, spins: Tensor, time: float) -> None:
        for halo, term in self._terms:
            if isinstance(term, HeadStart):
                term.begin(_narrow(spins, self._domain, self._halo, halo), time)

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        changed = False
        for _, term in self._terms:
            if isinstance(term, Renewed):
                changed |= term.renew(step, spins, time)
        return changed

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        parts = [term(_narrow(spins, self._domain, self._halo, halo), time) for halo, term in self._terms]
        result = parts[0]
        for part in parts[1:]:
            result = result + part
        return result


def terms_of(field: Field) -> tuple[Field, ...]:
    """The terms of a sum, or the field itself."""
    return field.terms if isinstance(field, SumField) else (field,)


class SteadyStateLike(Protocol):
    """What a solver of the electrons returns for n snapshots; n = 1 here."""

    @property
    def field(self) -> NDArray[np.float64]:
        """Shape (n, Lx, Ly, 3)."""
        ...

    @property
    def density(self) -> NDArray[np.float64]:
        """Shape (n, Lx, Ly)."""
        ...

    @property
    def current(self) -> NDArray[np.float64]:
        """Shape (n, reservoirs)."""
        ...

    @property
    def error(self) -> NDArray[np.float64]:
        """Shape (n,)."""
        ...


class WholeLatticeField:
    """A field that is computed from all spins at once, such as that of the electrons.

    Every rank receives the whole configuration and calls the solver, which may share the work among the
    ranks; all must get the same result.  The density, currents and error estimate of the last
    evaluation are kept, so that a recorded frame costs nothing more.

    Parameters
    ----------
    solve
        Spins of shape (1, Lx, Ly, 3) to their steady state.
    size
        Lattice size.
    num_reservoirs
        Number of currents.
    state
        Where the solver keeps something from step to step: the object that holds it.
    """

    halo = None

    def __init__(
        self,
        solve: Callable[[NDArray[np.float64]], SteadyStateLike],
        size: tuple[int, int],
        num_reservoirs: int,
        state: Stateful | None = None,
    ) -> None:
        self._solve, self._state = solve, state
        self.observable_shapes: dict[str, tuple[int, ...]] = {
            "density": tuple(size),
            "current": (num_reservoirs,),
            "error": (),
        }
        self.observables: dict[str, NDArray[np.float64]] = {}

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`Field`."""

        def evaluate(spins: Tensor, time: float) -> Tensor:
            whole = spins.detach().to("cpu", torch.float64).contiguous().numpy()
            steady = self._solve(whole[None])
            self.observables = {name: np.asarray(getattr(steady, name)[0]) for name in self.observable_shapes}
            mine = np.ascontiguousarray(steady.field[0][domain.slices])
            return components_first(torch.from_numpy(mine).to(spins.device, spins.dtype))

        return evaluate

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """State of the solver."""
        return self._state.state_dict() if self._state else {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return the solver to a state."""
        if self._state:
            self._state.load_state_dict(state)


class FieldEvaluator:
    """A field on my block, from the spins of my block: adds the halo, and remembers its last result.

    Spins are never changed in place by this package, so the identity of the tensor says whether the
    field is asked for again at the same point: the recorder and the first stage of the next step do so.

    Parameters
    ----------
    field
        The field.
    domain
        My domain.
    """

    def __init__(self, field: Field, domain: Domain) -> None:
        self.field, self._domain = field, domain
        self._bound = field.bind(domain)
        self._last: tuple[Tensor, float, Tensor] | None = None

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        """Field of shape (nx, ny, 3) on spins of the same shape; all ranks call together."""
        known = self.known(spins, time)
        if known is not None:
            return known
        result = self._bound(self._surround(spins, time), time)
        self.remember(spins, time, result)
        return result

    def renew(self, step: int, spins: Tensor, time: float) -> None:
        """Begin a step, before the field is asked for there; all ranks call together."""
        if isinstance(self._bound, Renewed) and self._bound.renew(step, spins, time):
            self._last = None

    def _surround(self, spins: Tensor, time: float) -> Tensor:
        halo = self.field.halo
        if halo is None:
            return self._domain.whole(spins)
        if not any(halo):
            return spins
        exchange = self._domain.exchange(spins, halo)
        extended = exchange.start(spins)
        if exchange.travels and isinstance(self._bound, HeadStart):
            self._bound.begin(extended, time)
        exchange.finish()
        return extended

    def known(self, spins: Tensor, time: float) -> Tensor | None:
        """The remembered field, if it belongs to these very spins."""
        if self._last is not None and self._last[0] is spins and self._last[1] == time:
            return self._last[2]
        return None

    def remember(self, spins: Tensor, time: float, result: Tensor) -> None:
        """Take a field as that of the given spins."""
        self._last = (spins, time, result)


def energy(field: Field, lattice: Lattice, spins: NDArray[np.float64], time: float = 0.0) -> float:
    """Energy of a field on the whole lattice: of homogeneous terms E = -(1/d) sum_i S_i·H_i, of learned ones their E.

    Parameters
    ----------
    field
        A term with a degree, a learned field with a potential E, or a sum of such.
    lattice
        The lattice.
    spins
        Shape (Lx, Ly, 3).
    time
        When.

    Raises
    ------
    HpcspinError
        If a term derives from no energy.
    """
    if isinstance(field, SumField):
        return sum(energy(term, lattice, spins, time) for term in field.terms)
    if isinstance(field, Energetic) and (learned := field.energy(lattice, spins)) is not None:
        return learned
    if not isinstance(field, Homogeneous):
        raise _without_energy("energy")
    everything = torch.as_tensor(spins, dtype=torch.float64)
    force = FieldEvaluator(field, Domain.cut(lattice, World(), field.halo))(everything, time)
    return -float((everything * force).sum()) / field.degree


def _without_energy(observer: str) -> HpcspinError:
    return HpcspinError(
        f"dynamics.observers: {observer} needs a field with a known energy, as all classical terms but slonczewski "
        "have, and for energy learned fields of kind pair or conservative; driven electrons, exact or corrected, have "
        "none; leave this observer out"
    )


def spin_temperature(field: Field, spins: NDArray[np.float64], force: NDArray[np.float64]) -> float:
    """Temperature that spins in equilibrium have, from their places alone.

    T = sum |S_i x H_i|^2 / sum (2 S_i·H_i - div_i H_i), the mean square gradient of the energy over its Laplacian on
    the spheres: W. B. Nurdin and K.-D. Schotte, Phys. Rev. E 61, 3579 (2000); without self-interaction the formula
    of P.-W. Ma et al., Phys. Rev. E 82, 031111 (2010).

    Parameters
    ----------
    field
        A classical term or a sum of such.
    spins, force
        Spins and their field, shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If a term derives from no known energy.
    """
    terms = terms_of(field)
    for term in terms:
        if not isinstance(term, Homogeneous):
            raise _without_energy("spin_temperature")
    own = sum(term.divergence(spins).sum() for term in terms if isinstance(term, SelfInteracting))
    return float((np.cross(spins, force) ** 2).sum() / (2 * (spins * force).sum() - own))
