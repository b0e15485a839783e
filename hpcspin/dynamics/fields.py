"""Fields that drive the spins: their protocols, sums of fields, and their evaluation on a block.

A field maps the spins of a domain with a halo to the field on the domain. The halo holds copies of periodic images and
of other ranks' spins, and zero vectors beyond open edges, so that every bond and chirality with a missing site vanishes
by itself. A field that needs more from other ranks than their spins prepares that exchange when it is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo
from hpcspin.parallel.domain import Domain

BoundField = Callable[[Tensor, float], Tensor]


class Field(Protocol):
    """What every field offers."""

    @property
    def halo(self) -> Halo | None:
        """The halo (hx, hy) it needs around a domain; None: it needs the whole lattice."""

    def bind(self, domain: Domain) -> BoundField:
        """Prepare for a domain.

        Returns
        -------
        callable
            ``(spins, time) -> field``: spins of shape (nx + 2 hx, ny + 2 hy, 3), or (Lx, Ly, 3) if
            `halo` is None; field of shape (nx, ny, 3), type and device as the spins.  All ranks call it.
        """


@runtime_checkable
class Overlapped(Protocol):
    """A bound field whose interior is computed while the halo is still on its way."""

    def compute_interior(self, spins: Tensor, time: float) -> None:
        """Compute what needs no other rank's spins; the next call, with the same arguments, computes the rest."""


@runtime_checkable
class Renewed(Protocol):
    """A bound field that may change between two steps, such as one with a correction that lasts for some steps."""

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        """Start a step at the spins of my block, shape (nx, ny, 3); return whether the field has changed.

        All ranks call it once per step, before they evaluate the field there. A resumed run does not call it for the
        step of its checkpoint, which holds the state after the call.
        """


@runtime_checkable
class Observed(Protocol):
    """A field with observables of its own: density, currents, an error estimate.

    Attributes
    ----------
    observable_shapes : mapping
        Name to shape of each observable of one frame.
    """

    observable_shapes: Mapping[str, tuple[int, ...]]

    def observe(self, step: int, whole: Callable[[], Tensor]) -> Mapping[str, NDArray[np.float64]]:
        """Observables of a recorded frame, on whose spins the field was last evaluated.

        All ranks call it; `whole()` joins the spins on every rank.
        """


@runtime_checkable
class Stateful(Protocol):
    """A field whose next value depends on its past, such as an adaptive energy grid kept from step to step.

    The state is the same on all ranks; checkpoints hold it.
    """

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays that describe the state."""

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to a state."""


