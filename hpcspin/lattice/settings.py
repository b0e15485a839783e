"""Settings of the lattice, of sets of sites, of values on sites, and of the spins at time zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag, ValidationInfo, model_validator

from hpcspin.errors import HpcspinError
from hpcspin.lattice.lattice import LATTICES, SHAPES, Lattice
from hpcspin.lattice.textures import TEXTURES
from hpcspin.registry import Choice
from hpcspin.settings import Count, Energy, Flag, Integer, Section

_SIZE = "size"


class MapFile(Section):
    """A dataset (Lx, Ly) of an HDF5 file."""

    file: str
    dataset: str

    def read(self, size: Sequence[int] | None) -> NDArray[Any]:
        """Read the dataset; raises HpcspinError if it has NaNs, or not the size of the lattice where this is known."""
        from hpcspin.storage import open_hdf5, read_rows, real_dataset  # HDF5 takes a while to import.

        path = Path(self.file)
        with open_hdf5(path, "give an HDF5 file with a dataset (Lx, Ly)") as file:
            found = read_rows(real_dataset(file, path, self.dataset, size or ("Lx", "Ly")), path, slice(None))
        if np.isnan(found).any():
            raise HpcspinError(f"{path}: /{self.dataset} has NaNs; give a number for each site")
        return found


class Columns(Section):
    """A range of columns, both ends included."""

    columns: tuple[Integer, Integer]


def maps_fit(size: Any) -> dict[str, Any]:
    """Context of a validation in which maps from files must have the size of a lattice, if it is one."""
    return {_SIZE: size} if isinstance(size, list | tuple) else {}


def _map_of(given: Any, info: ValidationInfo) -> NDArray[Any] | None:
    """The dataset that a mapping with the key ``file`` refers to; None for anything else."""
    if not (isinstance(given, Mapping) and "file" in given):
        return None
    return MapFile.model_validate(given).read((info.context or {}).get(_SIZE))


def _places(given: Any, info: ValidationInfo) -> Any:
    if hasattr(given, "__array__"):  # From Python: a mask, or sites [x, y].
        array = np.asarray(given)
        size = tuple((info.context or {}).get(_SIZE, array.shape))
        if array.dtype == bool and array.shape != size:
            raise ValueError(f"a mask of shape {array.shape} does not fit {size} sites")
        return (np.argwhere(array) if array.dtype == bool else array).tolist()
    return given if (found := _map_of(given, info)) is None else np.argwhere(found).tolist()


def _numbers(given: Any, info: ValidationInfo) -> Any:
    found = _map_of(given, info)
    if isinstance(given, list | tuple) and len({len(row) for row in given if isinstance(row, list | tuple)}) > 1:
        raise ValueError("must be Lx lists of Ly numbers, all of one length")
    return given if found is None else found.tolist()


def _form(given: Any) -> str:
    """Tag of the form in which sites are given, so that mistakes are reported for that form alone.

    Messages leave out the tag because of its parentheses.
    """
    if isinstance(given, str):
        return "(name)"
    return "(columns)" if isinstance(given, Mapping | Columns) else "(list)"


Sites = Annotated[
    Annotated[str, AfterValidator(SHAPES.check), Tag("(name)")]
    | Annotated[Columns, Tag("(columns)")]
    | Annotated[tuple[tuple[Integer, Integer], ...], Tag("(list)")],
    Discriminator(_form),
    BeforeValidator(_places, json_schema_input_type=str | Columns | MapFile | tuple[tuple[Integer, Integer], ...]),
]
"""Sites given by a name in `SHAPES`, as ``{columns: [from, to]}``, as a list of sites [x, y], or as
``{file: FILE.h5, dataset: NAME}`` for the sites where the dataset is not 0."""
SiteValues = Annotated[
    Energy | tuple[tuple[Energy, ...], ...],
    BeforeValidator(_numbers, json_schema_input_type=Energy | MapFile | tuple[tuple[Energy, ...], ...]),
]
"""One energy for all sites, or one for each site: ``{file: FILE.h5, dataset: NAME}``, or Lx lists of Ly numbers."""


def chosen_sites(lattice: Lattice, sites: str | Columns | tuple[tuple[int, int], ...], where: str) -> NDArray[np.bool_]:
    """The sites given in a config as a mask, shape (Lx, Ly); HpcspinError names the key ``where``."""
    if not isinstance(sites, Columns):
        try:
            return lattice.mask(sites)
        except HpcspinError as failure:
            raise HpcspinError(f"{where}: {failure}") from failure
    first, last = sites.columns
    if not 0 <= first <= last < lattice.size[0]:
        raise HpcspinError(
            f"{where}: columns [{first}, {last}] are none of the {lattice.size} lattice; give [from, to], from 0 to "
            f"{lattice.size[0] - 1}"
        )
    x = np.indices(lattice.size)[0]
    return (first <= x) & (x <= last)


class LatticeSettings(Section):
    """The lattice."""

    kind: Annotated[str, AfterValidator(LATTICES.check)] = "square"
    """``square`` (4 neighbours), ``triangular`` (6), or another registered lattice."""
    size: tuple[Count, Count]
    """Number of sites along x, the transport direction, and along y."""
    periodic: tuple[Flag, Flag] = (False, True)


class InitialSettings(Choice):
    """The spins at time zero: a texture and its parameters, such as the ``position`` and ``tilt`` of a wall."""

    registry = TEXTURES
    kind: Annotated[str, AfterValidator(TEXTURES.check)]
    """``wall``, ``antiferromagnet``, ``ferromagnet``, ``order_120``, ``tetrahedral``, ``stripes``, ``puddles``,
    ``skyrmions``, ``random``, ``file`` (with a ``path``), or another registered texture."""

    @model_validator(mode="before")
    @classmethod
    def _without_seed(cls, given: Any) -> Any:
        kind = given.get("kind") if isinstance(given, Mapping) and "seed" in given else None
        if isinstance(kind, str) and kind in TEXTURES and "seed" not in TEXTURES.parameters(kind).model_fields:
            raise ValueError("seed: initial spins have none of their own, theirs is dynamics.seed; leave it out here")
        return given
