"""
How far a request has come: what its headers say from one try to the next.

Headers come from whoever may publish, so they are held to what this module
writes itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ...errors import InvalidRequest
from ...smtp.reply import Reply
from ...smtp.result import VERDICTS, RecipientStatus, Status
from ..reply import encode_verdicts

__all__ = [
    "ATTEMPT",
    "FIRST_SEEN",
    "OURS",
    "OUTCOME",
    "REDELIVERED",
    "VERDICTS_SO_FAR",
    "Progress",
    "Unreadable",
    "carried",
    "read",
]

#: The number of the try that the message is for; the first without it.
ATTEMPT: Final = "x-smtpclient-attempt"
#: When the first try was begun, in seconds since 1970.
FIRST_SEEN: Final = "x-smtpclient-first-seen"
#: ``deliveryStatus`` as it stands, in the request's order: JSON, or where that
#: is long, JSON compressed by zlib (RFC 1950).
VERDICTS_SO_FAR: Final = "x-smtpclient-verdicts"
#: Whether a try before was of a request that the broker had given out twice, or
#: the message itself may be there twice.
REDELIVERED: Final = "x-smtpclient-redelivered"
#: Of an outcome that no queue took: what it was.
OUTCOME: Final = "x-smtpclient-outcome"

OURS: Final = frozenset({ATTEMPT, FIRST_SEEN, VERDICTS_SO_FAR, REDELIVERED, OUTCOME})

#: Where else a message was to go (RabbitMQ's sender-selected distribution): it
#: has gone there, and is not to go again with each further try.
_ROUTED: Final = frozenset({"CC", "BCC"})

#: What the broker writes.  It takes a message for one that goes in circles, and
#: drops it, where ``x-death`` tells of the queue it comes to again; ours have
#: been consumed in between.
_BROKERS: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

#: Octets of JSON that stand in the header as they are.
_PLAIN: Final = 8192
#: Octets of the header: all headers of a message are one frame, by default of
#: 131,072 octets.
_MOST: Final = 65536
#: Octets that a header may come to: a million recipients at 64 octets each.
_MOST_UNPACKED: Final = 64 * 1024 * 1024

#: Seconds since 1970 that a first try may be at: until the year 2286.
_END_OF_TIME: Final = 10_000_000_000


class Progress(NamedTuple):
    """
    How far a request has come.

    :ivar attempt: the number of this try, from 1.
    :ivar first_seen: when the first was begun, in seconds since 1970.
    :ivar verdicts: what is known of each recipient, in the request's order;
        empty before the first try.
    :ivar redelivered: whether another process may have delivered it in a try
        before, or this try may come twice.
    """

    attempt: int
    first_seen: float
    verdicts: Sequence[RecipientStatus] = ()
    redelivered: bool = False

    def headers(self) -> dict[str, Any] | None:
        """The headers that tell of it; None where the verdicts are too many for one frame."""
        headers: dict[str, Any] = {ATTEMPT: self.attempt, FIRST_SEEN: int(self.first_seen)}
        if self.redelivered:
            headers[REDELIVERED] = True
        if self.verdicts:
            told = encode_verdicts(self.verdicts)
            if len(told) <= _PLAIN:
                headers[VERDICTS_SO_FAR] = told.decode()
            else:
                packed = zlib.compress(told)
                if len(packed) > _MOST:
                    return None
                headers[VERDICTS_SO_FAR] = packed
        return headers


class Unreadable(dict[str, Any]):
    """
    In the place of headers that could not be read.

    :param reason: why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class _Entry(Struct):
    recipient: str
    status: Status
    indoubt: bool = False
    response: str | UnsetType = UNSET
    code: int | UnsetType = UNSET
    command: str | None = None


_decode_entries = msgspec.json.Decoder(list[_Entry]).decode


def read(headers: Mapping[str, Any] | None, now: float) -> Progress:
    """
    What the headers of a message say.

    :param now: seconds since 1970, which a first try is at.
    :raises InvalidRequest: naming the header that is not as it should be.
    """
    if isinstance(headers, Unreadable):
        raise InvalidRequest(f"expected values that can be read: {headers.reason}", "headers")
    if not headers:
        return Progress(1, now)
    attempt = headers.get(ATTEMPT, 1)
    if type(attempt) is not int or not 1 <= attempt <= 1_000_000:
        raise InvalidRequest("expected an integer from 1 to 1000000", ATTEMPT)
    first_seen = headers.get(FIRST_SEEN, now)
    if type(first_seen) not in (int, float) or not 0 <= first_seen <= _END_OF_TIME:
        raise InvalidRequest("expected seconds since 1970", FIRST_SEEN)
    verdicts = headers.get(VERDICTS_SO_FAR)
    so_far = () if verdicts is None else _read_verdicts(verdicts)
    return Progress(attempt, first_seen, so_far, headers.get(REDELIVERED) is True)


def _read_verdicts(given: Any) -> list[RecipientStatus]:
    try:
        if isinstance(given, bytes):
            unpacking = zlib.decompressobj()
            given = unpacking.decompress(given, _MOST_UNPACKED)
            if unpacking.unconsumed_tail:
                raise ValueError("too long")
        return [_status(entry) for entry in _decode_entries(given)]
    except (msgspec.MsgspecError, zlib.error, ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"expected what an earlier try has written: {error}", VERDICTS_SO_FAR) from None


def _status(entry: _Entry) -> RecipientStatus:
    if entry.response is UNSET or entry.code is UNSET:
        if entry.status is not Status.UNKNOWN:
            raise ValueError("a verdict has no reply")
        return RecipientStatus(entry.recipient, Status.UNKNOWN, in_doubt=entry.indoubt)
    if VERDICTS.get(entry.code // 100) is not entry.status:
        raise ValueError("a reply is not that of its verdict")
    reply = Reply(entry.code, tuple(entry.response.encode("utf-8", "surrogatepass").split(b"\n")))
    return RecipientStatus(entry.recipient, entry.status, reply, entry.command)


def carried(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    The headers that go with a request into its next try: neither ours nor the
    broker's, nor what it has done already.
    """
    return {
        name: value
        for name, value in (headers or {}).items()
        if name not in OURS and name not in _ROUTED and not name.startswith(_BROKERS)
    }
