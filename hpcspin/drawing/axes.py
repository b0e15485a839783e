"""Horizontal axis of the curves of a sweep: a key of the config, or the voltage where it determines the potentials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from hpcspin.config import Config
from hpcspin.config_text import Choice


class Run(Protocol):
    """A run of a sweep: the values of its varied keys, and its whole config."""

    @property
    def choice(self) -> Choice:
        """Values of the varied keys."""

    @property
    def config(self) -> Config:
        """The config."""


def natural_axis(runs: Sequence[Run], *, voltage: bool) -> str | None:
    """The ``voltage`` if it may be, varies and determines the potentials, else a varied key, rather one of numbers."""
    keys = [key for key in runs[0].choice if not key.endswith("seed")]
    numeric = [key for key in keys if all(isinstance(run.choice[key], int | float) for run in runs)]
    varies = voltage and any(is_axis(key, "voltage") for key in numeric)
    return "voltage" if varies and follow_from_the_voltage(runs) else next(iter([*numeric, *keys]), None)


def follow_from_the_voltage(runs: Sequence[Run]) -> bool:
    """Whether runs at the same voltage have the same potentials, unlike those at 1 and at -1 beside 0."""
    different = {several for run in runs if (several := potentials(run))}
    return len({max(several) - min(several) for several in different}) == len(different)


def potentials(run: Run) -> tuple[float, ...]:
    """Potentials of the reservoirs that drive the electrons of a run; those without a width do not."""
    electrons = run.config.electrons
    return tuple(one.potential for one in electrons.reservoirs if one.width) if electrons else ()


def follows(key: str, axis: str, runs: Sequence[Run]) -> bool:
    """Whether the values of the axis determine those of another key that varies, as of keys that change together."""
    pairs = {(json.dumps(run.choice[axis]), json.dumps(run.choice[key])) for run in runs}
    at, values = (len(set(side)) for side in zip(*pairs, strict=True))
    return values > 1 and at == len(pairs)


def is_axis(key: str, against: str) -> bool:
    """Whether a key belongs to the horizontal axis: the potential of a reservoir is part of the voltage."""
    return key == against or (
        against == "voltage" and key.startswith("electrons.reservoirs.") and key.endswith(".potential")
    )
