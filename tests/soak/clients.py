"""
Clients of the daemon: some keep to the contract, the others do what they can.
"""

from __future__ import annotations

import base64
import json
import random
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from tests.daemons import LOOPBACK
from tests.soak.ledger import Asked, Ledger

#: Seconds that a reply may take.  A request has a deadline of less, or bounds
#: on connecting and on each reply that make less of it; the rest is patience
#: with a machine on which everybody wants the processor.
PATIENCE: Final = 90.0

#: Octets of messages; the last is larger than what goes with an envelope.
_SIZES: Final = (10, 10, 500, 3000, 20_000, 300_000)


class Connection(Protocol):
    """
    A client's end.

    :ivar heard: lines that were not taken yet.
    """

    transport: Any

    def __init__(self) -> None:
        self.heard: deque[bytes] = deque()
        self.gone = False
        self._tail = b""
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        self.heard.extend(lines)
        self._wake()

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    @inlineCallbacks
    def line(self, reactor: Any, patience: float = PATIENCE) -> Generator[Any, Any, bytes | None]:
        """The next line; None where there is none any more."""
        while not self.heard:
            if self.gone:
                return None
            self._waiting = Deferred()
            yield self._waiting.addTimeout(patience, reactor)
        return self.heard.popleft()

    @inlineCallbacks
    def closed(self, reactor: Any) -> Generator[Any, Any, None]:
        """Until it is."""
        while not self.gone:
            self.heard.clear()
            self._waiting = Deferred()
            yield self._waiting.addTimeout(PATIENCE, reactor)


