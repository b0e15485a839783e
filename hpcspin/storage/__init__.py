"""HDF5 schemas of labels, trajectories and checkpoints; atomic writes; provenance.

Nothing here depends on lattices, electrons or networks: the input is arrays and JSON, the output files. Every file
is either complete under its own name or unfinished under ``NAME.partial``.
"""

from hpcspin.storage.agreement import (
    NUMERICS,
    Electrons,
    bias_range,
    config_differences,
    describe_differences,
    differ_among_themselves,
    electron_differences,
    electrons_of,
    is_outside,
    kinds_of_electrons,
    require_same_config,
    require_spin_rotations,
    stored_electrons,
)
from hpcspin.storage.atomic import (
    all_or_none,
    append_line,
    atomic_file,
    atomic_hdf5,
    make_directory,
    require_absent,
    require_output,
    sha256,
    write_bytes,
    write_json,
    write_text,
)
from hpcspin.storage.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hpcspin.storage.frames import FrameReader, partial_path
from hpcspin.storage.labels import Labels, LabelWriter, read_labels, write_labels
from hpcspin.storage.lock import OutputLock
from hpcspin.storage.manifest import MANIFEST, Shard, data_files, ensure_manifest, read_manifest, write_manifest
from hpcspin.storage.opening import count_frames, open_hdf5, read_attributes, read_json, read_rows, real_dataset
from hpcspin.storage.ovf import read_ovf, write_ovf
from hpcspin.storage.provenance import SCHEMA_VERSION, UNITS, code_version, provenance
from hpcspin.storage.spins import SPINS, SpinsFile, check_spins, read_spins
from hpcspin.storage.trajectory import MINIMUM, PATH, TRAJECTORY, TrajectoryWriter, find_trajectory, trajectory_file
from hpcspin.storage.voltages import (
    POLARIZATIONS,
    chemical_potential,
    kinds_of_learned,
    require_learned,
    unseen_differences,
    voltages,
    voltages_outside,
    without_drive,
)
from hpcspin.storage.xdmf import frames_path, write_xdmf

__all__ = [
    "MANIFEST", "MINIMUM", "NUMERICS", "PATH", "POLARIZATIONS", "SCHEMA_VERSION", "SPINS", "TRAJECTORY", "UNITS",
    "Checkpoint", "Electrons", "FrameReader", "LabelWriter", "Labels", "OutputLock", "Shard", "SpinsFile",
    "TrajectoryWriter", "all_or_none", "append_line", "atomic_file", "atomic_hdf5", "bias_range", "check_spins",
    "chemical_potential", "code_version", "config_differences", "count_frames", "data_files", "describe_differences",
    "differ_among_themselves", "electron_differences", "electrons_of", "ensure_manifest", "find_trajectory",
    "frames_path", "is_outside", "kinds_of_electrons", "kinds_of_learned", "make_directory", "open_hdf5",
    "partial_path", "provenance", "read_attributes", "read_checkpoint", "read_json", "read_labels", "read_manifest",
    "read_ovf", "read_rows", "read_spins", "real_dataset", "require_absent", "require_learned", "require_output",
    "require_same_config", "require_spin_rotations", "sha256", "stored_electrons", "trajectory_file",
    "unseen_differences", "voltages", "voltages_outside", "without_drive", "write_bytes", "write_checkpoint",
    "write_json", "write_labels", "write_manifest", "write_ovf", "write_text", "write_xdmf",
]  # fmt: skip
