"""Exchange and energies that differ from site to site, as configs say them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import hpcspin as hs
from hpcspin.errors import HpcspinError

SIZE = (6, 4)
MAP = np.random.default_rng(1).uniform(1, 3, SIZE)


def config(**electrons):
    reservoirs = [{"name": "bath", "sites": "all", "width": 0.1, "potential": 0.0}]
    return {
        "lattice": {"kind": "square", "size": list(SIZE), "periodic": [False, True]},
        "electrons": {"exchange": 2.0, "temperature": 0.1, "reservoirs": reservoirs, **electrons},
    }


def test_the_last_region_that_has_a_site_decides():
    regions = [
        {"sites": {"columns": [2, 4]}, "exchange": 0.0, "on_site": -0.5},
        {"sites": [[0, 1], [3, 3]], "on_site": 1.5},
        {"sites": "right", "exchange": -1.0},
    ]
    system = hs.load_system(config(regions=regions))
    exchange, on_site = np.full(SIZE, 2.0), np.zeros(SIZE)
    exchange[2:5], exchange[5], on_site[2:5] = 0.0, -1.0, -0.5
    on_site[0, 1] = on_site[3, 3] = 1.5
    assert np.array_equal(system.exchange, exchange)
    assert np.array_equal(system.on_site, on_site)


def test_maps_and_masks_come_from_files(tmp_path):
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        file["exchange"], file["mask"] = MAP, (MAP > 2).astype(np.int8)
    region = {"sites": {"file": str(path), "dataset": "mask"}, "on_site": 0.7}
    system = hs.load_system(config(exchange={"file": str(path), "dataset": "exchange"}, regions=[region]))
    assert np.array_equal(system.exchange, MAP)
    assert np.array_equal(system.on_site, np.where(MAP > 2, 0.7, 0.0))


def test_maps_of_other_sites_or_with_nans_are_refused(tmp_path):
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        file["small"], file["nan"] = np.ones((3, 2)), np.where(MAP > 2, np.nan, 0.0)
    small, nan = ({"file": str(path), "dataset": name} for name in ("small", "nan"))
    uses = [lambda of: {"vacancies": of}, lambda of: {"regions": [{"sites": of, "on_site": 0.7}]}]
    for use in (*uses, lambda of: {"exchange": of}):
        with pytest.raises(HpcspinError, match=r"/small has shape \(3, 2\); give \(6, 4\)"):
            hs.load_system(config(**use(small)))
        with pytest.raises(HpcspinError, match="/nan has NaNs"):
            hs.load_system(config(**use(nan)))
    system = hs.load_system(config())
    with pytest.raises(HpcspinError, match="/small has shape"):
        hs.simulate(system, spins=system.texture("random"), pinned=small, duration=1.0)


@pytest.mark.parametrize("sites", [{"columns": [0, 1]}, [[x, y] for x in (0, 1) for y in range(4)]])
def test_the_same_system_however_it_is_written(sites):
    system = hs.load_system(config(regions=[{"sites": sites, "exchange": 1.0}]))
    again = hs.load_system(system.as_config())
    assert again.as_config() == system.as_config()
    assert np.array_equal(again.exchange, system.exchange)
    uniform = hs.load_system(config(regions=[{"sites": "all", "exchange": 1.0}]))
    assert uniform.exchange == 1.0
    assert uniform.as_config()["electrons"]["exchange"] == 1.0


def test_electrodes_may_touch_columns():
    left = {"name": "left", "sites": {"columns": [0, 1]}, "width": 1.0, "potential": -1.0}
    system = hs.load_system(config(reservoirs=[*config()["electrons"]["reservoirs"], left]))
    assert np.array_equal(system.reservoirs[1].sites, np.indices(SIZE)[0] < 2)
    assert hs.load_system(system.as_config()).as_config() == system.as_config()


def test_labels_say_which_sites_are_which(tmp_path):
    system = hs.load_system(config(exchange=MAP.tolist(), regions=[{"sites": "left", "on_site": 0.3}]))
    with hs.label(system, system.texture("random"), tmp_path / "labels.h5") as labels:
        stored = hs.load_system({name: labels.attributes["config"][name] for name in ("lattice", "electrons")})
    assert np.array_equal(stored.exchange, MAP)
    assert np.array_equal(stored.on_site, system.on_site)


def test_a_map_of_many_sites_is_read_back(tmp_path):
    lattice = hs.make_lattice("square", (90, 90), (False, True))
    bath = hs.Reservoir("bath", lattice.mask("all"), 0.5, 0.0)
    exchange = np.random.default_rng(2).uniform(0, 1, (90, 90))
    system = hs.DrivenLattice(lattice, 1.0, exchange, 1.0, (bath,))
    from hpcspin.storage import read_labels, write_labels

    spins = system.texture("ferromagnet")[None]
    write_labels(tmp_path / "many.h5", spins, spins, {"config": system.as_config()})
    stored = read_labels(tmp_path / "many.h5").attributes["config"]
    assert np.array_equal(stored["electrons"]["exchange"], exchange)


@pytest.mark.parametrize(
    ("electrons", "message"),
    [
        ({"regions": [{"sites": {"columns": [4, 6]}, "exchange": 1.0}]}, r"electrons\.regions: columns \[4, 6\]"),
        ({"regions": [{"sites": [[6, 0]], "on_site": 1.0}]}, r"electrons\.regions: site \[6, 0\] lies outside"),
        ({"regions": [{"sites": "lefft", "on_site": 1.0}]}, "'lefft' is unknown"),
        ({"regions": [{"sites": {"colums": [0, 1]}, "on_site": 1.0}]}, r"sites\.colums'; .*columns"),
        ({"regions": [{"sites": [[0]], "on_site": 1.0}]}, r"electrons\.regions\.0\.sites\.0\.1: is missing"),
        ({"regions": [{"sites": "left", "exchnage": 1.0}]}, "exchange"),
        ({"exchange": [[1.0, 2.0], [3.0, 4.0]]}, r"exchange of shape \(2, 2\) does not fit"),
        ({"regions": [{"sites": "left"}]}, r"regions\.0: has neither exchange nor on_site"),
        ({"on_site": [[1.0], []], "regions": [{"sites": "left", "exchange": 1.0}]}, "on_site: must be Lx lists of Ly"),
        ({"exchange": {"file": "nowhere.h5", "dataset": "J"}}, "nowhere.h5"),
    ],
)
def test_what_does_not_fit_is_one_line(electrons, message):
    with pytest.raises(HpcspinError, match=message):
        hs.load_system(config(**electrons))


def test_a_map_with_a_nan_is_refused_in_one_line():
    lattice, exchange = hs.make_lattice("square", SIZE), np.where(MAP > 2, np.nan, MAP)
    with pytest.raises(HpcspinError, match=r"exchange .* must be a finite number .*, or one for each site") as failure:
        hs.DrivenLattice(lattice, 1.0, exchange, 0.1, reservoirs=(hs.Reservoir("bath", lattice.mask("all"), 0.1, 0.0),))
    assert "\n" not in str(failure.value)


def test_a_model_of_uniform_electrons_refuses_others():
    system = hs.load_system("configs/driven_sd.yaml", "electrons.regions=[{sites: [[3, 4]], on_site: 0.5}]")
    with pytest.raises(HpcspinError, match=r"electrons\.on_site"):
        hs.load_model("driven_sd_fast").field(system.texture("ferromagnet"), system)


def test_a_system_does_not_change_with_the_arrays_that_it_was_made_of():
    lattice, exchange = hs.make_lattice("square", SIZE), MAP.copy()
    bath = hs.Reservoir("bath", lattice.mask("all"), 0.1, 0.0)
    system = hs.DrivenLattice(lattice, 1.0, exchange, 0.1, reservoirs=(bath,))
    exchange[:] = 9
    assert np.array_equal(system.exchange, MAP)
    for array in (system.exchange, bath.sites):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
