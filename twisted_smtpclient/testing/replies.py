"""What the sink says by itself, and what its settings make of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from . import grammar
from .accounts import Accounts
from .records import Mail

#: Keyword, in upper case, and its parameters.
Offers = Mapping[str, tuple[str, ...]]

#: A reply by address: a mapping, or a callable that returns None for "accept".
ByAddress = Mapping[str, str] | Callable[[str], str | None]

OK: Final = "250 2.0.0 Ok"
MAIL_OK: Final = "250 2.1.0 Ok"
RCPT_OK: Final = "250 2.1.5 Ok"
VRFY: Final = "252 2.0.0 Cannot VRFY, send some mail"
GO_AHEAD: Final = "354 End data with <CR><LF>.<CR><LF>"
CHUNK_OK: Final = "250 2.0.0 Ok, chunk received"
BYE: Final = "221 2.0.0 Bye"
READY_FOR_TLS: Final = "220 2.0.0 Ready to start TLS"

LINE_TOO_LONG: Final = "500 5.5.2 Line too long"
UNKNOWN: Final = "502 5.5.1 Command not implemented"
NO_ARGUMENT: Final = "501 5.5.4 This command takes no argument"
HELO_SYNTAX: Final = "501 5.5.4 A name is needed"
MAIL_SYNTAX: Final = "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"
RCPT_SYNTAX: Final = "501 5.5.4 Syntax: RCPT TO:<address> [parameters]"
BDAT_SYNTAX: Final = "501 5.5.4 Syntax: BDAT size [LAST]"
PARAMETERS: Final = "555 5.5.4 Parameters not recognized or not implemented"
BAD_VALUE: Final = "501 5.5.4 Bad value of a parameter"
TOO_BIG: Final = "552 5.3.4 Message size exceeds the limit"
HELO_FIRST: Final = "503 5.5.1 Say hello first"
NESTED_MAIL: Final = "503 5.5.1 Nested MAIL command"
NEED_MAIL: Final = "503 5.5.1 MAIL first"
NEED_RCPT: Final = "503 5.5.1 RCPT first"
NO_RECIPIENTS: Final = "554 5.5.1 No valid recipients"
TOO_MANY_RECIPIENTS: Final = "452 4.5.3 Too many recipients"
CHUNK_FAILED: Final = "503 5.5.1 A chunk before this one failed"
NOT_BY_DATA: Final = "503 5.6.1 BINARYMIME goes by BDAT only"
RCPT_TOO_LATE: Final = "503 5.5.1 Content has begun"
NO_DATA_NOW: Final = "503 5.5.1 DATA after BDAT"
NO_SERVICE: Final = "503 5.5.1 No SMTP service here"
TLS_ALREADY: Final = "503 5.5.1 TLS already active"

# Of AUTH (RFC 4954 4 and 6).
LOGGED_IN: Final = "235 2.7.0 Authentication successful"
NOT_LOGGED_IN: Final = "535 5.7.8 Authentication credentials invalid"
LOGIN_FIRST: Final = "530 5.7.0 Authentication required"
LOGGED_IN_ALREADY: Final = "503 5.5.1 Already authenticated"
NO_AUTH_NOW: Final = "503 5.5.1 AUTH is not permitted during a mail transaction"
AUTH_SYNTAX: Final = "501 5.5.4 Syntax: AUTH mechanism [initial-response]"
NO_MECHANISM: Final = "504 5.5.4 Unrecognized authentication mechanism"
NEEDS_TLS: Final = "538 5.7.11 Encryption required for requested authentication mechanism"
NO_INITIAL_RESPONSE: Final = "501 5.5.4 The server begins in this mechanism"
NOT_BASE64: Final = "501 5.5.2 Cannot decode the response"
RESPONSE_TOO_LONG: Final = "500 5.5.6 Authentication exchange line is too long"
CANCELLED: Final = "501 5.7.0 Authentication cancelled"

_ENHANCED: Final = re.compile(r"^([2-5][0-9]{2}[ -])[245]\.[0-9]{1,3}\.[0-9]{1,3} ", re.MULTILINE)


def octets_of(text: str) -> bytes:
    """A reply as octets; LF stands between the lines of a multi-line one, each with its code."""
    return text.encode("utf-8", "surrogateescape").replace(b"\n", b"\r\n") + b"\r\n"


def text_of(octets: bytes) -> str:
    """A reply as text, as :func:`octets_of` takes it."""
    return grammar.text(octets).rstrip("\r\n").replace("\r\n", "\n")


class Phrases(dict[str, bytes]):
    """The sink's own replies as octets, each made when it is first said."""

    def __init__(self, enhanced: bool) -> None:
        self._enhanced = enhanced

    def __missing__(self, text: str) -> bytes:
        octets = self[text] = octets_of(text if self._enhanced else _ENHANCED.sub(r"\1", text))
        return octets


