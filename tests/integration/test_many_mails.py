"""
Thousands of mails in pipelines, to real servers that stay up and to one that does not.

The servers' own logs are the record: a line for each mail that was taken, and
one for each that was delivered (to nowhere, as everything to discard.example).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from twisted_smtpclient.client.agent import DeliveryAgent
from twisted_smtpclient.errors import DeliveryError
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Mode, Server, TLSMode
from twisted_smtpclient.smtp.result import DeliveryResult, Status

from .agent import HELO, PATIENCE
from .exim import Exim
from .postfix import Postfix
from .reference import Session

CONNECTIONS: Final = 10
DEPTH: Final = 10
CONTENT: Final = Content(b"Subject: one of many\r\n\r\nTest\r\n")
#: Seconds for all of a test's mails.
LONG: Final = 120.0

#: What a log says of a mail that was taken: its id, and its sender.
TAKEN: Final = {
    Postfix: re.compile(r"qmgr\[\d+\]: ([0-9A-Za-z]+): from=<([^>]*)>, size="),
    Exim: re.compile(r"^\S+ \S+ (\S+) <= (\S+) ", re.MULTILINE),
}
#: And of one that was delivered: its id, and its recipient.
DELIVERED: Final = {
    Postfix: re.compile(r"discard\[\d+\]: ([0-9A-Za-z]+): to=<([^>]*)>, .*status=sent"),
    Exim: re.compile(r"^\S+ \S+ (\S+) => :blackhole: <([^>]*)>", re.MULTILINE),
}


class Mailing:
    """
    Mails from ``NAME-NUMBER@bar.de`` to the same name at discard.example.

    :ivar outcomes: what has become of each; None as long as it is under way.
    """

    def __init__(self, agent: DeliveryAgent, server: Server, name: str) -> None:
        self._agent = agent
        self._server = server
        self._name = name
        self.outcomes: list[DeliveryResult | DeliveryError | None] = []
        self.done = 0

    def name(self, number: int) -> str:
        return f"{self._name}-{number}"

    def send(
        self, count: int, *, after: int = 0, then: Callable[[], object] | None = None
    ) -> Deferred[object]:
        """
        Give so many mails at once.

        :param then: called once, when ``after`` of them have their outcome.
        :returns: fires when all have.
        """
        self.outcomes = [None] * count

        def settled(outcome: DeliveryResult | DeliveryError, number: int) -> None:
            assert self.outcomes[number] is None, "two outcomes"
            self.outcomes[number] = outcome
            self.done += 1
            if then is not None and self.done == after:
                then()

        mails = []
        for number in range(count):
            name = self.name(number)
            envelope = Envelope(f"{name}@bar.de", [f"{name}@discard.example"])
            delivery = self._agent.deliver(self._server, envelope, CONTENT)
            mails.append(delivery.addErrback(_the_error).addCallback(settled, number))
        return DeferredList(mails, fireOnOneErrback=True).addTimeout(LONG, reactor)

    @property
    def ok(self) -> set[str]:
        """The names of the mails that were taken."""
        return {
            self.name(number)
            for number, outcome in enumerate(self.outcomes)
            if isinstance(outcome, DeliveryResult) and outcome.all_ok
        }

    @property
    def errors(self) -> set[str]:
        """Of those that were not, surely."""
        return {
            self.name(number)
            for number, outcome in enumerate(self.outcomes)
            if isinstance(outcome, DeliveryError) and not outcome.in_doubt
        }

    @property
    def in_doubt(self) -> set[str]:
        return {
            self.name(number)
            for number, outcome in enumerate(self.outcomes)
            if isinstance(outcome, DeliveryError) and outcome.in_doubt
        }

    def record(self, server: Postfix | Exim) -> Counter[str]:
        """
        How often the server has each mail, once it has delivered what it took.

        A restarted server may deliver one mail twice; so they are counted by
        their ids.
        """
        wanted = {self._queue_id(server, outcome) for outcome in self.outcomes}
        wanted.discard(None)
        deadline = time.monotonic() + PATIENCE
        while True:
            log = server.log
            delivered = {queue_id for queue_id, _ in DELIVERED[type(server)].findall(log)}
            if wanted <= delivered:
                break
            assert time.monotonic() < deadline, f"not delivered: {sorted(map(str, wanted - delivered))[:10]}"
            # Nothing tells when another process has written to its log.
            time.sleep(0.05)
        mails = set(TAKEN[type(server)].findall(log))
        names = Counter(sender.partition("@")[0] for _, sender in mails)
        return Counter({name: count for name, count in names.items() if name.startswith(f"{self._name}-")})

    def _queue_id(self, server: Postfix | Exim, outcome: object) -> str | None:
        if not isinstance(outcome, DeliveryResult) or not outcome.all_ok:
            return None
        response = outcome.recipients[0].response
        assert response is not None
        return server.queue_id(response)

    def check(self, server: Postfix | Exim) -> None:
        """Nothing was lost silently, and nothing was done twice."""
        assert None not in self.outcomes
        ok, errors, doubt = self.ok, self.errors, self.in_doubt
        assert len(ok) + len(errors) + len(doubt) == len(self.outcomes)
        record = self.record(server)
        assert ok <= set(record)
        assert not errors & set(record)
        assert set(record) <= ok | doubt
        assert [name for name, count in record.items() if count > 1] == []


def _the_error(failure: Failure) -> DeliveryError:
    assert isinstance(failure.value, DeliveryError)
    return failure.value


@pytest.fixture
def many() -> Iterator[DeliveryAgent]:
    """An agent with the daemon's limits."""
    agent = DeliveryAgent(reactor, helo=HELO, connections_per_host=CONNECTIONS, pipelining_depth=DEPTH)
    yield agent
    pytest_twisted.blockon(agent.close().addTimeout(PATIENCE, reactor))


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> Postfix | Exim:
    found: Postfix | Exim = request.getfixturevalue(request.param)
    return found


