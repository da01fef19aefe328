"""
What is held for one client, in octets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .memory import Memory

__all__ = ["CLIENT", "Holding"]

#: Octets of a client that says nothing: its transport, protocol and buffers.
#: Of 8,000 on TCP each took 4,100 when it had connected, and 5,400 once it had
#: had a reply (CPython 3.11, resident memory).  Over TLS it takes another 25 KiB
#: of OpenSSL's, which are not counted: they are the same whatever it sends.
CLIENT: Final = 6144

#: Seconds after which one that does not read its replies is dropped, where
#: memory is full.
STALL: Final = 30.0


class Holding:
    """
    The share that one client has of the daemon's memory.

    Requests under way are not counted here: they are nobody's.

    :param memory: what it is a share of.
    :param go_on: called where there is room again.
    :ivar unsent: octets of replies that the client did not read yet.
    :ivar in_pieces: octets of a line that is not complete.
    """

    def __init__(self, memory: Memory, clock: IReactorTime, go_on: Callable[[], None]) -> None:
        self.memory = memory
        self.unsent = 0
        self.in_pieces = 0
        self._clock = clock
        self._go_on = go_on
        self._held = 0
        self._in_lines = 0
        self._stall: IDelayedCall | None = None

    def count(self, pending: int, waiting: int, replies: int) -> bool:
        """
        Tell the memory what is held now.

        :param pending: octets of a line that is not complete.
        :param waiting: octets of lines that were not taken yet.
        :param replies: octets of replies that wait for their turn.
        :returns: whether there is room for more; if not, ``go_on`` is called
            when there is.
        """
        memory = self.memory
        held = CLIENT + pending + waiting + replies + self.unsent
        if held != self._held or pending != self.in_pieces:
            memory.in_pieces += pending - self.in_pieces
            memory.in_lines += waiting - self._in_lines
            self.in_pieces, self._in_lines = pending, waiting
            before, self._held = self._held, held
            memory.take(held - before)
        if memory.has_room():
            return True
        memory.wait(self._go_on)
        return False

    def stalls(self, drop: Callable[[], None]) -> None:
        """The client does not read; ``drop`` it where that goes on, and memory is full."""
        if self._stall is None:
            self._stall = self._clock.callLater(STALL, self._stalled, drop)

    def goes_on(self) -> None:
        """The client has read what was written."""
        self.unsent = 0
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def end(self) -> None:
        """The client has gone."""
        self.goes_on()
        self.memory.wait_no_more(self._go_on)
        self.memory.in_pieces -= self.in_pieces
        self.memory.in_lines -= self._in_lines
        held, self._held, self.in_pieces, self._in_lines = self._held, 0, 0, 0
        self.memory.give_back(held)

    def _stalled(self, drop: Callable[[], None]) -> None:
        self._stall = None
        if self.memory.has_room():
            self.stalls(drop)
        else:
            drop()
