"""
What the daemon holds for its clients, in octets, and who waits for room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

__all__ = ["MAX_MEMORY", "MIN_MEMORY", "Memory"]

#: Octets of lines, messages and replies held.
MAX_MEMORY: Final = 512 * 1024 * 1024
#: Fewer would not do for a hundred clients with some requests each.
MIN_MEMORY: Final = 1024 * 1024

#: Octets that one who went on may take before he looks again: one read.
_READ: Final = 65536


class Memory:
    """
    A count of octets with a bound.

    Who takes does so after the fact: what was read from a client is there.  So
    the bound is exceeded by what was read in one turn of the reactor; then
    nobody goes on reading before others have given back.

    Half of it may be held by lines that are not complete: these end when more
    is read, or when they are given up.  An eighth each is for clients that say
    nothing and for outcomes that are kept.  So something is left for requests
    under way, which end by themselves, and nobody waits for ever.

    :param limit: octets that may be held.
    :ivar held: octets that are held.
    :ivar in_pieces: those of them that are lines not complete.
    :ivar in_lines: those of them that are lines not taken yet.
    """

    def __init__(self, limit: int = MAX_MEMORY) -> None:
        self.limit = limit
        self.held = 0
        self.in_pieces = 0
        self.in_lines = 0
        self._waiting: OrderedDict[Callable[[], None], None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Memory: {self.held} of {self.limit} octets, {len(self._waiting)} waiting>"

    def has_room(self, octets: int = 0) -> bool:
        """Whether so many more may be taken."""
        return self.held + octets < self.limit

    def has_room_to_take(self) -> bool:
        """
        Whether a line that was read may be taken.

        What such lines hold themselves does not keep them waiting.
        """
        return self.held - self.in_lines < self.limit

    @property
    def has_too_many_pieces(self) -> bool:
        """Whether a line that is not complete has to be given up."""
        return self.in_pieces > self.limit // 2

    def take(self, octets: int) -> None:
        """So many more are held; fewer, where it is negative."""
        if octets < 0:
            self.give_back(-octets)
        else:
            self.held += octets

    def give_back(self, octets: int) -> None:
        """So many are held no more; those who have waited longest go on."""
        self.held -= octets
        room = self.limit - self.held
        while self._waiting and room > 0:
            go_on, _ = self._waiting.popitem(last=False)
            room -= _READ
            go_on()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once there is room."""
        self._waiting[go_on] = None

    def wait_no_more(self, go_on: Callable[[], None]) -> None:
        """Whoever has waited has gone."""
        self._waiting.pop(go_on, None)
