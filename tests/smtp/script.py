"""
A scripted server: reply codes go into a pipeline, flights come out.
"""

from __future__ import annotations

from twisted_smtpclient.errors import DeliveryError
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.pipeline import Pipeline
from twisted_smtpclient.smtp.reply import Reply
from twisted_smtpclient.smtp.result import DeliveryResult, RecipientStatus
from twisted_smtpclient.smtp.transaction import Transaction

#: The content of a mail, where it does not matter which.
TEXT = b"hello\r\n"

#: One octet more than what goes with its envelope.
LARGE = b"x" * 262143 + b"\r\n"


def reply(code: int, text: str = "text") -> Reply:
    """A reply of one line."""
    return Reply(code, (f"{code} {text}".encode(),))


class Script:
    """
    A pipeline, and what its server says.

    :param offers: the keywords of EHLO's reply; ``SIZE=6`` has a parameter.
    :param grouped: None for where PIPELINING is offered.
    """

    def __init__(
        self,
        offers: str = "PIPELINING CHUNKING",
        *,
        grouped: bool | None = None,
        lmtp: bool = False,
        depth: int = 10,
    ) -> None:
        extensions = Extensions.parse(
            Reply(250, (b"250-mx", *(f"250-{word.replace('=', ' ')}".encode() for word in offers.split())))
        )
        self.lmtp = lmtp
        self.pipeline = Pipeline(
            extensions,
            grouped=extensions.pipelining if grouped is None else grouped,
            chunked=extensions.chunking,
            depth=depth,
        )
        self.mails: list[Transaction] = []

    def mail(self, *recipients: str, content: bytes = TEXT) -> Transaction:
        """Submit a mail; the nth is from ``sn@x``, to ``rn@x`` unless told."""
        number = len(self.mails) + 1
        envelope = Envelope(f"s{number}@x", recipients or (f"r{number}@x",))
        transaction = Transaction(envelope, Content(content), lmtp=self.lmtp)
        self.pipeline.submit(transaction)
        self.mails.append(transaction)
        return transaction

    def writes(self) -> list[bytes]:
        """What the pipeline writes until it waits."""
        return list(iter(self.pipeline.output, b""))

    def flight(self) -> bytes:
        """The same as one."""
        return b"".join(self.writes())

    def say(self, *codes: int) -> None:
        """The server's replies, all of them in one read."""
        self.pipeline.take([reply(code) for code in codes])

    def exchange(self, *codes: int) -> list[bytes]:
        """Each reply in a read of its own; the flights behind each, none left out."""
        flights = []
        for code in codes:
            self.say(code)
            flights.append(self.flight())
        return flights


def known(transaction: Transaction) -> list[RecipientStatus]:
    """What the outcome says of each recipient."""
    outcome = transaction.outcome
    assert outcome is not None
    return list(outcome.recipients)


def verdicts(transaction: Transaction) -> list[tuple[int | None, str | None]]:
    """The code and the command of each recipient's verdict; a result is asserted."""
    assert isinstance(transaction.outcome, DeliveryResult), transaction.outcome
    return [(entry.code, entry.command) for entry in transaction.outcome.recipients]


def error(transaction: Transaction) -> DeliveryError:
    """Why there is no verdict."""
    assert isinstance(transaction.outcome, DeliveryError), transaction.outcome
    return transaction.outcome
