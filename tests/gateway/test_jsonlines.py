from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IHalfCloseableProtocol

from tests.gateway.fakes import LEGACY_LINES, Client, Daemon, line, unknown
from twisted_smtpclient import errors
from twisted_smtpclient.gateway.jsonlines import LINGER


def ids(replies: list[dict[str, Any]]) -> list[Any]:
    return [reply.get("id") for reply in replies]


def first_recipients(replies: list[dict[str, Any]]) -> list[str]:
    return [reply["deliveryStatus"][0]["recipient"] for reply in replies]


# Lines and replies


def test_a_request_is_delivered_and_answered() -> None:
    client = Daemon().client()
    client.send(line(id="a"))
    assert client.replies() == []
    client.daemon.agent.deliveries[0].succeed("250 ok 1375953438 qp 6971")
    assert client.reply() == {
        "id": "a",
        "status": "ok",
        "sender": "foo@bar.de",
        "deliveryStatus": [
            {
                "recipient": "valid@valid.de",
                "status": "Ok",
                "response": "250 ok 1375953438 qp 6971",
                "code": 250,
                "enhanced": None,
                "command": ".",
            }
        ],
    }
    assert not client.closed()


def test_a_refused_connection_reads_as_clients_of_the_old_system_expect() -> None:
    client = Daemon().client()
    client.send(LEGACY_LINES[1])
    client.daemon.agent.deliveries[0].fail(errors.ConnectionRefused("Connection refused: localhost:1025"))
    reply = client.reply()
    assert reply["status"] == "error"
    assert reply["message"].startswith("Error while deliver messages: ")
    assert reply["message"].endswith("Connection refused: localhost:1025")
    assert "id" not in reply


def test_lines_may_come_octet_by_octet_and_end_in_crlf() -> None:
    client = Daemon().client()
    for octet in line(id=1) + b"\r\n\r\n\n" + line(id=2) + b"\n":
        client.send_octets(bytes([octet]))
    assert len(client.daemon.agent.deliveries) == 2


def test_a_hundred_requests_in_one_read_are_answered_in_one_write() -> None:
    client = Daemon().client()
    client.send(*(line(id=n, sender=f"s{n}@bar.de") for n in range(100)))
    assert client.daemon.agent.senders() == [f"s{n}@bar.de" for n in range(100)]
    for delivery in client.daemon.agent.deliveries:
        delivery.succeed()
    assert ids(client.replies()) == list(range(100))
    assert client.transport.writes == 1


def test_empty_lines_are_ignored() -> None:
    client = Daemon().client()
    client.send_octets(b"\n\r\n\n\n")
    assert client.replies() == []
    assert not client.daemon.agent.deliveries


def test_a_line_of_white_space_is_not_empty() -> None:
    client = Daemon().client()
    client.send_octets(b"  \n")
    assert client.reply()["error"] == "InvalidRequest"


@pytest.mark.parametrize(
    "bad",
    [b"nonsense", b"[" * 100_000, b"\xff\xfe", b"\xef\xbb\xbf" + line(), b"[]", line(port=0), line(x=1)],
)
def test_after_a_bad_line_the_connection_goes_on(bad: bytes) -> None:
    client = Daemon().client()
    client.send(bad, line(id=1))
    assert client.reply()["error"] == "InvalidRequest"
    client.daemon.agent.deliveries[0].succeed()
    assert client.reply()["id"] == 1


def test_a_fault_in_reading_a_line_is_an_internal_error_and_the_connection_goes_on(
    logged_failures: Any,
) -> None:
    client = Daemon().client()
    good = client.protocol.conversation.decode

    def faulty(line: bytes | bytearray) -> Any:
        raise ZeroDivisionError

    client.protocol.conversation.decode = faulty
    client.send(line(id=1))
    client.protocol.conversation.decode = good
    assert client.reply()["error"] == "InternalError"
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    client.send(line(id=2))
    assert len(client.daemon.agent.deliveries) == 1


# The bound on a line


def test_a_line_over_the_limit_is_answered_once_when_that_is_known() -> None:
    client = Daemon(max_request=1000).client()
    client.send_octets(b"x" * 1000)
    assert client.replies() == []
    client.send_octets(b"x")
    reply = client.reply()
    assert reply["error"] == "RequestTooLarge"
    assert reply["temporary"] is False
    assert "1000 octets" in reply["message"]
    for _ in range(1024):
        client.send_octets(b"x" * 1024)
    assert client.replies() == []
    client.send_octets(b"x\n" + line(id=1) + b"\n")
    assert len(client.daemon.agent.deliveries) == 1


