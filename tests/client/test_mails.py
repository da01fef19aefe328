"""
Tests of mails on a session: flights, verdicts, content octet for octet, and QUIT.
"""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Session, Single, envelope, terms
from tests.interpreted import interpreted
from twisted_smtpclient import (
    ConnectionLost,
    Content,
    DeliveryResult,
    Envelope,
    ExtensionUnsupported,
    InternalError,
    MessageTooLarge,
    Mode,
    PipeliningESMTPClient,
    Protocol,
    ResponseTimeout,
    Status,
    Timeouts,
)
from twisted_smtpclient.smtp.content import BLOCK, SMALL
from twisted_smtpclient.smtp.sender import WRITE
from twisted_smtpclient.smtp.transaction import Transaction
from twisted_smtpclient.testing import Action, Closed, Fault, Sink, Stage

#: What a transport asks its producer to pause at, one write of ours behind
#: it: at most a block, each dot of it doubled.
MOST_IN_FLIGHT = 65536 + WRITE + BLOCK * 4 // 3 + 16


# Flights.


@pytest.mark.parametrize("recipients", [1, 2, 50])
@pytest.mark.parametrize(
    ("offers", "modes", "flights"),
    [
        ({}, {}, 2),
        ({"chunking": False}, {}, 3),
        ({}, {"chunking": Mode.NO}, 3),
        ({}, {"pipelining": Mode.DEPEND, "chunking": Mode.DEPEND}, 2),
    ],
)
def test_a_mail_takes_as_few_flights_as_the_server_allows(
    recipients: int, offers: dict[str, Any], modes: dict[str, Any], flights: int
) -> None:
    single = Single(modes, **offers)
    outcome = single.delivered(*[f"r{number}@example.net" for number in range(recipients)])
    assert outcome.value.all_ok
    assert single.sink.flights == flights
    assert single.sink.violations == []


@pytest.mark.parametrize(("offers", "modes"), [({}, {"pipelining": Mode.NO}), ({"pipelining": False}, {})])
@pytest.mark.parametrize(("chunking", "content"), [(True, 1), (False, 2)])
def test_without_pipelining_each_command_is_a_flight(
    offers: dict[str, Any], modes: dict[str, Any], chunking: bool, content: int
) -> None:
    single = Single(modes, chunking=chunking, **offers)
    assert single.delivered("a@example.net", "b@example.net", "c@example.net").value.all_ok
    assert single.sink.flights == 1 + 1 + 3 + content
    assert single.sink.violations == []


@pytest.mark.parametrize("size", [SMALL - 1, SMALL])
def test_a_mail_of_up_to_256_kib_goes_in_two_flights(size: int) -> None:
    single = Single()
    assert single.delivered(message=b"x" * size).value.all_ok
    assert single.sink.flights == 2


def test_a_larger_mail_waits_for_its_recipients_verdicts() -> None:
    single = Single(refuse=lambda address: "550 no")
    result = single.delivered(message=b"x" * (SMALL + 1)).value
    assert [entry.command for entry in result.recipients] == ["RCPT", "RCPT"]
    assert not any(command.startswith(b"BDAT") for command in single.sink.commands)


def test_mails_that_are_given_together_go_in_one_write() -> None:
    session = Session()
    for _ in range(3):
        session.client.deliver(envelope(), Content(MESSAGE))
    assert session.open(b"PIPELINING", b"CHUNKING").count(b"BDAT") == 3
    assert len(session.end.writes) == 2
    for _ in range(4):
        session.client.deliver(envelope(), Content(MESSAGE))
    session.network.settle()
    assert session.script.heard.count(b"BDAT") == 4
    assert len(session.end.writes) == 3


def test_behind_idle_time_the_content_waits_until_the_server_has_answered() -> None:
    session = Session()
    session.open(b"PIPELINING", b"CHUNKING")
    session.client.deliver(envelope(), Content(MESSAGE))
    session.network.settle()
    assert b"BDAT" not in session.script.heard
    assert session.say(b"250 sender ok").startswith(b"BDAT")


