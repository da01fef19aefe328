"""
The envelope: what MAIL and RCPT carry (RFC 5321 section 2.3.1).

Valid once built, or not built.  An address is sent octet for octet as it was
given or refused; only a domain that is not ASCII is put in its A-label form
(RFC 5891), where the local part does not need SMTPUTF8 anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import idna

from ..errors import InvalidRequest
from .grammar import (
    ESMTP_KEYWORD,
    ESMTP_VALUE,
    MAILBOX,
    MAX_ADDRESS,
    MAX_DOMAIN,
    MAX_PLAIN,
    PLAIN_MAILBOX,
)

#: RFC 5321 4.1.1.3: the one forward-path that needs no domain.
_POSTMASTER: Final = re.compile(r"postmaster", re.ASCII | re.IGNORECASE)

#: All parameters of one command; the extensions of RFC 5321 4.5.3.1.4's kind
#: together allow some 1,500 octets.
MAX_PARAMETERS: Final = 2048


#: What fits is most addresses there are, and needs no further look.
_is_plain: Final = PLAIN_MAILBOX.fullmatch


def path(address: str, field: str) -> tuple[bytes, bool]:
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
            a_label = idna.encode(domain, uts46=True).decode("ascii")
            if a_label.endswith("."):
                # Of a full stop that is not ASCII's, such as U+3002.
                raise InvalidRequest("expected no full stop at the end", field)
            if not needs_smtputf8:
                domain = a_label
        octets = f"{local_part}@{domain}".encode()
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidRequest(f"not an address: {error}", field) from None
    if len(octets) > MAX_ADDRESS or len(domain.encode()) > MAX_DOMAIN:
        raise _too_long(field)
    return octets, needs_smtputf8


def _too_long(field: str) -> InvalidRequest:
    return InvalidRequest(f"expected at most {MAX_ADDRESS} octets, {MAX_DOMAIN} of them behind the @", field)


def parameters(given: Mapping[str, str | None], field: str = "parameters") -> bytes:
    """
    ESMTP parameters as they stand behind a path, each with a space before it.

    :raises InvalidRequest: where a keyword or value is not of RFC 5321's
        grammar (section 4.1.2).
    """
    words = []
    left = MAX_PARAMETERS
    for keyword, value in given.items():
        if not isinstance(keyword, str):
            raise InvalidRequest("expected a string for each keyword", field)
        if not isinstance(value, str | None):
            raise InvalidRequest("expected a string or None for each value", field)
        # Before anything else looks at them, or tells them in an error.
        left -= len(keyword) + 1 + (0 if value is None else len(value) + 1)
        if left < 0:
            raise InvalidRequest(f"expected at most {MAX_PARAMETERS} octets", field)
        if not ESMTP_KEYWORD.fullmatch(keyword):
            raise InvalidRequest(f"not an ESMTP keyword: {keyword!r}", field)
        if value is None:
            words.append(f" {keyword}")
        elif ESMTP_VALUE.fullmatch(value):
            words.append(f" {keyword}={value}")
        else:
            raise InvalidRequest(f"not an ESMTP value: {value!r}", f"{field}.{keyword}")
    return "".join(words).encode("ascii")


class Recipient:
    """
    One RCPT: a forward-path and its parameters.

    :ivar address: as it was given.
    :ivar command: the whole RCPT command, CRLF included.
    :ivar needs_smtputf8: whether the address has no ASCII form (RFC 6531).
    """

    __slots__ = ("address", "command", "needs_smtputf8")

    def __init__(self, address: str, *, parameters: Mapping[str, str | None] | None = None) -> None:
        if parameters is None and type(address) is str and len(address) <= MAX_PLAIN and _is_plain(address):
            # The same as below, at half the cost.
            self.address = address
            self.command = f"RCPT TO:<{address}>\r\n".encode("ascii")
            self.needs_smtputf8 = False
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
        if parameters:
            self.command = b"RCPT TO:<%b>%b\r\n" % (octets, _parameters(parameters))
        else:
            self.command = b"RCPT TO:<%b>\r\n" % octets

    def __repr__(self) -> str:
        return f"<Recipient {self.address!r}>"


_parameters = parameters


class Envelope:
    """
    A sender and at least one recipient, in order, duplicates kept.

    :param sender: the reverse-path; None is the null reverse-path ``<>``.
    :param recipients: addresses, or :class:`Recipient` values.
    :param parameters: further parameters of MAIL.
    :raises InvalidRequest: naming ``sender``, ``recipients`` or
        ``recipients[n]``, with the first value that is wrong.
    :ivar reverse_path: the octets between ``<`` and ``>``.
    :ivar parameters: the octets of the parameters, each with a space before it.
    :ivar needs_smtputf8: whether any address has no ASCII form.
    """

    __slots__ = ("needs_smtputf8", "parameters", "recipients", "reverse_path", "sender")

    def __init__(
        self,
        sender: str | None,
        recipients: Iterable[str | Recipient],
        *,
        parameters: Mapping[str, str | None] | None = None,
    ) -> None:
        if isinstance(recipients, (str, bytes)):
            # A string is an iterable of strings: the commonest slip there is.
            raise InvalidRequest("expected a list of addresses, not one string", "recipients")
        if sender is None:
            self.reverse_path, needs_smtputf8 = b"", False
        else:
            self.reverse_path, needs_smtputf8 = path(sender, "sender")
        entries: list[Recipient] = []
        for recipient in recipients:
            if not isinstance(recipient, Recipient):
                try:
                    recipient = Recipient(recipient)
                except InvalidRequest as error:
                    raise InvalidRequest(error.expected, f"recipients[{len(entries)}]") from None
            if recipient.needs_smtputf8:
                needs_smtputf8 = True
            entries.append(recipient)
        if not entries:
            raise InvalidRequest("expected at least one", "recipients")
        self.sender = sender
        self.recipients = tuple(entries)
        self.parameters = _parameters(parameters, "mail_parameters") if parameters else b""
        self.needs_smtputf8 = needs_smtputf8

    def part(self, recipients: Sequence[Recipient]) -> Envelope:
        """The same envelope with only some of its recipients."""
        part = object.__new__(Envelope)
        part.sender = self.sender
        part.reverse_path = self.reverse_path
        part.parameters = self.parameters
        part.recipients = tuple(recipients)
        part.needs_smtputf8 = self.needs_smtputf8
        return part

    def __repr__(self) -> str:
        return f"<Envelope from {self.sender!r} to {len(self.recipients)}>"