@pytest.mark.parametrize("request_id", ["7", "-12", '"a \\"b\\" \\u00e9"', '""'])
def test_a_line_over_the_limit_that_begins_with_its_id_is_answered_at_once_with_it(request_id: str) -> None:
    client = Daemon(max_request=1000).client()
    long = f' {{"id" : {request_id} , "host": "x", "message": "{"A" * 2000}"}}'.encode()
    client.send(line(), long)
    reply = client.reply()
    assert reply["error"] == "RequestTooLarge"
    assert reply["id"] == json.loads(request_id)


@pytest.mark.parametrize(
    "start",
    [
        '{"host": "x", "id": 7, ', '{"id": 7.5, ', '{"id": true, ', '["id", 7, ', '{"id": "\\ud800", ',
        '{"id": 07, ', '{"id": "' + "x" * 1100 + '", ',
    ],
)  # fmt: skip
def test_an_id_that_is_not_known_to_be_the_line_s_is_not_echoed(start: str) -> None:
    client = Daemon(max_request=1000).client()
    client.send(start.encode() + b'"message": "' + b"A" * 2000 + b'"}')
    reply = client.reply()
    assert reply["error"] == "RequestTooLarge"
    assert "id" not in reply


def test_a_line_of_just_the_limit_is_taken() -> None:
    for ending in (b"\n", b"\r\n"):
        octets = line(id=1)
        client = Daemon(max_request=len(octets)).client()
        client.send_octets(octets + ending + b" " + octets + ending)
        assert client.reply()["error"] == "RequestTooLarge"
        assert len(client.daemon.agent.deliveries) == 1


def test_a_line_over_the_limit_takes_its_turn() -> None:
    client = Daemon(max_request=1000).client()
    client.send(line(), b"x" * 2000, line())
    client.daemon.agent.deliveries[1].succeed()
    assert client.replies() == []
    client.daemon.agent.deliveries[0].succeed()
    assert [reply.get("error") for reply in client.replies()] == [None, "RequestTooLarge", None]


# Order


def test_requests_without_an_id_are_answered_in_their_order() -> None:
    client = Daemon().client()
    client.send(*(line(recipients=[f"r{n}@b.de"], id=... if n % 2 else None) for n in range(4)))
    deliveries = client.daemon.agent.deliveries
    deliveries[2].succeed()
    deliveries[1].fail(errors.ConnectionLost("gone"))
    assert client.replies() == []
    deliveries[0].succeed()
    replies = client.replies()
    assert [reply["status"] for reply in replies] == ["ok", "error", "ok"]
    assert ["id" in reply for reply in replies] == [True, False, True]
    assert first_recipients([replies[0], replies[2]]) == ["r0@b.de", "r2@b.de"]
    deliveries[3].succeed()
    assert first_recipients(client.replies()) == ["r3@b.de"]


def test_a_request_with_an_id_is_answered_as_soon_as_it_ends() -> None:
    client = Daemon().client()
    client.send(line(), line(id=1), line(), line(id="1"), line(id=1))
    deliveries = client.daemon.agent.deliveries
    deliveries[3].succeed()
    assert ids(client.replies()) == ["1"]
    deliveries[4].succeed()
    deliveries[1].succeed()
    assert ids(client.replies()) == [1, 1]
    deliveries[0].succeed()
    deliveries[2].succeed()
    assert ids(client.replies()) == [None, None]


def test_a_bad_line_takes_its_turn_unless_it_has_a_valid_id() -> None:
    client = Daemon().client()
    client.send(line(), line(port=0), line(port=0, id=7), b"nonsense", line(id=1.5), line(id=None, port=0))
    assert ids(client.replies()) == [7]
    client.daemon.agent.deliveries[0].succeed()
    replies = client.replies()
    assert [reply.get("error") for reply in replies] == [None] + ["InvalidRequest"] * 4
    assert ["id" in reply for reply in replies] == [False, False, False, False, True]


# Half-close and going away


