"""
One line as one value: a request.

A good request costs one decoding, two counts and the validation that the
values of :mod:`twisted_smtpclient.smtp` do.  Whatever is not a good request
is looked at again, at leisure, in :mod:`.complaint`.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from ..errors import InvalidRequest
from ..smtp.content import Content
from ..smtp.envelope import Envelope, Recipient
from ..smtp.policy import Mode, Protocol, Server, Timeouts, TLSMode
from .complaint import Rejection, check_spelling, check_uncommon, find_fault, given_in
from .schema import (
    EXPECTED,
    LEGACY,
    LooseRequestFields,
    RecipientFields,
    RequestFields,
    RequestId,
    decode_base64,
)

__all__ = ["Rejection", "Request", "RequestDecoder"]


class Request(Struct):
    """
    One delivery that a client asks for.

    :ivar reuse: whether it may share and leave behind a kept connection.
    """

    id: RequestId
    server: Server
    envelope: Envelope
    content: Content
    reuse: bool = True


#: What makes a Server, legacy spellings included.
_SESSION: Final = (
    "host",
    "port",
    "helo",
    "pipelining",
    "connection_timeout",
    "response_timeout",
    "protocol",
    "tls",
    "tls_name",
    "tls_fingerprint",
    "chunking",
    "source_address",
    "pipeling",
    "connection_timout",
)
_session_of = attrgetter(*_SESSION)

#: Fields whose string is a member of an enum.
_ENUMS: Final = {"pipelining": Mode, "chunking": Mode, "protocol": Protocol, "tls": TLSMode}

#: What msgspec raises where a line is no JSON, or not such JSON.
_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class RequestDecoder:
    """
    Turns lines into requests.

    Servers that are named again are the same object, so that a pool which
    looks for a connection compares by identity.
    """

    #: Servers remembered.  Each takes some 2 KiB with its key, whose strings
    #: are bounded below, so 2 MiB.
    MAX_SERVERS: Final = 1024
    #: Characters: three names of RFC 1035's 255, a digest, an address.
    MAX_KEY: Final = 1024

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(RequestFields).decode
        self._decode_loose = msgspec.json.Decoder(LooseRequestFields).decode
        self._servers: dict[tuple[Any, ...], tuple[Server, int]] = {}

    def decode(self, line: bytes | bytearray) -> Request | Rejection:
        """
        The request in ``line``, or what is wrong with it; never an exception.

        Strings in the line are counted, and those that were put to use: where
        there are no more, there was no field but those looked at here, none
        given twice, and no recipient that is an object.  That is what most
        requests are, and it is known without a look at the other 20 fields.
        """
        try:
            given = self._decode(line)
        except _REFUSALS:
            return self._decode_again(line)
        recipients = given.recipients
        if recipients is UNSET:
            return self._uncommon(given, line)
        try:
            server, strings = self._server(given)
            # The keys recipients and message, the message, the addresses.
            strings += 3 + len(recipients)
            if (request_id := given.id) is not UNSET:
                strings += 2 if type(request_id) is str else 1
            if (sender := given.sender) is UNSET:
                sender = None
            else:
                strings += 1 if sender is None else 2
            if (reuse := given.reuse) is UNSET:
                reuse = True
            else:
                strings += 1
            if _strings_in(line) != strings:
                return self._uncommon(given, line)
            envelope = Envelope(sender, recipients)  # type: ignore[arg-type]  # strings all, by the count
        except InvalidRequest as error:
            return Rejection(given.id, error)
        return Request(request_id, server, envelope, Content(given.message), reuse)

    def _server(self, given: RequestFields) -> tuple[Server, int]:
        """The server, and how many strings of the line went into it."""
        key = _session_of(given)
        known = self._servers.get(key)
        if known is None:
            pairs = zip(_SESSION, key, strict=True)
            session = {name: value for name, value in pairs if value is not UNSET}
            known = _server_of(session), _strings_used(session)
            if sum(len(value) for value in session.values() if isinstance(value, str)) <= self.MAX_KEY:
                if len(self._servers) >= self.MAX_SERVERS:
                    del self._servers[next(iter(self._servers))]
                self._servers[key] = known
        return known

    def _uncommon(self, given: RequestFields, line: bytes | bytearray) -> Request | Rejection:
        """A line that has more than the fields which each request has."""
        fields = given_in(given)
        if _strings_in(line) != _strings_used(fields):
            # A field given twice, or backslashes that hide how many there are.
            fault = find_fault(line)
            if fault is not None:
                return fault
        try:
            check_uncommon(fields)
            recipients = given.recpients if given.recipients is UNSET else given.recipients
            if recipients is UNSET:
                raise InvalidRequest(f"is required; {EXPECTED['recipients']}", "recipients")
            entries = [_recipient(entry, position) for position, entry in enumerate(recipients)]
            envelope = Envelope(None if given.sender is UNSET else given.sender, entries)
            server, _ = self._server(given)
        except InvalidRequest as error:
            return Rejection(given.id, error)
        reuse = True if given.reuse is UNSET else given.reuse
        return Request(given.id, server, envelope, Content(given.message), reuse)

    def _decode_again(self, line: bytes | bytearray) -> Request | Rejection:
        """A line that does not fit the schema, if only for white space in its base64."""
        try:
            given = self._decode_loose(line)
            given.message = decode_base64(given.message)  # type: ignore[assignment]  # text until here
        except (*_REFUSALS, InvalidRequest) as error:
            # A form that only msgspec refuses is none that is known of.
            return find_fault(line) or Rejection(UNSET, InvalidRequest(f"not such JSON: {error}"))
        return self._uncommon(given, line)


def _strings_in(line: bytes | bytearray) -> int:
    """
    How many strings a line of JSON has, keys included.

    Too many where it has backslashes that are escaped themselves: then their
    quotation marks cannot be told by counting.
    """
    # To find the next mark is ten times as fast as to count those there are.
    # None is missed wherever this looks; behind the key of the message, its
    # colon, perhaps a space and one mark, there are none for most of the line.
    begun = line.find(b'"message"') + 12
    ended = line.find(b'"', begun)
    marks = line.count(b'"', 0, begun)
    if ended >= 0:
        marks += line.count(b'"', ended)
    if b"\\" in line and b"\\\\" not in line:
        marks -= line.count(b'\\"')
    return marks // 2


def _strings_used(value: object) -> int:
    """How many strings it takes to write ``value`` as JSON."""
    if isinstance(value, (str, bytes)):
        return 1
    if isinstance(value, Struct):
        value = given_in(value)
    if isinstance(value, dict):
        return len(value) + sum(map(_strings_used, value.values()))
    if isinstance(value, list):
        return sum(map(_strings_used, value))
    return 0


def _server_of(session: dict[str, Any]) -> Server:
    check_spelling(session)
    terms = {LEGACY.get(name, name): value for name, value in session.items()}
    if "response_timeout" in terms:
        terms["timeouts"] = Timeouts.uniform(terms.pop("response_timeout"))
    for name, enum in _ENUMS.items():
        if name in terms:
            terms[name] = enum(terms[name])
    return Server(**terms)


def _recipient(entry: str | RecipientFields, position: int) -> str | Recipient:
    if isinstance(entry, str):
        return entry
    try:
        return Recipient(entry.address)
    except InvalidRequest as error:
        raise error.inside(f"recipients[{position}]") from None
