"""
The envelope: what MAIL and RCPT carry (RFC 5321 section 2.3.1).

Valid once built, or not built.  An address is sent octet for octet as it was
given or refused; only a domain that is not ASCII is put in its A-label form
(RFC 5891), where the local part does not need SMTPUTF8 anyway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import idna

from ..errors import InvalidRequest
from .dsn import DSN, notify_parameter, orcpt_parameter
from .forward_path import plain_rcpt
from .given import (
    Addresses,
    Flag,
    OptionalDSN,
    OptionalNotify,
    OptionalParameters,
    OptionalText,
    Text,
    mypyc_attr,
)
from .grammar import MAILBOX, MAX_ADDRESS, MAX_DOMAIN, MAX_PLAIN, PLAIN_MAILBOX
from .many import MANY, many_values
from .parameters import extensions_of
from .parameters import parameters as _parameters

#: RFC 5321 4.1.1.3: the one forward-path that needs no domain.
_POSTMASTER: Final = re.compile(r"postmaster", re.ASCII | re.IGNORECASE)

#: Full stops that UTS 46 takes for one; in an A-label form they are.
_other_full_stop: Final = re.compile("[\u3002\uff0e\uff61]").search

#: What fits is most addresses there are, and needs no further look.
_is_plain: Final = PLAIN_MAILBOX.fullmatch

#: Reverse-paths without SMTPUTF8 that were seen, for many mails have the same: each takes
#: some 700 octets at most, so 175 KiB.
_senders: Final[dict[str, bytes]] = {}
_MAX_SENDERS: Final = 256


def path(address: Text, field: str) -> tuple[bytes, bool]:
    """
    The octets of an address as they go between ``<`` and ``>``.

    :returns: the octets, and whether they need SMTPUTF8.
    :raises InvalidRequest: naming ``field``, where it is no address.
    """
    if not isinstance(address, str):
        raise InvalidRequest("expected a string", field)
    if len(address) <= MAX_PLAIN and _is_plain(address):
        return address.encode("ascii"), False
    if len(address) > MAX_ADDRESS:
        raise _too_long(field)
    match = MAILBOX.fullmatch(address)
    if match is None:
        raise InvalidRequest("expected an address, local-part@domain", field)
    local_part, domain = match.groups()
    if address.isascii():
        if len(domain) > MAX_DOMAIN:
            raise _too_long(field)
        return address.encode("ascii"), False
    needs_smtputf8 = not local_part.isascii()
    try:
        if not domain.isascii():
            domain = _sent_domain(domain, needs_smtputf8, field)
        octets = f"{local_part}@{domain}".encode()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidRequest(f"not an address: {error}", field) from None
    if len(octets) > MAX_ADDRESS or len(domain.encode()) > MAX_DOMAIN:
        raise _too_long(field)
    return octets, needs_smtputf8


def _sent_domain(domain: str, needs_smtputf8: bool, field: str) -> str:
    """A domain that is not ASCII as it goes: in its A-label form, where that suffices."""
    a_label = idna.encode(domain, uts46=True).decode("ascii")
    if a_label.endswith("."):
        # Of a full stop that is not ASCII's, such as U+3002.
        raise InvalidRequest("expected no full stop at the end", field)
    if not needs_smtputf8:
        return a_label
    if _other_full_stop(domain):
        # RFC 6531 section 3.3 has labels with "." between them, and it goes as it is.
        raise InvalidRequest("expected '.' between labels", field)
    return domain


def _too_long(field: str) -> InvalidRequest:
    return InvalidRequest(f"expected at most {MAX_ADDRESS} octets, {MAX_DOMAIN} of them behind the @", field)


def _reverse_path(sender: Text) -> tuple[bytes, bool]:
    """As :func:`path` of a sender, which is worth a look at those before."""
    octets, needs_smtputf8 = path(sender, "sender")
    if type(sender) is str and len(sender) <= MAX_PLAIN and not needs_smtputf8:
        if len(_senders) >= _MAX_SENDERS:
            _senders.clear()
        _senders[sender] = octets
    return octets, needs_smtputf8


@mypyc_attr(acyclic=True)
class Recipient:
    """
    One RCPT: a forward-path and its parameters.

    :param notify: when the sender is to be told of this recipient (RFC 3461
        section 4.1): :attr:`Notify.NEVER` alone, or one or more of the others.
        None leaves it to the server.
    :param orcpt: the address that the mail was first meant for (RFC 3461
        section 4.2), as it is meant: an address, which is given the type
        ``rfc822`` (``utf-8`` where it is not ASCII, RFC 6533), or a type, a
        semicolon and an address.  At most 500 characters once it is encoded.
    :param parameters: further parameters of RCPT, as they stand.
    :raises InvalidRequest: naming ``address``, ``notify``, ``orcpt`` or
        ``parameters``.
    :ivar address: as it was given.
    :ivar command: the whole RCPT command, CRLF included.
    :ivar needs_smtputf8: whether the address has no ASCII form (RFC 6531).
    :ivar asks: the extensions that it takes, each with the field that asks for
        it; None where it takes none.
    """

    __slots__ = ("address", "asks", "command", "needs_smtputf8")

    asks: Mapping[str, str] | None

    def __init__(
        self,
        address: Text,
        *,
        notify: OptionalNotify = None,
        orcpt: OptionalText = None,
        parameters: OptionalParameters = None,
    ) -> None:
        asked_for = parameters or notify is not None or orcpt is not None
        if not asked_for and type(address) is str and (command := plain_rcpt(address)) is not None:
            # The same as below, at a fraction of the cost.
            self.address = address
            self.command = command
            self.needs_smtputf8 = False
            self.asks = None
            return
        try:
            octets, self.needs_smtputf8 = path(address, "address")
        except InvalidRequest:
            if not isinstance(address, str):
                raise
            if not _POSTMASTER.fullmatch(address):
                raise
            octets, self.needs_smtputf8 = address.encode("ascii"), False
        self.address = address
        asks = {"SMTPUTF8": "address"} if self.needs_smtputf8 else {}
        words = b""
        if notify is not None:
            words += notify_parameter(notify)
            asks["DSN"] = "notify"
        if orcpt is not None:
            words += orcpt_parameter(orcpt)
            asks.setdefault("DSN", "orcpt")
        if parameters:
            words += _parameters(parameters)
            asks |= extensions_of(parameters)
        self.command = b"RCPT TO:<%b>%b\r\n" % (octets, words)
        self.asks = asks or None

    def __repr__(self) -> str:
        return f"<Recipient {self.address!r}>"


@mypyc_attr(acyclic=True)
class Envelope:
    """
    A sender and at least one recipient, in order, duplicates kept.

    What a server does not offer and an envelope asks for fails the mail with
    :class:`~twisted_smtpclient.errors.ExtensionUnsupported`, before MAIL.

    :param sender: the reverse-path; None is the null reverse-path ``<>``.
    :param recipients: addresses, or :class:`Recipient` values.
    :param dsn: what delivery status notifications are to be like (RFC 3461).
    :param requiretls: whether the mail may go by verified TLS only, here and
        on its further way (RFC 8689).  It takes a server whose terms verify:
        :attr:`TLSMode.DEPEND` or ``IMPLICIT``.
    :param parameters: further parameters of MAIL, as they stand, such as
        ``{"MT-PRIORITY": "3", "BY": "120;R"}``.
    :raises InvalidRequest: naming ``sender``, ``recipients``,
        ``recipients[n]``, ``dsn``, ``requiretls`` or ``mail_parameters``, with
        the first value that is wrong.
    :ivar reverse_path: the octets between ``<`` and ``>``.
    :ivar parameters: the octets of the parameters, each with a space before it.
    :ivar needs_smtputf8: whether any address has no ASCII form.
    :ivar asks: the extensions that it takes, each with the field that asks for
        it; None where it takes none, as most do.
    """

    __slots__ = ("asks", "needs_smtputf8", "parameters", "recipients", "reverse_path", "sender")

    asks: Mapping[str, str] | None

    def __init__(
        self,
        sender: OptionalText,
        recipients: Addresses,
        *,
        dsn: OptionalDSN = None,
        requiretls: Flag = False,
        parameters: OptionalParameters = None,
    ) -> None:
        if isinstance(recipients, (str, bytes)):
            # A string is an iterable of strings: the commonest slip there is.
            raise InvalidRequest("expected a list of addresses, not one string", "recipients")
        if sender is None:
            self.reverse_path, needs_smtputf8 = b"", False
        elif type(sender) is str and (seen := _senders.get(sender)) is not None:
            self.reverse_path, needs_smtputf8 = seen, False
        else:
            self.reverse_path, needs_smtputf8 = _reverse_path(sender)
        asks = {"SMTPUTF8": "sender"} if needs_smtputf8 else None
        if isinstance(recipients, (list, tuple)) and len(recipients) >= MANY:
            with many_values():
                entries, asks = _entries(recipients, asks)
        else:
            entries, asks = _entries(recipients, asks)
        if not entries:
            raise InvalidRequest("expected at least one", "recipients")
        self.sender = sender
        self.recipients = tuple(entries)
        self.parameters = b""
        if parameters or dsn is not None or requiretls is not False:
            asks = asks or {}
            self.parameters = _ask(asks, dsn, requiretls, parameters)
        self.needs_smtputf8 = asks is not None and "SMTPUTF8" in asks
        self.asks = asks or None

    def part(self, recipients: Sequence[Recipient]) -> Envelope:
        """
        The same envelope with only some of its recipients.

        It asks for what the whole one does: a mail goes to all of them in a
        way that the server can, or to none.
        """
        part = Envelope(self.sender, recipients)
        part.parameters = self.parameters
        part.needs_smtputf8 = self.needs_smtputf8
        part.asks = self.asks
        return part

    def __repr__(self) -> str:
        return f"<Envelope from {self.sender!r} to {len(self.recipients)}>"


def _entries(
    recipients: Addresses, asks: dict[str, str] | None
) -> tuple[list[Recipient], dict[str, str] | None]:
    """The recipients, and what they ask for added to what was asked before."""
    entries: list[Recipient] = []
    for recipient in recipients:
        if not isinstance(recipient, Recipient):
            try:
                recipient = Recipient(recipient)
            except InvalidRequest as error:
                raise InvalidRequest(error.expected, f"recipients[{len(entries)}]") from None
        if recipient.asks is not None:
            asks = asks or {}
            for extension, field in recipient.asks.items():
                asks.setdefault(extension, f"recipients[{len(entries)}].{field}")
        entries.append(recipient)
    return entries, asks


def _ask(
    asks: dict[str, str],
    dsn: OptionalDSN,
    requiretls: Flag,
    parameters: OptionalParameters,
) -> bytes:
    """The parameters of MAIL that somebody asks for; their extensions go to ``asks``."""
    words = b""
    if dsn is not None:
        if not isinstance(dsn, DSN):
            raise InvalidRequest("expected a DSN", "dsn")
        words += dsn.parameters
        if words:
            asks["DSN"] = "dsn"
    if not isinstance(requiretls, bool):
        raise InvalidRequest("expected True or False", "requiretls")
    if requiretls:
        words += b" REQUIRETLS"
        asks["REQUIRETLS"] = "requiretls"
    if parameters:
        words += _parameters(parameters, "mail_parameters")
        for extension, field in extensions_of(parameters, "mail_parameters").items():
            asks.setdefault(extension, field)
    return words