def test_after_a_half_close_every_reply_is_written_and_then_it_closes() -> None:
    client = Daemon().client()
    assert IHalfCloseableProtocol.providedBy(client.protocol)
    client.send(line(id=1))
    client.send_octets(line(id=2))
    client.half_close()
    assert len(client.daemon.agent.deliveries) == 2
    client.daemon.agent.deliveries[1].succeed()
    assert ids(client.replies()) == [2]
    assert not client.closed()
    client.daemon.agent.deliveries[0].succeed()
    assert ids(client.replies()) == [1]
    assert client.closed()


@pytest.mark.parametrize("last", [b"", b"\r", b"\n"])
def test_a_half_close_with_nothing_left_closes(last: bytes) -> None:
    client = Daemon().client()
    client.send_octets(last)
    client.half_close()
    assert client.replies() == []
    assert client.closed()


def test_a_bad_last_line_is_answered_before_it_closes() -> None:
    client = Daemon().client()
    client.send_octets(b'{"host":')
    client.half_close()
    assert client.reply()["error"] == "InvalidRequest"
    assert client.closed()


def test_lines_that_waited_are_delivered_after_a_half_close() -> None:
    client = Daemon(max_in_flight=1).client()
    client.send(*(line(id=n) for n in range(3)))
    client.half_close()
    for n in range(3):
        assert not client.closed()
        client.daemon.agent.deliveries[n].succeed()
        assert ids(client.replies()) == [n]
    assert client.closed()
    assert client.transport.producerState != "producing"


def test_a_client_that_goes_away_loses_its_replies_and_not_its_mail() -> None:
    client = Daemon().client()
    client.send(line(id=1), line(), line())
    client.go_away()
    deliveries = client.daemon.agent.deliveries
    assert not any(delivery.deferred.called for delivery in deliveries)
    for delivery in deliveries:
        delivery.succeed()
    assert client.replies() == []
    assert "0 under way" in repr(client.daemon.deliveries)
    assert not client.daemon.factory.clients


def test_a_client_that_goes_away_before_its_turn_ends_leaves_no_call_behind() -> None:
    client = Daemon().client()
    client.send(line(id=1))
    client.daemon.agent.deliveries[0].succeed()
    client.go_away()
    client.daemon.deliveries.journal.flush()
    assert not client.daemon.clock.getDelayedCalls()


def test_a_client_that_takes_no_more_replies_is_closed() -> None:
    client = Daemon().client()
    client.protocol.writeConnectionLost()
    assert client.closed()
    client.send(line())
    assert not client.daemon.agent.deliveries


# Back-pressure


def test_a_client_with_too_many_requests_under_way_is_not_read_from_until_some_are_done() -> None:
    client = Daemon(max_in_flight=3).client()
    client.send(line(id=0), line(id=1))
    assert client.reading()
    client.send(*(line(id=n) for n in range(2, 6)))
    assert len(client.daemon.agent.deliveries) == 3
    assert not client.reading()
    client.daemon.agent.deliveries[0].succeed()
    assert ids(client.replies()) == [0]
    assert len(client.daemon.agent.deliveries) == 4
    assert not client.reading()
    for n in (1, 2, 3):
        client.daemon.agent.deliveries[n].succeed()
    assert ids(client.replies()) == [1, 2, 3]
    assert len(client.daemon.agent.deliveries) == 6
    assert client.reading()


def test_one_client_s_bound_is_not_another_s() -> None:
    daemon = Daemon(max_in_flight=1)
    greedy, modest = daemon.client(), daemon.client()
    greedy.send(line(id=1), line(id=2))
    modest.send(line(id=3))
    assert not greedy.reading()
    assert len(daemon.agent.deliveries) == 2


def test_bad_lines_behind_an_unanswered_request_are_bounded_too() -> None:
    client = Daemon(max_in_flight=10).client()
    client.send(line(), *[b"x"] * 1000)
    client.daemon.clock.advance(0)
    assert not client.reading()
    assert client.protocol.conversation.in_flight == 10
    client.daemon.agent.deliveries[0].succeed()
    total = 0
    for _ in range(102):
        total += len(client.replies())
    assert total == 1001
    assert client.reading()


def test_no_more_bad_lines_are_answered_in_one_turn_than_the_bound() -> None:
    client = Daemon(max_in_flight=10).client()
    client.send(*[b"x"] * 25)
    assert client.protocol.conversation.lines == 15
    assert len(client.replies()) == 25
    assert client.transport.writes == 3