def part_of(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _narrow(spins: Tensor, domain: Domain, have: Halo | None, need: Halo | None) -> Tensor:
    """Reduce the halo to a smaller one."""
    if have == need:
        return spins
    assert need is not None, "a sum with a whole-lattice term is itself one"
    if have is None:
        return domain.window(spins, need)
    x, y = have[0] - need[0], have[1] - need[1]
    return spins[x : spins.shape[0] - x, y : spins.shape[1] - y]


def _widest(halos: Sequence[Halo | None]) -> Halo | None:
    """The widest halo along each axis; None if one is the whole lattice."""
    widths = [halo for halo in halos if halo is not None]
    if len(widths) < len(halos):
        return None
    return max(hx for hx, _ in widths), max(hy for _, hy in widths)


def is_field(given: Any) -> bool:
    """Whether an object has the two attributes of a `Field`."""
    halo = getattr(given, "halo", ())
    fits = halo is None or (np.shape(halo) == (2,) and all(isinstance(w, int | np.integer) and w >= 0 for w in halo))
    return not isinstance(given, type) and fits and callable(getattr(given, "bind", None))


class SumField:
    """Sum of one or more fields, added in the order given."""

    def __init__(self, terms: Sequence[Field]) -> None:
        self.terms = tuple(terms)
        self.halo = _widest([term.halo for term in self.terms])

    def bind(self, domain: Domain) -> BoundField:
        """Bind all terms; see :class:`Field`."""
        return _BoundSum([(term, _bound(term, domain)) for term in self.terms], domain, self.halo)

    @property
    def observable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Observables of all terms."""
        return {name: shape for term in self._observed() for name, shape in term.observable_shapes.items()}

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """Observables of all terms; see `Observed`."""
        return {name: value for term in self._observed() for name, value in term.observe(step, whole).items()}

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
                term.load_state_dict(part_of(state, f"{index}/"))

    def _observed(self) -> list[Observed]:
        return [term for term in self.terms if isinstance(term, Observed)]


class _BoundSum:
    """A sum of fields on a block."""

    def __init__(self, terms: list[tuple[Field, BoundField]], domain: Domain, halo: Halo | None) -> None:
        self._terms, self._domain, self._halo = terms, domain, halo

    def compute_interior(self, spins: Tensor, time: float) -> None:
        for field, term in self._terms:
            if isinstance(term, Overlapped):
                term.compute_interior(_narrow(spins, self._domain, self._halo, field.halo), time)

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        changed = False
        for _, term in self._terms:
            if isinstance(term, Renewed):
                changed |= term.renew(step, spins, time)
        return changed

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        # Checked one by one: a sum would spread another shape over the block.
        parts = (
            _checked(field, term, _narrow(spins, self._domain, self._halo, field.halo), time, self._domain)
            for field, term in self._terms
        )
        return reduce(add, parts)


def _bound(field: Field, domain: Domain) -> BoundField:
    found = field.bind(domain)
    if not callable(found):
        raise HpcspinError(
            f"{type(field).__name__}: its bind gives a {type(found).__name__}; return a function of spins and time"
        )
    return found


def _checked(field: Field, bound: BoundField, spins: Tensor, time: float, domain: Domain) -> Tensor:
    """The field on the block; refuses what is none."""
    before = spins._version  # Counts changes in place.
    result, name = bound(spins, time), type(field).__name__
    if spins._version != before:
        raise HpcspinError(f"{name}: changes the spins that it is given, which others use; compute with a copy")
    if not isinstance(result, Tensor) or result.shape != (*domain.shape, 3):
        found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"type {type(result).__name__}"
        raise HpcspinError(
            f"{name}: its field has {found} on a block of {domain.shape} sites; "
            "return one vector for each site of the block, without the halo, as a tensor"
        )
    if not result.is_floating_point() or result.requires_grad:
        found = "carries a gradient" if result.requires_grad else f"has type {result.dtype}"
        raise HpcspinError(f"{name}: its field {found}; return a tensor of real numbers, such as field.detach()")
    return result


def terms_of(field: Field) -> tuple[Field, ...]:
    """The terms of a sum, or the field itself."""
    return field.terms if isinstance(field, SumField) else (field,)


class FieldEvaluator:
    """A field on my block as a function of the spins of my block: adds the halo, and caches the last result.

    This package never changes spins in place, so the identity of the tensor shows whether the field is needed again at
    the same point, as it is by the recorder and by the first stage of the next step.

    ``occupied`` are the sites of my block that hold a spin, bool, shape (nx, ny, 1); None for all. At vacancies the
    field sees zero vectors, as beyond open edges, and is zero.
    """

    def __init__(self, field: Field, domain: Domain, occupied: Tensor | None = None) -> None:
        self.field, self._domain, self._occupied = field, domain, occupied
        self._bound = _bound(field, domain)
        self._last: tuple[Tensor, float, Tensor] | None = None

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        """Field of shape (nx, ny, 3) on spins of the same shape; all ranks call it."""
        cached = self.cached(spins, time)
        if cached is not None:
            return cached
        present = spins if self._occupied is None else spins * self._occupied
        result = _checked(self.field, self._bound, self._surround(present, time), time, self._domain)
        if self._occupied is not None:
            result = result * self._occupied
        self.store(spins, time, result)
        return result

    def renew(self, step: int, spins: Tensor, time: float) -> None:
        """Start a step, before the field is evaluated there; all ranks call it."""
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
        if exchange.travels and isinstance(self._bound, Overlapped):
            self._bound.compute_interior(extended, time)
        exchange.finish()
        return extended

    def cached(self, spins: Tensor, time: float) -> Tensor | None:
        """The cached field, if it belongs to these very spins."""
        if self._last is not None and self._last[0] is spins and self._last[1] == time:
            return self._last[2]
        return None

    def store(self, spins: Tensor, time: float, result: Tensor) -> None:
        """Cache a field as that of the given spins."""
        self._last = (spins, time, result)
