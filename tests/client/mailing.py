"""
Many mails, each with a number and recipients of its own, and whether what was
said of them is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, terms
from twisted_smtpclient import Content, DeliveryError, DeliveryResult, Envelope, Server, Status
from twisted_smtpclient.testing import Mail

#: Seconds; over the longest bound on a reply, and QUIT's behind it.
OUTLASTS_A_TIMEOUT = 700.0

#: What servers offer, as what a sink is told.
CHUNKING: Mapping[str, Any] = MappingProxyType({})
PIPELINING_ONLY: Mapping[str, Any] = MappingProxyType({"chunking": False})
WAYS = {"BDAT": CHUNKING, "DATA": PIPELINING_ONLY}


class Mailing(Post):
    """
    An agent, a sink, and mails: the seventh goes to ``a7`` and ``b7``.

    :param connections: how many the agent may open.
    :param depth: mails under way on each.
    :ivar results: the mails' Deferreds.
    :ivar outcomes: what has become of them.
    """

    def __init__(
        self,
        *,
        connections: int = 1,
        depth: int = 10,
        agent: Mapping[str, Any] = MappingProxyType({}),
        **sink: Any,
    ) -> None:
        limits = {"connections_per_host": connections, "pipelining_depth": depth}
        super().__init__(agent={**limits, **agent}, **sink)
        self.results: list[Deferred[DeliveryResult]] = []
        self.outcomes: list[Outcome[DeliveryResult]] = []

    def post(
        self,
        count: int = 1,
        *,
        message: bytes | Content = MESSAGE,
        server: Server | None = None,
        reuse: bool = True,
        **changes: Any,
    ) -> list[Outcome[DeliveryResult]]:
        """Give so many further mails at once."""
        content = message if isinstance(message, Content) else Content(message)
        where = server or terms(**changes)
        first = len(self.results)
        for number in range(first + 1, first + count + 1):
            mail = Envelope(f"s{number}@example.org", addresses(number))
            result = self.agent.deliver(where, mail, content, reuse=reuse)
            self.results.append(result)
            self.outcomes.append(Outcome(result))
        return self.outcomes[first:]

    def posted(self, count: int = 1, **terms: Any) -> list[Outcome[DeliveryResult]]:
        """The same, and let happen what takes no time."""
        outcomes = self.post(count, **terms)
        self.network.settle()
        return outcomes

    def step(self) -> bool:
        """Let the smallest thing happen that can; False where nothing can."""
        self.network.advance(0)
        ends = [each for end in self.network.ends for each in (end, end.other)]
        moved = [end.move() for end in ends]
        now = self.network.seconds()
        return any(moved) or any(call.getTime() <= now for call in self.network.getDelayedCalls())

    # What is known.

    def ok(self) -> set[int]:
        """The mails that were taken for somebody."""
        return self._with_verdict(Status.OK)

    def refused(self) -> set[int]:
        """The mails that the server has refused, for everybody."""
        return self._with_verdict(Status.TEMPORARY_ERROR, Status.PERMANENT_ERROR) - self.ok()

    def errors(self) -> dict[int, DeliveryError]:
        """The mails without a verdict."""
        found = {}
        for number, outcome in enumerate(self.outcomes, 1):
            if not outcome:
                assert isinstance(outcome.error, DeliveryError)
                found[number] = outcome.error
        return found

    def in_doubt(self) -> set[int]:
        return {number for number, error in self.errors().items() if error.in_doubt}

    def taken(self) -> Counter[str]:
        """How often the server may have taken a mail for each address: it said so, or nothing."""
        done = [mail for mail in self.sink.mails if mail.accepted or not mail.replies]
        return Counter(address for mail in done for address in mail.addresses)

    def check(self) -> None:
        """Each mail has one outcome, and it is true."""
        assert [outcome.came for outcome in self.outcomes] == [1] * len(self.outcomes)
        errors, taken = self.errors(), self.taken()
        assert len(self.ok()) + len(self.refused()) + len(errors) == len(self.outcomes)
        for number, outcome in enumerate(self.outcomes, 1):
            told = outcome.value.recipients if outcome else errors[number].recipients
            assert [entry.recipient for entry in told] in ([], addresses(number))
            for entry in told:
                times = {0, 1} if entry.in_doubt else {int(entry.status is Status.OK)}
                assert taken[entry.recipient] in times, entry
            assert told or not any(taken[address] for address in addresses(number))
        for mail in self.sink.mails:
            # From its own sender.
            assert set(mail.addresses) <= set(addresses(number_of(mail)))
        assert self.sink.violations == []

    def _with_verdict(self, *kinds: Status) -> set[int]:
        return {
            number
            for number, outcome in enumerate(self.outcomes, 1)
            if outcome and any(entry.status in kinds for entry in outcome.value.recipients)
        }


def number_of(mail: Mail) -> int:
    """Which mail it is, by its sender."""
    return int(mail.sender[1:].partition("@")[0])


def addresses(number: int) -> list[str]:
    """The recipients of a mail."""
    return [f"a{number}@example.net", f"b{number}@example.net"]
