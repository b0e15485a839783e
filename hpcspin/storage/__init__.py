"""HDF5 schemas of labels, trajectories and checkpoints; atomic writes; provenance.

Nothing here knows lattices, electrons or networks: arrays and JSON go in, files come out.  Every file
is either whole under its own name or unfinished under ``NAME.partial``.
"""

from hpcspin.storage.agreement import (
    NUMERICS,
    Electrons,
    bias_range,
    differ_among_themselves,
    electron_differences,
    electrons_of,
    is_outside,
    joined_differences,
    kinds_of_electrons,
    stored_electrons,
)
from hpcspin.storage.atomic import atomic_path, make_directory, require_output, sha256
from hpcspin.storage.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hpcspin.storage.compare import config_differences, describe_differences
from hpcspin.storage.frames import count_frames, partial_path, read_attributes
from hpcspin.storage.hdf5 import SCHEMA_VERSION, UNITS, open_hdf5
from hpcspin.storage.labels import Labels, LabelWriter, read_labels, write_labels
from hpcspin.storage.manifest import MANIFEST, Shard, ensure_manifest, read_manifest, write_manifest
from hpcspin.storage.ovf import write_ovf
from hpcspin.storage.provenance import code_version, provenance
from hpcspin.storage.spins import check_spins, read_spins
from hpcspin.storage.trajectory import TrajectoryWriter
from hpcspin.storage.xdmf import write_xdmf

__all__ = [
    "MANIFEST",
    "NUMERICS",
    "SCHEMA_VERSION",
    "UNITS",
    "Checkpoint",
    "Electrons",
    "LabelWriter",
    "Labels",
    "Shard",
    "TrajectoryWriter",
    "atomic_path",
    "bias_range",
    "check_spins",
    "code_version",
    "config_differences",
    "count_frames",
    "describe_differences",
    "differ_among_themselves",
    "electron_differences",
    "electrons_of",
    "ensure_manifest",
    "is_outside",
    "joined_differences",
    "kinds_of_electrons",
    "make_directory",
    "open_hdf5",
    "partial_path",
    "provenance",
    "read_attributes",
    "read_checkpoint",
    "read_labels",
    "read_manifest",
    "read_spins",
    "require_output",
    "sha256",
    "stored_electrons",
    "write_checkpoint",
    "write_labels",
    "write_manifest",
    "write_ovf",
    "write_xdmf",
]
