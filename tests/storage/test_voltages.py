"""Potentials of reservoirs relative to the bath's."""

from __future__ import annotations

from typing import Any

import pytest

from hpcspin.errors import HpcspinError
from hpcspin.storage import kinds_of_learned, require_spin_rotations, voltages, voltages_outside, without_drive


def electrons(left: float, right: float, bath: float = 0.0, **changes: Any) -> dict[str, Any]:
    reservoirs = [
        {"name": "left", "sites": "left", "width": 1.0, "potential": left},
        {"name": "right", "sites": "right", "width": 1.0, "potential": right},
        {"name": "bath", "sites": "all", "width": 0.001, "potential": bath},
    ]
    potentials = (left, right, bath)
    return {"exchange": 3.8, "reservoirs": reservoirs, "bias": max(potentials) - min(potentials), **changes}


REFERENCE = electrons(-3.2, 0.0)


def test_voltages_are_signed_and_relative_to_the_bath() -> None:
    assert voltages(REFERENCE, REFERENCE, "x") == (-3.2, 0.0)
    assert voltages(REFERENCE, electrons(1.5, -0.5, 0.5), "x") == (1.0, -1.0)
    assert voltages(REFERENCE, electrons(0.0, 0.0), "x") == (0.0, 0.0)


def test_their_order_is_that_of_the_reference_whatever_reservoirs_are_called() -> None:
    given = electrons(1.0, 2.0)
    given["reservoirs"] = [{**one, "name": f"r{n}"} for n, one in enumerate(given["reservoirs"][::-1])]
    assert voltages(REFERENCE, given, "x") == (1.0, 2.0)


@pytest.mark.parametrize(("kept", "count"), [((0, 1), 0), ((2,), 1), ((), 0)])
def test_without_a_bath_or_without_others_there_are_none(kept: tuple[int, ...], count: int) -> None:
    given = {**REFERENCE, "reservoirs": [REFERENCE["reservoirs"][number] for number in kept]}
    with pytest.raises(HpcspinError, match=rf"a\.h5: potential\.drive.* {count} such baths"):
        voltages(given, given, "a.h5")


def test_a_reservoir_of_the_reference_that_is_missing_is_refused() -> None:
    given = {**REFERENCE, "reservoirs": [REFERENCE["reservoirs"][number] for number in (0, 2)]}
    for look in (lambda: voltages(REFERENCE, given, "a.h5"), lambda: voltages_outside(given, [REFERENCE], "a.h5")):
        with pytest.raises(HpcspinError, match=r"a\.h5: potential\.drive.* 2 reservoirs .* have 1 of them"):
            look()


def test_what_is_left_without_voltages_is_the_same_at_all() -> None:
    assert without_drive(electrons(1.0, 2.0), "potentials") == without_drive(REFERENCE, "potentials")
    assert without_drive(electrons(1.0, 2.0, 3.0), "potentials") != without_drive(REFERENCE, "potentials")
    assert without_drive(electrons(1.0, 2.0, exchange=2.0), "potentials") != without_drive(REFERENCE, "potentials")
    assert without_drive({"bias": 2.0}, "potentials") == {"bias": 0.0}


def test_voltages_outside_are_named() -> None:
    learned = [electrons(-4.0, 0.0), electrons(-0.0, 1.0)]
    assert voltages_outside(electrons(-2.0, 0.5), learned, "x") == ""
    assert voltages_outside(electrons(-4.5, 0.5), learned, "x") == "-4.5 of left, learned from -4 to 0"
    assert "of left" in voltages_outside(electrons(1.0, 2.0), learned, "x")
    assert "2 of right, learned from 0 to 1" in voltages_outside(electrons(1.0, 2.0), learned, "x")


def test_a_card_lists_the_voltages_that_widen_its_range() -> None:
    learned = [electrons(-v, 0.0) for v in (1.0, 3.0, 2.0, 0.5, 3.0)]
    assert [one["bias"] for one in kinds_of_learned(learned, "potentials")] == [1.0, 3.0, 0.5]
    assert [one["bias"] for one in kinds_of_learned(learned, "bias")] == [0.5, 3.0]


