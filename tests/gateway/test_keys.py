"""Requests with a key: joined, answered again, or tried again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.fakes import BASE64, Client, Daemon, line, unknown, verdict
from twisted_smtpclient.errors import ConnectionLost, DeliveryError, InternalError, TLSFailed
from twisted_smtpclient.gateway.memory import Memory
from twisted_smtpclient.smtp.result import DeliveryResult


def daemon_with_client(**settings: Any) -> tuple[Daemon, Client]:
    daemon = Daemon(**settings)
    return daemon, daemon.client()


def test_a_key_that_is_under_way_is_joined_and_the_mail_goes_once() -> None:
    daemon, client = daemon_with_client()
    other = daemon.client()
    client.send(line(id=1, key="k"))
    other.send(line(id="x", key="k"))
    (delivery,) = daemon.agent.deliveries
    delivery.succeed()
    one, two = client.reply(), other.reply()
    assert (one.pop("id"), two.pop("id")) == (1, "x")
    assert one == two
    assert one["status"] == "ok"


def test_a_client_that_lost_its_connection_asks_again_and_is_told_the_outcome() -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k"))
    client.go_away()
    daemon.agent.deliveries[0].succeed("250 2.0.0 queued as 4711")
    again = daemon.client()
    again.send(line(id=5, key="k"))
    reply = again.reply()
    assert reply["id"] == 5
    assert reply["deliveryStatus"][0]["response"] == "250 2.0.0 queued as 4711"
    assert len(daemon.agent.deliveries) == 1


def test_an_outcome_is_kept_for_the_time_that_the_operator_gave() -> None:
    daemon, client = daemon_with_client(key_ttl=60)
    client.send(line(key="k"))
    daemon.agent.deliveries[0].succeed()
    daemon.clock.advance(59)
    client.send(line(key="k"))
    assert len(daemon.agent.deliveries) == 1
    daemon.clock.advance(1.1)
    client.send(line(key="k"))
    assert len(daemon.agent.deliveries) == 2


def test_what_is_under_way_is_joined_however_long_it_takes() -> None:
    daemon, client = daemon_with_client(key_ttl=60)
    client.send(line(key="k"))
    daemon.clock.advance(600)
    client.send(line(key="k"))
    assert len(daemon.agent.deliveries) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "other.example"),
        ("port", 26),
        ("sender", "other@bar.de"),
        ("recipients", ["other@valid.de"]),
        ("recipients", ["valid@valid.de", "valid@valid.de"]),
        ("message", BASE64.replace("U", "V", 1)),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_the_same_key_with_another_request_is_refused(field: str, value: object, ended: bool) -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k"))
    if ended:
        daemon.agent.deliveries[0].succeed()
        client.reply()
    client.send(line(id=2, key="k", **{field: value}))
    reply = client.reply()
    assert reply["error"] == "InvalidRequest"
    assert reply["message"] == "Error while deliver messages: key: is that of another request"
    assert len(daemon.agent.deliveries) == 1


def test_what_is_none_of_these_may_differ() -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k", port=25), line(key="k", helo="me.example", deadline=5, trace=True))
    assert len(daemon.agent.deliveries) == 1


def test_a_host_is_the_same_in_either_case() -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k", host="mx.example"), line(key="k", host="MX.Example."))
    assert len(daemon.agent.deliveries) == 1
    assert not client.replies()


OK = verdict("a@b.de")
LATER = verdict("a@b.de", "450 later")
NEVER = verdict("a@b.de", "550 no")


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        ([OK], True),
        ([NEVER], True),
        ([LATER], False),
        ([LATER, LATER], False),
        ([LATER, OK], True),
        ([LATER, NEVER], True),
        (ConnectionLost("gone"), False),
        (TLSFailed("no"), True),
        (InternalError("oh"), True),
        (ConnectionLost("gone").concerning([unknown("a@b.de", in_doubt=False)]), False),
        (ConnectionLost("gone").concerning([unknown("a@b.de", in_doubt=True)]), True),
        (ConnectionLost("gone").concerning([unknown("a@b.de", in_doubt=False), NEVER]), True),
        (ConnectionLost("gone").concerning([unknown("a@b.de", in_doubt=False), LATER]), False),
    ],
)
def test_only_what_is_temporary_throughout_and_not_in_doubt_is_tried_again(outcome: Any, kept: bool) -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k"))
    (delivery,) = daemon.agent.deliveries
    if isinstance(outcome, DeliveryError):
        delivery.deferred.errback(outcome)
    else:
        delivery.deferred.callback(DeliveryResult("foo@bar.de", outcome))
    first = client.reply()
    client.send(line(key="k"))
    assert (len(daemon.agent.deliveries) == 1) is kept
    if kept:
        assert client.reply() == first


def test_one_that_is_cancelled_leaves_the_delivery_to_the_others() -> None:
    daemon, client = daemon_with_client()
    other = daemon.client()
    client.send(line(id=1, key="k"))
    other.send(line(id=1, key="k"))
    client.send(b'{"cancel":1}')
    cancelled, _ = client.replies()
    assert cancelled["error"] == "Cancelled"
    # It goes on for the other, so it may be delivered.
    assert cancelled["indoubt"] is True
    daemon.agent.deliveries[0].succeed()
    assert other.reply()["status"] == "ok"


def test_the_last_one_that_is_cancelled_ends_it() -> None:
    daemon, client = daemon_with_client()
    client.send(line(id=1, key="k"), line(id=2, key="k"), b'{"cancel":1}', b'{"cancel":2}')
    errors = [reply.get("error") for reply in client.replies()]
    assert errors.count("Cancelled") == 2
    client.send(line(id=3, key="k"))
    assert len(daemon.agent.deliveries) == 2


@pytest.mark.parametrize("ends", ["DeadlineExceeded", "Cancelled"])
def test_who_asks_again_is_told_what_ended_a_delivery_that_is_in_doubt(ends: str) -> None:
    daemon, client = daemon_with_client()
    client.send(line(id=1, key="k", **({"deadline": 5} if ends == "DeadlineExceeded" else {})))
    daemon.agent.deliveries[0].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    if ends == "Cancelled":
        client.send(b'{"cancel":1}')
    daemon.clock.advance(5)
    first = client.replies()[0]
    assert (first["error"], first["indoubt"]) == (ends, True)
    client.send(line(id=1, key="k"))
    assert client.reply() == first
    assert len(daemon.agent.deliveries) == 1


def test_a_fault_of_the_software_is_told_to_all_who_joined(logged_failures: Any) -> None:
    daemon, client = daemon_with_client()
    client.send(line(id=1, key="k"), line(id=2, key="k"))
    daemon.agent.deliveries[0].deferred.errback(ZeroDivisionError("42 is the answer"))
    replies = client.replies()
    assert [reply["error"] for reply in replies] == ["InternalError", "InternalError"]
    assert "42 is the answer" not in json.dumps(replies)
    assert logged_failures.flush(ZeroDivisionError)


def test_a_deliverer_that_raises_is_a_fault_as_well(logged_failures: Any) -> None:
    daemon, client = daemon_with_client()
    daemon.agent.fault = ZeroDivisionError("42 is the answer")
    client.send(line(key="k"))
    assert client.reply()["error"] == "InternalError"
    assert logged_failures.flush(ZeroDivisionError)


def test_where_memory_is_full_a_new_key_is_refused_and_a_known_one_is_not() -> None:
    memory = Memory(64 * 1024)
    daemon, client = daemon_with_client(memory=memory)
    count = 0
    daemon.agent.at_once = True
    client.send(line(id=count, key=f"k{count}"))
    while (reply := client.reply())["status"] == "ok":
        count += 1
        client.send(line(id=count, key=f"k{count}"))
    assert count == 5
    assert reply["error"] == "QueueFull"
    client.send(line(id=0, key="k0"))
    assert client.reply()["status"] == "ok"
    assert len(daemon.agent.deliveries) == count
    daemon.clock.advance(601)
    client.send(line(key="one too many"))
    assert len(daemon.agent.deliveries) == count + 1


def test_a_long_reply_that_is_kept_is_counted() -> None:
    daemon, client = daemon_with_client()
    client.send(line(id=1, key="k"))
    text = "250-" + "x" * 4000 + "\n250 ok"
    daemon.agent.deliveries[0].succeed(text)
    client.reply()
    assert daemon.deliveries.memory.held > 4000 + len(text)
    before = daemon.deliveries.memory.held
    client.send(line(id=2, key="k"))
    assert client.reply()["deliveryStatus"][0]["response"] == text
    daemon.clock.advance(601)
    assert before - daemon.deliveries.memory.held > len(text)


def test_nothing_is_held_once_all_is_forgotten() -> None:
    daemon, client = daemon_with_client()
    for number in range(10):
        client.send(line(id=number, key=str(number)))
        daemon.clock.advance(10)
        daemon.agent.deliveries[-1].succeed()
    assert repr(daemon.deliveries.keys) == "<Keys: 0 under way, 10 remembered>"
    client.replies()
    held = daemon.deliveries.memory.held
    daemon.clock.advance(1000)
    assert repr(daemon.deliveries.keys) == "<Keys: 0 under way, 0 remembered>"
    assert daemon.deliveries.memory.held < held
    assert not daemon.clock.getDelayedCalls()


def test_a_daemon_that_has_drained_leaves_no_delayed_call() -> None:
    daemon, client = daemon_with_client()
    client.send(line(key="k"))
    daemon.agent.deliveries[0].succeed()
    client.reply()
    client.half_close()
    client.go_away()
    daemon.factory.drain(5)
    daemon.clock.advance(1)
    assert not daemon.clock.getDelayedCalls()
