"""The small vocabulary that all our HDF5 files share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py

SCHEMA_VERSION = 1

UNITS = (
    "energy, field, potential: hopping t; time: hbar/t; length: lattice constant; spins: unit vectors; "
    "current: t/hbar particles out of the reservoir; hbar = k_B = e = gamma = 1"
)


def write_attributes(file: h5py.File, kind: str, attributes: Mapping[str, Any]) -> None:
    """Write the attributes that every hpcspin file carries, then the caller's (containers as JSON).

    Parameters
    ----------
    file
        Open file.
    kind
        What the file is: ``labels``, ``trajectory`` or ``checkpoint``.
    attributes
        The caller's; strings and numbers are stored as they are, mappings and sequences as JSON.
    """
    file.attrs["kind"] = kind
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["units"] = UNITS
    for name, value in attributes.items():
        file.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value)
