"""
A token before anything else: who may talk to the daemon.

A client's first line is ``{"token": …}``.  Until it has come, and is right,
nothing else of the client is looked at and nothing told to it.  What follows
is a :class:`~.jsonlines.JSONLinesProtocol`'s, which knows of no token.
"""

from __future__ import annotations

import hashlib
import hmac
import os.path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Struct
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import NotAllowed
from .complaint import id_at_the_start
from .reply import encode_error
from .schema import RequestId

if TYPE_CHECKING:
    from .jsonlines import JSONLinesFactory, JSONLinesProtocol

__all__ = ["FIRST_LINE", "LAST_WORDS", "MAX_TOKEN", "TOKEN_TIMEOUT", "TokenProtocol", "Tokens"]

#: Octets of a token; 32 from a good source of chance are plenty.
MAX_TOKEN: Final = 512
#: Octets of the first line: each of a token's may stand in JSON as six
#: (``\u0041``), which leaves 1 KiB for the rest, an id among it.
FIRST_LINE: Final = 6 * MAX_TOKEN + 1024
#: Tokens in a file: the old and the new of some clients.  Each costs each
#: connection one comparison of 32 octets.
MAX_TOKENS: Final = 64
#: Seconds for the first line to come.
TOKEN_TIMEOUT: Final = 10.0
#: Seconds for one that is turned away to take its reply.  To close while it
#: still sends is to reset the connection, and the reply is lost with it.
LAST_WORDS: Final = 2.0

_EXPECTED: Final = 'expected {"token": …} as the first line, with a token that is known here'

_log = Logger(__name__)


class Tokens:
    """
    The tokens in a file, one a line; empty lines are none.

    One line is the common case.  Two are for changing the token: the new one
    is added, clients are told, the old one is taken out.

    What is kept of a token is its SHA-256, so neither its length nor its
    octets can be had from the time that a comparison takes, nor from here.

    :param path: the file; each line in UTF-8, of printable characters, at most
        :data:`MAX_TOKEN` octets long.
    :raises ValueError: telling the path and what is wrong, never what it holds.
    """

    def __init__(self, path: str) -> None:
        # A daemon goes to another folder before it reads the file again.
        self.path = os.path.abspath(path)
        self._digests = self._read()

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._digests)} from {self.path!r}>"

    def reload(self) -> None:
        """
        Read the file again.  Clients that were let in stay.

        :raises ValueError: as the constructor does; the tokens that there were
            are still good then.
        """
        self._digests = self._read()

    def accept(self, token: str) -> bool:
        """Whether it is one of them; as fast where it is nearly one as where it is not."""
        try:
            digest = _digest_of(token.encode())
        except UnicodeEncodeError:
            return False
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(each, digest)
        return found

    def _read(self) -> tuple[bytes, ...]:
        most = MAX_TOKENS * (MAX_TOKEN + 2)
        try:
            with open(self.path, "rb") as file:
                octets = file.read(most + 1)
        except OSError as error:
            raise self._unfit(error.strerror or type(error).__name__) from None
        if len(octets) > most:
            raise self._unfit(f"it has more than {most} octets")
        try:
            # The exception of the codec quotes what it could not read.
            text = octets.decode()
        except UnicodeDecodeError:
            raise self._unfit("it is not UTF-8") from None
        tokens = [line for line in text.replace("\r\n", "\n").split("\n") if line]
        if not tokens:
            raise self._unfit("it has none")
        if len(tokens) > MAX_TOKENS:
            raise self._unfit(f"it has more than {MAX_TOKENS}")
        if any(len(token.encode()) > MAX_TOKEN for token in tokens):
            raise self._unfit(f"one is longer than {MAX_TOKEN} octets")
        if not all(map(str.isprintable, tokens)):
            raise self._unfit("one has characters that are not printable")
        return tuple(_digest_of(token.encode()) for token in tokens)

    def _unfit(self, reason: str) -> ValueError:
        return ValueError(f"expected a file of tokens, one a line, got {self.path!r}: {reason}")


