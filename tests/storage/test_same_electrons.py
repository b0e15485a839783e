"""Which electrons agree: what a force field has no input for, and how potentials follow from the bias."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.storage import (
    Electrons,
    bias_range,
    differ_among_themselves,
    electron_differences,
    electrons_of,
    is_outside,
    kinds_of_electrons,
    stored_electrons,
)

SITES, WIDTHS = ("left", "right", "all"), (1.0, 1.0, 0.001)


def config(*potentials: float, **electrons: Any) -> dict[str, Any]:
    reservoirs = [
        {"name": f"r{n}", "sites": SITES[n], "width": WIDTHS[n], "potential": mu, "polarization": [0.0, 0.0, 0.0]}
        for n, mu in enumerate(potentials)
    ]
    section = {"hopping": 1.0, "exchange": 3.8, "temperature": 0.01, "solver": "negf", "tolerance": 1e-6}
    lattice = {"kind": "square", "size": [3, 2], "periodic": [False, True]}
    return {"lattice": lattice, "electrons": {**section, **electrons, "reservoirs": reservoirs}}


def system(*potentials: float, **electrons: Any) -> Electrons:
    found = electrons_of(config(*potentials, **electrons), "a.h5")
    assert found is not None
    return found


PAPER = system(-3.2, 0, 0)


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        (system(-3.2, 0, 0, exchange=2.0), ["electrons.exchange"]),
        (system(-3.2, 0, 0, temperature=0.05, hopping=2.0), ["electrons.hopping", "electrons.temperature"]),
        (system(-3.2, 0, 0, filling=1.0), []),  # A key that the other does not know yet.
        (system(0, -3.2, 0), ["electrons.reservoirs.0.potential", "electrons.reservoirs.1.potential"]),
        (system(-1.6, 1.6, 0), ["electrons.reservoirs.0.potential", "electrons.reservoirs.1.potential"]),
        (system(-2.2, 1, 1), [f"electrons.reservoirs.{n}.potential" for n in range(3)]),
        (system(-1.6, 0, 0), []),  # In proportion: another bias, of which the model is told.
        (system(0, 0, 0), []),
        (system(-3.2, 0, 0, solver="closed_form", tolerance=0.1, precision="complex64"), []),
        (system(-3.2, 0), ["electrons.reservoirs.2"]),
        (system(-3.2 * (1 + 1e-12), 1e-15, -0.0, exchange=0.38 * 10), []),
        ({"bias": 3.2}, []),  # Nothing is known of them.
        ({"bias": 0.0}, ["electrons.reservoirs"]),
    ],
)
def test_what_the_model_does_not_see_has_to_agree(other: Electrons, keys: list[str]) -> None:
    assert list(electron_differences([PAPER], other)) == keys
    assert electron_differences([PAPER], other, [*keys, "electrons.hopping"]) == {}


def test_both_values_are_told() -> None:
    assert electron_differences([PAPER], system(-3.2, 0, 0, exchange=2.0)) == {"electrons.exchange": (3.8, 2.0)}
    found = electron_differences([PAPER], system(-1.6, 1.6, 0))
    assert found["electrons.reservoirs.1.potential"] == (0.0, 1.6)
    assert electron_differences([PAPER], system(-3.2, 0))["electrons.reservoirs.2"][1] == "absent"


@pytest.mark.parametrize("key", ["width", "polarization", "sites"])
def test_reservoirs_count_by_what_they_are(key: str) -> None:
    other = copy.deepcopy(PAPER)
    other["reservoirs"][2][key] = {"width": 0.002, "polarization": [0.0, 0.0, 0.5], "sites": [[0, 0]]}[key]
    assert list(electron_differences([PAPER], other)) == [f"electrons.reservoirs.2.{key}"]


@given(order=st.permutations(range(3)), names=st.lists(st.text(), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_names_and_order_of_reservoirs_say_nothing(order: list[int], names: list[str]) -> None:
    other = copy.deepcopy(PAPER)
    other["reservoirs"] = [{**PAPER["reservoirs"][n], "name": name} for n, name in zip(order, names, strict=True)]
    assert electron_differences([PAPER], other) == {}
    assert kinds_of_electrons([PAPER, other]) == [PAPER]


def test_listed_sites_are_those_of_the_name() -> None:
    content = config(-3.2, 0, 0)
    for reservoir, columns in zip(content["electrons"]["reservoirs"], ([0], [2], [0, 1, 2]), strict=True):
        reservoir["sites"] = [[x, y] for y in (1, 0) for x in columns]
    assert electrons_of(content, "a.h5") == PAPER


def test_labels_of_two_biases_tell_how_potentials_follow() -> None:
    """A potential common to all reservoirs without a bias is not told by labels of one bias."""
    labels = [system(-2.2, 1, 1), system(-0.6, 1, 1)]
    assert electron_differences(labels[:1], labels[1])
    assert electron_differences(labels[:1], labels[1], joined=True) == {}
    assert electron_differences(labels, system(0.5, 1, 1)) == {}
    assert electron_differences(labels, system(-0.25, 0.25, 0.25))
    assert electron_differences(
        [PAPER], system(-0.8, 0.8, 0), joined=True
    )  # They would differ where the bias vanishes.


@given(
    common=st.floats(-2, 2),
    biases=st.lists(st.floats(0.1, 4).map(lambda bias: round(bias, 2)), min_size=2, max_size=6, unique=True),
    between=st.floats(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_any_bias_of_the_same_electrons_agrees(common: float, biases: list[float], between: float) -> None:
    def at(bias: float) -> Electrons:
        return system(common - 0.75 * bias, common + 0.25 * bias, common)

    kept = kinds_of_electrons([at(bias) for bias in biases])
    assert len(kept) == 2
    assert bias_range(kept) == pytest.approx((min(biases), max(biases)))
    assert electron_differences(kept, at(between)) == {}
    assert electron_differences(kept, system(*(entry["potential"] + 0.01 for entry in at(between)["reservoirs"])))


def test_a_reservoir_without_a_width_drives_nothing() -> None:
    def cut_off(bias: float, potential: float) -> Electrons:
        content = config(1 - bias, 1, 1)
        probe = {"name": "probe", "sites": [[1, 0]], "width": 0.0, "potential": potential, "polarization": [0.0] * 3}
        content["electrons"]["reservoirs"].append(probe)
        found = electrons_of(content, "a.h5")
        assert found is not None
        return found

    labels = [cut_off(3.2, -9.0), cut_off(1.6, 5.0)]
    assert [one["bias"] for one in labels] == [3.2, 1.6]
    assert electron_differences(labels[:1], cut_off(3.2, 5.0)) == {}
    assert electron_differences(labels[:1], labels[1], joined=True) == {}
    assert electron_differences(labels, cut_off(2.0, 7.0)) == {}


def test_equal_potentials_know_of_no_bias() -> None:
    assert "electrons.reservoirs.0.potential" in electron_differences([system(0.5, 0.5, 0.5)], system(-2.7, 0.5, 0.5))
    assert electron_differences([system(0.5, 0.5, 0.5)], system(-2.7, 0.5, 0.5), joined=True) == {}


def test_mixed_labels_agree_with_each_of_their_kinds() -> None:
    mixed = kinds_of_electrons([PAPER, system(-3.2, 0, 0, exchange=2.0), system(-1.6, 0, 0)])
    assert len(mixed) == 3
    assert differ_among_themselves(mixed) == {"electrons.exchange": (3.8, 2.0)}
    assert electron_differences(mixed, system(-2.0, 0, 0)) == {}
    assert electron_differences(mixed, system(-3.2, 0, 0, exchange=2.0)) == {}
    assert list(electron_differences(mixed, system(-3.2, 0, 0, exchange=1.0))) == ["electrons.exchange"]


def test_what_is_unknown_hides_nothing() -> None:
    known = kinds_of_electrons([{"bias": 3.2}, PAPER])
    assert known == [PAPER]
    assert electron_differences(known, system(-3.2, 0, 0, exchange=2.0))


def test_closed_systems_are_told_by_all_that_their_section_says() -> None:
    closed = {"electrons": {"hopping": 1.0, "exchange": 3.8, "filling": 1.0, "potential": None, "reservoirs": None}}
    one = electrons_of(closed, "a.h5")
    closed["electrons"]["filling"] = 0.5
    other = electrons_of(closed, "b.h5")
    assert one is not None
    assert other is not None
    assert electron_differences([one], other) == {"electrons.filling": (1.0, 0.5)}
    assert "electrons.reservoirs.0" in electron_differences([one], PAPER)


def test_a_range_of_biases() -> None:
    known = kinds_of_electrons([system(-1.0, 0, 0), PAPER])
    assert [is_outside(bias, known) for bias in (0.9, 1.0, 2.0, 3.2, 3.3)] == [True, False, False, False, True]


@pytest.mark.parametrize("content", [None, {}, {"lattice": {}}, {"electrons": None}])
def test_a_config_without_electrons_says_nothing(content: Any) -> None:
    assert electrons_of(content, "a.h5") is None


KEYS = ("electrons", "reservoirs", "potential", "sites", "lattice", "size", "width", "bias", "exchange")
STRANGE = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(content=STRANGE)
@settings(max_examples=200, deadline=None)
def test_whatever_a_file_says_is_understood_or_refused(content: Any) -> None:
    for read in (
        lambda: electrons_of({"electrons": content}, "a.h5"),
        lambda: electrons_of(content, "a.h5"),
        lambda: stored_electrons(content, "m.json"),
    ):
        found: Any = None
        with suppress(HpcspinError):  # Any other exception fails.
            found = read()
        for electrons in found if isinstance(found, list) else [found] if found else []:
            kinds_of_electrons([PAPER, electrons, PAPER])
            electron_differences([PAPER], electrons)
