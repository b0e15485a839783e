"""The counter-based generator gives the words of its authors, in both array libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcspin.parallel.philox import philox

ONES = 0xFFFFFFFF

# Known-answer vectors of Random123 (D. E. Shaw Research), philox4x32 with 10 rounds.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("array", [torch.tensor, np.array])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer, array):
    words = philox(tuple(array([word]) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == answer


def test_numbers_beside_an_array_stand_for_arrays_of_them():
    sites = np.arange(5)
    some = philox((sites, 7, 8, 9), (1, 2))
    same = philox((sites, *(np.full(5, word) for word in (7, 8, 9))), (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(some, same, strict=True))
