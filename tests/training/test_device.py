"""Trainings on a GPU: how their products are rounded, and how their snapshots get there.

No GPU is needed: tensors of the host stand for those of the device, and copies are written down.
"""

import numpy as np
import pytest
import torch
from teacher import run, write_data

from hpcspin.lattice import make_lattice
from hpcspin.training import device as device_module
from hpcspin.training import loop
from hpcspin.training.dataset import Snapshots
from hpcspin.training.device import TrainingBatches, tensor_float32

FLAGS = torch.backends.cudnn, torch.backends.cuda.matmul


def allowed():
    return [kind.allow_tf32 for kind in FLAGS]


@pytest.fixture(params=[(True, True), (True, False), (False, False)])
def before(request):
    """What the process had allowed, and is to find again."""
    kept = allowed()
    for kind, value in zip(FLAGS, request.param, strict=True):
        kind.allow_tf32 = value
    yield list(request.param)
    for kind, value in zip(FLAGS, kept, strict=True):
        kind.allow_tf32 = value


@pytest.mark.parametrize("tf32", [False, True])
def test_only_the_steps_round_to_tf32_and_only_where_the_config_says_so(tmp_path, monkeypatch, before, tf32):
    seen = {"normalise": [], "backward": [], "snapshot_errors": [], "set_envelope": []}

    def watched(name, function):
        return lambda *given, **named: seen[name].append(allowed()) or function(*given, **named)

    for name in ("normalise", "snapshot_errors", "set_envelope"):
        monkeypatch.setattr(loop, name, watched(name, getattr(loop, name)))
    monkeypatch.setattr(torch.Tensor, "backward", watched("backward", torch.Tensor.backward))
    run(write_data(tmp_path / "data"), tmp_path / "model", tf32=tf32, epochs=2)
    assert allowed() == before
    assert len(seen["backward"]) == 2 * 4
    assert all(flags == [tf32, tf32] for flags in seen.pop("backward"))
    assert all(found and all(flags == [False, False] for flags in found) for found in seen.values())


def test_what_was_allowed_comes_back_after_a_failure(before):
    with pytest.raises(ZeroDivisionError), tensor_float32(not before[0]):
        raise ZeroDivisionError
    assert allowed() == before


GPU = torch.device("cuda", 0)


def snapshots(count, lattice):
    draw = torch.randn((2, count, lattice.num_sites, 3), generator=torch.Generator().manual_seed(count))
    numbers = np.arange(count)
    bias, energy = torch.arange(count).float(), -torch.arange(count).double()
    return Snapshots(draw[0], draw[1], bias, energy, numbers, np.zeros(count, int), count, lattice)


SHARES = [snapshots(7, make_lattice("square", (3, 4))), snapshots(5, make_lattice("square", (5, 3)))]
BYTES = sum(tensor.nbytes for share in SHARES for tensor in (share.spins, share.field, share.bias, share.energy))


@pytest.fixture
def copies(monkeypatch):
    """Bytes, and whether the host waited, of each copy to a GPU that is not there."""
    found, pinned = [], set()

    def pin(tensor):
        copy = tensor.clone()
        pinned.add(copy.data_ptr())
        return copy

    def to(tensor, device, non_blocking=False):
        found.append((tensor.nbytes, not (non_blocking and tensor.data_ptr() in pinned)))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    return found


@pytest.mark.parametrize("room", [0.9, 1.1])
def test_batches_never_make_the_host_wait_and_travel_only_where_the_data_do_not_fit(monkeypatch, copies, room):
    """A quarter of the free memory is for snapshots."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(4 * room * BYTES), 10**12))
    batches = TrainingBatches(SHARES, GPU)
    assert sum(nbytes for nbytes, _ in copies) == (BYTES if room > 1 else 0)
    copies.clear()
    for number, share in enumerate(SHARES):
        rows = np.array([3, 0, 4])
        expected = (share.spins[rows], share.field[rows], share.bias[rows], share.energy[rows])
        taken = batches.take(number, rows)
        assert all(torch.equal(one, other) for one, other in zip(taken, expected, strict=True))
        assert copies
        assert not any(waited for _, waited in copies)
        if room > 1:
            assert sum(nbytes for nbytes, _ in copies) == rows.nbytes
        copies.clear()


def test_on_a_cpu_nothing_is_copied_but_the_batch(copies):
    batches = TrainingBatches(SHARES, torch.device("cpu"))
    copies.clear()
    spins, _, bias, energy = batches.take(1, np.array([2, 1]))
    assert torch.equal(spins, SHARES[1].spins[[2, 1]])
    assert bias.tolist() == [2.0, 1.0]
    assert energy.tolist() == [-2.0, -1.0]
    assert not copies
    assert device_module._free_memory(torch.device("cpu")) == np.inf