@dataclass(frozen=True)
class Settings:
    """What the sink offers and refuses; the fields are told in :class:`~twisted_smtpclient.testing.Sink`."""

    name: str
    lmtp: bool
    esmtp: bool
    keywords: tuple[str, ...]
    starttls: Any
    accounts: Accounts
    requiretls: bool
    size: int | None
    enhanced_status_codes: bool
    refuse: ByAddress
    refuse_sender: ByAddress
    final_reply: str | Callable[[Mail], str | None] | None
    final_replies: Mapping[str, str]
    max_recipients: int | None
    max_line: int
    keep_content: bool
    keep_transcript: bool
    keep_records: bool
    phrases: Phrases = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrases", Phrases(self.enhanced_status_codes))

    @property
    def greeting(self) -> bytes:
        return octets_of(f"220 {self.name} {'LMTP' if self.lmtp else 'ESMTP' if self.esmtp else 'SMTP'}")

    def hello(self, tls: bool, mechanisms: Sequence[str]) -> bytes:
        """
        The reply to EHLO or LHLO.

        :param tls: whether the connection is under TLS.
        :param mechanisms: offered with AUTH.
        """
        offers = {
            "STARTTLS": self.starttls is not None and not tls,
            # RFC 8689 2: only under TLS.
            "REQUIRETLS": self.requiretls and tls,
            f"AUTH {' '.join(mechanisms)}": bool(mechanisms),
        }
        *lines, last = (self.name, *self.keywords, *(line for line, offered in offers.items() if offered))
        return octets_of("\n".join([*(f"250-{line}" for line in lines), f"250 {last}"]))

    def queued(self, number: int) -> str:
        enhanced = "2.0.0 " if self.enhanced_status_codes else ""
        return f"250 {enhanced}Ok: queued as {number:X}"


def keywords_of(
    *,
    pipelining: bool,
    chunking: bool,
    binarymime: bool,
    size: int | None,
    eightbitmime: bool,
    smtputf8: bool,
    dsn: bool,
    enhanced_status_codes: bool,
    extensions: Sequence[str],
) -> tuple[str, ...]:
    """The lines of the EHLO reply, but for those that depend on the connection."""
    offers = {
        "PIPELINING": pipelining,
        f"SIZE {size}": size is not None,
        "8BITMIME": eightbitmime,
        "SMTPUTF8": smtputf8,
        "DSN": dsn,
        "ENHANCEDSTATUSCODES": enhanced_status_codes,
        "CHUNKING": chunking,
        "BINARYMIME": binarymime,
    }
    return (*(line for line, offered in offers.items() if offered), *extensions)


def offered_in(reply: bytes) -> Offers:
    """What a client learns from this EHLO reply, which may be a fault's."""
    offers: dict[str, tuple[str, ...]] = {}
    for line in grammar.text(reply).splitlines()[1:]:
        # "AUTH=PLAIN" is how it was written before RFC 2554.
        keyword, *parameters = line[4:].replace("AUTH=", "AUTH ").split() or [""]
        if keyword:
            offers[keyword.upper()] = (*offers.get(keyword.upper(), ()), *parameters)
    return offers


def reply_to(address: str, replies: ByAddress) -> str | None:
    return replies(address) if callable(replies) else replies.get(address)
