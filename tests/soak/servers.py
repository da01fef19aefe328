"""
Servers that close, reset, stall, trickle, flood and lie, from a seed.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any, Final

from tests.daemons import LOOPBACK
from twisted_smtpclient.testing import Action, Fault, Mail, Sink, Stage, make_certificates

#: Seconds between a fault's octets, and before a fault acts; a few of them are
#: within the time that a client waits, most are not.
_INTERVALS: Final = (0.001, 0.05, 0.5)

_COMMANDS: Final = (Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.RSET, Stage.QUIT)
_ENDS: Final = (Stage.END_OF_DATA, Stage.BDAT)
_REFUSALS: Final = (
    b"450 4.2.1 later\r\n",
    b"550 5.1.1 no\r\n",
    b"452 4.5.3 too many\r\n",
    b"554 5.7.1 never\r\n",
)
_NONSENSE: Final = (
    b"hello\r\n",
    b"\x00\xff\r\n",
    b"250\xe4\r\n",
    b"999 x\r\n",
    b"25",
    b"x" * 70_000 + b"\r\n",
)
_LAST_WORDS: Final = (b"421 4.3.2 bye\r\n", b"421-4.3.2 bye\r\n421 bye\r\n")


def fault(chance: random.Random) -> Fault:
    """What a server may do, and still be believed: it is known which mails it took."""
    at = chance.choice((*_COMMANDS, *_ENDS, *_ENDS, Stage.CONTENT, Stage.IDLE))
    after = chance.choice((0.0, 0.0, 0.01, 0.3))
    octets = chance.choice((1, 10, 5000, 70_000)) if at is Stage.CONTENT else 0
    silent = (Action.CLOSE, Action.RESET, Action.STALL, Action.DEAF)
    if at is Stage.CONTENT:
        return Fault(at, chance.choice(silent), after_octets=octets, after=after)
    if at is Stage.IDLE:
        do = chance.choice((Action.CLOSE, Action.RESET, Action.REPLY_AND_CLOSE))
        return Fault(at, do, chance.choice(_LAST_WORDS), after=after)
    if at is Stage.RSET:
        # One that refuses RSET (which RFC 5321 4.1.1.5 does not let it) takes the
        # next mail for the one before: then nobody knows what it took for whom.
        return Fault(at, chance.choice((*silent, Action.FLOOD)), nth=chance.randint(1, 6), after=after)
    do = chance.choice(
        (*silent, Action.TRICKLE, Action.FLOOD, Action.REPLY, Action.NONSENSE, Action.REPLY_AND_CLOSE)
    )
    reply: bytes | Callable[[bytes], bytes] | None = None
    if do is Action.REPLY_AND_CLOSE:
        reply = chance.choice(_LAST_WORDS)
    elif do is Action.REPLY:
        reply = _as_often(chance.choice(_REFUSALS if chance.random() < 0.7 else _NONSENSE))
    return Fault(
        at,
        do,
        reply,
        nth=chance.randint(1, 6),
        after=after,
        interval=chance.choice(_INTERVALS),
        endless=chance.random() < 0.3,
    )


def _as_often(reply: bytes) -> Callable[[bytes], bytes]:
    """In LMTP one for each recipient, as the sink's own."""
    return lambda own: reply * max(1, own.count(b"\r\n"))


def lie(chance: random.Random) -> Fault:
    """What a server may say after which nobody knows which mails it took."""
    at = chance.choice((*_COMMANDS, *_ENDS, Stage.STARTTLS))
    said = chance.choice(
        (b"250 ok\r\n", b"354 go on\r\n", b"250-x\r\n250 y\r\n", b"550 no\r\n", b"421 bye\r\n", b"220 x\r\n")
    )
    return Fault(at, chance.choice((Action.INJECT, Action.REPLY)), said, nth=chance.randint(1, 6))


class Servers:
    """
    All of them, on free ports of loopback.

    :param record: is told of each mail that one of them took.
    :ivar terms: of each server the fields of a request that goes there, and
        whether what it says can be believed.
    """

    def __init__(self, reactor: Any, chance: random.Random, record: Callable[[Mail], None]) -> None:
        self.terms: list[tuple[dict[str, Any], bool]] = []
        self.sessions = 0
        self._reactor = reactor
        self._chance = chance
        self._record = record
        self._sinks: list[tuple[Sink, bool]] = []
        self._silent = socket.create_server((LOOPBACK, 0), backlog=64)
        with socket.create_server((LOOPBACK, 0)) as closed:
            self._closed: int = closed.getsockname()[1]

    async def listen(self) -> None:
        """Begin."""
        context = make_certificates(LOOPBACK).server_context()
        await self._serve({"tls": "NO"})
        await self._serve({"tls": "NO"}, chunking=False)
        await self._serve({"tls": "NO"}, pipelining=False, chunking=False)
        await self._serve({"tls": "NO", "protocol": "LMTP"}, lmtp=True)
        await self._serve({"tls": "NO", "protocol": "LMTP"}, lmtp=True, chunking=False)
        await self._serve({"tls": "TRY"}, starttls=context)
        await self._serve({"tls": "NO"}, delay=0.01, split=40)
        await self._serve({"tls": "NO", "reuse": False})
        await self._serve({"tls": "NO"}, truthful=False)
        await self._serve({"tls": "TRY"}, truthful=False, starttls=context)
        self.terms.append(({"tls": "NO", "port": self._silent.getsockname()[1]}, True))
        self.terms.append(({"tls": "NO", "port": self._closed}, True))

    async def _serve(self, terms: dict[str, Any], *, truthful: bool = True, **settings: Any) -> None:
        sink = Sink(self._reactor, keep_content=False, keep_records=False, on_mail=self._record, **settings)
        await sink.listen()
        self._sinks.append((sink, truthful))
        self.terms.append(({"port": sink.port, **terms}, truthful))

    def misbehave(self) -> None:
        """Each of them may get a fault that it has not had."""
        for sink, truthful in self._sinks:
            pending = [each for each in sink.faults if each.at is not Stage.IDLE][-6:]
            if self._chance.random() < 0.7:
                new = fault(self._chance) if truthful or self._chance.random() < 0.5 else lie(self._chance)
                pending.append(new)
            sink.faults[:] = pending

    def behave(self) -> None:
        """No faults any more."""
        for sink, _ in self._sinks:
            sink.faults.clear()

    async def stop(self) -> None:
        """End."""
        self._silent.close()
        for sink, _ in self._sinks:
            self.sessions += sink.session_count
            await sink.stop()
