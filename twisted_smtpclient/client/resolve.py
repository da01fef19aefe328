"""
Names to addresses, by the system's own look-up.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from ..errors import HostNotFound

#: Looks a name up: addresses in order of preference.  Errbacks with
#: :class:`~twisted_smtpclient.errors.HostNotFound`.
Resolver = Callable[[str], Deferred[Sequence[str]]]

#: Look-ups at a time, each in a thread of its own (some 50 KiB while it
#: lasts).  One that hangs keeps its place until the system gives up, in 20 s
#: or so; names of servers that are down are few.
MAX_LOOK_UPS: Final = 64

#: getaddrinfo's answers that say "no such name", and not "ask again".
_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL") if hasattr(socket, name)
)


class SystemResolver:
    """
    ``getaddrinfo``, for each name once at a time.

    Twisted's own resolver swallows the error, so that "no such name" and
    "ask again later" cannot be told apart; this one tells.  Nor does it use
    the reactor's thread pool, where ten look-ups that hang hold up all others
    and the end of the process.

    :param reactor: for ``callFromThread``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        #: who waits for which name
        self._waiting: dict[str, list[Deferred[Sequence[str]]]] = {}
        #: names whose look-up has not begun
        self._queue: deque[str] = deque()
        self._under_way = 0

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """Look ``host`` up; cancelling stops the waiting, not the look-up."""
        found: Deferred[Sequence[str]] = Deferred(lambda found: self._give_up(host, found))
        if host in self._waiting:
            self._waiting[host].append(found)
        else:
            self._waiting[host] = [found]
            self._queue.append(host)
            self._begin()
        return found

    def _give_up(self, host: str, found: Deferred[Sequence[str]]) -> None:
        waiting = self._waiting.get(host, [])
        # Otherwise the answer is there, and this one is about to be told.
        if found in waiting:
            waiting.remove(found)

    def _begin(self) -> None:
        while self._queue and self._under_way < MAX_LOOK_UPS:
            host = self._queue.popleft()
            if self._waiting[host]:
                self._under_way += 1
                # A daemon's thread: one that hangs does not hold up the end.
                thread = threading.Thread(target=self._look_up, args=(host,), daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    self._reactor.callLater(0, self._answered, host, _not_found(host, error, temporary=True))
            else:
                del self._waiting[host]

    def _look_up(self, host: str) -> None:
        """In a thread."""
        answer: Sequence[str] | HostNotFound
        try:
            found = socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM)
            answer = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except Exception as error:
            answer = _not_found(host, error)
        self._reactor.callFromThread(self._answered, host, answer)

    def _answered(self, host: str, answer: Sequence[str] | HostNotFound) -> None:
        self._under_way -= 1
        for waiting in self._waiting.pop(host):
            if waiting.called:
                # Given up by one who was told before.
                continue
            if isinstance(answer, HostNotFound):
                waiting.errback(answer)
            else:
                waiting.callback(answer)
        self._begin()


def _not_found(host: str, error: Exception, *, temporary: bool = False) -> HostNotFound:
    temporary = temporary or (isinstance(error, OSError) and error.errno not in _NO_SUCH_NAME)
    reason = getattr(error, "strerror", None) or str(error)
    return HostNotFound(f"Host not found: {host}: {reason}", temporary=temporary)
