"""Where a delivery's time went, and what was said for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.memory import Outcome
from tests.client.sessions import HOST, MESSAGE, Post, envelope, terms
from tests.client.submission import CERTIFICATES, PASSWORD, USER
from twisted_smtpclient import (
    ConnectionTimeout,
    Content,
    Credentials,
    DeadlineExceeded,
    Envelope,
    Mode,
    Refused,
    TLSMode,
    Trace,
)
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.smtp.trace import MAX_TRANSCRIPT
from twisted_smtpclient.testing import Action, Fault, Stage

PHASES = ("queued", "connect", "tls", "session", "envelope", "content")


def traced(here: Post, *, transcript: bool = False, bound: float = 0.0, **changes: Any) -> Trace:
    message = changes.pop("message", MESSAGE)
    deadline = changes.pop("deadline", None)
    trace = Trace(transcript=transcript)
    result = here.agent.deliver(
        terms(**changes), envelope(), Content(message), deadline=deadline, trace=trace
    )
    here.network.until(result, bound)
    assert sum(getattr(trace, phase) for phase in PHASES) == pytest.approx(trace.total)
    return trace


def slow(stage: Stage, seconds: float) -> Fault:
    return Fault(stage, Action.REPLY, reply=lambda own: own, after=seconds)


def lines(trace: Trace) -> list[str]:
    assert trace.transcript is not None
    return [f"{side}: {line}" for side, line in trace.transcript.lines]


def test_each_second_is_in_the_phase_that_it_was_spent_in() -> None:
    here = Post(
        starttls=CERTIFICATES.server_context(),
        agent={"trust_root": CERTIFICATES.trust_root()},
        faults=[slow(Stage.GREETING, 1), slow(Stage.RCPT, 4), slow(Stage.BDAT, 8)],
    )
    here.network.serve(here.sink, HOST, 2)
    trace = traced(here, tls=TLSMode.DEPEND, bound=20)
    assert trace.connect == pytest.approx(2.0)
    assert trace.session == pytest.approx(1.0)
    assert trace.envelope == pytest.approx(4.0)
    assert trace.content == pytest.approx(8.0)
    assert trace.queued == pytest.approx(0.0)
    assert trace.tls_version == "TLSv1.3"
    assert (trace.flights, trace.reused, trace.pipelined, trace.chunking) == (1, False, True, True)
    assert repr(trace) == "<Trace 15.000 s, 1 flights>"


def test_a_kept_connection_costs_nothing_and_is_told() -> None:
    here = Post()
    here.network.serve(here.sink, HOST, 2)
    assert not traced(here, bound=9).reused
    trace = traced(here)
    assert trace.reused
    assert trace.total == 0
    # On one that was idle the content waits for MAIL's reply.
    assert trace.flights == 2


def test_waiting_for_other_mails_is_queueing() -> None:
    here = Post(agent={"connections_per_host": 1}, pipelining=False, faults=[slow(Stage.BDAT, 3)])
    first = here.deliver()
    trace = Trace()
    here.network.settle()
    second = here.agent.deliver(terms(), envelope(), Content(MESSAGE), trace=trace)
    here.network.until(second, 10)
    assert trace.queued == pytest.approx(3.0)
    assert trace.reused
    assert first.called


@pytest.mark.parametrize(
    ("offers", "flights"),
    [
        ({}, 1),
        ({"chunking": False}, 2),
        ({"pipelining": False}, 4),
        ({"pipelining": False, "chunking": False}, 5),
    ],
)
def test_flights_are_what_the_way_takes(offers: dict[str, Any], flights: int) -> None:
    here = Post(**offers)
    trace = traced(here)
    assert trace.flights == flights
    assert trace.pipelined is offers.get("pipelining", True)
    assert trace.chunking is offers.get("chunking", True)


@pytest.mark.parametrize("chunking", [True, False])
def test_the_blocks_of_a_large_content_are_one_flight(chunking: bool) -> None:
    here = Post(chunking=chunking)
    trace = traced(here, transcript=True, message=b"x" * (2 * SMALL))
    assert trace.flights == 2
    sizes = [line for line in lines(trace) if "octets)" in line]
    assert len(sizes) == 1
    # Dot-stuffing found nothing; a line end was added.
    assert sizes[0] == f"C: ({2 * SMALL + (0 if chunking else 2)} octets)"


def test_a_transcript_is_the_handshake_and_the_mails_own_words() -> None:
    here = Post(chunking=False, refuse={"b@example.net": "550 5.1.1 nobody"}, extensions={"SIZE": None})
    here.delivered()
    trace = traced(here, transcript=True)
    assert lines(trace)[0].startswith("S: 220 ")
    assert lines(trace)[1] == "C: EHLO [192.0.2.7]"
    own = lines(trace)[lines(trace).index("C: MAIL FROM:<me@example.org> SIZE=22") :]
    assert own[:4] == [
        "C: MAIL FROM:<me@example.org> SIZE=22",
        "C: RCPT TO:<a@example.net>",
        "C: RCPT TO:<b@example.net>",
        "C: DATA",
    ]
    assert [line[:6] for line in own[4:8]] == ["S: 250", "S: 250", "S: 550", "S: 354"]
    assert own[8:10] == ["C: (22 octets)", "C: ."]
    assert own[10].startswith("S: 250 ")
    assert len(own) == 11


def test_nothing_of_others_on_the_same_connection_is_in_a_transcript() -> None:
    here = Post(agent={"connections_per_host": 1})
    traces = [Trace(transcript=True) for _ in range(5)]
    for number, trace in enumerate(traces):
        mail = Envelope(f"s{number}@example.org", [f"r{number}@example.net"])
        here.agent.deliver(terms(), mail, Content(MESSAGE), trace=trace)
    here.network.settle()
    for number, trace in enumerate(traces):
        said = lines(trace)
        assert [line for line in said if "MAIL" in line and line.startswith("C")] == [
            f"C: MAIL FROM:<s{number}@example.org> SIZE=22"
        ]
        assert sum(line.startswith("C: RCPT") for line in said) == 1
        assert sum(line.startswith("S: 250 ") for line in said[-5:]) == (3 if number == 0 else 4)


def test_secrets_are_not_in_a_transcript() -> None:
    here = Post(
        starttls=CERTIFICATES.server_context(),
        agent={"trust_root": CERTIFICATES.trust_root()},
        users={USER: PASSWORD},
    )
    for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
        auth = Credentials(USER, PASSWORD, mechanisms=[mechanism])
        said = lines(traced(here, transcript=True, auth=auth, tls=TLSMode.DEPEND))
        words = next(line for line in said if line.startswith("C: AUTH")).split()[2:]
        assert words == ([mechanism] if mechanism == "LOGIN" else [mechanism, "***"])
        assert {line for line in said if line.startswith("S: 334")} <= {"S: 334 ***"}
        assert any(line.startswith("S: 235") for line in said)
        assert any(line.startswith("C: MAIL") for line in said)


def test_a_session_that_could_not_be_had_is_told_of() -> None:
    here = Post(faults=[Fault(Stage.GREETING, Action.REPLY, reply=b"554 5.7.1 go away\r\n", after=2)])
    here.network.serve(here.sink, HOST, 2)
    trace = Trace(transcript=True)
    outcome = here.network.until(here.agent.deliver(terms(), envelope(), Content(MESSAGE), trace=trace), 10)
    assert isinstance(outcome.error, Refused)
    assert lines(trace) == ["S: 554 5.7.1 go away"]
    assert trace.connect == pytest.approx(2.0)
    assert trace.session == pytest.approx(2.0)
    assert trace.flights == 0


def test_a_connection_that_is_never_made_is_connecting() -> None:
    here = Post()
    here.network.serve(None, HOST)
    trace = Trace()
    outcome = here.network.until(
        here.agent.deliver(terms(connection_timeout=4), envelope(), Content(MESSAGE), trace=trace), 10
    )
    assert isinstance(outcome.error, ConnectionTimeout)
    assert trace.connect == pytest.approx(4.0)


def test_both_attempts_of_a_session_that_went_on_in_clear_are_told() -> None:
    here = Post(faults=[Fault(Stage.STARTTLS, Action.CLOSE)], starttls=CERTIFICATES.server_context())
    here.network.serve(here.sink, HOST, 2)
    said = lines(trace := traced(here, transcript=True, tls=TLSMode.TRY, bound=9))
    assert said.count("C: STARTTLS") == 1
    assert sum(line.startswith("S: 220") for line in said) == 2
    assert trace.connect == pytest.approx(4.0)
    assert trace.tls_version is None


def test_a_mail_that_moved_tells_of_both_connections() -> None:
    here = Post()
    here.delivered()
    here.sink.faults.append(Fault(Stage.MAIL, Action.CLOSE))
    said = lines(traced(here, transcript=True, bound=5))
    assert sum(line.startswith("C: MAIL") for line in said) == 2
    assert sum(line.startswith("C: EHLO") for line in said) == 2


def test_a_transcript_is_bounded() -> None:
    here = Post()
    trace = Trace(transcript=True)
    mail = Envelope(None, [f"{'r' * 50}{number}@example.net" for number in range(2000)])
    here.network.until(here.agent.deliver(terms(), mail, Content(MESSAGE), trace=trace))
    assert trace.transcript is not None
    told = trace.transcript.lines
    assert sum(len(line) for _, line in told) <= MAX_TRANSCRIPT
    assert told[-1][1] == "(the rest is left out)"
    assert sum(line == "(the rest is left out)" for _, line in told) == 1


DEADLINES: dict[str, dict[str, Any]] = {
    "connecting": {"serve": None},
    "greeting": {"at": Stage.GREETING},
    "EHLO": {"at": Stage.EHLO},
    "MAIL": {"at": Stage.MAIL},
    "RCPT": {"at": Stage.RCPT},
    "DATA": {"at": Stage.DATA, "chunking": False},
    "the final reply to DATA": {"at": Stage.END_OF_DATA, "chunking": False},
    "the final reply to BDAT": {"at": Stage.BDAT},
}


@pytest.mark.parametrize("phase", DEADLINES)
def test_a_deadline_holds_in_each_phase_and_doubt_is_told_exactly(phase: str) -> None:
    how = dict(DEADLINES[phase])
    at = how.pop("at", None)
    sink: dict[str, Any] = {"chunking": how.get("chunking", True)}
    if at is not None:
        sink["faults"] = [Fault(at, Action.STALL)]
    here = Post(**sink)
    if at is None:
        here.network.serve(None, HOST)
    result = here.agent.deliver(terms(), envelope(), Content(MESSAGE), deadline=5)
    outcome = Outcome(result)
    here.network.elapse(4.9)
    assert not outcome.came
    here.network.elapse(0.2)
    error = outcome.error
    assert isinstance(error, DeadlineExceeded)
    assert error.temporary
    whole = "final reply" in phase or phase in ("MAIL", "RCPT")
    assert error.in_doubt is whole
    began = phase in ("MAIL", "RCPT", "DATA") or whole
    assert len(error.recipients) == (2 if began else 0)


def test_a_deadline_in_the_queue_ends_what_waits_and_nothing_else() -> None:
    here = Post(agent={"connections_per_host": 1}, pipelining=False, faults=[slow(Stage.BDAT, 20)])
    first = Outcome(here.deliver())
    here.network.settle()
    trace = Trace()
    late = here.agent.deliver(terms(), envelope(), Content(MESSAGE), deadline=2, trace=trace)
    assert isinstance(here.network.until(late, 5).error, DeadlineExceeded)
    assert trace.queued == pytest.approx(2.0)
    here.network.elapse(30)
    assert first.value.all_ok


def test_a_deadline_that_is_kept_leaves_nothing_behind() -> None:
    here = Post()
    trace = traced(here, deadline=50, chunking=Mode.NO)
    assert trace.total == 0
    here.close()