def terms(server: Postfix | Exim, way: str) -> Server:
    service, chunking = WAYS[way]
    return Server(host=server.host, port=server.ports[service], tls=TLSMode.NO, chunking=chunking)


#: How mails go: the service, and whether CHUNKING is used where it is offered.
WAYS: Final = {
    "by-chunking": ("pipelining_chunking", Mode.TRY),
    "by-data": ("pipelining", Mode.TRY),
    "by-data-as-told": ("pipelining_chunking", Mode.NO),
}


@pytest.mark.parametrize("way", ["by-chunking", "by-data"])
@pytest_twisted.ensureDeferred
async def test_two_thousand_mails_arrive_each_exactly_once(
    server: Postfix | Exim, many: DeliveryAgent, way: str
) -> None:
    mailing = Mailing(many, terms(server, way), f"all-{way}")
    await mailing.send(2000)
    assert len(mailing.ok) == 2000
    assert mailing.record(server) == Counter({mailing.name(number): 1 for number in range(2000)})


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_a_good_mail_behind_one_that_nobody_may_have_goes_once_from_its_own_sender(
    server: Postfix | Exim, certificates: object, way: str
) -> None:
    # One connection, so that they are in the same pipeline.
    agent = DeliveryAgent(reactor, helo=HELO, connections_per_host=1, pipelining_depth=DEPTH)
    where = terms(server, way)
    bad = [Envelope("bad@bar.de", [f"refused{way}@bar2.de", "refused2@bar2.de"]) for _ in range(5)]
    good = [Envelope(f"good{number}@bar.de", [f"{way}{number}@bar2.de"]) for number in range(5)]
    mails = []
    for refused, taken in zip(bad, good, strict=True):
        mails += [agent.deliver(where, envelope, CONTENT) for envelope in (refused, taken)]
    outcomes = await DeferredList(mails, fireOnOneErrback=True).addTimeout(PATIENCE, reactor)
    results: list[DeliveryResult] = [result for _, result in outcomes]
    for result in results[::2]:
        assert {(entry.status, entry.command) for entry in result.recipients} == {
            (Status.PERMANENT_ERROR, "RCPT")
        }
    for number, result in enumerate(results[1::2]):
        assert result.all_ok
        response = result.recipients[0].response
        assert response is not None
        kept = server.drop.wait_for(server.queue_id(response))
        assert (kept.sender, kept.recipients) == (f"good{number}@bar.de", [f"{way}{number}@bar2.de"])
        assert kept.content == CONTENT.message
    await agent.close()