def test_a_mail_given_from_a_callback_goes_in_the_same_turn() -> None:
    single = Single()
    outcomes: list[Outcome[DeliveryResult]] = []

    def again(result: DeliveryResult) -> DeliveryResult:
        outcomes.append(Outcome(single.deliver()))
        single.client.finish()
        return result

    outcomes.append(Outcome(single.deliver().addCallback(again)))
    single.connect()
    single.network.settle()
    assert [outcome.value.all_ok for outcome in outcomes] == [True, True]
    assert single.sink.violations == []


# QUIT.


@pytest.mark.parametrize("offers", [{}, {"chunking": False}, {"pipelining": False}])
def test_quit_costs_no_flight_and_ends_the_session_in_order(offers: dict[str, Any]) -> None:
    single = Single(**offers)
    assert single.delivered().value.all_ok
    (session,) = single.sink.sessions
    assert session.commands[-1] == b"QUIT"
    assert session.closed is Closed.QUIT
    single.network.assert_nothing_is_left()


@pytest.mark.parametrize("action", [Action.STALL, Action.DEAF, Action.CLOSE, Action.TRICKLE])
def test_nobody_waits_for_the_reply_to_quit(action: Action) -> None:
    single = Single(faults=[Fault(Stage.QUIT, action)])
    outcome = single.delivered()
    assert outcome.value.all_ok
    assert outcome.seconds == 0
    single.end_in_time()


def test_quit_waits_for_the_final_reply_without_pipelining() -> None:
    single = Single({"pipelining": Mode.NO}, faults=[Fault(Stage.BDAT, Action.STALL)])
    outcome = single.delivered()
    assert not outcome.came
    assert b"QUIT" not in single.sink.commands


# Verdicts.


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("split", [None, 1, 7])
def test_each_recipient_gets_the_reply_that_is_its_own(
    chunking: bool, pipelining: bool, split: int | None
) -> None:
    recipients = [
        "a@x.example",
        "no@x.example",
        "a@x.example",
        "later@x.example",
        "no@x.example",
        "b@x.example",
    ]
    refuse = {"no@x.example": "550-5.1.1 No\n550 5.1.1 never", "later@x.example": "450 4.2.1 later"}
    single = Single(chunking=chunking, pipelining=pipelining, refuse=refuse, split=split)
    result = single.delivered(*recipients).value
    assert [entry.recipient for entry in result.recipients] == recipients
    ok, no, later = Status.OK, Status.PERMANENT_ERROR, Status.TEMPORARY_ERROR
    assert [entry.status for entry in result.recipients] == [ok, no, ok, later, no, ok]
    final = "BDAT" if chunking else "."
    assert [entry.command for entry in result.recipients] == [final, "RCPT", final, "RCPT", "RCPT", final]
    assert result.recipients[1].response == "550-5.1.1 No\n550 5.1.1 never"
    assert result.recipients[0].response == "250 2.0.0 Ok: queued as 1"
    assert single.sink.mails[0].addresses == ["a@x.example", "a@x.example", "b@x.example"]
    assert single.sink.violations == []


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("size", [10, SMALL + 10])
def test_a_mail_that_nobody_may_have_is_not_sent(chunking: bool, size: int) -> None:
    single = Single(chunking=chunking, refuse=lambda address: "550 5.1.1 no")
    result = single.delivered(message=b"x" * size).value
    assert [entry.code for entry in result.recipients] == [550, 550]
    assert single.sink.mails == []


def test_a_mail_that_nobody_may_have_ends_with_a_lone_dot_where_the_server_says_354() -> None:
    single = Single(
        chunking=False,
        refuse=lambda address: "550 5.1.1 no",
        faults=[Fault(Stage.DATA, Action.REPLY, b"354 go ahead\r\n")],
    )
    result = single.delivered().value
    assert [entry.command for entry in result.recipients] == ["RCPT", "RCPT"]
    assert single.sink.sessions[0].unaddressed == [b""]
    assert single.sink.mails == []


