"""One run per output: a lock that names its holder and also works on the file systems of clusters.

The lock itself is that of flufl.lock, a hard link, which only one of several processes can create, also on NFS. A JSON
file beside it describes the holder: host, process, start time, and SLURM job. The holder touches the lock at regular
intervals.

The next process takes over the lock of a dead holder: immediately on the same host, where it can check that the holder
is dead, and in the same SLURM job after it has been requeued; otherwise when the holder has not touched the lock for
`LIFETIME_SECONDS`.
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import psutil
from flufl.lock import AlreadyLockedError, Lock, NotLockedError, TimeOutError

from hpcspin.errors import HpcspinError
from hpcspin.storage.disk import DiskFile, file_errors

LIFETIME_SECONDS = 600.0
"""Time without a heartbeat after which a holder elsewhere counts as dead; cluster file systems may pause for long."""
_TOUCH_SECONDS = 20.0
_AT_ONCE, _TAKEOVER, _PATIENCE = timedelta(seconds=-1), timedelta(seconds=10), timedelta(seconds=60)
_FOREVER = timedelta(days=3650)
"""Lifetime for flufl.lock, which relies on the clocks of the hosts; heartbeats are timed by the file server's clock."""
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_READ_ONLY = (errno.EACCES, errno.EROFS)

logging.getLogger("flufl.lock").propagate = False  # It logs tracebacks for failures that are one line here.
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock."""

    host: str
    machine: str
    """Identifiers of the host's last boot and of the process namespace."""
    process: int
    """Process identifier (PID)."""
    started: str | None
    """Start time of the process in units of its machine, because PIDs are reused."""
    since: str
    """Time at which it took the lock."""
    job: str | None
    """SLURM job identifier."""

    @classmethod
    def this_process(cls) -> Self:
        """Describe this process as a holder from now on."""
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        number = os.getpid()
        return cls(socket.gethostname(), _machine(), number, _start_time(number), since, os.environ.get("SLURM_JOB_ID"))

    @property
    def is_alive(self) -> bool:
        """Whether the process is still running on this machine."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # A process of another user, whose start time may be hidden.
        return _start_time(self.process) == self.started

    def __str__(self) -> str:
        job = f" of SLURM job {self.job}" if self.job else ""
        return f"process {self.process}{job} on {self.host}, since {self.since}"


class OutputLock:
    """The exclusive right to write an output: a directory, or a file that will be created.

    ``lost`` is called with one line, in another thread, if another process has taken the lock: writing must then end.
    """

    def __init__(self, output: Path, lost: Callable[[str], None]) -> None:
        self._output, self._lost = output, lost
        self._path = output / ".lock" if output.is_dir() else output.with_name(f".{output.name}.lock")
        self._lock = Lock(str(self._path), lifetime=_FOREVER)
        self._holder_file = _holder_file(self._lock.claimfile)
        self._released = threading.Event()
        self._heartbeat_thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, also from a dead holder; raises HpcspinError if another run holds it.

        Nothing is locked where nothing may be written; on a file system without hard links there is only a warning.
        """
        try:
            with file_errors(self._path):
                with DiskFile(self._holder_file, create=True) as file:
                    file.write_at(0, json.dumps(asdict(Holder.this_process())).encode())
                while not self._linked():
                    self._take_over()
                self._remove_stale()
        except BaseException as failure:
            _remove_claim(Path(self._lock.claimfile))
            number = getattr(failure.__cause__, "errno", None)
            if number in _NO_HARD_LINKS:
                _log.warning(
                    "warning: %s: cannot be locked on this file system; start no other command that writes there",
                    self._output,
                )
            elif number not in _READ_ONLY:
                raise
            return
        self._heartbeat_thread = threading.Thread(target=self._heartbeat, daemon=True)
        self._heartbeat_thread.start()

    def release(self) -> None:
        """Release the lock, if it was taken."""
        if self._heartbeat_thread is None:
            return
        self._released.set()
        self._heartbeat_thread.join()
        with suppress(NotLockedError, OSError):
            self._lock.unlock()
        _remove_claim(Path(self._lock.claimfile))

    def _linked(self) -> bool:
        try:
            self._lock.lock(timeout=_AT_ONCE)
        except TimeOutError:
            return False
        except AlreadyLockedError:  # The server carried out the first call and answered the repeated one.
            return True
        return True

    def _take_over(self) -> None:
        """Remove the lock of a dead holder; raise for any other holder."""
        if self._holder_is_dead():
            # One process at a time: a second one must not remove the lock that the first has just taken.
            try:
                with Lock(f"{self._path}.takeover", lifetime=_TAKEOVER, default_timeout=_PATIENCE):
                    if self._holder_is_dead():
                        self._remove()
            except TimeOutError as error:
                raise HpcspinError(f"{self._output}: its lock is being taken over; give the command again") from error
        elif self._path.exists():
            raise HpcspinError(
                f"{self._output}: another run writes there, {self._holder() or 'by an unknown process'}; wait for "
                f"its end or choose another --output; if that run is dead, rm {self._path}*"
            )

    def _holder_is_dead(self) -> bool:
        """Whether there is a lock whose holder is dead."""
        holder, me = self._holder(), Holder.this_process()
        if holder is not None and holder.machine == me.machine:
            return not holder.is_alive
        if holder is not None and me.job is not None and holder.job == me.job:
            return True  # SLURM ends a job before it restarts it.
        os.utime(self._holder_file)
        try:
            # Both times are from the file server's clock.
            return self._holder_file.stat().st_ctime - self._path.stat().st_ctime > LIFETIME_SECONDS
        except FileNotFoundError:
            return False

    def _holder(self) -> Holder | None:
        try:
            return _read_holder(_holder_file(self._claim_of_holder()))
        except OSError:
            return None

    def _claim_of_holder(self) -> Path:
        return self._path.with_name(Path(self._path.read_text()).name)

    def _remove(self) -> None:
        claim = self._claim_of_holder()
        self._path.unlink(missing_ok=True)
        _remove_claim(claim)

    def _remove_stale(self) -> None:
        """Remove files of runs that were killed before they had the lock, or whose lock was deleted."""
        machine = _machine()
        for file in self._path.parent.glob(f"{glob.escape(self._path.name)}|*.json"):
            holder = _read_holder(file)
            if holder is not None and holder.machine == machine and not holder.is_alive:
                _remove_claim(file.with_suffix(""))

    def _heartbeat(self) -> None:
        """Touch the lock until it is released or taken by another process."""
        missed = 0
        # File servers may lose sight of files for a moment after a restart.
        while missed < 2 and not self._released.wait(_TOUCH_SECONDS):
            with suppress(OSError):
                missed = 0 if self._lock.is_locked else missed + 1
        if missed:
            self._lost(f"{self._output}: the lock {self._path} is no longer this run's, which ends")


def _holder_file(claim: str | Path) -> Path:
    """The file that describes a holder."""
    return Path(f"{claim}.json")


def _read_holder(file: Path) -> Holder | None:
    """The holder that a file describes; None if the file is missing or does not have this form."""
    try:
        holder = Holder(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return holder if isinstance(holder.process, int) and holder.process > 0 else None


def _remove_claim(claim: Path) -> None:
    for path in (claim, _holder_file(claim)):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _machine() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start_time(process: int) -> str | None:
    """Start time of a process of this machine; None if it is dead."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state[0] in "ZX" else state[19]  # In ticks since boot, which no clock setting changes.
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        return str(psutil.Process(process).create_time())
    except psutil.NoSuchProcess:
        return None
