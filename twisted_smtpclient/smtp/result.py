"""
What became of a mail, recipient by recipient.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from .envelope import Recipient
from .given import mypyc_attr
from .many import MANY, many_values
from .reply import EnhancedStatusCode, Reply


class Status(enum.Enum):
    """A recipient's verdict; the values are the words of the JSON protocol."""

    OK = "Ok"
    TEMPORARY_ERROR = "TemporaryError"
    PERMANENT_ERROR = "PermanentError"
    UNKNOWN = "Unknown"


#: By the first digit of the reply that decided.
VERDICTS: Final = {2: Status.OK, 4: Status.TEMPORARY_ERROR, 5: Status.PERMANENT_ERROR}


class RecipientStatus(NamedTuple):
    """
    The verdict on one recipient, or what is known instead of one.

    :ivar recipient: the address as the request named it.
    :ivar status: the verdict.
    :ivar reply: the reply that decided it; None without a verdict.
    :ivar command: the command that the reply answered: ``MAIL``, ``RCPT``,
        ``DATA``, ``.`` (the end of DATA) or ``BDAT``; None without a verdict.
    :ivar in_doubt: True where there is no verdict and the mail may have been
        delivered to this recipient.
    """

    recipient: str
    status: Status
    reply: Reply | None = None
    command: str | None = None
    in_doubt: bool = False

    @property
    def code(self) -> int | None:
        """The reply code, or None without a verdict."""
        return self.reply.code if self.reply is not None else None

    @property
    def response(self) -> str | None:
        """The reply's lines joined by LF, or None without a verdict."""
        return self.reply.text if self.reply is not None else None

    @property
    def enhanced(self) -> EnhancedStatusCode | None:
        """The reply's enhanced status code (RFC 3463), if it has one."""
        return self.reply.enhanced if self.reply is not None else None


def one_verdict(
    recipients: Sequence[Recipient], status: Status, reply: Reply, command: str
) -> list[RecipientStatus]:
    """The same verdict for each of ``recipients``, of which there may be very many."""
    if len(recipients) < MANY:
        return _each(recipients, status, reply, command)
    with many_values():
        return _each(recipients, status, reply, command)


def _each(
    recipients: Sequence[Recipient], status: Status, reply: Reply, command: str
) -> list[RecipientStatus]:
    new = tuple.__new__
    return [new(RecipientStatus, (entry.address, status, reply, command, False)) for entry in recipients]


@mypyc_attr(acyclic=True)
class DeliveryResult:
    """
    The server's verdict on a mail, for every recipient.

    :ivar sender: the reverse-path as the request named it; None for ``<>``.
    :ivar recipients: one entry a recipient, in the request's order,
        duplicates kept.
    """

    __slots__ = ("recipients", "sender")

    def __init__(self, sender: str | None, recipients: Sequence[RecipientStatus]) -> None:
        self.sender = sender
        self.recipients = recipients

    def __reduce__(self) -> tuple[object, ...]:
        # For copies and pickles, of which a compiled class knows nothing.
        return DeliveryResult, (self.sender, self.recipients)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{count} {status.value}"
            for status in Status
            if (count := sum(entry.status is status for entry in self.recipients))
        )
        return f"<DeliveryResult from {self.sender!r}: {counts}>"

    @property
    def all_ok(self) -> bool:
        """Whether the server took the mail for every recipient."""
        return all(entry.status is Status.OK for entry in self.recipients)
