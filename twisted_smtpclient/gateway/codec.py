"""
One line as one value: a request.

A good request of the fields that most have costs one decoding, one count and the
validation that the values of :mod:`twisted_smtpclient.smtp` do; one that has more
costs a second decoding.  Whatever is not a good request is looked at again, at
leisure, in :mod:`.complaint`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..errors import InvalidRequest, RequestTooLarge
from ..smtp.content import Content
from ..smtp.credentials import Credentials
from ..smtp.dsn import DSN, Notify, Return
from ..smtp.envelope import Envelope, Recipient
from ..smtp.policy import SUBMISSIONS_PORT, Mode, Protocol, Server, Timeouts, TLSMode
from .base64 import loose_message_in, message_in, octets_of
from .complaint import Rejection, check_spelling, check_uncommon, find_fault, given_in, id_at_the_start
from .requests import AnyRequest, CancelRequest, ProbeRequest, Request
from .schema import (
    EXPECTED,
    LEGACY,
    AuthFields,
    CancelFields,
    CommonFields,
    DSNFields,
    ProbeFields,
    RawRequestFields,
    RecipientFields,
    RequestFields,
)
from .strings import message_apart, strings_in

__all__ = ["AnyRequest", "CancelRequest", "ProbeRequest", "Rejection", "Request", "RequestDecoder"]

T = TypeVar("T")


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
    "auth",
    "chunking",
    "source_address",
    "pipeling",
    "connection_timout",
)

#: All of a line's fields, and of those these: a third of what 15 attributes cost.
_all_of: Final = msgspec.structs.astuple
#: So many of the common ones make a server.
_TERMS: Final = CommonFields.__struct_fields__.index("recipients")
_session_of: Final = itemgetter(*map(RawRequestFields.__struct_fields__.index, _SESSION))

#: Fields whose string is a member of an enum.
_ENUMS: Final = {"pipelining": Mode, "chunking": Mode, "protocol": Protocol, "tls": TLSMode}

#: Values of a line of JSON, most of them recipients, of which each takes up some
#: hundred octets, be there three of them on the line: an eighth of the memory
#: that is the default, and no more than half a second of everybody's time.
MAX_VALUES: Final = 131_072
#: Octets of a line that are not worth a count; a value takes two.
LONG: Final = 65536
#: Octets of a line, its message left out, that is read again for what is wrong
#: with it whatever it has in it.
MAX_AGAIN: Final = 1024 * 1024

#: Servers remembered, by either kind of key.  Each takes some 2 KiB, and its key the
#: strings that are bounded below, so 12 MiB.
MAX_SERVERS: Final = 1024
#: Characters: three names of RFC 1035's 255, a digest, an address; a token,
#: of which most are under 2500.
MAX_KEY: Final = 4096

#: What msgspec raises where a line is no JSON, or not such JSON.
_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class RequestDecoder:
    """
    Turns lines into requests.

    Servers that are named again are the same object, as long as they are
    remembered, so that a pool which looks for a connection compares by identity.

    :param max_values: commas of a line at the most, and so its values.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._decode_common = msgspec.json.Decoder(CommonFields).decode
        self._decode = msgspec.json.Decoder(RawRequestFields).decode
        self._decode_probe = msgspec.json.Decoder(ProbeFields).decode
        self._decode_cancel = msgspec.json.Decoder(CancelFields).decode
        #: by all the fields that make one, and by those that most lines have
        self._servers: dict[tuple[Any, ...], tuple[Server, int]] = {}
        self._common_servers: dict[tuple[Any, ...], tuple[Server, int]] = {}
        #: the one named last: to compare costs half of what it costs to look up
        self._last_key: tuple[Any, ...] = ()
        self._last: tuple[Server, int] | None = None

    def decode(self, line: bytes | bytearray) -> AnyRequest | Rejection:
        """The request in ``line``, or what is wrong with it; never an exception."""
        if len(line) > LONG and line.count(b",") > self._max_values:
            most = f"expected at most {self._max_values} values in a line, recipients included"
            return Rejection.of(id_at_the_start(bytes(line[:LONG])), RequestTooLarge(most))
        apart = message_apart(line)
        if apart is not None:
            bare, message, strings = apart
            request = self._common(bare, message, strings)
            if request is not None:
                return request
        try:
            given = self._decode(line)
            given.message = message_in(given.message)  # type: ignore[assignment]  # raw until here
        except _REFUSALS:
            return self._decode_again(line)
        return self._uncommon(given, line)

    def _common(self, bare: bytes, message: bytes | memoryview, strings: int) -> Request | None:
        """
        The request in a line that has what most have; None where it has more, or a fault.

        Its strings are counted, and those that were put to use: where there are
        no more, there was no field but those looked at here, none given twice,
        and the message is the line's own.

        :param bare: the line without what stands in its message.
        :param strings: how many there are.
        """
        try:
            given = self._decode_common(bare)
            recipients = given.recipients
            server, used = self._common_server(given)
            # The keys recipients and message, the message, the addresses.
            used += 3 + len(recipients)
            if (request_id := given.id) is not UNSET:
                used += 2 if type(request_id) is str else 1
            if (sender := given.sender) is UNSET:
                sender = None
            else:
                used += 1 if sender is None else 2
            if (reuse := given.reuse) is UNSET:
                reuse = True
            else:
                used += 1
            if strings != used or (octets := octets_of(message)) is None:
                return None
            envelope = Envelope(sender, recipients)
            return Request(request_id, server, envelope, Content(octets), reuse)
        except (*_REFUSALS, InvalidRequest):
            return None

    def _common_server(self, given: CommonFields) -> tuple[Server, int]:
        """The server, and how many strings of the line went into it."""
        key = _all_of(given)[:_TERMS]
        if self._last is not None and key == self._last_key:
            return self._last
        known = self._common_servers.get(key)
        if known is None:
            terms = dict(zip(CommonFields.__struct_fields__, key, strict=False))
            known = self._server_on(tuple([terms.get(name, UNSET) for name in _SESSION]))
            if not _keep(self._common_servers, key, known):
                return known
        self._last_key, self._last = key, known
        return known

    def _server(self, given: RequestFields) -> tuple[Server, int]:
        """The same of any line."""
        return self._server_on(_session_of(_all_of(given)))

    def _server_on(self, terms: tuple[Any, ...]) -> tuple[Server, int]:
        known = self._servers.get(terms)
        if known is None:
            pairs = zip(_SESSION, terms, strict=True)
            session = {name: value for name, value in pairs if value is not UNSET}
            known = _server_of(session), _strings_used(session)
            _keep(self._servers, terms, known)
        return known

    def _uncommon(self, given: RequestFields, line: bytes | bytearray) -> Request | Rejection:
        """A line that has more than the fields which each request has."""
        fields = given_in(given)
        if strings_in(line) != _strings_used(fields):
            # A field given twice.
            fault = _find_fault(line)
            if fault is not None:
                return fault
        try:
            check_uncommon(fields)
            recipients = given.recpients if given.recipients is UNSET else given.recipients
            if recipients is UNSET:
                raise InvalidRequest(f"is required; {EXPECTED['recipients']}", "recipients")
            entries = [_recipient(entry, position) for position, entry in enumerate(recipients)]
            envelope = Envelope(
                _or_none(given.sender),
                entries,
                dsn=_dsn(given.dsn),
                requiretls=given.requiretls is True,
                parameters=_or_none(given.mail_parameters),
            )
            if given.requiretls is True and given.tls is UNSET:
                given.tls = "IMPLICIT" if given.port == SUBMISSIONS_PORT else "DEPEND"
            server, _ = self._server(given)
        except InvalidRequest as error:
            return Rejection.of(given.id, error)
        eightbitmime = Mode.TRY if given.eightbitmime is UNSET else Mode(given.eightbitmime)
        content = Content(given.message, binary=given.binary is True, eightbitmime=eightbitmime)
        reuse = True if given.reuse is UNSET else given.reuse
        return Request(
            given.id,
            server,
            envelope,
            content,
            reuse,
            _or_none(given.deadline),
            given.trace is True,
            given.transcript is True,
            _or_none(given.key),
        )

    def _decode_again(self, line: bytes | bytearray) -> AnyRequest | Rejection:
        """A line that does not fit: white space in its base64, no mail in it, or a fault."""
        try:
            given = self._decode(line)
            given.message = loose_message_in(given.message)  # type: ignore[assignment]  # raw until here
        except (*_REFUSALS, InvalidRequest) as error:
            found = _find_fault(line) or self._probe(line) or self._cancel(line)
            return found or self._refuse(_without_message(line), error)
        return self._uncommon(given, line)

    def _refuse(self, line: bytes | bytearray, error: Exception) -> Rejection:
        """A line in which there is no fault but its message, or a form that only msgspec refuses."""
        if not isinstance(error, InvalidRequest):
            error = InvalidRequest(f"not such JSON: {error}")
        try:
            return Rejection.of(self._decode(line).id, error)
        except _REFUSALS:
            return Rejection.of(UNSET, error)

    def _probe(self, line: bytes | bytearray) -> ProbeRequest | Rejection | None:
        """The probe that a line without fault asks for, if it does."""
        try:
            given = self._decode_probe(line)
        except _REFUSALS:
            return None
        if given.probe is not True:
            return None
        try:
            server, _ = self._server(given)
        except InvalidRequest as error:
            return Rejection.of(given.id, error)
        return ProbeRequest(
            given.id, server, _or_none(given.deadline), given.trace is True, given.transcript is True
        )

    def _cancel(self, line: bytes | bytearray) -> CancelRequest | None:
        """The cancel that a line without fault asks for, if it does."""
        try:
            given = self._decode_cancel(line)
        except _REFUSALS:
            return None
        return CancelRequest(given.id, given.cancel)