@pytest.mark.parametrize("what", ["sender", "content", "data"])
@pytest_twisted.ensureDeferred
async def test_a_mail_that_is_refused_elsewhere_leaves_its_neighbors_their_own_senders(
    server: Postfix | Exim, what: str
) -> None:
    agent = DeliveryAgent(reactor, helo=HELO, connections_per_host=1, pipelining_depth=DEPTH)
    where = terms(server, "by-chunking")
    sender = {"sender": "refused@bar.de", "content": "bad@bar.de", "data": "nodata@bar.de"}[what]
    content = Content(b"X-Verdict: refuse\r\n\r\nno\r\n") if what == "content" else CONTENT
    mails = []
    for number in range(5):
        mails.append(agent.deliver(where, Envelope(sender, ["x@bar2.de"]), content))
        good = Envelope(f"neighbor{number}@bar.de", [f"{what}{number}@bar2.de"])
        mails.append(agent.deliver(where, good, CONTENT))
    outcomes = await DeferredList(mails, fireOnOneErrback=True).addTimeout(PATIENCE, reactor)
    results: list[DeliveryResult] = [result for _, result in outcomes]
    assert all(not result.all_ok for result in results[::2])
    for number, result in enumerate(results[1::2]):
        response = result.recipients[0].response
        assert response is not None
        kept = server.drop.wait_for(server.queue_id(response))
        assert (kept.sender, kept.recipients) == (f"neighbor{number}@bar.de", [f"{what}{number}@bar2.de"])
    await agent.close()


def kill(postfix: Postfix) -> None:
    """End the processes that serve clients, so that what they have read is lost."""
    for process in postfix.smtpd_processes():
        os.kill(process, signal.SIGKILL)


def serve_everybody_once(server: Server) -> None:
    """
    Have each process serve a client to its end.

    For those that die before they have, Postfix's master takes the program to
    be broken, and starts no other for a minute.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(2 * CONNECTIONS):
            session = stack.enter_context(Session(server.host, server.port))
            stack.callback(session.say, b"QUIT\r\n")


@pytest_twisted.ensureDeferred
async def test_a_server_restarted_in_the_middle_of_ten_thousand_mails_loses_none_silently(
    postfix: Postfix, many: DeliveryAgent
) -> None:
    mailing = Mailing(many, terms(postfix, "by-chunking"), "restart")
    # Nobody can connect meanwhile, for our own process waits for it.
    await mailing.send(10_000, after=4000, then=postfix.restart)
    mailing.check(postfix)
    assert len(mailing.in_doubt) <= CONNECTIONS * DEPTH
    assert len(mailing.ok) >= 10_000 - CONNECTIONS * DEPTH


@pytest.mark.parametrize("way", ["by-chunking", "by-data"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_killed_in_the_middle_of_two_thousand_mails_loses_none_silently(
    postfix: Postfix, many: DeliveryAgent, way: str
) -> None:
    mailing = Mailing(many, terms(postfix, way), f"killed-{way}")
    serve_everybody_once(terms(postfix, way))
    await mailing.send(2000, after=700, then=lambda: kill(postfix))
    mailing.check(postfix)
    # On DATA one content of a connection is under way at a time.
    assert len(mailing.in_doubt) <= CONNECTIONS * (DEPTH if way == "by-chunking" else 1)
    assert len(mailing.ok) >= 2000 - CONNECTIONS * DEPTH


@pytest_twisted.ensureDeferred
async def test_a_server_that_stays_down_gives_each_mail_its_error(
    postfix: Postfix, many: DeliveryAgent
) -> None:
    mailing = Mailing(many, terms(postfix, "by-chunking"), "down")
    await mailing.send(2000, after=500, then=postfix.stop)
    postfix.restart()
    mailing.check(postfix)
    assert len(mailing.in_doubt) <= CONNECTIONS * DEPTH
    assert mailing.errors
    # And it is as good as ever once it is up again.
    again = Mailing(many, terms(postfix, "by-chunking"), "up-again")
    await again.send(100)
    assert len(again.ok) == 100
