"""Which frames are kept, what is measured on them, and that neither depends on ranks or restarts."""

import logging
import math
import threading
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from laws import evolve, random_spins, single_domain
from pydantic import ValidationError
from run_simulation import simulation
from test_simulation import assert_same_bits, contents

from hpcspin.dynamics import (
    OBSERVERS,
    Anisotropy,
    DynamicsSettings,
    DzyaloshinskiiMoriya,
    Frame,
    Heisenberg,
    Simulation,
    Slonczewski,
    SumField,
    Thermostat,
    Zeeman,
)
from hpcspin.dynamics.energies import spin_temperature
from hpcspin.dynamics.fields import FieldEvaluator
from hpcspin.dynamics.observers import Observer, ObserverSettings
from hpcspin.dynamics.torque import components_first
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.storage import TrajectoryWriter, read_checkpoint, read_spins, write_checkpoint


@pytest.mark.parametrize("window", [None, (0.0, 0.4), (1.2, 2.4), (0.1, 0.2), (3.9, 9.0)])
@pytest.mark.parametrize("interval", [1, 3, 7, 50])
def test_the_number_of_frames_is_that_of_the_steps_to_be_recorded(window, interval):
    settings = DynamicsSettings(step=0.1, duration=4.0, record_interval=interval, record_window=window)
    kept = [step for step in range(settings.last_step + 1) if settings.is_candidate(step)]
    assert settings.capacity == len({*kept, settings.last_step})
    assert DynamicsSettings(duration=1e12).capacity == 500_000_000_001


def test_frames_of_a_window(tmp_path):
    simulation(tmp_path / "run", record_window=[1.2, 2.4]).run()
    assert contents(tmp_path / "run")["step"].tolist() == [0, 12, 15, 18, 21, 24, 40]
    assert DynamicsSettings(step=0.1, duration=4.0, record_interval=3, record_window=(1.2, 2.4)).capacity == 7