def _without_message(line: bytes | bytearray) -> bytes | bytearray:
    """The line without its message, where that makes it much shorter."""
    if len(line) <= LONG:
        return line
    name = line.find(b'"message"')
    begun = line.find(b'"', name + len(b'"message"')) + 1
    ended = line.find(b'"', begun)
    return line[:begun] + line[ended:] if name >= 0 and 0 < begun < ended else line


def _find_fault(line: bytes | bytearray) -> Rejection | None:
    """What is wrong with a line but its message, at a cost that is bounded."""
    line = _without_message(line)
    if len(line) > MAX_AGAIN and not line.isascii():
        # One character beyond the first 65,536 makes four octets of each.
        error = InvalidRequest(
            f"expected at most {MAX_AGAIN} octets beside the message, or all of them ASCII"
        )
        return Rejection.of(id_at_the_start(bytes(line[:LONG])), error)
    return find_fault(line)


def _strings_used(value: object) -> int:
    """How many strings it takes to write ``value`` as JSON."""
    if isinstance(value, (str, bytes)):
        return 1
    if isinstance(value, Struct):
        value = given_in(value)
    if isinstance(value, dict):
        return len(value) + sum(map(_strings_used, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_strings_used, value))
    return 0


def _keep(servers: dict[tuple[Any, ...], tuple[Server, int]], key: Any, known: tuple[Server, int]) -> bool:
    """Remember a server, and forget the one that was remembered longest; whether it may be."""
    if _characters_in(key) > MAX_KEY:
        return False
    if len(servers) >= MAX_SERVERS:
        del servers[next(iter(servers))]
    servers[key] = known
    return True


