"""How the amplitude of a driving field varies with time; waveforms are registered by name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hpcspin.errors import HpcspinError
from hpcspin.registry import Registry
from hpcspin.settings import Finite, Positive

_PULSE_REACH = 8.0
"""Distance from the centre, in widths, at which a pulse has fallen to 1e-14."""


class Waveform(ABC):
    """An amplitude that varies with time, of magnitude at most 1."""

    @abstractmethod
    def __call__(self, time: float) -> float:
        """Amplitude at a time."""

    @abstractmethod
    def rate(self, start: float, end: float) -> float:
        """Largest angular frequency with which the amplitude changes between two times; 0 where it does not change."""


@runtime_checkable
class Driven(Protocol):
    """A term of the field that depends explicitly on time."""

    @property
    def strength(self) -> float:
        """Largest magnitude of the part that varies."""

    def rate(self, start: float, end: float) -> float:
        """See `Waveform.rate`."""


WAVEFORMS: Registry[type[Waveform]] = Registry("dynamics.classical.drives")


def waveform(name: str) -> Callable[[type[Waveform]], type[Waveform]]:
    """Register a waveform: a frozen dataclass of its parameters, called with the time.

    Raises
    ------
    HpcspinError
        If it is not a `Waveform`, so that nothing says how fast it changes.
    """

    def register(kind: type[Waveform]) -> type[Waveform]:
        if not issubclass(kind, Waveform):
            raise HpcspinError(
                f"waveform {name}: {kind.__name__} is no hpcspin.dynamics.waveforms.Waveform, so that nothing says how "
                "fast it changes; derive it from that class"
            )
        WAVEFORMS.add(name, kind)
        return kind

    return register


def make_waveform(name: str, **parameters: float) -> Waveform:
    """Look up a waveform.

    Raises
    ------
    HpcspinError
        If the name is unknown or the parameters are not those of the waveform.
    """
    waveform: Waveform = WAVEFORMS.make(name, **parameters)
    return waveform


@waveform("sinusoid")
@dataclass(frozen=True)
class Sinusoid(Waveform):
    """sin(frequency t + phase), with an angular frequency."""

    frequency: Positive
    phase: Finite = 0.0

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        return math.sin(self.frequency * time + self.phase)

    def rate(self, start: float, end: float) -> float:
        """The frequency."""
        return abs(self.frequency)


@waveform("pulse")
@dataclass(frozen=True)
class Pulse(Waveform):
    """Gaussian of height 1 and standard deviation `width` about `centre`."""

    centre: Finite
    width: Positive

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        return math.exp(-0.5 * ((time - self.centre) / self.width) ** 2)

    def rate(self, start: float, end: float) -> float:
        """One over the width while it lasts."""
        lasts = abs(min(max(self.centre, start), end) - self.centre) < _PULSE_REACH * abs(self.width)
        return 1 / abs(self.width) if lasts else 0.0


@waveform("sinc")
@dataclass(frozen=True)
class Sinc(Waveform):
    """sin(x)/x, x = frequency (t - centre): excites all angular frequencies below `frequency` equally."""

    centre: Finite
    frequency: Positive

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        x = self.frequency * (time - self.centre)
        return math.sin(x) / x if x else 1.0

    def rate(self, start: float, end: float) -> float:
        """The frequency: the waveform's band ends there."""
        return abs(self.frequency)