def test_the_last_line_of_the_progress_speaks_of_the_end(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hpcspin"):
        simulation(tmp_path / "run", record=15).run()
    lines = [line for line in caplog.messages if line.startswith("simulate: ")]
    length = np.linalg.norm(contents(tmp_path / "run")["magnetization"][-1])
    assert lines[-1].endswith(f"done, at time 4 the magnetisation is {length:.2f}")


def moving_wall(directory, duration, **changes):
    """A wall between a ferromagnet and an antiferromagnet that a ferromagnetic exchange lets grow."""
    lattice = make_lattice("square", (12, 4), (False, True))

    x, y = np.indices(lattice.size)
    wall = np.zeros((*lattice.size, 3))
    wall[..., 2] = np.where(x < 5, 1.0, 1.0 - 2 * ((x + y) % 2))
    intervals = {"record_interval": 2, "checkpoint_interval": 6}
    settings = DynamicsSettings(damping=0.5, step=0.5, duration=duration, **intervals, **changes)
    field = SumField([Heisenberg(1.0), Zeeman((0, 0, 0.2)), Slonczewski((0.1, 0, 0.1))])
    config = {"dynamics": {"duration": duration}}
    return Simulation(lattice, field, wall, settings, directory, config=config)


def test_frames_where_the_wall_passes(tmp_path):
    """Of the frames of the interval those are kept between which the wall has gone over a chosen column."""
    moving_wall(tmp_path / "all", 10.0).run()
    whole = contents(tmp_path / "all")
    walls = whole["wall_position"]
    columns = (5.5, 6.5, 9.5)
    passed = [any((a < x) != (b < x) for x in columns) for a, b in pairwise(walls)]
    expected = [0, *(whole["step"][1:][passed])]
    expected += [20] if expected[-1] != 20 else []
    assert 2 < len(expected) < len(walls)
    moving_wall(tmp_path / "some", 10.0, record_walls=columns).run()
    kept = contents(tmp_path / "some")
    assert kept["step"].tolist() == expected
    assert np.array_equal(kept["spins"], whole["spins"][np.isin(whole["step"], expected)])
    for duration in (3.5, 6.0, 10.0):
        moving_wall(tmp_path / "parts", duration, record_walls=columns).run()
    assert_same_bits(tmp_path / "parts", tmp_path / "some")


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressed_trajectories_hold_the_same_and_extend(tmp_path, compression):
    simulation(tmp_path / "plain").run()
    for duration in (2.3, 4.0):
        simulation(tmp_path / "packed", compression=compression, duration=duration).run()
    assert_same_bits(tmp_path / "packed", tmp_path / "plain")
    with h5py.File(tmp_path / "packed" / "trajectory.h5") as file:
        assert file["spins"].compression == compression
        assert file["spins"].shuffle


def test_checkpoints_by_the_clock(tmp_path):
    """With no interval over, an overdue checkpoint is the only one there is."""
    seen = []

    class Watching:
        halo = (0, 0)

        def bind(self, domain):
            def evaluate(spins, time):
                checkpoint = read_checkpoint(tmp_path / "run" / "checkpoint.h5")
                seen.append(checkpoint and checkpoint.meta["step"])
                return 0 * spins

            return evaluate

    simulation(tmp_path / "run", Watching(), checkpoint=10**6, checkpoint_minutes=1e-6, duration=1.0).run()
    assert {1, 5, 9} <= set(seen)


def test_observers_have_their_shapes_and_parameters(tmp_path):
    observers = ["bond_map", {"name": "structure_factor", "wave_vectors": [[0, 0], [0.5, 0.5], [1 / 3, 1 / 3]]}]
    simulation(tmp_path, observers=observers, duration=1.0).run()
    assert contents(tmp_path)["structure_factor"].shape == (5, 3)
    assert contents(tmp_path)["bond_map"].shape == (5, 7, 5)


def test_masked_values_of_an_observer_are_unknown(monkeypatch):
    monkeypatch.setitem(
        OBSERVERS, "masked", Observer(lambda frame: np.ma.masked_less([1.0, 2.0], 2), lambda lattice: (2,))
    )
    spins = random_spins((3, 3))
    frame = Frame(make_lattice("square", (3, 3)), spins, spins, 0.0, Heisenberg(1.0), np.ones((3, 3), bool))
    np.testing.assert_array_equal(ObserverSettings(name="masked").measure(frame), [np.nan, 2.0])


def measure(name, field, spins, periodic=(True, True), kind="square"):
    lattice = make_lattice(kind, spins.shape[:2], periodic)
    return OBSERVERS[name].measure(Frame(lattice, spins, spins, 0.0, field, np.ones(lattice.size, dtype=bool)))


@pytest.mark.parametrize("periodic", [(True, True), (False, True), (False, False)])
def test_the_mean_bond_counts_every_bond_once_at_open_edges_too(periodic):
    """A Heisenberg term of J = 1 has the energy of minus all bonds; a site at an edge begins fewer of them."""
    spins, lattice = random_spins((4, 3)), make_lattice("triangular", (4, 3), periodic)
    bonds = int((lattice.shift(lattice.bonds) >= 0).sum())
    energy = measure("energy", Heisenberg(1.0), spins, periodic, "triangular")
    assert measure("mean_bond", None, spins, periodic, "triangular") == pytest.approx(-energy / bonds)


@pytest.mark.filterwarnings("error")
def test_chains_along_and_across_the_current_are_measured():
    """One column has no bond along x, a chain no triangle, and a single site no bond at all."""
    aligned, open_edges = np.ones((1, 4, 3)) / math.sqrt(3), (False, False)
    assert measure("wall_position", None, aligned, open_edges) == 1
    assert measure("wall_position", None, aligned * [[[1], [-1], [1], [-1]]], open_edges) == 0
    for size in (1, 4), (4, 1), (1, 1):
        assert math.isnan(measure("mean_chirality", None, random_spins(size), open_edges))
    assert math.isnan(measure("mean_bond", None, random_spins((1, 1)), open_edges))


def test_conservative_measures_refuse_other_fields():
    field, spins = SumField([Heisenberg(1.0), Slonczewski((0, 0, 1.0))]), random_spins((4, 4))
    for name in ("energy", "spin_temperature"):
        with pytest.raises(HpcspinError, match=rf"dynamics\.observers: {name} needs .*but slonczewski") as failure:
            measure(name, field, spins)
        assert "closed electrons" in str(failure.value)
        assert ("models of kind" in str(failure.value)) == (name == "energy")


def test_an_unknown_observer_is_refused_before_the_run(tmp_path):
    with pytest.raises(ValidationError, match=r"'wall' is unknown; choose one of bond_fractions, bond_map"):
        simulation(tmp_path / "run", observers=["wall"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("terms", "temperature"),
    [
        (lambda lattice: [Zeeman((0, 0, 1.0))], 0.7),
        (lambda lattice: [Anisotropy(1.0), Zeeman((0.3, 0, 0))], 0.4),
        (lambda lattice: [Heisenberg(1.0), DzyaloshinskiiMoriya.bulk(lattice, 0.5), Anisotropy(-0.6)], 0.5),
    ],
)
def test_spin_temperature_in_a_bath_is_that_of_the_bath(terms, temperature):
    domain = single_domain((32, 32), (True, True))
    field = SumField(terms(domain.lattice))
    evaluate, found = FieldEvaluator(field, domain), []

    def visit(step, spins):
        if step > 200 and step % 20 == 0:
            force = evaluate(torch.as_tensor(spins), 0.0).numpy()
            found.append(spin_temperature(field, domain.lattice, spins, force))

    bath = Thermostat(temperature, 1.0, 0.02, seed=5)
    evolve(field, random_spins((32, 32)), 0.02, 600, damping=1.0, domain=domain, bath=bath, visit=visit)
    # One frame of 1024 spins knows T to a few per cent; frames 0.4 apart are not quite independent.
    error = max(np.std(found) / math.sqrt(len(found) / 2), 1e-3)
    assert error < 0.03 * temperature
    assert abs(np.mean(found) - temperature) < 4 * error


@pytest.mark.parametrize(("size", "shell"), [((3, 5), 6), ((4, 3), 6), ((4, 5), 9)])
def test_a_bond_of_a_spin_with_its_own_image_changes_no_temperature(size, shell):
    domain, spins, zeeman = single_domain(size, (True, True)), random_spins(size), Zeeman((0, 0, 1.0))
    (around,) = [bond for bond in domain.lattice.shell(shell) if domain.lattice.shift([bond])[0, 0] == 0]
    found = []
    for field in (zeeman, SumField([zeeman, Heisenberg(0.7, (around,))])):
        force = FieldEvaluator(field, domain)(torch.as_tensor(spins), 0.0).numpy()
        found.append(spin_temperature(field, domain.lattice, spins, force))
    assert found[1] == pytest.approx(found[0], rel=1e-12)


def writing(monkeypatch, append):
    """Frames of all runs are handed to a function of the writer's own one and the frame."""
    real = TrajectoryWriter.append

    def replaced(writer, **frame):
        append(lambda: real(writer, **frame), frame)

    monkeypatch.setattr(TrajectoryWriter, "append", replaced)


def test_spins_move_on_while_a_frame_is_written(tmp_path, monkeypatch):
    moved_on, written = threading.Event(), []

    class Noticed:
        halo = (0, 0)

        def bind(self, domain):
            return lambda spins, time: (moved_on.set() if time > 0.45 else None) or 0 * spins

    def append(write, frame):
        assert frame["step"] != 3 or moved_on.wait(20)
        written.append(frame["step"])
        write()

    writing(monkeypatch, append)
    assert simulation(tmp_path / "run", Noticed(), checkpoint=10**6).run().finished
    assert written == contents(tmp_path / "run")["step"].tolist()


def test_a_checkpoint_waits_for_the_frames_that_it_counts(tmp_path, monkeypatch):
    counted, real = [], write_checkpoint

    def append(write, frame):
        time.sleep(0.02)
        write()

    def check(path, arrays, meta, config):
        counted.append(
            (len(read_spins(tmp_path / "run" / "trajectory.h5.partial", (7, 5))), meta["recorder"]["frames"])
        )
        real(path, arrays, meta, config)

    writing(monkeypatch, append)
    monkeypatch.setattr("hpcspin.dynamics.simulation.write_checkpoint", check)
    simulation(tmp_path / "run", record=1, duration=1.0).run()
    assert counted == [(n, n) for n in (1, 5, 9, 11)]


@pytest.mark.parametrize("last", [False, True])
def test_a_frame_that_cannot_be_written_ends_the_run_and_none_takes_its_place(tmp_path, monkeypatch, last):
    """Neither that which waits behind it; the very last frame, too, after which nothing comes that could notice."""
    simulation(tmp_path / "undisturbed").run()

    def append(write, frame):
        if frame["step"] == (40 if last else 6):
            time.sleep(0.05)
            raise HpcspinError("no space is left on the disk")
        write()

    with monkeypatch.context() as patch:
        writing(patch, append)
        with pytest.raises(HpcspinError, match="no space is left"):
            simulation(tmp_path / "run", checkpoint=10**6).run()
    assert not (tmp_path / "run" / "trajectory.h5").exists()
    expected = contents(tmp_path / "undisturbed")["spins"]
    kept = read_spins(tmp_path / "run" / "trajectory.h5.partial", (7, 5))
    assert len(kept) == (14 if last else 2)
    assert np.array_equal(kept, expected[: len(kept)])
    simulation(tmp_path / "run").run()
    assert_same_bits(tmp_path / "run", tmp_path / "undisturbed")


FULL = """
import sys
from run_simulation import simulation
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import TrajectoryWriter

world, real = World.detect(), TrajectoryWriter.append


def append(writer, **frame):
    if frame["step"] == 6:
        raise HpcspinError("no space is left on the disk")
    real(writer, **frame)


TrajectoryWriter.append = append
with world.abort_on_failure():
    simulation(sys.argv[1], world=world).run()
    world.finish()
"""


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_all_ranks_end_with_one_line_where_the_thread_cannot_write(request, tmp_path, launcher):
    script = tmp_path / "ranks.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{FULL}")
    result = request.getfixturevalue(launcher)(2, str(script), str(tmp_path / "run"), timeout=60)
    assert result.returncode != 0
    assert result.stderr.count("no space is left on the disk") == 1, result.stderr


@pytest.mark.parametrize("order", ["as it is", "components first"])
def test_what_is_recorded_has_memory_of_its_own(order):
    """A frame waits while the next field may be computed into the same tensor."""
    block = torch.rand(4, 3, 3, dtype=torch.float64)
    block = components_first(block) if order == "components first" else block
    found = single_domain((4, 3), (True, True)).gather(block)
    assert np.array_equal(found, block.numpy())
    assert found.flags.c_contiguous
    before = found.copy()
    block.zero_()
    assert np.array_equal(found, before)
