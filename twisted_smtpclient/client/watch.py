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
        self._deadline: float | None = None
        self._call: Any = None

    def expect(self, seconds: float) -> None:
        """From now on, something has to happen within ``seconds``."""
        self._deadline = deadline = self._reactor.seconds() + seconds
        if self._call is None:
            self._call = self._reactor.callLater(seconds, self._look)
        elif self._call.getTime() > deadline:
            self._call.reset(seconds)

    def rest(self) -> None:
        """Nothing has to happen."""
        self._deadline = None

    def stop(self) -> None:
        """Nothing will happen any more; leave no delayed call behind."""
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._deadline is None:
            return
        left = self._deadline - self._reactor.seconds()
        if left > 0:
            self._call = self._reactor.callLater(left, self._look)
        else:
            self._deadline = None
            self._expired()
