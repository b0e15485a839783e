"""Random words that are a pure function of a key and a counter.

Philox4x32-10 of Salmon et al. (SC '11, doi:10.1145/2063384.2063405). Nothing is carried from one call to the next, so
that the random numbers do not depend on ranks, restarts or the order of calls.
"""

from __future__ import annotations

from typing import Any, TypeVar

WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = TypeVar("Words")
"""An array of int64, torch's or NumPy's."""


def _multiply(constant: int, word: Any) -> tuple[Any, Any]:
    # The 64-bit product wraps into the sign bit, which the masks remove: its bits are those of the
    # unsigned one.
    product = word * constant
    return (product >> 32) & WORD, product & WORD


def philox(
    counter: tuple[Words, Words | int, Words | int, Words | int], key: tuple[int, int]
) -> tuple[Words, Words, Words, Words]:
    """Four int64 arrays of random 32-bit words, by Philox4x32-10.

    The counter is an int64 array and three others that broadcast with it, or numbers, which stay on the host.
    """
    c0: Any
    c1: Any
    c2: Any
    c3: Any
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & WORD, (k1 + _WEYL[1]) & WORD
    return c0, c1, c2, c3
