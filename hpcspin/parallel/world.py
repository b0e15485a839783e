"""One view of the ranks, whichever launcher started them.

Under ``mpirun`` or ``srun`` the ranks communicate through mpi4py, under ``torchrun`` through torch.distributed.
Everything else in hpcspin uses the `World` and never the launcher.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError, exit_code, one_line
from hpcspin.parallel.launcher import launched_ranks, one_process, under_torchrun

logger = logging.getLogger("hpcspin")
results = logging.getLogger("hpcspin.results")
"""The results of a command, which the command line writes to stdout; the rest of the log goes to stderr."""

_GRACE_SECONDS = 1.0
_PATIENCE = timedelta(weeks=3)
"""How long a rank waits for the others under torch.distributed: teams of ranks may differ by hours, and where a rank
fails the launcher ends all. In milliseconds it still fits an int32."""
_FORWARDING = 0.3
"""Seconds that a launcher is given to forward what a failing rank has written."""


@dataclass
class World:
    """The ranks of this run.

    Attributes
    ----------
    rank, size
        My number and how many there are.
    local_rank, local_size
        The same, among the ranks of this node: they choose the GPU.
    launcher
        ``"mpi"``, ``"torchrun"`` or ``"single"``.
    comm
        The mpi4py communicator under ``"mpi"``, else None.
    group
        The torch.distributed process group of a team made by `split` under ``"torchrun"``; None stands for all ranks.
    logs
        Whether rank 0 of these ranks logs progress: of several teams only the first does.
    sharing
        How many ranks of the job compute on my device, by its type, once
        :func:`hpcspin.parallel.devices.ranks_sharing` has counted.
    connections
        Communicator or group of my team for each number of teams, and the same of its own teams: `split` makes each
        once, since MPICH has 2048 of them and a session may call for many teams.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "single"
    comm: Any = field(default=None, repr=False)
    group: Any = field(default=None, repr=False)
    logs: bool = True
    sharing: dict[str, int] = field(default_factory=dict, repr=False)
    connections: dict[int, tuple[Any, Any, dict[int, Any]]] = field(default_factory=dict, repr=False)

    @staticmethod
    @functools.cache
    def current() -> World:
        """The ranks of this process, joined at the first call; for scripts and notebooks.

        Under a launcher, an uncaught exception then ends all ranks, so that none waits for ever.
        """
        world = World.detect()
        if world.size > 1:
            report = sys.excepthook

            def end_all(kind: type[BaseException], failure: BaseException, trace: TracebackType | None) -> None:
                report(kind, failure, trace)
                sys.stderr.flush()
                # A launcher that is told to end the job may drop what it has not forwarded yet.
                time.sleep(_FORWARDING)
                world.abort(exit_code(failure))

            sys.excepthook = end_all
            atexit.register(world.finish)
        return world

    @classmethod
    def detect(cls) -> World:
        """Join the ranks that the launcher started.

        Raises HpcspinError if an MPI launcher started this process and mpi4py cannot be used, or belongs to another MPI
        library than the launcher.
        """
        if under_torchrun():
            world = cls(
                rank=int(os.environ["RANK"]),
                size=int(os.environ["WORLD_SIZE"]),
                local_rank=int(os.environ["LOCAL_RANK"]),
                local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
                launcher="torchrun",
            )
            world.torch_group()
            return world._share_cores()
        launched = launched_ranks()
        if launched == 0:
            return cls()
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as failure:
            raise HpcspinError(
                f"started under an MPI launcher but mpi4py cannot load its MPI library ({failure}); "
                "install the one of this launcher, or pip install 'hpcspin[mpi]' and use its mpiexec; "
                f"{one_process()}"
            ) from failure
        comm = MPI.COMM_WORLD
        if comm.size != launched:
            # Continuing would run that many copies of a one-rank job on the same files.
            raise HpcspinError(
                f"the launcher has started {launched} ranks and mpi4py's MPI library sees {comm.size}: they belong "
                "to different MPI libraries; use the mpiexec of mpi4py's library, or srun --mpi=pmi2 or --mpi=pmix; "
                f"{one_process()}"
            )
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        return cls(comm.rank, comm.size, node.rank, node.size, "mpi", comm)._share_cores()

    def _share_cores(self) -> World:
        """Give each rank of a node its part of the cores, unless OMP_NUM_THREADS is set."""
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self.local_size))
        return self

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        if self.comm is not None:
            return self.comm.bcast(value)
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, group_src=0, group=self.group)
            return box[0]
        return value

    def allgather(self, value: Any) -> list[Any]:
        """The values of all ranks, in rank order, on every rank."""
        if self.comm is not None:
            return self.comm.allgather(value)
        if self.size > 1:
            box: list[Any] = [None] * self.size
            dist.all_gather_object(box, value, group=self.group)
            return box
        return [value]

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks, in rank order, on rank 0; None elsewhere."""
        if self.comm is not None:
            return self.comm.gather(value)
        if self.size > 1:
            box: list[Any] | None = [None] * self.size if self.rank == 0 else None
            dist.gather_object(value, box, group=self.group, group_dst=0)
            return box
        return [value]

    def concatenate(self, array: NDArray[Any], lengths: Sequence[int], *, everywhere: bool) -> NDArray[Any] | None:
        """Join flat, contiguous arrays of all ranks in rank order; under MPI without intermediate copies.

        They have one type and the given lengths. Either every rank gets the result, or rank 0 alone, and the others
        None.
        """
        if self.comm is None:
            parts = self.allgather(array) if everywhere else self.gather(array)
            return None if parts is None else np.concatenate(parts)
        joined = np.empty(sum(lengths), array.dtype) if everywhere or self.rank == 0 else None
        receive = None if joined is None else [joined, lengths]
        if everywhere:
            self.comm.Allgatherv(array, receive)
        else:
            self.comm.Gatherv(array, receive)
        return joined

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Sum of an array over the ranks, added in rank order so that every rank holds the same bits."""
        if self.size == 1:
            return array
        parts = self.allgather(np.ascontiguousarray(array))
        return np.sum(np.stack(parts), axis=0)

    def split(self, teams: int) -> tuple[int, World]:
        """Divide the ranks into teams of consecutive ranks, as equal as possible and at most one per rank.

        Returns the number of my team, and its ranks.
        """
        if teams == 1:
            return 0, self
        members = [np.arange(self.size)[np.arange(self.size) * teams // self.size == t] for t in range(teams)]
        mine = self.rank * teams // self.size
        if teams not in self.connections:
            self.connections[teams] = (*self._connect(mine, members[mine].tolist()), {})
        comm, group, own = self.connections[teams]
        rank, logs = self.rank - int(members[mine][0]), self.logs and mine == 0
        changes = {"comm": comm, "group": group, "logs": logs, "sharing": dict(self.sharing), "connections": own}
        return mine, replace(self, rank=rank, size=len(members[mine]), **changes)

    def _connect(self, team: int, members: Sequence[int]) -> tuple[Any, Any]:
        """Communicator and process group of a team of these ranks."""
        if self.comm is not None:
            return self.comm.Split(team, self.rank), None
        ranks = [dist.get_global_rank(self.group, rank) if self.group else rank for rank in members]
        return None, dist.new_group(ranks, timeout=_PATIENCE, use_local_synchronization=True)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.allgather(None)

    def log(self, message: str) -> None:
        """Log a line from rank 0."""
        if self.rank == 0 and self.logs:
            logger.info(message)

    def log_result(self, result: str) -> None:
        """Log a result, such as numbers or what has been written where, from rank 0 of each team."""
        if self.rank == 0:
            results.info(result)

    def torch_group(self, device: str = "cpu") -> None:
        """Start torch.distributed over these ranks, for DistributedDataParallel.

        NCCL handles tensors on GPUs if there are any or ``"cuda"`` is given, gloo those on CPUs.
        """
        if self.size == 1 or dist.is_initialized():
            return
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" or torch.cuda.is_available() else "gloo"
        if self.launcher == "mpi":
            address, port = self.broadcast(_free_address() if self.rank == 0 else None)
            os.environ.update(
                MASTER_ADDR=address, MASTER_PORT=str(port), RANK=str(self.rank), WORLD_SIZE=str(self.size)
            )
        dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=_PATIENCE)

    @contextmanager
    def abort_on_failure(self) -> Iterator[None]:
        """Run a block so that a failure on any rank, or Ctrl-C, ends all of them.

        A rank that fails prints its message and aborts the job, so that no rank waits for ever in a collective call.
        Ranks above 0 wait first: a failure of all ranks within a second is printed by rank 0 alone.
        """
        try:
            yield
        except (Exception, KeyboardInterrupt) as failure:
            if self.size == 1:
                raise
            if self.rank > 0:
                # Longer than rank 0 takes to abort.
                time.sleep(2 * _GRACE_SECONDS)
            logger.debug("traceback of rank %d", self.rank, exc_info=True)
            with suppress(OSError):  # The log may lie on the disk that is full.
                print(f"hpcspin: rank {self.rank}: {one_line(failure)}", file=sys.stderr, flush=True)
            if self.comm is not None:
                # An MPI launcher drops what it has not yet forwarded when it learns of the abort.
                time.sleep(_GRACE_SECONDS)
            self.abort(exit_code(failure))

    def finish(self) -> None:
        """Leave torch.distributed at the same time, so that no rank closes a connection that another still reads."""
        if dist.is_initialized():
            self.barrier()
            dist.destroy_process_group()

    def leave(self, code: int) -> None:
        """End all ranks at the same time; under torchrun this does not return and skips the interpreter's shutdown.

        A thread of torch.distributed that needs the interpreter during its shutdown occasionally ends the process with
        SIGABRT, after everything has been written. Under MPI the shutdown is needed: it frees the messages before MPI
        ends.
        """
        self.finish()
        if self.launcher == "torchrun":
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def abort(self, code: int) -> None:
        """End every rank of the job with an exit code."""
        if self.comm is not None:
            self.comm.Abort(code)
        # torchrun ends the other ranks as soon as one process has gone.
        os._exit(code)


def _free_address() -> tuple[str, int]:
    """Address of this host that other ranks can reach, and a free port on it."""
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "127.0.0.1"
    with socket.socket() as probe:
        probe.bind(("", 0))
        return address, probe.getsockname()[1]