def _characters_in(value: object) -> int:
    """How many characters the strings in ``value`` have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, AuthFields):
        value = given_in(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple):
        return 0
    return sum(map(_characters_in, value))


def _server_of(session: dict[str, Any]) -> Server:
    check_spelling(session)
    terms = {LEGACY.get(name, name): value for name, value in session.items()}
    if "response_timeout" in terms:
        terms["timeouts"] = Timeouts.uniform(terms.pop("response_timeout"))
    for name, enum in _ENUMS.items():
        if name in terms:
            terms[name] = enum(terms[name])
    if "auth" in terms:
        terms["auth"] = _credentials(terms["auth"])
    return Server(**terms)


def _credentials(given: AuthFields) -> Credentials:
    if given.username is UNSET:
        raise InvalidRequest("is required", "auth.username")
    return Credentials(
        given.username,
        _or_none(given.password),
        token=_or_none(given.token),
        mechanisms=_or_none(given.mechanisms),
    )


def _recipient(entry: str | RecipientFields, position: int) -> str | Recipient:
    if isinstance(entry, str):
        return entry
    try:
        return Recipient(
            entry.address,
            notify=None if entry.notify is UNSET else [Notify(word) for word in entry.notify],
            orcpt=_or_none(entry.orcpt),
            parameters=_or_none(entry.parameters),
        )
    except InvalidRequest as error:
        raise error.inside(f"recipients[{position}]") from None


def _dsn(given: DSNFields | UnsetType) -> DSN | None:
    if given is UNSET:
        return None
    try:
        ret = None if given.ret is UNSET else Return(given.ret)
        return DSN(ret=ret, envid=_or_none(given.envid))
    except InvalidRequest as error:
        raise error.inside("dsn") from None


def _or_none(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value
