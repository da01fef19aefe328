"""
Ten mails on one connection to a model server, and whether what was said of
them is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.smtp.model import Said, Server, yes
from tests.smtp.script import Script, known
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import Status

MAILS = 10


class Way(NamedTuple):
    """How the mails go."""

    offers: str
    lmtp: bool

    def __str__(self) -> str:
        return f"{self.offers} {'LMTP' if self.lmtp else 'SMTP'}".replace(" ", "-")


WAYS = [
    Way(offers, lmtp)
    for offers in ("PIPELINING CHUNKING", "PIPELINING", "CHUNKING", "")
    for lmtp in (False, True)
]


class Session:
    """Ten mails of two recipients each, on a model server."""

    def __init__(
        self, way: Way, decide: Callable[[str, int, str | None], int] = yes, *, goes_on: bool = False
    ):
        self.script = Script(way.offers, lmtp=way.lmtp)
        self.server = Server(decide, lmtp=way.lmtp, goes_on=goes_on)
        self.delivered: list[Said] = []
        for number in range(1, MAILS + 1):
            self.script.mail(f"a{number}@x", f"b{number}@x")
        self.turn()

    @property
    def open(self) -> bool:
        return self.script.pipeline.end in (End.OPEN, End.LINGER)

    def turn(self) -> None:
        self.server.feed(self.script.flight())

    def deliver(self) -> None:
        """The next reply, and what the client writes behind it."""
        said = self.server.says.popleft()
        self.delivered.append(said)
        self.script.pipeline.receive(said.reply)
        self.turn()

    def deliver_up_to(self, position: int) -> None:
        while len(self.delivered) < position:
            self.deliver()


def replies_of(way: Way) -> int:
    """How many replies it takes to be done with all mails."""
    session = Session(way)
    while session.server.says:
        session.deliver()
    assert all(mail.outcome is not None for mail in session.script.mails)
    assert sorted(session.server.accepted) == sorted(f"{x}{n}@x" for n in range(1, MAILS + 1) for x in "ab")
    return len(session.delivered)


def check_that_each_outcome_is_true(session: Session) -> None:
    """One outcome for each mail, and what it claims is what the server did."""
    mails = session.script.mails
    finished = session.script.pipeline.finished
    assert len(finished) == MAILS
    assert {id(mail) for mail in finished} == {id(mail) for mail in mails}
    accepted = session.server.accepted
    for mail in mails:
        addresses = [recipient.address for recipient in mail.envelope.recipients]
        entries = known(mail)
        assert [entry.recipient for entry in entries] in ([], addresses)
        claims = {entry.recipient: entry for entry in entries}
        for address in addresses:
            claim = claims.get(address)
            if address in accepted:
                assert claim is not None, f"{address} was accepted"
                assert claim.status is Status.OK or claim.in_doubt
                assert not mail.untouched
            else:
                assert claim is None or claim.status is not Status.OK
