"""
Tests that a server which misbehaves gives one named error within the bound, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import example, given
from hypothesis import strategies as st

from tests.client.memory import Network, Outcome
from tests.client.sessions import RECIPIENTS, Post, Session, Single, envelope, terms
from twisted_smtpclient import (
    ConnectionLost,
    Content,
    DeliveryAgent,
    DeliveryError,
    DeliveryResult,
    ProtocolError,
    ResponseTimeout,
    Server,
    Status,
    Timeouts,
    TLSMode,
)
from twisted_smtpclient.client.exchange import LINGER
from twisted_smtpclient.client.watch import Watch
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.testing import Action, Fault, Sink, Stage, make_certificates

BOUND = 10
CERTIFICATES = make_certificates("192.0.2.1")
LARGE = b"x" * (4 * SMALL)

CLOSES: dict[str, dict[str, Any]] = {"closes": {"do": Action.CLOSE}, "resets": {"do": Action.RESET}}
TAKES_TIME: dict[str, dict[str, Any]] = {
    "stalls": {"do": Action.STALL},
    "goes deaf": {"do": Action.DEAF},
    "trickles": {"do": Action.TRICKLE, "endless": True},
    "trickles its own reply": {"do": Action.TRICKLE, "reply": b"250 " + b"x" * 60 + b"\r\n"},
}
TALKS_NONSENSE: dict[str, dict[str, Any]] = {
    "floods": {"do": Action.FLOOD},
    "says no code": {"do": Action.REPLY, "reply": b"hello there\r\n"},
    "says octets": {"do": Action.REPLY, "reply": b"\xff\xfe\x00\r\n"},
    "says a code that does not exist": {"do": Action.REPLY, "reply": b"999 what\r\n"},
    "ends lines with LF": {"do": Action.REPLY, "reply": b"250 ok\n"},
    "changes the code": {"do": Action.REPLY, "reply": b"250-ok\r\n550 no\r\n"},
    "says 334": {"do": Action.REPLY, "reply": b"334 go on\r\n"},
}
ERRORS: dict[str, tuple[dict[str, Any], type[DeliveryError]]] = {
    **{name: (fault, ConnectionLost) for name, fault in CLOSES.items()},
    **{name: (fault, ResponseTimeout) for name, fault in TAKES_TIME.items()},
    **{name: (fault, ProtocolError) for name, fault in TALKS_NONSENSE.items()},
}

#: Each stage, whether with BDAT, and whether the content was whole by then.
STAGES: dict[str, tuple[Stage, bool, bytes, bool | None]] = {
    "at the greeting": (Stage.GREETING, True, b"x", None),
    "at EHLO": (Stage.EHLO, True, b"x", None),
    "at STARTTLS": (Stage.STARTTLS, True, b"x", None),
    "at MAIL": (Stage.MAIL, False, b"x", False),
    "at MAIL with the content behind it": (Stage.MAIL, True, b"x", True),
    "at RCPT": (Stage.RCPT, False, b"x", False),
    "at RCPT with the content behind it": (Stage.RCPT, True, b"x", True),
    "at DATA": (Stage.DATA, False, b"x", False),
    "in the content by DATA": (Stage.CONTENT, False, LARGE, False),
    "in the content by BDAT": (Stage.CONTENT, True, LARGE, False),
    "at the end of data": (Stage.END_OF_DATA, False, b"x", True),
    "at the end of much data": (Stage.END_OF_DATA, False, LARGE, True),
    "at BDAT": (Stage.BDAT, True, b"x", True),
    "at BDAT with much content": (Stage.BDAT, True, LARGE, True),
}


def cases() -> Iterator[Any]:
    for where, stage in STAGES.items():
        for what, (fault, error) in ERRORS.items():
            if what == "says 334" and stage[0] is Stage.CONTENT:
                continue
            yield pytest.param(stage, fault, error, id=f"{what} {where}")


@pytest.mark.parametrize(("stage", "fault", "error"), list(cases()))
def test_a_server_that_misbehaves_is_one_named_error_within_the_bound(
    stage: tuple[Stage, bool, bytes, bool | None], fault: dict[str, Any], error: type[DeliveryError]
) -> None:
    at, chunking, message, in_doubt = stage
    if at is Stage.CONTENT and fault["do"] in (Action.STALL, Action.TRICKLE):
        # It reads on, so that the content becomes whole.
        in_doubt = True
    after = 1 if at is Stage.CONTENT else 0
    tls = at is Stage.STARTTLS
    here = Post(
        agent={"trust_root": CERTIFICATES.trust_root()},
        chunking=chunking,
        starttls=CERTIFICATES.server_context() if tls else None,
        faults=[Fault(at, nth=None, after_octets=after, **fault)],
    )
    mode = TLSMode.DEPEND if tls else TLSMode.NO
    outcome = here.delivered(message=message, tls=mode, timeouts=Timeouts.uniform(BOUND), bound=BOUND + 1)

    assert isinstance(outcome.error, DeliveryError)
    assert type(outcome.error) is error
    assert str(outcome.error)
    assert outcome.seconds <= BOUND
    if in_doubt is None:
        assert outcome.error.recipients == ()
    else:
        assert [entry.recipient for entry in outcome.error.recipients] == list(RECIPIENTS)
        assert {entry.status for entry in outcome.error.recipients} == {Status.UNKNOWN}
        assert outcome.error.in_doubt is in_doubt
    # The connection is gone, at once or within a server's own bound.
    here.network.elapse(3)
    assert here.network.open_connections == 0
    here.network.assert_nothing_is_left()

    # And the next mail is none the worse for it.
    here.sink.faults.clear()
    assert here.delivered(tls=mode).value.all_ok
    here.close()


@pytest.mark.parametrize("what", [*CLOSES, *TAKES_TIME, *TALKS_NONSENSE])
@pytest.mark.parametrize("chunking", [True, False])
def test_a_server_that_misbehaves_at_quit_changes_nothing(what: str, chunking: bool) -> None:
    fault = ERRORS[what][0]
    single = Single(chunking=chunking, faults=[Fault(Stage.QUIT, **fault)])
    outcome = Outcome(single.deliver())
    single.connect()
    single.network.settle()
    assert outcome.value.all_ok
    single.client.finish()
    single.end_in_time()


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("interval", [0.9, 1, 4.9, 9.9])
def test_a_reply_that_trickles_does_not_move_the_timer(chunking: bool, interval: float) -> None:
    fault = Fault(Stage.RCPT, Action.TRICKLE, b"250-hello\r\n", interval=interval, endless=True)
    single = Single({"timeouts": Timeouts.uniform(BOUND)}, chunking=chunking, faults=[fault])
    outcome = single.delivered(bound=BOUND + 5)
    assert isinstance(outcome.error, ResponseTimeout)
    assert str(outcome.error) == "no reply to RCPT within 10 s"
    assert outcome.seconds == BOUND
    single.end_in_time()


@pytest.mark.parametrize(
    ("stage", "field", "phrase"),
    [
        (Stage.GREETING, "greeting", "no greeting"),
        (Stage.EHLO, "other", "no reply to EHLO"),
        (Stage.MAIL, "mail", "no reply to MAIL"),
        (Stage.RCPT, "rcpt", "no reply to RCPT"),
        (Stage.DATA, "data_initiation", "no reply to DATA"),
        (Stage.END_OF_DATA, "data_termination", "no reply to the end of data"),
        (Stage.BDAT, "bdat_last", "no reply to BDAT"),
    ],
)
def test_each_reply_has_its_own_bound(stage: Stage, field: str, phrase: str) -> None:
    timeouts = Timeouts(**{field: 7.0})
    chunking = stage is Stage.BDAT
    single = Single({"timeouts": timeouts}, chunking=chunking, faults=[Fault(stage, Action.STALL)])
    outcome = single.delivered(bound=8)
    assert str(outcome.error) == f"{phrase} within 7 s"
    assert outcome.seconds == 7


def test_each_reply_begins_a_bound_of_its_own() -> None:
    # Twelve replies, each a second within its bound: 108 seconds for all.
    slow = [
        Fault(stage, Action.REPLY, reply, nth=None, after=9)
        for stage, reply in (
            (Stage.MAIL, b"250 ok\r\n"),
            (Stage.RCPT, b"250 ok\r\n"),
            (Stage.BDAT, b"250 ok\r\n"),
        )
    ]
    single = Single({"timeouts": Timeouts.uniform(BOUND)}, faults=slow)
    outcome = single.delivered(*[f"r{number}@example.net" for number in range(10)], bound=200)
    assert outcome.value.all_ok
    assert outcome.seconds == 108


# 421, and what comes after it.


def said_421(stage: Stage, *, chunking: bool = True, action: Action = Action.REPLY) -> Single:
    fault = Fault(stage, action, b"421 4.3.2 shutting down\r\n", nth=None)
    return Single({"timeouts": Timeouts.uniform(100)}, chunking=chunking, faults=[fault])


@pytest.mark.parametrize(
    ("stage", "chunking"),
    [
        (Stage.MAIL, True),
        (Stage.RCPT, True),
        (Stage.MAIL, False),
        (Stage.RCPT, False),
        (Stage.DATA, False),
        (Stage.END_OF_DATA, False),
        (Stage.BDAT, True),
    ],
)
@pytest.mark.parametrize("action", [Action.REPLY, Action.REPLY_AND_CLOSE])
def test_421_to_a_connections_first_mail_is_its_verdict(stage: Stage, chunking: bool, action: Action) -> None:
    single = said_421(stage, chunking=chunking, action=action)
    result: DeliveryResult = single.delivered(bound=LINGER).value
    assert {entry.status for entry in result.recipients} == {Status.TEMPORARY_ERROR}
    assert {entry.code for entry in result.recipients} == {421}
    single.end_in_time()


def test_behind_421_nothing_more_is_written_and_the_connection_is_left_after_a_short_while() -> None:
    session = Session(terms(timeouts=Timeouts.uniform(100)))
    session.open(b"PIPELINING")
    _, outcome = session.deliver()
    assert session.script.heard.endswith(b"DATA\r\n")
    assert session.say(b"421 shutting down") == b""
    _, second = session.deliver()
    assert session.script.heard == b""
    session.network.elapse(LINGER - 0.5, 0.5)
    assert session.end.connected
    session.network.elapse(0.5, 0.5)
    assert session.over
    assert {entry.code for entry in outcome.value.recipients} == {421}
    assert isinstance(second.error, ConnectionLost)
    assert second.error.recipients == ()


def test_what_a_server_says_behind_421_does_not_prolong_its_time() -> None:
    session = Session(terms(timeouts=Timeouts.uniform(100)))
    recipients = [f"r{number}@example.net" for number in range(10)]
    session.open(b"PIPELINING")
    session.deliver(*recipients)
    session.say(b"421 shutting down")
    for _ in range(4):
        session.network.elapse(1)
        session.say(b"503 no")
        assert session.end.connected
    session.network.elapse(1)
    assert session.over


@pytest.mark.parametrize("said", [b"421 idle too long", b"421-idle\r\n421 too long"])
def test_an_unasked_421_while_idle_is_an_orderly_end(said: bytes) -> None:
    session = Session()
    session.open(b"PIPELINING")
    assert session.say(said) == b""
    assert session.over
    assert not session.client.accepts


@pytest.mark.parametrize("said", [b"250 ok\r\n", b"2", b"250-ok\r\n", b"\n", b"550 no\r\n"])
def test_an_unasked_reply_while_idle_ends_the_session(said: bytes) -> None:
    session = Session()
    session.open(b"PIPELINING")
    session.send(said)
    assert session.over
    assert not session.client.accepts


def test_a_close_while_idle_costs_nobody_anything() -> None:
    session = Session()
    session.open(b"PIPELINING")
    session.hang_up()
    assert session.over
    _, outcome = session.deliver()
    assert isinstance(outcome.error, ConnectionLost)
    assert outcome.error.recipients == ()


def test_an_idle_session_has_no_bound_of_its_own() -> None:
    session = Session()
    session.open(b"PIPELINING")
    session.network.elapse(10_000, 100)
    assert session.end.connected
    session.client.finish()
    session.network.settle()
    assert session.script.heard == b"QUIT\r\n"


@pytest.mark.parametrize("mails", [0, 1])
def test_an_idle_session_ends_in_order_after_its_idle_time(mails: int) -> None:
    session = Session(idle_timeout=5.0)
    session.open(b"PIPELINING")
    for _ in range(mails):
        session.network.elapse(3)
        session.deliver("a@example.net")
        session.say(b"250 1", b"250 2", b"354 go")
        session.say(b"250 queued")
    session.script.heard  # noqa: B018 - it is taken out
    session.network.elapse(4.5, 0.5)
    assert session.script.heard == b""
    session.network.elapse(0.5, 0.5)
    assert session.script.heard == b"QUIT\r\n"
    assert not session.client.accepts
    session.say(b"221 bye")
    assert session.over


def test_the_last_reply_outranks_the_hang_up_behind_it() -> None:
    session = Session()
    _, outcome = session.deliver()
    session.open(b"PIPELINING", b"CHUNKING")
    session.end.other.write_raw(b"250 1\r\n250 2\r\n250 3\r\n250 queued\r\n")
    session.end.other.lose()
    session.network.settle()
    assert outcome.value.all_ok
    assert session.over


def test_a_refusal_in_the_middle_of_the_content_is_the_verdict_and_the_content_stops() -> None:
    fault = Fault(Stage.CONTENT, Action.EARLY, b"552 5.3.4 too big\r\n", after_octets=1)
    for chunking in (True, False):
        single = Single(chunking=chunking, faults=[fault])
        # It reads on, but not as fast as the content could be written.
        outcome = single.delivered(message=LARGE * 4)
        assert {entry.code for entry in outcome.value.recipients} == {552}
        single.end_in_time()
        assert single.sink.mails == []
        single.sink.faults.clear()


def test_an_acceptance_in_the_middle_of_the_content_is_a_protocol_error() -> None:
    fault = Fault(Stage.CONTENT, Action.EARLY, b"250 queued\r\n", after_octets=1)
    single = Single(faults=[fault])
    outcome = single.delivered(message=LARGE * 4)
    assert isinstance(outcome.error, ProtocolError)
    assert not outcome.error.in_doubt
    single.end_in_time()


# Whatever a server says.

WORDS = st.one_of(
    st.sampled_from(
        [
            b"220 hi\r\n",
            b"250 ok\r\n",
            b"250 x\r\n250 y\r\n",
            b"250-x\r\n250 PIPELINING\r\n",
            b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            b"354 go\r\n",
            b"550 no\r\n",
            b"450 later\r\n",
            b"503 what\r\n",
            b"502 what\r\n",
            b"221 bye\r\n",
            b"421 bye\r\n",
            b"250-",
            b"2",
            b"\r\n",
        ]
    ),
    st.binary(max_size=8),
    st.sampled_from(["wait", "close", "reset", "deaf", "listen", "mail", "cancel", "finish"]),
)


GREETS = b"220 hi\r\n"
OPENINGS: list[list[bytes | str]] = [
    [],
    [GREETS, b"250 x\r\n"],
    [GREETS, b"250-x\r\n250 CHUNKING\r\n"],
    [GREETS, b"250-x\r\n250 PIPELINING\r\n"],
    [GREETS, b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"],
    [GREETS, b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n", "mail", b"250 1\r\n250 2\r\n"],
    [GREETS, b"250-x\r\n250 PIPELINING\r\n", "mail", b"250 1\r\n250 2\r\n250 3\r\n354 go\r\n"],
]


@given(
    st.sampled_from([b"x", LARGE]),
    st.tuples(st.sampled_from(OPENINGS), st.lists(WORDS, max_size=25)).map(lambda parts: parts[0] + parts[1]),
)
@example(LARGE, [*OPENINGS[4], "deaf", "finish", "mail"])
def test_whatever_a_server_says_each_mail_has_one_outcome_and_nothing_is_left(
    message: bytes, words: list[bytes | str]
) -> None:
    session = Session(terms(timeouts=Timeouts.uniform(BOUND)))
    mails = [session.deliver(message=message)]
    accepted = 0
    for word in words:
        if isinstance(word, bytes):
            session.send(word)
        elif word == "wait":
            session.network.elapse(4, 2)
        elif word in ("close", "reset"):
            (session.end.other.lose if word == "close" else session.end.other.abort)()
            session.network.settle()
        elif word in ("deaf", "listen"):
            session.end.other.reading = word == "listen"
            session.network.settle()
        elif word == "mail":
            mails.append(session.deliver(message=message))
        elif word == "cancel":
            mails[len(mails) // 2][0].cancel()
        else:
            session.client.finish()
    session.client.finish()
    # Each mail may use up each of its replies' time, and QUIT its own.
    session.network.elapse(BOUND * 10 * (len(mails) + 1), BOUND)
    session.end.other.reading = True
    session.network.settle()
    assert session.over
    for _, outcome in mails:
        assert outcome.came == 1
        if outcome and any(entry.status is Status.OK for entry in outcome.value.recipients):
            accepted += 1
    # What was accepted was written whole: a command that begins it, and its end.
    written = bytes(session.end.sent)
    assert accepted <= written.count(b" LAST\r\n") + written.count(b"\r\n.\r\n")


# Over real sockets.


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage.GREETING, b"x"),
        (Stage.EHLO, b"x"),
        (Stage.MAIL, b"x"),
        (Stage.CONTENT, LARGE * 4),
        (Stage.BDAT, b"x"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_up_is_a_lost_connection_in_the_kernels_way(
    stage: Stage, message: bytes, action: Action
) -> None:
    from twisted.internet import reactor

    after = 1 if stage is Stage.CONTENT else 0
    sink = Sink(reactor, faults=[Fault(stage, action, nth=None, after_octets=after)])
    await sink.listen()
    agent = DeliveryAgent(reactor)
    server = Server(host="127.0.0.1", port=sink.port, tls=TLSMode.NO)
    with pytest.raises(ConnectionLost):
        await agent.deliver(server, envelope(), Content(message))
    sink.faults.clear()
    assert (await agent.deliver(server, envelope(), Content(message))).all_ok
    await agent.close()
    await sink.stop()


# The watch.


def test_a_watch_that_is_expected_later_again_and_again_has_one_delayed_call() -> None:
    network = Network()
    expired: list[float] = []
    watch = Watch(network, lambda: expired.append(network.seconds()))
    for _ in range(100):
        watch.expect(10)
        assert len(network.getDelayedCalls()) == 1
        network.advance(1)
    network.advance(8.5)
    assert expired == []
    network.advance(0.5)
    assert expired == [109]
    assert network.getDelayedCalls() == []


def test_a_watch_that_is_expected_sooner_expires_sooner() -> None:
    network = Network()
    expired: list[float] = []
    watch = Watch(network, lambda: expired.append(network.seconds()))
    watch.expect(100)
    watch.expect(1)
    network.advance(1)
    assert expired == [1]


def test_a_watch_at_rest_does_not_expire() -> None:
    network = Network()
    expired: list[float] = []
    watch = Watch(network, lambda: expired.append(network.seconds()))
    watch.expect(1)
    watch.rest()
    network.advance(5)
    assert expired == []
    watch.expect(1)
    watch.stop()
    watch.stop()
    network.advance(5)
    assert expired == []
    assert network.getDelayedCalls() == []