def test_requests_that_end_at_once_are_as_bounded_and_nest_no_calls() -> None:
    client = Daemon(max_in_flight=1).client()
    client.daemon.agent.at_once = True
    client.send(*(line(id=n) for n in range(2000)))
    answered = []
    for _ in range(2000):
        answered += ids(client.replies())
    assert answered == list(range(2000))


def test_a_client_that_does_not_read_its_replies_is_not_read_from() -> None:
    client = Daemon().client()
    producer = client.transport.producer
    assert producer is client.protocol
    client.send(line(id=1))
    producer.pauseProducing()
    assert not client.reading()
    client.send(line(id=2))
    assert len(client.daemon.agent.deliveries) == 1
    producer.resumeProducing()
    client.daemon.clock.advance(0)
    assert client.reading()
    assert len(client.daemon.agent.deliveries) == 2


def test_lines_that_come_while_others_wait_have_their_turn_behind_them() -> None:
    client = Daemon(max_in_flight=1).client()
    client.send(line(sender="a@b.de"), line(sender="b@b.de"))
    client.send(line(sender="c@b.de"))
    client.send_octets(line(sender="d@b.de"))
    client.half_close()
    for delivery in range(4):
        client.daemon.agent.deliveries[delivery].succeed()
        assert len(client.replies()) == 1
    assert client.daemon.agent.senders() == ["a@b.de", "b@b.de", "c@b.de", "d@b.de"]
    assert client.closed()


def test_what_comes_from_one_that_does_not_read_does_not_have_it_read_from() -> None:
    client = Daemon().client()
    client.protocol.pauseProducing()
    client.send_octets(b"x")
    assert not client.reading()
    client.protocol.resumeProducing()
    client.daemon.clock.advance(0)
    assert client.reading()


def test_one_that_was_dropped_is_told_nothing_and_has_nothing_taken() -> None:
    client = Daemon(max_in_flight=1).client()
    client.send(line(id=1), line(id=2))
    client.protocol.resumeProducing()
    client.protocol.abort()
    client.daemon.agent.deliveries[0].succeed()
    assert client.replies() == []
    assert len(client.daemon.agent.deliveries) == 1
    client.go_away()


def test_the_reply_to_one_that_has_gone_is_not_kept() -> None:
    client = Daemon().client()
    client.send(line(id=1), line())
    client.go_away()
    for delivery in client.daemon.agent.deliveries:
        delivery.succeed()
    assert client.protocol.conversation.fetch() == b""
    assert client.protocol.conversation.in_flight == 2


def test_replies_that_fill_the_transport_stop_the_reading_until_they_are_read() -> None:
    client = Daemon(max_in_flight=2).client()
    client.send(line(id=1), line(id=2), line(id=3))
    write = client.transport.write

    def fill(octets: bytes) -> None:
        write(octets)
        client.protocol.pauseProducing()

    client.transport.write = fill
    client.daemon.agent.deliveries[0].succeed()
    assert ids(client.replies()) == [1]
    assert len(client.daemon.agent.deliveries) == 2
    client.daemon.agent.deliveries[1].succeed()
    assert ids(client.replies()) == [2]
    client.protocol.resumeProducing()
    client.daemon.clock.advance(0)
    assert len(client.daemon.agent.deliveries) == 3
    assert client.reading()


def test_after_a_half_close_reading_is_never_resumed() -> None:
    client = Daemon(max_in_flight=1).client()
    client.send(line(id=1), line(id=2))
    assert not client.reading()
    client.half_close()
    client.daemon.agent.deliveries[0].succeed()
    client.replies()
    client.protocol.pauseProducing()
    client.protocol.resumeProducing()
    client.daemon.clock.advance(0)
    assert not client.reading()


# Draining


def drained(daemon: Daemon, seconds: float = 25) -> list[None]:
    fired: list[None] = []
    daemon.factory.drain(seconds).addCallback(fired.append)
    return fired


def test_draining_closes_idle_clients_at_once_and_the_others_behind_their_last_reply() -> None:
    daemon = Daemon()
    idle, busy = daemon.client(), daemon.client()
    busy.send(line(id=1))
    fired = drained(daemon)
    assert idle.closed()
    assert not busy.closed()
    busy.send(line(id=2))
    reply = busy.reply()
    assert (reply["id"], reply["error"]) == (2, "ShuttingDown")
    daemon.agent.deliveries[0].succeed()
    assert ids(busy.replies()) == [1]
    assert busy.closed()
    assert not fired
    idle.go_away()
    busy.go_away()
    assert fired == [None]
    assert not daemon.clock.getDelayedCalls()


