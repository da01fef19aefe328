"""
One transaction as the sink sees it, and the judgment of the commands that make it.

A judgment is the text of the reply, beside what the command said where it
could be read.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

from . import grammar, replies
from .content import Content
from .records import Addressee, Login, Mail, Parameters, Session
from .replies import Offers, Settings, reply_to

Complain = Callable[[str], None]


@dataclass(slots=True, eq=False)
class Transaction:
    """
    From MAIL to the end of its content.

    :ivar failure: the reply that a chunk was refused with; the chunks behind
        it are refused too (RFC 3030 2).
    """

    sender: str
    parameters: Parameters
    content: Content
    login: Login | None
    recipients: list[Addressee] = field(default_factory=list)
    refused: list[Addressee] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    failure: bytes | None = None
    content_begun: bool = False

    @property
    def body(self) -> str:
        return (self.parameters.get("BODY") or "7BIT").upper()

    def judge_data(self, lmtp: bool, complain: Complain) -> str:
        if self.chunks:
            return replies.NO_DATA_NOW
        if self.body == "BINARYMIME":
            complain("DATA after BODY=BINARYMIME, which goes by BDAT only")
            return replies.NOT_BY_DATA
        return replies.GO_AHEAD if self.recipients else self._nobody(lmtp)

    def begin_chunk(self, size: int, lmtp: bool, phrase: Callable[[str], bytes]) -> None:
        if self.failure is None and not self.recipients:
            self.failure = phrase(self._nobody(lmtp))
        self.chunks.append(size)

    def _nobody(self, lmtp: bool) -> str:
        # RFC 2033 4.2 wants 503 in LMTP; RFC 5321 3.3 lets SMTP say 554.
        return replies.NO_RECIPIENTS if self.refused and not lmtp else replies.NEED_RCPT

    def check_content(self, offered: Offers, complain: Complain) -> None:
        """Complain of what the content may not be (RFC 5321 2.3.8, RFC 6152 3)."""
        if self.content.bare_line_ends and self.body != "BINARYMIME":
            complain("a bare CR or bare LF in the content")
        if self.content.eight_bit and self.body == "7BIT" and "8BITMIME" in offered:
            complain("octets over 127 in the content without BODY=8BITMIME, which is offered")

    def mail(self, session: Session, number: int) -> Mail:
        return Mail(
            self.sender,
            self.parameters,
            self.recipients,
            self.refused,
            self.content.octets(),
            self.content.size,
            "BDAT" if self.chunks else "DATA",
            self.chunks,
            self.content.bare_line_ends,
            session,
            [],
            number,
            self.login,
        )


def judge_mail(
    argument: bytes, settings: Settings, session: Session, offered: Offers, complain: Complain
) -> tuple[str, Transaction | None]:
    """The reply to MAIL, and the transaction that it begins."""
    path = _path("MAIL", grammar.MAIL.match(argument), argument, complain)
    if path is None:
        return replies.MAIL_SYNTAX, None
    sender, found = path
    limit = settings.size or None  # SIZE 0 tells of no limit (RFC 1870 4)
    transaction = Transaction(sender, found, Content(limit, settings.keep_content), session.login)
    text = _judge_parameters("MAIL", found, grammar.OF_RCPT, offered, complain)
    if text is None and found:
        text = _judge_together(found, session, offered, complain)
    if text is None and limit is not None and int(found.get("SIZE") or 0) > limit:
        text = replies.TOO_BIG
    return text or reply_to(sender, settings.refuse_sender) or replies.MAIL_OK, transaction


def judge_rcpt(
    argument: bytes, transaction: Transaction, settings: Settings, offered: Offers, complain: Complain
) -> tuple[str, Addressee | None]:
    """The reply to RCPT, and the recipient that it names."""
    path = _path("RCPT", grammar.RCPT.match(argument), argument, complain)
    if path is None or not path[0]:
        return replies.RCPT_SYNTAX, None
    addressee = Addressee(*path)
    if "LIMITS" in offered:
        _check_recipients(addressee, transaction, offered["LIMITS"], complain)
    text = _judge_parameters("RCPT", addressee.parameters, grammar.OF_MAIL, offered, complain)
    if text is None:
        text = reply_to(addressee.address, settings.refuse)
    if text is None:
        full = settings.max_recipients is not None and len(transaction.recipients) >= settings.max_recipients
        text = replies.TOO_MANY_RECIPIENTS if full else replies.RCPT_OK
    return text, addressee


def _path(
    command: str, match: grammar.Match | None, argument: bytes, complain: Complain
) -> tuple[str, Parameters] | None:
    found = grammar.parameters(match[3]) if match is not None else None
    if match is None or found is None:
        complain(f"the syntax of {command}: {argument[:80]!r}")
        return None
    if match[1]:
        complain(f"a space before the path of {command}")
    return grammar.text(match[2]), found


def _judge_parameters(
    command: str, found: Parameters, of_other: Set[str], offered: Offers, complain: Complain
) -> str | None:
    for keyword in found:
        extension = grammar.EXTENSION_OF.get(keyword, keyword)
        if keyword == "BODY" and (found[keyword] or "").upper() == "BINARYMIME":
            extension = "BINARYMIME"
        if extension not in offered:
            complain(f"{keyword} with {command}, though {extension} is not offered")
            return replies.PARAMETERS
        if keyword in of_other:
            complain(f"{keyword} with {command}, where it has no place")
            return replies.PARAMETERS
    bad = grammar.bad_value(found) if found else None
    if bad is None:
        return None
    complain(f"a bad value of {bad}: {found[bad]!r}")
    return replies.BAD_VALUE


def _judge_together(found: Parameters, session: Session, offered: Offers, complain: Complain) -> str | None:
    """Of parameters that are right in themselves, what does not go with the rest."""
    if "REQUIRETLS" in found and not session.tls:
        complain("REQUIRETLS without TLS")
        return replies.PARAMETERS
    if "HOLDFOR" in found and "HOLDUNTIL" in found:
        complain("both HOLDFOR and HOLDUNTIL")
        return replies.BAD_VALUE
    if (found.get("BODY") or "").upper() == "BINARYMIME" and "CHUNKING" not in offered:
        complain("BODY=BINARYMIME, though CHUNKING is not offered")
        return replies.PARAMETERS
    return None


def limit_of(name: str, limits: tuple[str, ...]) -> int | None:
    """One of the limits that LIMITS told of (RFC 9422 3.1)."""
    for limit in limits:
        known, _, value = limit.partition("=")
        if known.upper() == name and value.isdecimal():
            return int(value)
    return None


def _check_recipients(
    addressee: Addressee, transaction: Transaction, limits: tuple[str, ...], complain: Complain
) -> None:
    so_far = [*transaction.recipients, *transaction.refused, addressee]
    domains = {each.address.rpartition("@")[2].lower() for each in so_far}
    for name, count in (("RCPTMAX", len(so_far)), ("RCPTDOMAINMAX", len(domains))):
        limit = limit_of(name, limits)
        if limit is not None and count > limit:
            complain(f"more than LIMITS {name}={limit} in one transaction")
