"""
Clients that try to make a daemon hold as much as it will.

Each says its octets as fast as they are taken, and reads what it is told or
nothing at all.  They are over when none of them gets anywhere any more.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tests.daemons import LOOPBACK

#: Octets handed to the kernel at a time.
_PIECE: Final = 65536

#: What one of them says: pieces of octets, as many as are taken.
Speech = Callable[[int], Iterable[bytes]]


class _Besieger:
    """
    One client.

    :ivar heard: what it was told last, of one that reads.
    """

    def __init__(self, port: int, speech: Iterable[bytes], reads: bool) -> None:
        self.heard = b""
        self.socket = socket.create_connection((LOOPBACK, port), timeout=30.0)
        self.socket.setblocking(False)
        self._speech: Iterator[bytes] = iter(speech)
        self._left = b""
        self.events = selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0)

    def act(self, events: int) -> int:
        """Octets that went one way or the other; -1 where it is over."""
        moved = 0
        try:
            if events & selectors.EVENT_READ:
                octets = self.socket.recv(_PIECE)
                if not octets:
                    return -1
                self.heard = octets[-_PIECE:]
                moved += len(octets)
            if events & selectors.EVENT_WRITE:
                if not self._left:
                    self._left = next(self._speech, b"")
                if self._left:
                    sent = self.socket.send(self._left[:_PIECE])
                    self._left = self._left[sent:]
                    moved += sent
        except BlockingIOError:
            pass
        except OSError:
            return -1
        return moved


class Siege:
    """
    Besiegers of the daemon on a port.

    :param sample: called again and again while they act.
    :ivar sent: octets that went to and fro.
    :ivar dropped: how many had their connection closed.
    """

    def __init__(self, port: int, sample: Callable[[], object]) -> None:
        self.sent = self.dropped = 0
        self._port = port
        self._sample = sample
        self._selector = selectors.DefaultSelector()
        self._open: set[_Besieger] = set()

    def join(self, count: int, speech: Speech, *, reads: bool) -> None:
        """So many more, each with its number."""
        for number in range(count):
            one = _Besieger(self._port, speech(number), reads)
            self._open.add(one)
            self._selector.register(one.socket, one.events, one)

    def storm(self, *, quiet: float, most: float) -> None:
        """Until nothing has moved for ``quiet`` seconds, or ``most`` are over."""
        now = time.monotonic()
        end, last_moved = now + most, now
        while now < end and now - last_moved < quiet and self._open:
            moved = 0
            for key, events in self._selector.select(0.05):
                step = key.data.act(events)
                if step < 0:
                    self._drop(key.data)
                    self.dropped += 1
                else:
                    moved += step
            self._sample()
            self.sent += moved
            now = time.monotonic()
            if moved:
                last_moved = now
            else:
                # Those with nothing more to say can always be written to.
                time.sleep(0.01)

    def end(self) -> None:
        """All close."""
        for one in list(self._open):
            self._drop(one)
        self._selector.close()

    def _drop(self, one: _Besieger) -> None:
        self._open.discard(one)
        with contextlib.suppress(KeyError):
            self._selector.unregister(one.socket)
        one.socket.close()


def line(server: int, **changed: Any) -> bytes:
    """A request for the server on this port."""
    given = {
        "host": LOOPBACK,
        "port": server,
        "tls": "NO",
        "response_timeout": 0.5,
        # Nobody accepts there, so from some connections on none is made.
        "connection_timeout": 1,
        "recipients": ["a@b.de"],
        "message": "QQ==",
    }
    return json.dumps({**given, **changed}, ensure_ascii=False).encode() + b"\n"


def _of(octets: int) -> str:
    return base64.b64encode(b"x" * octets).decode()


def attacks(server: int) -> dict[str, tuple[int, Speech, bool]]:
    """
    What is tried, by its name: how many clients, what each says, whether it reads.

    :param server: the port of a server that takes connections and never says a word.
    """

    def endless(make: Callable[[int], bytes]) -> Speech:
        return lambda number: map(make, itertools.count(number * 1_000_000))

    values = b'{"id": 1, "recipients": [' + b"{}," * 30_000 + b"{}]}\n"
    wide = line(server, id=1, helo="\U0001f600" + "x" * 1_000_000, port=0)
    return {
        "a line without end": (30, lambda number: itertools.repeat(b'{"message": "' + b"A" * 60_000), True),
        "many lines without end": (
            300,
            lambda number: [b'{"message": "' + b"A" * 50_000 for _ in range(2)],
            True,
        ),
        "errors that nobody reads": (
            100,
            endless(lambda number: b'{"id": "%d%b", "host": 1}\n' % (number, b"x" * 60_000)),
            False,
        ),
        "small requests": (60, endless(lambda number: line(server, id=number)), True),
        "requests without an id": (20, endless(lambda number: line(server)), True),
        "requests that nobody reads": (30, endless(lambda number: line(server, id=number)), False),
        "large messages": (30, endless(lambda number: line(server, id=number, message=_of(100_000))), True),
        "messages that need another form": (
            10,
            endless(lambda number: line(server, id=number, message=_of(50_000).replace("eHh4", "Cngu"))),
            True,
        ),
        "many recipients": (
            10,
            endless(lambda number: line(server, id=number, recipients=["a@b.de"] * 5_000)),
            True,
        ),
        "recipients that are objects": (
            10,
            endless(
                lambda number: line(
                    server, id=number, recipients=[{"address": "a@b.de", "notify": ["NEVER"]}] * 2_000
                )
            ),
            True,
        ),
        "long ids": (30, endless(lambda number: line(server, id=f"{number}" + "x" * 50_000)), True),
        "ids of wide characters": (
            10,
            endless(lambda number: line(server, id=f"{number}\U0001f600" + "x" * 10_000)),
            True,
        ),
        "transcripts": (20, endless(lambda number: line(server, id=number, transcript=True)), True),
        "traces and deadlines": (
            20,
            endless(lambda number: line(server, id=number, trace=True, deadline=3600)),
            True,
        ),
        "keys": (20, endless(lambda number: line(server, id=number, key=f"{number}" + "k" * 100)), True),
        "keys that are kept": (
            20,
            endless(lambda number: line(server, id=number, key=f"{number}", host="192.0.2.1")),
            True,
        ),
        "a server of its own each": (
            1,
            endless(lambda number: line(server, id=number, helo=f"h{number}.example")),
            True,
        ),
        "probes": (
            10,
            endless(
                lambda number: (
                    b'{"probe": true, "deadline": 1, "host": "%b", "port": %d, "id": %d}\n'
                    % (LOOPBACK.encode(), server, number)
                )
            ),
            True,
        ),
        "lines of many values": (20, endless(lambda number: values), True),
        "lines that are wide as text": (10, endless(lambda number: wide), True),
        "garbage": (30, endless(lambda number: bytes(range(256)) * 200), False),
        "large requests that are invalid": (
            10,
            endless(lambda number: line(server, id=number, sender="a b", message="A" * 3_000_000)),
            True,
        ),
        "empty lines": (10, endless(lambda number: b"\n" * 60_000), True),
        "cancels": (20, endless(lambda number: b'{"cancel": "%b"}\n' % (b"c" * 60_000)), False),
    }
