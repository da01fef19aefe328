"""
The sessions of an agent: those that there are, and what came of those that
are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from .chronicle import Chronicle, Phase
from .protocol import PipeliningESMTPClient

#: What is summed up over the sessions, and what each has.
_TOTALS: dict[str, Callable[[PipeliningESMTPClient], int]] = {
    "connections_reused": lambda session: max(0, session.submitted - 1),
    "flights": lambda session: session.flights,
    "bytes_sent": lambda session: session.octets_sent,
    "bytes_received": lambda session: session.octets_received,
}


class Sessions:
    """
    All sessions from their making to the end of their connection.

    Each keeps its own figures while it lives, so that nothing is summed up
    for a mail.

    :ivar on_ready: told of each session that takes mails the seconds that it
        took to be so, by phase: ``connect``, ``tls``, ``session``.
    """

    def __init__(self) -> None:
        self.on_ready: Callable[[Mapping[Phase, float]], None] | None = None
        self._live: set[PipeliningESMTPClient] = set()
        self._gone = dict.fromkeys(_TOTALS, 0)
        self._opened = self._failed = 0

    def __iter__(self) -> Iterator[PipeliningESMTPClient]:
        """Those that there are now, whatever comes of them meanwhile."""
        return iter(tuple(self._live))

    def __len__(self) -> int:
        return len(self._live)

    def add(self, session: PipeliningESMTPClient) -> None:
        """A session was made."""
        self._live.add(session)
        session.when_gone().addCallback(lambda _: self._left(session))

    def _left(self, session: PipeliningESMTPClient) -> None:
        self._live.discard(session)
        for key, figure in _TOTALS.items():
            self._gone[key] += figure(session)

    def opened(self, chronicle: Chronicle, ready: bool) -> None:
        """A session takes mails, or could not be had."""
        if not ready:
            self._failed += 1
            return
        self._opened += 1
        if self.on_ready is not None:
            self.on_ready(chronicle.within(-math.inf, math.inf))

    def state(self) -> dict[str, float]:
        """Figures since the agent was made."""
        return {
            "connections_opened": self._opened,
            "connections_failed": self._failed,
            **{key: self._gone[key] + sum(map(figure, self._live)) for key, figure in _TOTALS.items()},
        }
