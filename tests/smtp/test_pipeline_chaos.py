"""
Everything at once, in no order: refusals, cancellations, a slow transport, a
server that dies.  Whatever happens, what is said of a mail is true.
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.smtp.model import Server, yes
from tests.smtp.script import LARGE, TEXT, Script, known
from twisted_smtpclient.errors import Cancelled, ConnectionLost, ProtocolError, ResponseTimeout
from twisted_smtpclient.smtp.pipeline import End
from twisted_smtpclient.smtp.result import DeliveryResult, Status

REFUSALS = (450, 550, 503, 500, 421)


class Chaos(RuleBasedStateMachine):
    """A pipeline and a model server; hypothesis plays the rest of the world."""

    @initialize(
        offers=st.sampled_from(["PIPELINING CHUNKING", "PIPELINING", "CHUNKING", ""]),
        depth=st.integers(1, 5),
        lmtp=st.booleans(),
        goes_on=st.booleans(),
        lenient_data=st.booleans(),
        bdat_for_nobody=st.sampled_from([None, 503, 554]),
        refused=st.sampled_from([0.0, 0.05, 0.3]),
        seed=st.integers(0, 2**32),
    )
    def begin(
        self,
        offers: str,
        depth: int,
        lmtp: bool,
        goes_on: bool,
        lenient_data: bool,
        bdat_for_nobody: int | None,
        refused: float,
        seed: int,
    ) -> None:
        chance = random.Random(seed)

        def decide(verb: str, mail: int, recipient: str | None) -> int:
            if chance.random() >= refused:
                return yes(verb, mail, recipient)
            code = chance.choice(REFUSALS)
            if verb == "BDAT" and code == 500 and not self.server.accepted:
                # That is a server that does not know BDAT, and no such one
                # takes the mails behind it.
                return 550
            if verb == "RSET" and code == 503:
                # RSET is out of sequence nowhere; behind a BDAT for nobody, 503 is
                # taken for what some servers say to that.
                return 550
            return code

        self.script = Script(offers, lmtp=lmtp, depth=depth)
        self.pipeline = self.script.pipeline
        self.depth = depth if self.pipeline.grouped else 1
        self.server = Server(
            decide, lmtp=lmtp, goes_on=goes_on, lenient_data=lenient_data, bdat_for_nobody=bdat_for_nobody
        )

    @property
    def open(self) -> bool:
        return self.pipeline.end in (End.OPEN, End.LINGER)

    # What may happen.

    @precondition(lambda self: self.pipeline.accepts)
    @rule(recipients=st.integers(1, 3), large=st.integers(0, 9))
    def submit(self, recipients: int, large: int) -> None:
        number = len(self.script.mails) + 1
        addresses = [f"r{number}.{position}@x" for position in range(recipients)]
        self.script.mail(*addresses, content=TEXT if large else LARGE)

    @rule(writes=st.integers(1, 20))
    def write(self, writes: int) -> None:
        for _ in range(writes):
            self.server.feed(self.pipeline.output())

    @precondition(lambda self: self.server.says)
    @rule(count=st.integers(1, 30))
    def hear(self, count: int) -> None:
        says = self.server.says
        self.pipeline.take([says.popleft().reply for _ in range(min(count, len(says)))])

    @precondition(lambda self: self.server.in_content)
    @rule()
    def refuse_early(self) -> None:
        self.server.refuse_early()

    @precondition(lambda self: self.script.mails)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        mail = data.draw(st.sampled_from(range(len(self.script.mails))), label="mail")
        self.pipeline.cancel(self.script.mails[mail], Cancelled("enough"))

    @rule()
    def idle(self) -> None:
        if not self.pipeline.under_way:
            self.pipeline.rest()

    @rule(seldom=st.integers(0, 7))
    def finish(self, seldom: int) -> None:
        if not seldom:
            self.pipeline.finish()

    @rule(arrived=st.floats(0, 1), seldom=st.integers(0, 7))
    def lose(self, arrived: float, seldom: int) -> None:
        """The connection goes while a write is on its way."""
        if seldom:
            return
        octets = self.pipeline.output()
        self.server.feed(octets[: int(len(octets) * arrived)])
        self.pipeline.lost(ConnectionLost("gone"))

    @precondition(lambda self: self.server.says)
    @rule(seldom=st.integers(0, 7))
    def time_out(self, seldom: int) -> None:
        if not seldom:
            self.pipeline.fail(ResponseTimeout("late"))

    # What holds meanwhile.

    @invariant()
    def no_more_than_the_depth_is_outstanding(self) -> None:
        if self.open:
            # The mail behind a RSET may have been cancelled before its turn.
            waiting = {said.mail for said in self.server.says if said.verb not in ("RSET", "QUIT")}
            assert len(waiting) <= self.depth

    @invariant()
    def each_outcome_is_told_once(self) -> None:
        told = [id(mail) for mail in self.pipeline.finished]
        assert len(told) == len(set(told))
        assert set(told) == {id(mail) for mail in self.script.mails if mail.outcome is not None}

    @invariant()
    def an_ended_connection_writes_nothing_and_has_settled_all(self) -> None:
        if self.pipeline.end is End.ABORT:
            assert self.pipeline.output() == b""
            assert all(mail.outcome is not None for mail in self.script.mails)

    # What holds in the end.

    def teardown(self) -> None:
        if not hasattr(self, "pipeline"):
            return
        self.run_out()
        self.pipeline.lost(ConnectionLost("gone"))
        self.each_outcome_is_told_once()
        for number in range(1, len(self.script.mails) + 1):
            self.check_outcome(number)

    def run_out(self) -> None:
        """Let the server be heard out; a live one then has settled all."""
        self.pipeline.finish()
        while self.open:
            self.write(200)
            if not self.server.says:
                break
            self.hear(1)
        if not self.server.dead and self.pipeline.end is not End.LINGER:
            assert all(mail.outcome is not None for mail in self.script.mails), "a mail was forgotten"

    def check_outcome(self, number: int) -> None:
        mail = self.script.mails[number - 1]
        outcome = mail.outcome
        claims = {entry.recipient: entry for entry in known(mail)}
        assert list(claims) in ([], [recipient.address for recipient in mail.envelope.recipients])
        for recipient in mail.envelope.recipients:
            claim = claims.get(recipient.address)
            times = self.server.accepted.count(recipient.address)
            if times:
                assert times == 1
                assert not mail.untouched
                assert claim is not None
                # A server that goes on behind its 421 may take a mail whose
                # sender, who canceled it then, was told that it could not.
                lied_to = isinstance(outcome, Cancelled) and self.server.goes_on
                assert claim.status is Status.OK or claim.in_doubt or lied_to
            else:
                assert claim is None or claim.status is not Status.OK
            if claim is not None and claim.reply is not None:
                # Each reply names the command and the mail that it answers.
                assert claim.reply.text.split()[1:] == [claim.command, str(number)]
        if isinstance(outcome, DeliveryResult):
            assert not mail.untouched
        elif isinstance(outcome, ProtocolError):
            # The server keeps to the protocol; what it may break is an
            # extension, and that costs nobody a mail.
            assert mail.untouched
            assert self.pipeline.broken == "PIPELINING"


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=300, stateful_step_count=40)