def test_lmtp_has_a_final_reply_for_each_accepted_recipient() -> None:
    single = Single(
        {"protocol": Protocol.LMTP},
        lmtp=True,
        refuse={"no@x.example": "550 no"},
        final_replies={"full@x.example": "452 4.2.2 full"},
    )
    result = single.delivered("a@x.example", "no@x.example", "full@x.example").value
    assert [entry.code for entry in result.recipients] == [250, 550, 452]
    assert [entry.command for entry in result.recipients] == ["BDAT", "RCPT", "BDAT"]


def test_a_mail_over_the_servers_limit_is_refused_before_mail_is_said() -> None:
    single = Single(size=100)
    error = single.delivered(message=b"x" * 101).error
    assert isinstance(error, MessageTooLarge)
    assert error.recipients == ()
    assert [command[:4] for command in single.sink.commands] == [b"EHLO", b"QUIT"]
    single.end_in_time()


def test_a_mail_that_cannot_be_sent_leaves_its_neighbors_alone() -> None:
    single = Single(size=100, smtputf8=False)
    large = Outcome(single.deliver(message=b"x" * 101))
    utf8 = Outcome(single.client.deliver(Envelope("ä@example.org", ["a@example.net"]), Content(b"")))
    outcome = single.delivered()
    assert isinstance(large.error, MessageTooLarge)
    assert isinstance(utf8.error, ExtensionUnsupported)
    assert outcome.value.all_ok


# Content.

NASTY = {
    "empty": b"",
    "a dot": b".",
    "a dot and a line end": b".\r\n",
    "an end of data": b"\r\n.\r\n",
    "a second message": b"x\n.\nMAIL FROM:<evil@example.org>\nRCPT TO:<victim@example.org>\nDATA\n",
    "a bare CR before a dot": b"x\r.\r\nQUIT\r\n",
    "a bare LF before a dot": b"x\n.\r\nQUIT\r\n",
    "a CR and a CRLF before a dot": b"x\r\r\n.\r\r\n",
    "dots only": b"." * 70000,
    "lines of dots": b"..\r\n.\r\n...\r\n" * 1000,
    "no final line end": b"Subject: x\r\n\r\nhello",
    "a CR at the end": b"hello\r",
    "a LF at the end": b"hello\n",
    "NULs": b"\x00\r\n.\x00\r\n\x00" * 100,
    "all octets": bytes(range(256)) * 10,
    "one long line": b"x" * 100_000,
}


def arrives_as(message: bytes, via: str) -> bytes:
    content = re.sub(rb"\r\n|\r|\n", b"\r\n", message)
    return content if via == "BDAT" or not content or content.endswith(b"\r\n") else content + b"\r\n"


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("message", NASTY.values(), ids=NASTY.keys())
def test_content_arrives_octet_for_octet(message: bytes, chunking: bool) -> None:
    single = Single(chunking=chunking)
    assert single.delivered(message=message).value.all_ok
    (mail,) = single.sink.mails
    assert mail.content == arrives_as(message, mail.via)
    assert mail.via == ("BDAT" if chunking else "DATA")
    assert not mail.bare_line_ends
    assert single.sink.violations == []


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("multiple", [16384, 65536, 131072])
@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2])
def test_dots_at_the_start_of_lines_arrive_wherever_a_block_begins(
    chunking: bool, line_end: bytes, multiple: int, shift: int
) -> None:
    message = bytearray(b"x" * (4 * 131072 + 10))
    dots = line_end + b"." + line_end
    for at in range(multiple, len(message) - 5, multiple):
        start = at + shift - len(line_end)
        message[start : start + len(dots)] = dots
    single = Single(chunking=chunking)
    assert single.delivered(message=bytes(message)).value.all_ok
    (mail,) = single.sink.mails
    assert mail.content == arrives_as(bytes(message), mail.via)
    assert single.sink.violations == []


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
def test_eight_megabytes_arrive_octet_for_octet(chunking: bool) -> None:
    message = b".hello\r\n" * (1 << 20)
    single = Single(chunking=chunking)
    assert single.delivered(message=message).value.all_ok
    assert single.sink.mails[0].content == message


