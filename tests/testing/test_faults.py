"""The scripted faults: at each stage, each action."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.testing.driving import ENVELOPE, Driven
from twisted_smtpclient.testing import Action, Closed, Fault, Sink, Stage

#: What is said to come to each stage that is a command's.
WAY_TO = {
    "EHLO": [b"EHLO x\r\n"],
    "HELO": [b"HELO x\r\n"],
    "MAIL": [b"EHLO x\r\n", b"MAIL FROM:<>\r\n"],
    "RCPT": [b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.de>\r\n"],
    "DATA": [b"EHLO x\r\n", ENVELOPE, b"DATA\r\n"],
    "CONTENT": [b"EHLO x\r\n", ENVELOPE, b"DATA\r\n", b"xyz"],
    ".": [b"EHLO x\r\n", ENVELOPE, b"DATA\r\n", b".\r\n"],
    "BDAT": [b"EHLO x\r\n", ENVELOPE, b"BDAT 2 LAST\r\nhi"],
    "RSET": [b"RSET\r\n"],
    "NOOP": [b"NOOP\r\n"],
    "VRFY": [b"VRFY a\r\n"],
    "QUIT": [b"QUIT\r\n"],
    "STARTTLS": [b"EHLO x\r\n", b"STARTTLS\r\n"],
    "HANDSHAKE": [b"EHLO x\r\n", b"STARTTLS\r\n", b"\x16\x03\x01"],
    "IDLE": [b"EHLO x\r\n", ENVELOPE, b"DATA\r\n", b".\r\n"],
}
each_stage = pytest.mark.parametrize("at", WAY_TO)


def driven_to(at: str, fault: Fault) -> Driven:
    """Where the fault acts; what was said there is yet to be heard."""
    if at == "CONTENT":
        fault = replace(fault, after_octets=3)
    driven = Driven(faults=[fault], starttls=object())
    driven.transport.startTLS = lambda context: None  # type: ignore[attr-defined]
    *before, last = WAY_TO[at]
    for octets in before:
        driven.send(octets)
    driven.heard()
    driven.protocol.dataReceived(last)
    return driven


@each_stage
def test_close_says_nothing_more_and_closes(at: str) -> None:
    driven = driven_to(at, Fault(at, Action.CLOSE))
    assert driven.heard() == (b"250 2.0.0 Ok: queued as 1\r\n" if at == "IDLE" else b"")
    assert driven.transport.disconnecting
    assert not driven.transport.disconnected
    # The octets of one who has not noticed are no violation.
    driven.send(b"NOOP\r\n")
    assert driven.session.violations == []
    assert driven.clock.getDelayedCalls() == []


@each_stage
def test_reset_aborts(at: str) -> None:
    driven = driven_to(at, Fault(at, "RESET"))
    assert driven.transport.disconnected


@each_stage
def test_stall_answers_nothing_ever_and_reads_on(at: str) -> None:
    driven = driven_to(at, Fault(at, "STALL"))
    driven.heard()
    commands = len(driven.session.commands)
    driven.send(b"\r\n.\r\nNOOP\r\n")
    driven.clock.advance(3600)
    assert driven.heard() == b""
    assert not driven.transport.disconnecting
    assert driven.transport.producerState == "producing"
    if at not in ("HANDSHAKE", "QUIT", "STARTTLS"):
        assert len(driven.session.commands) > commands


@each_stage
def test_deaf_stops_reading(at: str) -> None:
    driven = driven_to(at, Fault(at, "DEAF"))
    assert driven.transport.producerState == "paused"


@each_stage
def test_trickle_says_its_reply_octet_by_octet(at: str) -> None:
    driven = driven_to(at, Fault(at, "TRICKLE", b"250 Ok\r\n", interval=2.0))
    heard = driven.heard()
    assert heard.removeprefix(b"250 2.0.0 Ok: queued as 1\r\n") == b"2"
    for expected in b"50 Ok\r\n":
        driven.clock.advance(1.9)
        assert driven.heard() == b""
        driven.clock.advance(0.1)
        assert driven.heard() == bytes([expected])
    assert driven.transport.disconnecting == (at == "QUIT")
    assert driven.clock.getDelayedCalls() == []


def test_a_trickled_reply_may_be_answered_when_its_last_octet_is_out() -> None:
    driven = driven_to("EHLO", Fault("EHLO", "TRICKLE"))
    driven.clock.pump([1.0] * 300)
    assert driven.heard().startswith(b"250-sink.invalid\r\n")
    assert driven.say(b"MAIL FROM:<>", b"RSET") == [250, 250]
    assert driven.session.violations == []


@pytest.mark.parametrize("at", ["EHLO", "RCPT", "."])
def test_an_endless_trickle_goes_on_in_continuation_lines(at: str) -> None:
    driven = driven_to(at, Fault(at, "TRICKLE", endless=True))
    driven.clock.pump([1.0] * 1000)
    lines = driven.heard().split(b"\r\n")[:-1]
    assert len(lines) > 10
    assert {line[:4] for line in lines} == {b"250-"}


@each_stage
def test_a_flood_has_no_end_and_is_paced_by_the_reader(at: str) -> None:
    driven = driven_to(at, Fault(at, "FLOOD"))
    driven.heard()
    assert not driven.transport.streaming
    for _ in range(3):
        assert driven.transport.producer is not None
        driven.transport.producer.resumeProducing()
        block = driven.heard()
        assert 60_000 < len(block) < 140_000
        assert all(line[3:4] == b"-" for line in block.splitlines())


def test_a_flood_may_be_one_line_without_end() -> None:
    driven = driven_to("MAIL", Fault("MAIL", "FLOOD", b"x"))
    assert driven.transport.producer is not None
    driven.transport.producer.resumeProducing()
    assert set(driven.heard()) == {ord("x")}


@each_stage
def test_nonsense_takes_the_place_of_the_reply(at: str) -> None:
    driven = driven_to(at, Fault(at, "NONSENSE", b"250-a\r\n550 b\r\n"))
    assert driven.heard().endswith(b"250-a\r\n550 b\r\n")
    assert driven.heard() == b""


@each_stage
def test_reply_and_close(at: str) -> None:
    driven = driven_to(at, Fault(at, "REPLY_AND_CLOSE", b"421 Bye\r\n"))
    assert driven.heard().endswith(b"421 Bye\r\n")
    assert driven.transport.disconnecting


@pytest.mark.parametrize("at", [at for at in WAY_TO if at not in ("CONTENT", "HANDSHAKE", "IDLE")])
def test_inject_puts_octets_behind_the_reply(at: str) -> None:
    driven = driven_to(at, Fault(at, "INJECT", b"250 evil\r\n"))
    head, _, tail = driven.heard().partition(b"250 evil\r\n")
    assert head.endswith(b"\r\n")
    assert tail == b""


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.EARLY])
def test_the_greeting_too(action: Action) -> None:
    reply = b"554 No\r\n" if action not in (Action.TRICKLE, Action.FLOOD) else None
    driven = Driven(faults=[Fault("GREETING", action, reply)])
    assert driven.transport.disconnecting == (action in (Action.CLOSE, Action.RESET, Action.REPLY_AND_CLOSE))
    assert driven.session.flights == 0


def test_who_is_greeted_with_554_may_say_quit_only() -> None:
    driven = Driven(faults=[Fault("GREETING", "REPLY", b"554 No\r\n")])
    assert driven.codes() == [554]
    assert [driven.say(b"EHLO x"), driven.say(b"QUIT")] == [[503], [221]]


def test_replies_before_the_fault_go_out_first() -> None:
    driven = Driven(faults=[Fault("RCPT", "CLOSE", nth=2)]).begin()
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>", b"RCPT TO:<c@d.de>", b"DATA") == [250, 250]
    assert driven.transport.disconnecting
    assert driven.session.commands[-1] == b"RCPT TO:<c@d.de>"


@pytest.mark.parametrize(
    ("at", "reply", "then", "codes"),
    [
        ("EHLO", b"550 No\r\n", [b"MAIL FROM:<>"], [503]),
        ("MAIL", b"451 No\r\n", [b"RCPT TO:<a@b.de>"], [503]),
        ("RCPT", b"450 No\r\n", [b"DATA"], [554]),
        ("DATA", b"451 No\r\n", [b"NOOP"], [250]),
        ("DATA", b"250 What?\r\n", [b"NOOP"], [250]),
        (".", b"451 No\r\n", [b"MAIL FROM:<>"], [250]),
        ("BDAT", b"451 No\r\n", [b"MAIL FROM:<>"], [250]),
        ("RSET", b"451 No\r\n", [b"NOOP"], [250]),
        ("STARTTLS", b"454 No\r\n", [b"MAIL FROM:<>"], [250]),
    ],
)
def test_a_command_whose_reply_was_negative_takes_no_effect(
    at: str, reply: bytes, then: list[bytes], codes: list[int]
) -> None:
    driven = driven_to(at, Fault(at, "REPLY", reply))
    driven.heard()
    assert driven.say(*then) == codes


def test_a_recipient_that_a_fault_accepts_is_accepted() -> None:
    driven = Driven(faults=[Fault("RCPT", "REPLY", b"250 Oh well\r\n")]).begin()
    driven.say(b"MAIL FROM:<>", b"RCPT TO:<invalid@invalid.de>", b"DATA")
    driven.say(b".")
    assert driven.mail.addresses == ["invalid@invalid.de"]


def test_what_a_false_ehlo_reply_offers_counts_as_offered() -> None:
    driven = Driven(faults=[Fault("EHLO", "REPLY", b"250-x\r\n250 pipelining\r\n")]).begin()
    driven.say(b"RSET", b"RSET")
    assert driven.session.violations == []
    assert driven.say(b"BDAT 0 LAST") == [502]


def test_354_without_recipients_takes_a_lone_dot_that_is_no_mail() -> None:
    driven = Driven(faults=[Fault("DATA", "REPLY", b"354 Go\r\n")]).begin()
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<invalid@invalid.de>", b"DATA") == [250, 553, 354]
    assert driven.say(b".") == [554]
    assert driven.sink.mails == []
    assert driven.session.unaddressed == [b""]


def test_354_without_mail_is_heard_out_too() -> None:
    driven = Driven(lmtp=True, faults=[Fault("DATA", "REPLY", b"354 Go\r\n")]).begin(b"LHLO x")
    assert driven.say(b"DATA") == [354]
    assert driven.send(b"x\r\n.\r\n") == b""
    assert driven.session.unaddressed == [b"x\r\n"]


@pytest.mark.parametrize("code", [b"500", b"502"])
def test_a_server_that_does_not_know_bdat_reads_the_chunk_as_commands(code: bytes) -> None:
    driven = Driven(faults=[Fault("BDAT", "REPLY", code + b" What?\r\n")]).begin()
    assert driven.send(ENVELOPE + b"BDAT 6 LAST\r\nNOOP\r\n").endswith(code + b" What?\r\n250 2.0.0 Ok\r\n")
    assert driven.session.commands[-1] == b"NOOP"


def test_a_chunk_that_a_fault_refuses_fails_those_behind_it() -> None:
    driven = Driven(faults=[Fault("BDAT", "REPLY", b"451 Disk\r\n")]).begin()
    heard = driven.send(ENVELOPE + b"BDAT 1\r\nxBDAT 1\r\nxBDAT 1 LAST\r\nx")
    assert heard.count(b"451 Disk\r\n") == 3
    assert driven.sink.mails == []


@pytest.mark.parametrize("by", [b"DATA\r\n", b"BDAT 12 LAST\r\n"])
@pytest.mark.parametrize("reads", [1, 3, 12])
def test_early_is_the_final_reply_before_the_end(by: bytes, reads: int) -> None:
    driven = Driven(faults=[Fault("CONTENT", "EARLY", b"552 Enough\r\n", after_octets=5)]).begin()
    driven.send(ENVELOPE + by)
    heard = [driven.send(b"0123456\r\n.\r\n"[at : at + 12 // reads]) for at in range(0, 12, 12 // reads)]
    assert b"".join(heard) == b"552 Enough\r\n"
    assert heard[4 // (12 // reads)] == b"552 Enough\r\n"
    assert driven.mail.replies == ["552 Enough"]
    assert driven.say(b"NOOP") == [250]


@pytest.mark.parametrize("by", [b"DATA\r\n", b"BDAT 12 LAST\r\n"])
def test_early_may_come_before_the_first_octet(by: bytes) -> None:
    driven = Driven(faults=[Fault("CONTENT", "EARLY", b"250 Got it\r\n")]).begin()
    assert driven.send(ENVELOPE + by).endswith(b"250 Got it\r\n")
    assert driven.send(b"0123456\r\n.\r\n") == b""
    assert driven.mail.accepted


def test_content_is_counted_over_all_chunks() -> None:
    driven = Driven(faults=[Fault("CONTENT", "CLOSE", after_octets=5)]).begin()
    driven.send(ENVELOPE + b"BDAT 4\r\n0123BDAT 4\r\n")
    assert not driven.transport.disconnecting
    driven.send(b"4")
    assert driven.transport.disconnecting


def test_a_content_that_ends_sooner_is_spared() -> None:
    driven = Driven(faults=[Fault("CONTENT", "CLOSE", after_octets=5)]).begin()
    assert driven.send(ENVELOPE + b"BDAT 4 LAST\r\n0123").endswith(b"250 2.0.0 Ok: queued as 1\r\n")
    assert driven.send(ENVELOPE + b"BDAT 6 LAST\r\n012345").endswith(b"1\r\n250 2.1.5 Ok\r\n") is False
    assert len(driven.sink.mails) == 2


def test_content_that_never_ended_is_told() -> None:
    driven = Driven(faults=[Fault("CONTENT", "CLOSE", after_octets=7)]).begin()
    driven.send(ENVELOPE + b"BDAT 4\r\n0123BDAT 8 LAST\r\n45678")
    driven.protocol.connectionLost(Failure(ConnectionDone()))
    assert driven.session.unfinished == 7
    assert driven.session.closed is Closed.SINK


@pytest.mark.parametrize(
    ("action", "replies"),
    [
        ("STALL", []),
        ("CLOSE", []),
        ("RESET", []),
        ("FLOOD", []),
        ("TRICKLE", ["250 2.0.0 Ok: queued as 1"]),
        ("REPLY", ["999 Hm"]),
        ("REPLY_AND_CLOSE", ["999 Hm"]),
    ],
)
def test_a_mail_whose_final_reply_is_a_fault_came_in_all_the_same(action: str, replies: list[str]) -> None:
    reply = b"999 Hm\r\n" if action.startswith("REPLY") else None
    driven = driven_to(".", Fault(".", action, reply))
    assert driven.mail.replies == replies
    assert driven.mail.reply == "".join(replies)
    assert driven.mail.accepted is (action == "TRICKLE")


def test_an_idle_client_is_told_something_unasked() -> None:
    driven = driven_to("IDLE", Fault("IDLE", "EARLY", b"421 Idle\r\n"))
    assert driven.heard() == b"250 2.0.0 Ok: queued as 1\r\n421 Idle\r\n"


def test_idle_is_not_reached_while_something_is_unanswered() -> None:
    driven = Driven(faults=[Fault("IDLE", "CLOSE")]).begin()
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nxRSE")
    assert not driven.transport.disconnecting
    driven.send(b"T\r\n" + ENVELOPE + b"BDAT 1 LAST\r\nxRSET\r\n")
    assert not driven.transport.disconnecting
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    assert driven.transport.disconnecting


def test_idle_may_last_some_seconds_unless_the_client_speaks() -> None:
    driven = driven_to("IDLE", Fault("IDLE", "CLOSE", after=5.0, nth=None))
    driven.clock.advance(4.9)
    driven.send(b"NOOP\r\n")
    driven.clock.advance(60)
    assert not driven.transport.disconnecting
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx")
    driven.clock.advance(5)
    assert driven.transport.disconnecting


def test_a_fault_may_come_after_some_seconds() -> None:
    driven = driven_to("MAIL", Fault("MAIL", "CLOSE", after=5.0))
    driven.clock.advance(4.9)
    assert not driven.transport.disconnecting
    driven.clock.advance(0.2)
    assert driven.transport.disconnecting


def test_what_is_pipelined_behind_the_handshake_to_fail_is_a_violation() -> None:
    driven = Driven(faults=[Fault("HANDSHAKE", "CLOSE")], starttls=object()).begin()
    driven.send(b"STARTTLS\r\nEHLO x\r\n")
    assert driven.session.violations == ["octets behind STARTTLS before the handshake"]
    driven.send(b"\x16\x03\x01")
    assert driven.transport.disconnecting


def test_the_nth_time_is_counted_over_all_connections() -> None:
    sink = Driven(faults=[Fault("EHLO", "REPLY", b"421 x\r\n", nth=2)]).sink
    assert [Driven(sink).say(b"EHLO x")[-1:] for _ in range(3)] == [[250], [421], [250]]


def test_one_connection_alone_may_be_meant() -> None:
    sink = Driven(faults=[Fault("NOOP", "REPLY", b"421 x\r\n", nth=None, connection=3)]).sink
    second, third = Driven(sink), Driven(sink)
    assert third.say(b"NOOP") == [220, 421]
    assert second.say(b"NOOP") == [220, 250]
    assert third.say(b"NOOP") == [421]


def test_a_fault_given_later_counts_from_then_on() -> None:
    driven = Driven().begin()
    driven.say(b"NOOP")
    driven.sink.faults.append(Fault("NOOP", "REPLY", b"250 first\r\n"))
    driven.sink.faults.append(Fault("NOOP", "REPLY", b"250 second\r\n", nth=2))
    assert driven.send(b"NOOP\r\n") == b"250 first\r\n"
    assert driven.send(b"NOOP\r\n") == b"250 second\r\n"
    assert driven.send(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": "MIAL", "do": "CLOSE"}, "'MIAL' is no Stage"),
        ({"at": "MAIL", "do": "CLSE"}, "'CLSE' is no Action"),
        ({"at": "MAIL", "do": 3}, "3 is no Action"),
        ({"at": "MAIL", "do": "REPLY"}, "REPLY needs reply="),
        ({"at": "MAIL", "do": "EARLY", "reply": b"x"}, "EARLY goes with"),
        ({"at": "IDLE", "do": "INJECT", "reply": b"x"}, "nothing is answered at IDLE"),
        ({"at": "MAIL", "do": "CLOSE", "after_octets": 1}, "after_octets goes with CONTENT"),
        ({"at": "MAIL", "do": "CLOSE", "nth": 0}, "nth counts from 1"),
        ({"at": "MAIL", "do": "FLOOD", "reply": b""}, "FLOOD needs"),
    ],
)
def test_a_fault_that_cannot_be_is_told_at_once(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fault(**fields)  # type: ignore[arg-type]


def test_stages_and_actions_may_be_given_by_name() -> None:
    assert Fault(".", "CLOSE") == Fault(Stage.END_OF_DATA, Action.CLOSE) == Fault("END_OF_DATA", "CLOSE")
    assert Fault("EHLO", "NONSENSE", b"x") == Fault("EHLO", "REPLY", b"x")


def test_a_sink_has_no_faults_of_its_own() -> None:
    assert Sink(None).faults == []
