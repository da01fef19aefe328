"""
Show the daemon at work.

Starts a sink and the daemon on free loopback ports in this process, sends
requests to the daemon over TCP, and prints each request, each reply and each
message that the sink has received.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ..client.agent import DeliveryAgent
from ..service import Daemon
from ..testing import Sink
from . import exit as status
from .sink import show

_LOOPBACK = "127.0.0.1"
_ANY_PORT = f"tcp:0:interface={_LOOPBACK}"
_MESSAGE = "U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="

#: Requests as clients in the field send them, spelling and all; host and port
#: are the sink's here.  The last one has a recipient that the sink refuses.
_REQUESTS: list[dict[str, Any]] = [
    {
        "host": "192.168.1.100",
        "port": 25,
        "helo": "localhost",
        "pipelining": "TRY",
        "connection_timout": 5,
        "sender": "foo@bar.de",
        "recpients": ["rcpt1@bar2.de", "rcpt2@bar2.de"],
        "message": _MESSAGE,
    },
    {
        "host": "localhost",
        "port": 1025,
        "helo": "localhost",
        "pipeling": "TRY",
        "connection_timeout": 5,
        "sender": "foo@bar.de",
        "recipients": ["foo@bar.de", "foo2@bar.de"],
        "message": _MESSAGE,
    },
    {
        "host": "localhost",
        "port": 1025,
        "sender": "foo@bar.de",
        "recipients": ["valid@valid.de", "invalid@invalid.de"],
        "message": _MESSAGE,
    },
]


class _Client(LineOnlyReceiver):
    """A client of the daemon: a line out, a line in."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self._waiting: Deferred[bytes] | None = None

    def ask(self, line: bytes) -> Deferred[bytes]:
        assert self.transport is not None
        waiting: Deferred[bytes] = Deferred()
        self._waiting = waiting
        self.transport.write(line + b"\n")
        return waiting

    def lineReceived(self, line: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(arguments: argparse.Namespace) -> int:
    """Show it; 0 once all has been shown."""
    return status.run(_show)


async def _show(reactor: Any) -> int:
    sink = Sink(reactor)
    await sink.listen(_ANY_PORT)
    daemon = Daemon(reactor, DeliveryAgent(reactor), [serverFromString(reactor, _ANY_PORT)])
    daemon.startService()
    try:
        address: Any = daemon.ports[0].getHost()
        print(f"The sink listens on {_LOOPBACK}:{sink.port}, the daemon on {_LOOPBACK}:{address.port}.\n")
        client = await connectProtocol(TCP4ClientEndpoint(reactor, _LOOPBACK, address.port), _Client())
        for request in _REQUESTS:
            line = json.dumps({**request, "host": _LOOPBACK, "port": sink.port}, separators=(",", ":"))
            print(f"-> {line}")
            print(f"<- {(await client.ask(line.encode())).decode()}\n")
        print("The sink has received:\n")
        for mail in sink.mails:
            show(mail)
        client.transport.loseConnection()
    finally:
        await daemon.stopService()
        await sink.stop()
    return status.OK
