"""MPI gets device buffers only if the library says yes and a trial succeeds, on all ranks; a failing trial is no crash.

No GPU is needed: fakes stand for the library, and host tensors for device buffers.
"""

import sys
import types

import pytest
import torch

from hpcspin.parallel import device_buffers
from hpcspin.parallel.device_buffers import library_reports_cuda, obstacle_to_device_buffers
from hpcspin.parallel.world import World

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
TRIALS = {
    "succeeds": ("pass", None),
    "fails": ("raise SystemExit(1)", "failed with code 1"),
    "crashes": ("import os; os.abort()", "failed with code -6"),
    "hangs": ("import time; time.sleep(60)", "has not arrived within 0.5 s"),
}


@pytest.fixture(autouse=True)
def _nothing_is_cached():
    device_buffers._obstacle.cache_clear()
    yield
    device_buffers._obstacle.cache_clear()


def set_trial(monkeypatch, script):
    monkeypatch.setattr(device_buffers, "TRIAL", (sys.executable, "-c", script))


@pytest.mark.parametrize("case", TRIALS)
@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("reported", [False, True])
def test_device_buffers_need_a_gpu_the_librarys_word_and_a_trial(monkeypatch, case, device, reported):
    script, failure = TRIALS[case]
    set_trial(monkeypatch, script)
    monkeypatch.setattr(device_buffers, "TRIAL_SECONDS", 20.0 if case != "hangs" else 0.5)
    monkeypatch.setattr(device_buffers, "library_reports_cuda", lambda: reported)
    found = obstacle_to_device_buffers(World(), device)
    if device == CPU:
        assert found == "the spins live on the CPU"
    elif not reported:
        assert "does not report" in found
    elif failure is None:
        assert found is None
    else:
        assert failure in found


@pytest.mark.parametrize(("answer", "expected"), [(1, True), (0, False), (None, False)])
def test_the_library_is_asked_and_silence_is_a_no(monkeypatch, answer, expected):
    pytest.importorskip("mpi4py.MPI", exc_type=RuntimeError)
    symbols = {} if answer is None else {"MPIX_Query_cuda_support": lambda: answer}
    monkeypatch.setattr(device_buffers.ctypes, "CDLL", lambda path: types.SimpleNamespace(**symbols))
    assert library_reports_cuda() is expected


def test_without_an_mpi_library_nothing_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert not library_reports_cuda()


DISAGREEMENT = """
import sys
import torch
from hpcspin.parallel import device_buffers
from hpcspin.parallel.world import World

world = World.detect()
device_buffers.library_reports_cuda = lambda: True
# The real trial, apart from its device, in a process that must not take itself for a rank of this job.
trial = "from hpcspin.parallel.device_trial import arrives; import torch; assert arrives(torch.device('cpu'))"
device_buffers.TRIAL = (sys.executable, "-c", trial)
assert device_buffers.obstacle_to_device_buffers(world, torch.device("cuda", 0)) is None
device_buffers._obstacle.cache_clear()
device_buffers.TRIAL = (sys.executable, "-c", f"raise SystemExit({world.rank})")
found = device_buffers.obstacle_to_device_buffers(world, torch.device("cuda", 0))
assert found is not None and "failed with code 1" in found, found
print(f"rank {world.rank} agrees")
"""


@pytest.mark.mpi
def test_the_trial_runs_beside_the_ranks_and_all_heed_the_one_that_fails(mpirun, tmp_path):
    (tmp_path / "ranks.py").write_text(DISAGREEMENT)
    result = mpirun(2, str(tmp_path / "ranks.py"), timeout=120)
    assert all(f"rank {rank} agrees" in result.stdout for rank in range(2)), result.stderr


HALO = """
import torch
from hpcspin.lattice import make_lattice
from hpcspin.parallel import messages
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

world = World.detect()
messages.obstacle_to_device_buffers = lambda world, device: None
lattice = make_lattice("triangular", (9, 7), (True, False))
for dtype in (torch.float32, torch.float64):
    whole = torch.arange(9 * 7 * 3, dtype=dtype).reshape(9, 7, 3) + 1
    domain = Domain.cut(lattice, world, (2, 1))
    for factor in (1, 2):
        found = domain.extend(factor * whole[domain.slices], (2, 1))
        assert torch.equal(found, factor * domain.window(whole, (2, 1)))
    exchange = domain.exchange(whole[domain.slices], (2, 1))
    assert exchange.travels and not exchange.messages._staged
print(f"rank {world.rank} has its halo")
"""


@pytest.mark.mpi
def test_messages_hand_tensors_to_mpi_as_they_are(mpirun, tmp_path):
    (tmp_path / "ranks.py").write_text(HALO)
    result = mpirun(2, str(tmp_path / "ranks.py"), timeout=120)
    assert all(f"rank {rank} has its halo" in result.stdout for rank in range(2)), result.stderr


@pytest.mark.mpi
def test_info_says_once_which_way_halos_go_and_why(mpirun):
    result = mpirun(2, "-m", "hpcspin", "info", timeout=60)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("halo exchange")]
    assert line.endswith("MPI through host memory: the spins live on the CPU") or torch.cuda.is_available()
