"""Deadlines, cancels, traces and transcripts of requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.fakes import Daemon, line, unknown
from twisted_smtpclient.errors import ConnectionLost, ProtocolError
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.limits import UNLIMITED
from twisted_smtpclient.smtp.probe import Probe
from twisted_smtpclient.smtp.reply import Reply

PROBE = b'{"probe":true,"host":"mx.example","id":"p"%b}'


def probe() -> Probe:
    return Probe(greeting="220 mx.example", extensions=Extensions({"SIZE": ("1",)}), limits=UNLIMITED)


def test_a_deadline_ends_a_request_and_its_neighbors_go_on() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id=1, deadline=2.5), line(id=2))
    daemon.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    daemon.clock.advance(2.4)
    assert not client.replies()
    daemon.clock.advance(0.2)
    reply = client.reply()
    assert reply["id"] == 1
    assert reply["error"] == "DeadlineExceeded"
    assert reply["temporary"] is True
    assert reply["indoubt"] is True
    assert reply["deliveryStatus"] == [{"recipient": "valid@valid.de", "status": "Unknown", "indoubt": True}]
    assert "not done within 2.5 s" in reply["message"]
    daemon.agent.deliveries[1].succeed()
    assert client.reply()["status"] == "ok"


def test_a_deadline_that_is_kept_leaves_no_delayed_call() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(deadline=5), line(deadline=5), PROBE % b',"deadline":5')
    daemon.agent.deliveries[0].succeed()
    daemon.agent.deliveries[1].fail(ConnectionLost("gone"))
    daemon.agent.probes[0].deferred.callback(probe())
    assert len(client.replies()) == 3
    daemon.clock.advance(1)
    assert not daemon.clock.getDelayedCalls()


def test_a_deadline_bounds_a_probe() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(PROBE % b',"deadline":5')
    daemon.clock.advance(5)
    assert client.reply()["error"] == "DeadlineExceeded"


def test_a_cancel_ends_what_bears_the_id_and_is_answered_itself() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id=1), line(id=2), line(id=1), b'{"cancel":1,"id":"c"}')
    replies = client.replies()
    assert [reply["id"] for reply in replies] == [1, 1, "c"]
    assert [reply.get("error") for reply in replies] == ["Cancelled", "Cancelled", None]
    assert replies[2] == {"id": "c", "status": "ok", "cancelled": True}
    assert "indoubt" not in replies[0]
    daemon.agent.deliveries[1].succeed()
    assert client.reply()["id"] == 2


def test_a_cancel_of_a_mail_that_was_sent_whole_says_that_it_is_in_doubt() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id="a"))
    daemon.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    client.send(b'{"cancel":"a"}')
    cancelled, answer = client.replies()
    assert cancelled["indoubt"] is True
    assert answer == {"status": "ok", "cancelled": True}


@pytest.mark.parametrize("octets", [b'{"cancel":7}', b'{"cancel":"1"}'])
def test_a_cancel_of_what_is_not_under_way_says_so(octets: bytes) -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id=1), octets)
    assert client.reply() == {"status": "ok", "cancelled": False}


def test_a_cancel_does_not_reach_another_clients_request_of_the_same_id() -> None:
    daemon = Daemon()
    one, other = daemon.client(), daemon.client()
    one.send(line(id=1))
    other.send(b'{"cancel":1}')
    assert other.reply() == {"status": "ok", "cancelled": False}
    assert not one.replies()


def test_a_cancel_reaches_a_probe() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(PROBE % b"", b'{"cancel":"p"}')
    assert [reply.get("error") for reply in client.replies()] == ["Cancelled", None]


def test_a_cancel_without_an_id_takes_its_turn() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(), line(id=1), b'{"cancel":1}')
    assert [reply["id"] for reply in client.replies()] == [1]
    daemon.agent.deliveries[0].succeed()
    assert [reply.get("cancelled") for reply in client.replies()] == [None, True]


def test_while_the_daemon_drains_a_cancel_still_counts() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id=1))
    daemon.factory.drain(10)
    client.send(b'{"cancel":1}')
    assert [reply.get("error") for reply in client.replies()] == ["Cancelled", None]


def fill(trace: Any) -> None:
    trace.queued, trace.connect, trace.total, trace.flights = 0.25, 0.1234567, 0.5, 2
    trace.pipelined = True
    if trace.transcript is not None:
        trace.transcript.said(b"MAIL FROM:<a@b.de>\r\n")
        trace.transcript.heard(Reply(250, (b"250 ok",)))


TRACE = {
    "queued": 0.25,
    "connect": 0.123457,
    "tls": 0.0,
    "session": 0.0,
    "envelope": 0.0,
    "content": 0.0,
    "total": 0.5,
    "flights": 2,
    "reused": False,
    "pipelined": True,
    "chunking": False,
    "tls_version": None,
}
TRANSCRIPT = [["C", "MAIL FROM:<a@b.de>"], ["S", "250 ok"]]


def test_a_trace_is_in_the_reply_where_it_was_asked_for() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(trace=True), line())
    one, other = daemon.agent.deliveries
    fill(one.trace)
    assert other.trace is None
    one.succeed()
    other.succeed()
    first, second = client.replies()
    assert first["trace"] == TRACE
    assert "transcript" not in first
    assert "trace" not in second


def test_a_transcript_is_in_the_reply_of_an_error_too() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(transcript=True))
    (delivery,) = daemon.agent.deliveries
    fill(delivery.trace)
    delivery.fail(ProtocolError("what is this"))
    reply = client.reply()
    assert reply["transcript"] == TRANSCRIPT
    assert "trace" not in reply


def test_a_probe_has_both() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(PROBE % b',"trace":true,"transcript":true')
    (probing,) = daemon.agent.probes
    fill(probing.trace)
    probing.deferred.callback(probe())
    reply = client.reply()
    assert reply["trace"] == TRACE
    assert reply["transcript"] == TRANSCRIPT
    assert reply["greeting"] == "220 mx.example"
