"""
How many clients there may be at a time: more wait to be accepted.

Those that wait are the kernel's: each has its connection, in the queue of the
listening socket (``backlog`` of its endpoint), and costs this process nothing.
Beyond that queue connecting takes longer, or fails.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from twisted.internet.tcp import Port
from twisted.logger import Logger

__all__ = ["MAX_CLIENTS", "ClientLimit"]

#: Connections that wait to be accepted, where an endpoint string says nothing of
#: it: with Twisted's 50 a thousand that come at once take seconds, for the kernel
#: drops what is beyond, and the client's tries again after 1 s, 2 s, 4 s.  The
#: kernel has a bound of its own (net.core.somaxconn).
BACKLOG: Final = 4096
_TWISTED_BACKLOG: Final = 50

#: Each takes a file descriptor and, while idle, some 5 KiB.
MAX_CLIENTS: Final = 10_000

_log = Logger(__name__)


class ClientLimit:
    """
    Ports that accept while there is room.

    :param most: clients at a time, over all ports.
    """

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self.most = most
        self._clients = 0
        self._ports: list[Any] = []
        self._told = False

    def __repr__(self) -> str:
        return f"<ClientLimit: {self._clients} of {self.most}>"

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return self._clients >= self.most

    def watch(self, port: object) -> None:
        """
        Have a listening port accept no more than there is room for.

        Twisted's ports do, whatever endpoint they are of (TCP, TLS, UNIX,
        systemd's).  Others go on; nobody knows how to stop them.
        """
        if isinstance(port, Port):
            accept: Any = port.doRead
            watched: Any = port
            watched.doRead = partial(self._accept, port, accept)
            self._ports.append(port)
            if port.backlog == _TWISTED_BACKLOG:
                # To listen once more is to change it.
                port.socket.listen(BACKLOG)
            if self.full:
                watched.pauseProducing()

    def forget_ports(self) -> None:
        """They are being closed."""
        self._ports.clear()

    def count(self, clients: int) -> None:
        """For who counts them to say: there are so many now."""
        was_full = self.full
        self._clients = clients
        if self.full is was_full:
            return
        if self.full and not self._told:
            self._told = True
            _log.warn("{clients} clients: no more are accepted until one goes", clients=clients)
        for port in self._ports:
            if self.full:
                port.pauseProducing()
            else:
                port.resumeProducing()

    def _accept(self, port: Any, accept: Any) -> None:
        # Some reactors tell a port of what came before it was paused.
        if not self.full:
            # A port takes so many in one go, whatever becomes of the first.
            port.numberAccepts = min(port.numberAccepts, self.most - self._clients)
            accept()