# Back-pressure.


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
def test_a_server_that_does_not_read_costs_one_block_of_memory_and_ends_within_the_bound(
    chunking: bool,
) -> None:
    single = Single(
        {"timeouts": Timeouts(data_block=30)},
        chunking=chunking,
        faults=[Fault(Stage.CONTENT, Action.DEAF, after_octets=1)],
    )
    outcome = single.delivered(message=b".\r\n" * (1 << 20), bound=31)
    assert isinstance(outcome.error, ResponseTimeout)
    assert str(outcome.error) == "the server took nothing more of the content within 30 s"
    assert not outcome.error.in_doubt
    assert outcome.seconds == 30
    assert 65536 < single.end.peak <= MOST_IN_FLIGHT
    single.end_in_time()


def test_a_slow_reader_is_waited_for_as_long_as_it_reads() -> None:
    single = Single({"timeouts": Timeouts.uniform(10)}, size=None)
    result = single.deliver(message=b"x" * (2 << 20))
    single.client.finish()
    single.connect()
    outcome = Outcome(result)
    there = single.end.other
    there.reading = False
    for _ in range(120):
        # 64 KiB every three seconds: what a transport holds takes less than ten.
        single.network.elapse(3, 3)
        there.reading = True
        single.end.move()
        there.reading = False
    assert single.network.seconds() == 360
    there.reading = True
    single.network.settle()
    assert outcome.value.all_ok
    assert single.end.peak <= MOST_IN_FLIGHT


