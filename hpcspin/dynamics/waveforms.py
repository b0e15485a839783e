"""How the amplitude of a driving field goes with time; waveforms are registered by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hpcspin.errors import HpcspinError

Waveform = Callable[[float], float]

WAVEFORMS: dict[str, Callable[..., Waveform]] = {}


def waveform(name: str) -> Callable[[type[Waveform]], type[Waveform]]:
    """Register a waveform: a frozen dataclass of its parameters, called with the time."""

    def register(kind: type[Waveform]) -> type[Waveform]:
        WAVEFORMS[name] = kind
        return kind

    return register


def make_waveform(name: str, **parameters: float) -> Waveform:
    """Look up a waveform.

    Raises
    ------
    HpcspinError
        If the name is unknown or the parameters are not those of the waveform.
    """
    if name not in WAVEFORMS:
        raise HpcspinError(f"waveform {name!r} is unknown; choose one of {', '.join(sorted(WAVEFORMS))}")
    try:
        return WAVEFORMS[name](**parameters)
    except TypeError as error:
        wanted = ", ".join(WAVEFORMS[name].__annotations__)
        raise HpcspinError(f"waveform {name}: its parameters are {wanted}; mend dynamics.classical.drives") from error


@waveform("sinusoid")
@dataclass(frozen=True)
class Sinusoid:
    """sin(frequency t + phase), the frequency an angular one."""

    frequency: float
    phase: float = 0.0

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        return math.sin(self.frequency * time + self.phase)


@waveform("pulse")
@dataclass(frozen=True)
class Pulse:
    """Gaussian of height 1 and standard deviation `width` about `centre`."""

    centre: float
    width: float

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        return math.exp(-0.5 * ((time - self.centre) / self.width) ** 2)


@waveform("sinc")
@dataclass(frozen=True)
class Sinc:
    """sin(x)/x, x = frequency (t - centre): excites all angular frequencies below `frequency` alike."""

    centre: float
    frequency: float

    def __call__(self, time: float) -> float:
        """Amplitude at a time."""
        x = self.frequency * (time - self.centre)
        return math.sin(x) / x if x else 1.0
