"""What the environment says about a launcher, before anything heavy is imported."""

from __future__ import annotations

import os

_RANK_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where Open MPI, MPICH (and its relatives) and srun write how many ranks they have started; the first one counts."""
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
"""Where the same launchers write the number of this rank."""


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launched_ranks() -> int:
    """Number of ranks that an MPI launcher says it has started; 0 without one."""
    return _first_of(_RANK_COUNTS)


def one_process() -> str:
    """How to run one process in a shell that a launcher has opened, as `srun --pty` does for several tasks."""
    names = " ".join(f"-u {name}" for name in _RANK_COUNTS if name in os.environ)
    return f"for one process in a shell that srun has opened, give env {names} hpcspin ..."


def launched_rank() -> int:
    """Number that the launcher has given this process; 0 without one."""
    return _first_of(("RANK",) if under_torchrun() else _RANKS)


def _first_of(names: tuple[str, ...]) -> int:
    values = [int(os.environ[name]) for name in names if name in os.environ]
    return values[0] if values else 0