def test_lines_that_waited_when_draining_began_are_answered_shutting_down() -> None:
    daemon = Daemon(max_in_flight=1)
    client = daemon.client()
    client.send(*(line(id=n) for n in range(3)))
    drained(daemon)
    daemon.agent.deliveries[0].succeed()
    replies = [reply for _ in range(3) for reply in client.replies()]
    assert [(reply["id"], reply.get("error")) for reply in replies] == [
        (0, None),
        (1, "ShuttingDown"),
        (2, "ShuttingDown"),
    ]
    assert client.closed()


def test_at_the_end_of_draining_each_request_has_its_reply() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(), line(), line(id="x"))
    daemon.agent.deliveries[1].on_cancel = (unknown("valid@valid.de", in_doubt=True),)
    fired = drained(daemon, 10)
    daemon.clock.advance(10)
    replies = client.replies()
    assert len(replies) == 3
    assert {reply["error"] for reply in replies} == {"ShuttingDown"}
    in_order = [reply for reply in replies if "id" not in reply]
    assert ["indoubt" in reply for reply in in_order] == [False, True]
    assert client.closed()
    client.go_away()
    assert fired == [None]


def test_a_client_that_does_not_take_its_last_replies_is_cut_off() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(line(id=1))
    client.protocol.pauseProducing()
    fired = drained(daemon, 10)
    daemon.clock.advance(10)
    daemon.clock.advance(LINGER - 0.1)
    assert not client.aborted()
    daemon.clock.advance(0.2)
    assert client.aborted()
    client.go_away()
    assert fired == [None]


def test_draining_without_clients_is_done_at_once() -> None:
    assert drained(Daemon()) == [None]


def test_a_client_that_is_closing_already_is_left_to_it() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.half_close()
    client.daemon.clock.advance(0)
    assert client.closed()
    drained(daemon)
    client.protocol.writeConnectionLost()
    client.protocol.resumeProducing()
    calls: Any = daemon.clock.getDelayedCalls()
    assert [call.func for call in calls] == [daemon.factory._abort_all]


def test_a_client_that_comes_while_draining_is_closed() -> None:
    daemon = Daemon()
    drained(daemon)
    assert daemon.client().closed()


def test_reprs_tell_what_is_going_on() -> None:
    client = Daemon(max_in_flight=1).client()
    client.send(line(), line(), line())
    assert repr(client.protocol) == "<JSONLinesProtocol: 1 in flight, 2 lines waiting, not reading>"
    assert repr(client.daemon.factory) == "<JSONLinesFactory: 1 clients>"


# Any octets


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.one_of(st.binary(max_size=20), st.sampled_from([line(), line(id=1), b"{}", b"", b"x" * 500]))
    ),
    st.lists(st.integers(1, 300), min_size=1),
    st.booleans(),
)
def test_each_line_gets_exactly_one_reply_or_is_empty(
    lines: list[bytes], sizes: list[int], half_close: bool
) -> None:
    client = Daemon(max_request=400, max_in_flight=5).client()
    client.daemon.agent.at_once = True
    octets = b"".join(each + b"\n" for each in lines)
    if half_close:
        octets = octets[:-1]
    expected = sum(each not in (b"", b"\r") for each in octets.split(b"\n"))
    start = turn = 0
    while start < len(octets):
        size = sizes[turn % len(sizes)]
        client.send_octets(octets[start : start + size])
        start, turn = start + size, turn + 1
    if half_close:
        client.half_close()
    written = b""
    for _ in range(expected + 2):
        client.daemon.clock.advance(0)
    written = client.transport.value()
    replies = [json.loads(each) for each in written.splitlines()]
    assert len(replies) == expected
    assert all(reply["status"] in ("ok", "error") for reply in replies)
    assert client.closed() is half_close


def test_a_message_is_held_once_and_its_line_not_at_all() -> None:
    client: Client = Daemon().client()
    octets = line(id=1, message="U3Vi" * 300_000)
    for start in range(0, len(octets), 65536):
        client.send_octets(octets[start : start + 65536])
    client.send_octets(b"\n")
    held = [each for each in gc.get_objects() if isinstance(each, bytearray) and len(each) > 65536]
    assert not held
    assert client.protocol.conversation.pending == 0
    assert not client.protocol.conversation.lines
    assert len(client.daemon.agent.deliveries[0].content.message) == 900_000