def test_a_server_that_accepts_a_mail_it_has_not_read_is_not_waited_for_without_end() -> None:
    session = Session(terms(timeouts=Timeouts(data_block=30)))
    _, outcome = session.deliver(message=b"x" * SMALL)
    session.say(b"220 server.example")
    session.end.other.pauseProducing()
    session.send(b"250-server.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    session.send(b"250 1\r\n250 2\r\n250 3\r\n250 queued unread\r\n")
    session.client.finish()
    session.network.settle()
    assert outcome.value.all_ok
    session.network.elapse(31)
    assert not session.end.connected
    assert session.network.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_session_on_an_endpoint_keeps_one_block_in_the_kernels_way() -> None:
    from twisted.internet import reactor

    faults = [Fault(Stage.CONTENT, Action.DEAF, after_octets=1)]
    sink = Sink(reactor, faults=faults)
    await sink.listen()
    client = PipeliningESMTPClient(server=terms(timeouts=Timeouts(data_block=0.2)), identity="me.example")
    # More than what loopback's socket buffers take.
    result = client.deliver(envelope(), Content(b"x" * (8 << 20)))
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", sink.port), client)
    transport = client.transport
    most = 0
    write = transport.write

    def measured(octets: bytes) -> None:
        nonlocal most
        write(octets)
        most = max(most, len(transport.dataBuffer) - transport.offset + transport._tempDataLen)

    transport.write = measured
    with pytest.raises(ResponseTimeout):
        await result
    assert 0 < most <= MOST_IN_FLIGHT
    await client.when_gone()
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_large_mail_is_held_once_while_it_is_sent() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor, keep_content=False, chunking=False)
    await sink.listen()
    client = PipeliningESMTPClient(server=terms(), identity="me.example")
    content = Content(b".hello\r\n" * (1 << 20))
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", sink.port), client)
    tracemalloc.start()
    try:
        result = await client.deliver(envelope(), content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.all_ok
    assert peak < 2 << 20
    client.finish()
    await client.when_gone()
    await sink.stop()


# What goes wrong on our side.


def test_who_raises_when_told_an_outcome_harms_no_other_mail(logged_failures: Any) -> None:
    single = Single()

    def raises(transaction: Transaction) -> None:
        raise RuntimeError("a user's own")

    for message in (b"1", b"x" * 20_000_000):
        # The second is over the sink's limit, and so has its outcome at once.
        transaction = Transaction(envelope(), Content(message))
        transaction.on_settled = raises
        single.client.submit(transaction)
    assert single.delivered().value.all_ok
    single.end_in_time()
    assert len(logged_failures.flush(RuntimeError)) == 2


def test_who_raises_when_his_mail_is_given_back_harms_no_other(logged_failures: Any) -> None:
    session = Session()
    transaction = Transaction(envelope(), Content(b""))

    def raises(transaction: Transaction) -> None:
        raise RuntimeError("a user's own")

    transaction.on_settled = raises
    session.client.submit(transaction)
    _, outcome = session.deliver()
    session.hang_up()
    assert isinstance(outcome.error, ConnectionLost)
    assert session.over
    assert len(logged_failures.flush(RuntimeError)) == 1


def test_a_transaction_that_nobody_waits_for_is_sent_all_the_same() -> None:
    single = Single()
    single.client.submit(Transaction(envelope(), Content(b"")))
    assert single.delivered().value.all_ok
    assert single.sink.mail_count == 2


@interpreted
@pytest.mark.parametrize("given", ["before", "after"])
@pytest.mark.parametrize(
    "fault",
    [
        "client.exchange.Exchange._take",
        "smtp.pipeline.Pipeline.output",
        "smtp.pipeline.Pipeline.submit",
        "client.exchange.Exchange._keep_time",
    ],
)
def test_a_fault_of_ours_is_an_internal_error_and_never_a_hang(
    fault: str, given: str, monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    single = Single()
    if given == "after":
        single.connect()
        single.network.settle()
    monkeypatch.setattr(f"twisted_smtpclient.{fault}", broken)
    outcomes = [Outcome(single.deliver()), Outcome(single.deliver())]
    if given == "before":
        single.connect()
    single.client.finish()
    single.network.settle()
    assert [type(outcome.error) for outcome in outcomes] == [InternalError] * 2
    assert str(outcomes[0].error) == "a fault of the client; its log has the traceback"
    single.end_in_time()
    assert logged_failures.flush(ZeroDivisionError)


@interpreted
def test_a_fault_of_ours_when_a_timer_runs_out_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    single = Single({"timeouts": Timeouts.uniform(10)}, faults=[Fault(Stage.MAIL, Action.STALL)])
    monkeypatch.setattr("twisted_smtpclient.client.exchange.Exchange.overdue", broken)
    assert isinstance(single.delivered(bound=10).error, InternalError)
    single.end_in_time()
    assert logged_failures.flush(ZeroDivisionError)


@interpreted
def test_a_fault_of_ours_when_the_transport_takes_more_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    single = Single()
    monkeypatch.setattr("twisted_smtpclient.client.exchange.Exchange.resume", broken)
    assert isinstance(single.delivered(message=b"x" * (1 << 20)).error, InternalError)
    single.end_in_time()
    assert logged_failures.flush(ZeroDivisionError)


def test_a_fault_of_ours_when_it_is_connected_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    single = Single()
    monkeypatch.setattr("twisted_smtpclient.client.session.Handshake", broken)
    assert isinstance(single.delivered().error, InternalError)
    single.end_in_time()
    assert logged_failures.flush(ZeroDivisionError)


def test_an_abort_before_the_session_is_connected_ends_it_once_it_is() -> None:
    single = Single()
    outcome = Outcome(single.deliver())
    single.client.abort(ConnectionLost("enough"))
    assert isinstance(outcome.error, ConnectionLost)
    single.connect()
    single.end_in_time()
    assert single.sink.commands == []


def test_a_callback_may_abort_the_session_that_calls_it() -> None:
    single = Single()

    def abort(result: DeliveryResult) -> DeliveryResult:
        single.client.abort(ConnectionLost("enough"))
        return result

    first: Deferred[DeliveryResult] = single.deliver().addCallback(abort)
    second = Outcome(single.deliver())
    outcome = Outcome(first)
    single.connect()
    single.network.settle()
    assert outcome.value.all_ok
    # Its replies were in the same segment as the first one's.
    assert second.came == 1
    single.end_in_time()
