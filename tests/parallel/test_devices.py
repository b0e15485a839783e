"""Memory and devices of a rank."""

import ctypes
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist

from hpcspin.electrons import label_snapshots
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.bandwidth import all_reduce, halo_exchange
from hpcspin.parallel.devices import form_teams, pick_device, ranks_sharing, require_own_gpu
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.messages import NeighbourMessages
from hpcspin.parallel.world import World

GPU = torch.device("cuda", 0)

FAULTS = """
import resource, sys, torch
from hpcspin.parallel.devices import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()


def fill():
    torch.empty(1 << 26, dtype=torch.uint8).fill_(1)


for _ in range(16):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs the GNU C library")
def test_freed_memory_is_touched_for_the_first_time_only_once():
    """Page faults of four times 64 MB, when all has settled: at least one for 2 MB, or next to none."""

    def faults(how):
        result = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(result.stdout)

    assert faults("keep") < 32 < 4 * 32 <= faults("leave")


def test_a_stage_begins_without_what_libraries_keep_of_the_one_before(monkeypatch):
    """Both the memory that torch keeps and CuPy's, on the card of this rank."""
    done = []
    pool = SimpleNamespace(free_all_blocks=lambda: done.append("pool"))
    cuda = SimpleNamespace(Device=lambda number: done.append(f"card {number}") or nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))
    for name, answer in (("is_available", True), ("device_count", 4), ("set_device", None)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: done.append("torch"))
    assert pick_device(World(1, 4, 1, 4, "mpi")).index == 1
    assert done == ["torch", "card 1", "pool"]


class Ranks(World):
    """Ranks of which this one is the first; the others say what they were made to say."""

    others: ClassVar[list[str | None]] = []

    def allgather(self, value):
        return [value, *self.others]


def ranks(monkeypatch, cards, local_size=1):
    """A world of ranks that each see one GPU, by its UUID, under the number 0, or none."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=cards[0]))
    monkeypatch.setattr(Ranks, "others", cards[1:])
    return Ranks(size=len(cards), local_size=local_size, launcher="torchrun")


@pytest.mark.parametrize(
    ("cards", "expected"), [("abcd", 1), ("aaaa", 4), ("abab", 2), ("abbb", 1), ("aab", 2), ([None, "a", None], 3)]
)
def test_ranks_on_a_gpu_are_counted_by_its_uuid_and_teams_know_it(monkeypatch, cards, expected):
    """Four tasks with one visible GPU each have four cards, though each calls its own number 0."""
    world = ranks(monkeypatch, list(cards), local_size=3)
    device = torch.device("cuda" if cards[0] else "cpu")
    assert ranks_sharing(world, device) == expected
    monkeypatch.setattr(dist, "new_group", lambda members, **_: members)
    monkeypatch.setattr("hpcspin.parallel.devices.pick_device", lambda world, requested: device)
    for _ in range(2):  # Counted already, and not.
        _, team = form_teams(world, len(cards), "auto")
        monkeypatch.setattr(Ranks, "others", [])
        assert team.size == 1
        assert ranks_sharing(team, device) == expected
        world = ranks(monkeypatch, list(cards), local_size=3)


def test_a_team_that_labels_knows_how_many_others_use_its_gpu(monkeypatch):
    """Each would take all of its free memory."""
    for module in ("parallel.devices", "electrons.labelling"):
        monkeypatch.setattr(f"hpcspin.{module}.pick_device", lambda world, requested: GPU)
    monkeypatch.setattr(dist, "new_group", lambda members, **_: members)
    teams = []

    def make(name, system, tolerance, team, device, precision):
        teams.append(team)
        raise HpcspinError("this is enough")

    monkeypatch.setattr("hpcspin.electrons.labelling.make_solver", make)
    system = SimpleNamespace(solver="diagonalization", tolerance=1e-6, precision="complex128")
    with pytest.raises(HpcspinError, match="enough"):
        list(label_snapshots(system, lambda number: None, 2, ranks(monkeypatch, "aa")))
    monkeypatch.setattr(Ranks, "others", [])
    assert [ranks_sharing(team, GPU) for team in teams] == [2]


def test_ranks_on_gpus_of_their_own_share_the_cpu(monkeypatch):
    """A call for the CPU after one for the GPU must not take all of the node's memory for each rank."""
    world = ranks(monkeypatch, list("abcd"), local_size=4)
    assert [ranks_sharing(world, device) for device in (GPU, torch.device("cpu"), GPU)] == [1, 4, 1]


@pytest.mark.parametrize(("cards", "distinct"), [("aa", 1), ("aba", 2), ("abb", 2), ("aabb", 2)])
def test_nccl_is_not_started_where_ranks_share_a_gpu(monkeypatch, cards, distinct):
    """All ranks say so, also the one that has a GPU of its own."""
    line = rf"^{len(cards)} ranks compute on {distinct} GPU\(s\): NCCL refuses.*; start"
    with pytest.raises(HpcspinError, match=line):
        require_own_gpu(ranks(monkeypatch, list(cards)), GPU)


@pytest.mark.parametrize("cards", ["abcd", "a", [None, None]])
def test_nccl_is_started_where_each_rank_has_its_gpu(monkeypatch, cards):
    require_own_gpu(ranks(monkeypatch, list(cards)), GPU if cards[0] else torch.device("cpu"))


@pytest.mark.parametrize("cards", [[None, "a", None], ["a", None, "b"]])
def test_ranks_with_and_without_a_gpu_are_refused_in_place_of_waiting_for_each_other(monkeypatch, cards):
    """Also before `doctor` tries their messages, and a simulation begins, both of which a CPU would do at once."""
    world, device = ranks(monkeypatch, cards), GPU if cards[0] else torch.device("cpu")

    def messages(world, device):
        domain = Domain(make_lattice("square", (6, 3)), world, (3, 1))
        NeighbourMessages(domain, {(1, 0): (3,)}, SimpleNamespace(device=device, dtype=torch.float64))

    for begin in (require_own_gpu, halo_exchange, all_reduce, messages):
        with pytest.raises(HpcspinError, match=r"^\d of 3 ranks have a GPU, .* use device=cpu$"):
            begin(world, device)


SHARED = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.messages import NeighbourMessages
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture
from hpcspin.training import TrainingSettings, train

world, gpu = World.detect(), torch.device("cuda", 0)
torch.cuda.get_device_properties = lambda device: SimpleNamespace(uuid="one card")
with world.abort_on_failure():
    if sys.argv[1] == "train":
        settings = TrainingSettings(epochs=1, batch=4, gauge=0.0, ema=0.9, checkpoint_interval=1)
        train(Architecture("square", 1.0, (4,)), [], settings, Path(sys.argv[2]), world, gpu)
    else:
        domain = Domain.cut(make_lattice("square", (6, 6)), world, (1, 1))
        NeighbourMessages(domain, {(1, 0): (3,)}, SimpleNamespace(device=gpu, dtype=torch.float64))
"""


@pytest.mark.mpi
@pytest.mark.parametrize(("launcher", "what"), [("torchrun", "halo"), ("mpirun", "train")])
def test_two_ranks_on_one_gpu_end_with_one_line(request, tmp_path, launcher, what):
    (tmp_path / "ranks.py").write_text(SHARED)
    result = request.getfixturevalue(launcher)(2, str(tmp_path / "ranks.py"), what, str(tmp_path / "model"), timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("2 ranks compute on 1 GPU(s): NCCL refuses two ranks on one GPU") == 1, result.stderr
    assert 'ranks.py", line' not in result.stderr
    assert not (tmp_path / "model").exists()