class Clients:
    """
    As many as there are to be at a time; each one that ends is followed by another.

    :param terms: where mails go to, and whether what is said there is true.
    """

    def __init__(
        self,
        reactor: Any,
        port: int,
        ledger: Ledger,
        terms: list[tuple[dict[str, Any], bool]],
        seed: int,
        *,
        token: str,
        max_request: int,
    ) -> None:
        self.reactor = reactor
        self.ledger = ledger
        self.begun = 0
        self.stopping = False
        self.under_way: dict[int, str] = {}
        self._port = port
        self._terms = terms
        self._seed = seed
        self._token = token
        self._max_request = max_request
        self._ended: Deferred[None] | None = None

    def keep(self, count: int) -> None:
        """Let there be so many."""
        while len(self.under_way) < count and not self.stopping:
            self.begun += 1
            chance = random.Random(f"{self._seed}/{self.begun}")
            kind: Callable[[random.Random], Any] = chance.choice(_KINDS).__get__(self)
            self.under_way[self.begun] = kind.__name__
            done = kind(chance)
            done.addErrback(self._failed, self.begun, kind.__name__)
            done.addBoth(self._over, self.begun)

    def stop(self) -> Deferred[None]:
        """No more of them; fires when the last has ended."""
        self.stopping = True
        self._ended = Deferred()
        if not self.under_way:
            self._ended.callback(None)
        return self._ended

    def _failed(self, failure: Any, number: int, kind: str) -> None:
        self.ledger.breach(f"client {number} ({kind}): {failure.getErrorMessage()} {failure.type.__name__}")

    def _over(self, _: object, number: int) -> None:
        del self.under_way[number]
        if not self.under_way and self._ended is not None and not self._ended.called:
            self._ended.callback(None)

    # What they are made of.

    @inlineCallbacks
    def _connect(self, *, token: bool = True) -> Generator[Any, Any, Connection]:
        connection: Connection = yield connectProtocol(
            TCP4ClientEndpoint(self.reactor, LOOPBACK, self._port, timeout=int(PATIENCE)), Connection()
        )
        connection.transport.setTcpNoDelay(True)
        if token:
            self._say(connection, {"token": self._token})
            welcome = yield connection.line(self.reactor)
            if welcome is None or json.loads(welcome) != {"status": "ok"}:
                self.ledger.breach(f"a client with the token was told {welcome!r}")
        return connection

    def _say(self, connection: Connection, fields: Mapping[str, Any]) -> None:
        connection.transport.write(json.dumps(fields).encode() + b"\n")

    def _request(self, chance: random.Random, *, awaited: bool, **more: Any) -> tuple[Asked, dict[str, Any]]:
        terms, truthful = chance.choice(self._terms)
        asked = self.ledger.ask(chance.choice((1, 1, 2, 5)), truthful=truthful, awaited=awaited)
        content = chance.randbytes(chance.choice(_SIZES))
        fields: dict[str, Any] = {
            "id": asked.number,
            "host": LOOPBACK,
            "sender": asked.sender,
            "recipients": asked.recipients,
            "message": base64.b64encode(content).decode(),
            "response_timeout": chance.choice((0.5, 1.0, 2.0)),
            "connection_timeout": 1.0,
            **terms,
            **more,
        }
        if chance.random() < 0.1:
            fields["deadline"] = chance.choice((0.001, 0.02, 0.3, 1.0))
        if chance.random() < 0.1:
            fields["trace"] = fields["transcript"] = True
        return asked, fields

    def _take(self, line: bytes, asked: Mapping[int, Asked]) -> None:
        reply = json.loads(line)
        if reply.get("id") not in asked:
            self.ledger.breach(f"a reply to nothing that was asked: {line[:300]!r}")
        else:
            self.ledger.tell(asked[reply["id"]], reply)

    @inlineCallbacks
    def _hear(
        self, connection: Connection, asked: Mapping[int, Asked], count: int
    ) -> Generator[Any, Any, None]:
        for _ in range(count):
            line = yield connection.line(self.reactor)
            if line is None:
                self.ledger.breach(f"a connection was closed on {count} requests")
                return
            self._take(line, asked)

    # Those that keep to the contract.

    @inlineCallbacks
    def honest(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Some requests at a time, each answered by its id, then half-close or QUIT."""
        connection = yield self._connect()
        asked: dict[int, Asked] = {}
        left, window, out = chance.randint(1, 60), chance.randint(1, 40), 0
        while left or out:
            while left and out < window:
                mail, fields = self._request(chance, awaited=True)
                asked[mail.number] = mail
                self._say(connection, fields)
                left, out = left - 1, out + 1
            if not left and chance.random() < 0.2:
                connection.transport.loseWriteConnection()
                yield self._hear(connection, asked, out)
                yield connection.closed(self.reactor)
                return
            yield self._hear(connection, asked, 1)
            out -= 1
        connection.transport.loseConnection()

    @inlineCallbacks
    def in_turn(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Requests without an id, which are answered in their order."""
        connection = yield self._connect()
        mails = []
        for _ in range(chance.randint(1, 20)):
            mail, fields = self._request(chance, awaited=True)
            del fields["id"]
            mails.append(mail)
            self._say(connection, fields)
        connection.transport.loseWriteConnection()
        for mail in mails:
            line = yield connection.line(self.reactor)
            if line is None:
                return
            reply = json.loads(line)
            if reply.get("sender", mail.sender) != mail.sender:
                self.ledger.breach(f"mail {mail.number} was answered out of turn: {reply}")
            self.ledger.tell(mail, reply)
        yield connection.closed(self.reactor)

    @inlineCallbacks
    def comes_back(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Loses its connection, and asks again by key."""
        connection = yield self._connect()
        requests = [
            self._request(chance, awaited=False, key=f"{self._seed}/{chance.random()}")
            for _ in range(chance.randint(1, 10))
        ]
        for _, fields in requests:
            self._say(connection, fields)
        asked = {mail.number: mail for mail, _ in requests}
        yield deferLater(self.reactor, chance.choice((0.0, 0.02, 0.5)))
        for line in connection.heard:
            self._take(line, asked)
        connection.heard.clear()
        connection.transport.abortConnection()
        yield connection.closed(self.reactor)
        connection = yield self._connect()
        for mail, fields in requests:
            mail.times += 1
            self._say(connection, fields)
        yield self._hear(connection, asked, len(requests))
        connection.transport.loseConnection()

    @inlineCallbacks
    def cancels(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Ends what it has begun, some of it more than once."""
        connection = yield self._connect()
        asked: dict[int, Asked] = {}
        said = 0
        for _ in range(chance.randint(1, 40)):
            mail, fields = self._request(chance, awaited=True)
            asked[mail.number] = mail
            self._say(connection, fields)
            said += 1
            if chance.random() < 0.3:
                yield deferLater(self.reactor, chance.choice((0.0, 0.01)))
            for _ in range(chance.choice((0, 1, 1, 3))):
                self._say(connection, {"cancel": chance.choice([*asked]), "id": "cancel"})
                said += 1
        for _ in range(said):
            line = yield connection.line(self.reactor)
            if line is None:
                self.ledger.breach("a connection was closed on a client that cancels")
                return
            if b'"id":"cancel"' not in line:
                self._take(line, asked)
        connection.transport.loseConnection()

    # Those that do not.

    @inlineCallbacks
    def goes_away(self, chance: random.Random) -> Generator[Any, Any, None]:
        """In the middle of something, in order or with a reset."""
        connection = yield self._connect()
        for _ in range(chance.randint(1, 10)):
            _, fields = self._request(chance, awaited=False)
            self._say(connection, fields)
        connection.transport.write(b'{"host": ' * chance.randint(0, 1))
        yield deferLater(self.reactor, chance.choice((0.0, 0.05, 0.3)))
        if chance.random() < 0.5:
            connection.transport.abortConnection()
        else:
            connection.transport.loseConnection()
        yield connection.closed(self.reactor)

    @inlineCallbacks
    def never_reads(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Asks for long replies, and takes none."""
        connection = yield self._connect()
        connection.transport.pauseProducing()
        for number in range(chance.randint(1, 300)):
            connection.transport.write(b'{"id": "%d%b", "host": 1}\n' % (number, b"x" * 10_000))
        yield deferLater(self.reactor, chance.choice((0.1, 1.0, 3.0)))
        connection.transport.abortConnection()
        connection.transport.resumeProducing()
        yield connection.closed(self.reactor)

    @inlineCallbacks
    def trickles(self, chance: random.Random) -> Generator[Any, Any, None]:
        """One octet at a time; what it asks for, it is told."""
        connection = yield self._connect()
        mail, fields = self._request(chance, awaited=True)
        fields["message"] = "QQ=="
        line = json.dumps(fields).encode() + b"\n"
        step = chance.choice((1, 3, 50))
        for at in range(0, len(line), step):
            connection.transport.write(line[at : at + step])
            yield deferLater(self.reactor, 0.001)
        yield self._hear(connection, {mail.number: mail}, 1)
        connection.transport.loseConnection()

    @inlineCallbacks
    def garbage(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Lines that are nothing, among them lines that are too long; one reply each."""
        connection = yield self._connect()
        lines = []
        for _ in range(chance.randint(1, 30)):
            line = chance.choice(
                (
                    chance.randbytes(chance.randint(1, 300)).replace(b"\n", b"x"),
                    b'{"host": ' + b"[" * 3000,
                    b"x" * (self._max_request + 10),
                    b'{"id": 1, "pipelinig": "TRY"}',
                    b'{"recipients": [' + b'"a",' * 3000,
                    b"\r",
                )
            )
            lines.append(line)
            connection.transport.write(line + b"\n")
        connection.transport.loseWriteConnection()
        for line in lines:
            if line.strip(b"\r"):
                reply = yield connection.line(self.reactor)
                if reply is None or json.loads(reply)["error"] not in ("InvalidRequest", "RequestTooLarge"):
                    self.ledger.breach(f"garbage {line[:50]!r} was answered {reply!r}")
                    break
        yield connection.closed(self.reactor)

    @inlineCallbacks
    def no_token(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Whatever it says first is not the token: it is turned away."""
        connection = yield self._connect(token=False)
        _, fields = self._request(chance, awaited=False)
        first = chance.choice(
            (
                json.dumps({"token": "guess"}).encode(),
                json.dumps(fields).encode(),
                b"x" * 10_000,
                b"\0",
                b"[]",
            )
        )
        connection.transport.write(first + b"\n")
        line = yield connection.line(self.reactor)
        # What it still sends may have reset the connection before the reply was read.
        if line is not None and json.loads(line)["error"] != "NotAllowed":
            self.ledger.breach(f"a client without the token was told {line!r}")
        yield connection.closed(self.reactor)

    @inlineCallbacks
    def says_nothing(self, chance: random.Random) -> Generator[Any, Any, None]:
        """Is there, and goes."""
        try:
            connection = yield self._connect(token=chance.random() < 0.5)
        except ConnectError:
            return
        yield deferLater(self.reactor, chance.choice((0.0, 1.0)))
        connection.transport.abortConnection()
        yield connection.closed(self.reactor)


#: Half of them honest.
_KINDS: Final = (
    *(Clients.honest,) * 4,
    Clients.in_turn,
    *(Clients.comes_back,) * 2,
    Clients.cancels,
    Clients.goes_away,
    Clients.never_reads,
    Clients.trickles,
    Clients.garbage,
    Clients.no_token,
    Clients.says_nothing,
)