def _digest_of(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class _FirstLine(Struct, forbid_unknown_fields=True):
    token: str
    id: RequestId = UNSET

    def __repr__(self) -> str:
        return "<_FirstLine>"


class _Identified(Struct):
    id: RequestId = UNSET


class _Welcome(Struct):
    id: RequestId
    status: str


_decode = msgspec.json.Decoder(_FirstLine).decode
_decode_id = msgspec.json.Decoder(_Identified).decode
_encode = msgspec.json.Encoder().encode

#: What msgspec raises where a line is no JSON, or not such JSON.
_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@implementer(IHalfCloseableProtocol)
class TokenProtocol(Protocol):
    """
    One client that has not shown its token yet, or has, and is another
    protocol's since.

    :param tokens: those that are good.
    :param factory: of the protocol that takes over.
    """

    #: TCP, UNIX or TLS: no interface of Twisted's has all that is called.
    transport: Any

    def __init__(self, tokens: Tokens, factory: JSONLinesFactory) -> None:
        self.factory: JSONLinesFactory = factory
        self._tokens = tokens
        self._held = b""
        self._turned_away = False
        self._inner: JSONLinesProtocol | None = None
        self._timer: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<TokenProtocol: {'turned away' if self._turned_away else 'waiting'}>"

    # Connection

    def connectionMade(self) -> None:
        self.factory.joined(self)
        self._timer = self.factory.clock.callLater(TOKEN_TIMEOUT, self._too_late)
        self.settle()

    def readConnectionLost(self) -> None:
        """The client has said all that it had to say."""
        if self._inner is None and self._held:
            # A last line without LF is a line.
            self._judge(self._held, b"")
        if self._inner is not None:
            self._inner.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if self._inner is not None:
            self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self.factory.lost(self)

    # The first line

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._turned_away:
            return
        # Empty lines are ignored, here as everywhere; all at once, for a read
        # may have nothing else.
        held = (self._held + data).lstrip(b"\r\n")
        line, ended, rest = held.partition(b"\n")
        if len(line) > FIRST_LINE:
            self._turn_away(id_at_the_start(line[:FIRST_LINE]))
        elif ended:
            self._judge(line, rest)
        else:
            self._held = held

    def _judge(self, line: bytes, rest: bytes) -> None:
        self._held = b""
        try:
            first = _decode(line)
        except _REFUSALS:
            self._turn_away(_id_in(line))
            return
        if self._tokens.accept(first.token):
            self._admit(first.id, rest)
        else:
            self._turn_away(first.id)

    def _admit(self, request_id: RequestId, rest: bytes) -> None:
        self._stop_timer()
        self.transport.write(_encode(_Welcome(request_id, "ok")) + b"\n")
        self._inner = self.factory.admit()
        Protocol.makeConnection(self._inner, self.transport)
        self.factory.lost(self)
        if rest:
            self._inner.dataReceived(rest)

    def _too_late(self) -> None:
        self._timer = None
        self._turn_away(UNSET)

    def _turn_away(self, request_id: RequestId) -> None:
        self._turned_away = True
        self.factory.deliveries.rejected["NotAllowed"] += 1
        self._held = b""
        self._stop_timer()
        _log.info("{peer} was turned away: it has shown no token", peer=self.transport.getPeer())
        self.transport.write(encode_error(request_id, NotAllowed(_EXPECTED)) + b"\n")
        if can_half_close(self.transport):
            self.transport.loseWriteConnection()
            self._timer = self.factory.clock.callLater(LAST_WORDS, self.abort)
        else:
            self.transport.loseConnection()

    # Ends

    def settle(self) -> None:
        """Close, where the daemon is going down."""
        if self._inner is None and self.factory.deliveries.draining:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close now."""
        self._stop_timer()
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def can_half_close(transport: object) -> bool:
    """Whether what is written can end before what is read does."""
    # TLS says what the transport below it can, and cannot do it itself.
    return IHalfCloseableDescriptor.providedBy(transport) and not ISSLTransport.providedBy(transport)


def _id_in(line: bytes) -> RequestId:
    """The id of a line that is some other request."""
    try:
        return _decode_id(line).id
    except _REFUSALS:
        return UNSET