def polarized(left: list[float], right: list[float], **changes: Any) -> dict[str, Any]:
    given = electrons(1.0, -1.0, **changes)
    for entry, vector in zip(given["reservoirs"], (left, right, [0.0, 0.0, 0.0]), strict=True):
        entry["polarization"] = vector
    return given


def test_polarisations_of_both_ends_follow_the_voltages_and_need_not_agree() -> None:
    one, other = polarized([0.0, 0.6, 0.0], [0.0, 0.0, 0.0]), polarized([0.0, 0.0, 0.5], [0.1, 0.0, 0.0])
    assert voltages(one, other, "x", "polarized") == (1.0, -1.0, 0.0, 0.0, 0.5, 0.1, 0.0, 0.0)
    assert without_drive(one, "polarized") == without_drive(other, "polarized")
    assert without_drive(one, "potentials") != without_drive(other, "potentials")
    assert without_drive(one, "bias") == one


def test_of_polarised_electrodes_a_card_lists_those_that_widen_its_range() -> None:
    lengths = [0.3, 0.2, 0.5, 0.4, 0.5]
    turned = [[0.0, length, 0.0] if number % 2 else [length, 0.0, 0.0] for number, length in enumerate(lengths)]
    learned = [polarized(vector, [0.0, 0.0, 0.0]) for vector in turned]
    learned.append(polarized([0.0, 0.1, 0.0], [0.0, 0.0, 0.0], exchange=2.0))
    assert kinds_of_learned(learned, "polarized") == [learned[0], learned[2], learned[5]]


def test_a_longer_polarisation_than_all_is_outside_in_any_direction() -> None:
    learned = [polarized([0.0, 0.6, 0.0], [0.0, 0.0, 0.0])]
    assert voltages_outside(polarized([0.5, 0.0, 0.0], [0.0, 0.0, 0.0]), learned, "x", "polarized") == ""
    said = voltages_outside(polarized([0.0, 0.0, 0.7], [0.0, 0.1, 0.0]), learned, "x", "polarized")
    assert said.startswith("a polarisation of 0.7 of left, learned from up to 0.6; a polarisation of 0.1 of right")


def test_a_polarisation_that_a_model_does_not_see_is_refused() -> None:
    """Fields of fixed polarisations do not rotate with the spins, and force fields do."""
    plain, ends = polarized([0.0] * 3, [0.0] * 3), polarized([0.0, 0.0, 0.5], [0.1, 0.0, 0.0])
    bath, cut_off = (polarized([0.0] * 3, [0.0] * 3) for _ in range(2))
    bath["reservoirs"][2]["polarization"] = [0.0, 0.3, 0.0]
    cut_off["reservoirs"][0] |= {"polarization": [0.0, 0.3, 0.0], "width": 0.0}
    for one in (plain, cut_off):
        for drive in ("bias", "potentials", "polarized"):
            require_spin_rotations(one, "x", drive)
    require_spin_rotations(ends, "x", "polarized")
    for one, drive in ((ends, "bias"), (ends, "potentials"), (bath, "bias"), (bath, "polarized")):
        with pytest.raises(HpcspinError, match=r"x: electrons\.reservoirs\.[02]\.polarization .*take potential\.drive"):
            require_spin_rotations(one, "x", drive)


def test_electrodes_of_one_end_with_several_polarisations_are_one_only_at_one_potential() -> None:
    given = polarized([0.0, 0.0, 0.6], [0.0] * 3)
    given["reservoirs"].insert(1, {**given["reservoirs"][0], "name": "more", "polarization": [0.2, 0.0, 0.0]})
    assert voltages(given, given, "x", "polarized") == (1.0, 1.0, -1.0, 0.1, 0.0, 0.3, 0.0, 0.0, 0.0)
    given["reservoirs"][1]["potential"] = 0.5
    with pytest.raises(HpcspinError, match=r"x: .*electrodes left, which have different polarisations at different"):
        voltages(given, given, "x", "polarized")
