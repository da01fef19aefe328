"""
Some of a crowd's clients, in a process of their own; for :mod:`.crowd` alone.

It says ``connected`` when all are, waits for a line, has them ask, says what
they were told as JSON, and stays, its hostile ones with it, until its standard
input ends.
"""

from __future__ import annotations

import itertools
import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from tests.daemons import LOOPBACK
from tests.soak.crowd import PATIENCE
from tests.soak.process import most_descriptors
from tests.soak.siege import Siege, line

#: Seconds without an octet for anybody before it is given up.
SILENCE: Final = 120.0


class _Client:
    """An honest one: it says all that it has to say, and reads all that it is told."""

    def __init__(self, port: int, number: int, octets: bytes) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=PATIENCE)
        self.socket.setblocking(False)
        self.number = number
        self.heard = bytearray()
        self._left = memoryview(octets)

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._left else 0)

    def act(self, events: int) -> None:
        if events & selectors.EVENT_WRITE and self._left:
            self._left = self._left[self.socket.send(self._left[:65536]) :]
        if events & selectors.EVENT_READ:
            octets = self.socket.recv(65536)
            if not octets:
                raise ConnectionError("closed by the daemon")
            self.heard += octets


def _hostile(port: int, silent: int, count: int) -> Siege:
    """Some that never read, some without an end of line, some that ask for what takes long, some garbage."""
    siege = Siege(port, lambda: None)
    endless = itertools.count()
    speeches = [
        (lambda _: (b'{"id": "%d%b", "host": 1}\n' % (n, b"x" * 60_000) for n in endless), False),
        (lambda _: [b'{"message": "' + b"A" * 60_000], True),
        (lambda _: (line(silent, id=n, response_timeout=5) for n in range(1000)), True),
        (lambda _: itertools.repeat(bytes(range(256)) * 100), False),
        (lambda _: [], True),
    ]
    for number in range(count):
        speech, reads = speeches[number % len(speeches)]
        siege.join(1, speech, reads=reads)
    return siege


def _wrong_with(client: _Client, requests: int) -> list[str]:
    replies = [json.loads(each) for each in bytes(client.heard).splitlines()]
    ids = sorted(reply.get("id", -1) for reply in replies)
    wrong = [] if ids == [*range(requests)] else [f"client {client.number} has replies to {ids}"]
    return wrong + [str(reply) for reply in replies if reply["status"] != "ok" or not _is_ok(reply)]


def _is_ok(reply: dict[str, Any]) -> bool:
    return [entry["status"] for entry in reply["deliveryStatus"]] == ["Ok"]


def _ask(clients: list[_Client], requests: int, siege: Siege) -> Iterator[str]:
    """Until all have their replies; what was wrong."""
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, client.events, client)
    left, moved = len(clients), time.monotonic()
    while left and time.monotonic() - moved < SILENCE:
        for key, events in selector.select(0.05):
            one: _Client = key.data
            moved = time.monotonic()
            try:
                one.act(events)
            except BlockingIOError:
                continue
            except OSError as error:
                yield f"client {one.number}: {error}"
                selector.unregister(one.socket)
                left -= 1
                continue
            if key.events != one.events:
                selector.modify(one.socket, one.events, one)
            if one.heard.endswith(b"\n") and one.heard.count(b"\n") >= requests:
                selector.unregister(one.socket)
                left -= 1
        siege.storm(quiet=1.0, most=0.01)
    if left:
        yield f"{left} clients have not all of their replies"


def main() -> None:
    port, server, silent, count, requests, hostile = map(int, sys.argv[1:])
    most_descriptors(count + 100)
    octets = b"".join(
        line(server, id=number, response_timeout=300, message="QUFB" * random.Random(number).randint(1, 100))
        for number in range(requests)
    )
    clients = [_Client(port, number, octets) for number in range(count - hostile)]
    siege = _hostile(port, silent, hostile)
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    sys.stdin.readline()
    wrong = list(_ask(clients, requests, siege))
    for client in clients:
        wrong += _wrong_with(client, requests)
    ok = sum(bytes(client.heard).count(b'"status":"Ok"') for client in clients)
    sys.stdout.write(json.dumps({"ok": ok, "wrong": wrong[:5]}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
