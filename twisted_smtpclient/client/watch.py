"""
One timer for a connection, however many replies it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .connect import Reactor


class Watch:
    """
    Calls back when what is expected has not come in time.

    The bound moves with each reply, some ten thousand times a second; the
    delayed call behind it is moved only when it has run out, or when the
    bound comes nearer.

    :param expired: called once for each :meth:`expect` that ran out.
    """

    def __init__(self, reactor: Reactor, expired: Callable[[], None]) -> None:
        self._reactor = reactor
        self._expired = expired
        self._seconds: Callable[[], float] = reactor.seconds
        self._deadline: float | None = None
        self._call: Any = None
        #: when that comes
        self._looks_at = 0.0

    def expect(self, seconds: float) -> None:
        """From now on, something has to happen within ``seconds``."""
        self._deadline = deadline = self._seconds() + seconds
        if self._call is None:
            self._look_in(seconds, deadline)
        elif self._looks_at > deadline:
            self._call.reset(seconds)
            self._looks_at = deadline

    def rest(self) -> None:
        """Nothing has to happen."""
        self._deadline = None

    def stop(self) -> None:
        """Nothing will happen any more; leave no delayed call behind."""
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look_in(self, seconds: float, then: float) -> None:
        self._call = self._reactor.callLater(seconds, self._look)
        self._looks_at = then

    def _look(self) -> None:
        self._call = None
        if self._deadline is None:
            return
        left = self._deadline - self._seconds()
        if left > 0:
            self._look_in(left, self._deadline)
        else:
            self._deadline = None
            self._expired()
