"""
Octets in pieces: what comes of them may not depend on how they are split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def feed_each_way(take: Callable[[Iterable[bytes]], T], octets: bytes) -> T:
    """
    Have ``take`` take in ``octets`` whole, line by line and octet by octet.

    :param take: feeds the pieces that it is given to a parser of its own, a
        new one in each call, and returns what came of them.
    :returns: what came of them, which is asserted to be the same each way.
    """
    whole = take([octets])
    assert take(octets.splitlines(keepends=True)) == whole
    assert take(octets[at : at + 1] for at in range(len(octets))) == whole
    return whole
