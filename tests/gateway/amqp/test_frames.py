"""Frames whose headers pika cannot read."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import InvalidFrameError, ShortStringTooLong
from pika.frame import Body, Header, Method, decode_frame
from pika.spec import Basic
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.gateway.amqp.address import Address
from twisted_smtpclient.gateway.amqp.connection import BrokerProtocol, _Transport
from twisted_smtpclient.gateway.amqp.frames import end_of_frame, frames_of, read_delivered, read_frame
from twisted_smtpclient.gateway.amqp.outcome import Outcome
from twisted_smtpclient.gateway.amqp.progress import OUTCOME, Unreadable, read
from twisted_smtpclient.gateway.amqp.properties import OutcomeProperties

NOON = datetime(2023, 11, 14, 12, tzinfo=timezone.utc)
PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "correlation_id": "c",
    "reply_to": "r",
    "message_id": "m",
    "delivery_mode": 2,
    "app_id": "a",
}


def header(**more: Any) -> bytes:
    octets: bytes = Header(7, 1234, BasicProperties(**{**PROPERTIES, **more})).marshal()
    return octets


def value(kind: str, octets: bytes) -> bytes:
    """A frame with a header of this kind, which pika itself would not write."""
    written = header(headers={"x": 0x0102030405060708})
    return written.replace(b"l" + bytes(range(1, 9)), kind.encode() + octets)


UNREADABLE = [
    # Milliseconds since 1970, where AMQP has seconds.
    value("T", struct.pack(">Q", 1_700_000_000_000)),
    value("d", struct.pack(">d", float("nan"))),
    value("d", struct.pack(">d", float("inf"))),
    value("?", bytes(8)),
]


@pytest.mark.parametrize("octets", UNREADABLE)
def test_headers_that_cannot_be_read_leave_the_other_properties(octets: bytes) -> None:
    assert end_of_frame(octets + b"more", 0) == len(octets)
    frame = read_frame(octets)
    assert (frame.channel_number, frame.body_size) == (7, 1234)
    assert {name: getattr(frame.properties, name) for name in PROPERTIES} == PROPERTIES
    assert isinstance(frame.properties.headers, Unreadable)
    with pytest.raises(InvalidRequest, match="headers: expected values that can be read: "):
        read(frame.properties.headers, 0.0)


def test_they_may_be_all_that_there_is() -> None:
    octets = Header(1, 2, BasicProperties(headers={"x": NOON})).marshal()
    octets = octets.replace(struct.pack(">Q", int(NOON.timestamp())), struct.pack(">Q", 2**63))
    frame = read_frame(octets)
    assert isinstance(frame.properties.headers, Unreadable)
    assert frame.properties.message_id is None


@pytest.mark.parametrize(
    "octets",
    [
        header(headers={"sent": NOON, "x-tenant": "anna"}),
        header(headers={}, priority=9, expiration="60000", timestamp=1, type="t", user_id="u"),
        Header(1, 0, BasicProperties()).marshal(),
        Body(1, b"body").marshal(),
        Body(1, b"").marshal(),
        Method(1, Basic.Ack(5, False)).marshal(),
        Method(1, Basic.Deliver("tag", 2**63, True, "exchange", "m\u00e4il")).marshal(),
        Method(1, Basic.Deliver("", 0, False, "", "")).marshal(),
    ],
)
def test_all_else_is_read_as_pika_reads_it(octets: bytes) -> None:
    frame = read_frame(octets)
    assert frame.marshal() == octets
    _, by_pika = decode_frame(octets)
    assert type(frame) is type(by_pika)
    assert frame == by_pika


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_a_connection_takes_its_frames_however_they_come(size: int) -> None:
    protocol = BrokerProtocol(Address("amqp://localhost"), Clock())
    taken: list[Any] = []
    protocol._impl._process_frame = taken.append
    octets = [
        Method(1, Basic.Ack(5, False)).marshal(),
        header(headers={"x": NOON}),
        Body(1, b"body").marshal(),
    ]
    stream = b"".join(octets)
    for start in range(0, len(stream), size):
        protocol.dataReceived(stream[start : start + size])
    assert [frame.marshal() for frame in taken] == octets


@pytest.mark.parametrize("octets", [header(), Body(1, b"").marshal(), b"AMQP\0\0\x09\1"])
def test_a_frame_ends_where_all_of_it_is_there(octets: bytes) -> None:
    for end in range(len(octets)):
        assert end_of_frame(b"before" + octets[:end], 6) == 0
    assert (
        end_of_frame(b"before" + octets, 6) == end_of_frame(b"before" + octets + b"A", 6) == 6 + len(octets)
    )


def test_what_is_no_frame_is_the_connection_s_fault() -> None:
    with pytest.raises(InvalidFrameError):
        read_frame(Body(1, b"body").marshal()[:-1] + b"?")
    with pytest.raises(KeyError):
        # A method that there is not.
        read_frame(struct.pack(">BHLIB", 1, 1, 4, 0xFFFFFFFF, 0xCE))


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize(("exchange", "key"), [("outcomes", "ok"), ("", "m\u00e4il"), ("x" * 255, "y" * 255)])
@pytest.mark.parametrize("mandatory", [False, True])
def test_a_message_is_written_in_the_octets_that_pika_writes(
    exchange: str, key: str, mandatory: bool, length: int
) -> None:
    publish = Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    properties = BasicProperties(**PROPERTIES, headers={"x-tenant": "anna"})
    body = bytes(range(length))
    pieces = [body[start : start + 100] for start in range(0, length, 100)]
    by_pika = [Method(3, publish), Header(3, length, properties), *(Body(3, piece) for piece in pieces)]
    assert frames_of(3, publish, properties, body, 100) == b"".join(frame.marshal() for frame in by_pika)


@given(
    word=st.sampled_from([*Outcome]),
    correlation=st.none() | st.text(max_size=300) | st.binary(max_size=300),
    message=st.text(max_size=20),
    attempt=st.integers(1, 1_000_000),
    first_seen=st.integers(0, 2**40),
    headers=st.none() | st.just({OUTCOME: "ok for 'x' by ''"}),
)
def test_the_properties_of_an_outcome_are_written_in_the_octets_that_pika_writes(
    word: Outcome, correlation: str | bytes | None, message: str, attempt: int, first_seen: int, headers: Any
) -> None:
    properties = OutcomeProperties(word.value, correlation, message, attempt, first_seen)
    usual = {"x-smtpclient-attempt": attempt, "x-smtpclient-first-seen": first_seen}
    by_pika = BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        correlation_id=correlation,
        message_id=message,
        type=word.value,
        headers=usual | (headers or {}),
    )
    if headers is not None:
        properties.headers = {**properties.headers, **headers}
    try:
        expected = b"".join(by_pika.encode())
    except ShortStringTooLong:
        with pytest.raises(ShortStringTooLong):
            properties.encode()
    else:
        assert b"".join(properties.encode()) == expected


def test_a_name_that_is_not_utf_8_is_written_as_it_came() -> None:
    publish = Basic.Publish(exchange="", routing_key=b"\xff\xfe", mandatory=True)
    assert b"\0\2\xff\xfe\1" in frames_of(1, publish, BasicProperties(), b"", 100)


def message(body: bytes = b"body", *, channel: int = 1, of: int = 1, most: int = 1000, **more: Any) -> bytes:
    """The frames of a message that the broker gives out; its other frames are of channel ``of``."""
    deliver = Method(channel, Basic.Deliver("tag", 7, True, "exchange", "key")).marshal()
    properties = Header(of, len(body), BasicProperties(**{**PROPERTIES, **more})).marshal()
    pieces = [body[start : start + most] for start in range(0, len(body), most)]
    octets: bytes = deliver + properties + b"".join(Body(of, piece).marshal() for piece in pieces)
    return octets


@pytest.mark.parametrize("before", [b"", b"before"])
@pytest.mark.parametrize("behind", [b"", b"\1", message()])
def test_a_message_is_read_at_once_where_all_of_it_is_there(before: bytes, behind: bytes) -> None:
    octets = message(headers={"sent": NOON})
    delivered = read_delivered(before + octets + behind, len(before))
    assert delivered is not None
    assert delivered.end == len(before) + len(octets)
    frames = delivered.method, delivered.header, Body(1, delivered.body)
    assert b"".join(frame.marshal() for frame in frames) == octets


def test_a_message_that_is_not_all_there_is_not_read_at_once() -> None:
    octets = message()
    for end in range(len(octets)):
        assert read_delivered(octets[:end], 0) is None


@pytest.mark.parametrize(
    "octets",
    [
        message(b""),
        message(b"longer", most=3),
        message(of=2),
        message().replace(b"\xce", b"?", 1),
        message()[:-1] + b"?",
        message().replace(struct.pack(">HHQ", 60, 0, 4), struct.pack(">HHQ", 60, 0, 5)),
        message().replace(struct.pack(">HHQ", 60, 0, 4), struct.pack(">HHQ", 10, 0, 4)),
        message(headers={"x": NOON}).replace(struct.pack(">Q", int(NOON.timestamp())), b"\xff" * 8),
        Method(1, Basic.Deliver("tag", 7, True, "", "")).marshal()
        + Method(1, Basic.Ack(5, False)).marshal() * 3,
        Method(1, Basic.Ack(5, False)).marshal(),
        b"",
    ],
)
def test_what_is_no_such_message_is_read_frame_by_frame(octets: bytes) -> None:
    assert read_delivered(octets, 0) is None


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("most", [3, 1000])
def test_a_message_reaches_its_channel_however_it_comes(size: int, most: int) -> None:
    protocol = BrokerProtocol(Address("amqp://localhost"), Clock())
    channel = Channel(protocol._impl, 1, lambda _: None)
    protocol._impl._channels[1] = channel
    taken: list[tuple[int, bytes, Any]] = []
    channel._consumers["tag"] = lambda _, method, properties, body: taken.append(
        (method.delivery_tag, body, properties.message_id)
    )
    stream = message(most=most) + message(b"", most=most) + message(b"more", most=most)
    for start in range(0, len(stream), size):
        protocol.dataReceived(stream[start : start + size])
    assert taken == [(7, b"body", "m"), (7, b"", "m"), (7, b"more", "m")]
    assert protocol._impl.bytes_received == len(stream)
    assert protocol._impl.frames_received == (10 if most == 3 else 8)


def test_a_message_inside_of_another_is_the_broker_s_fault_as_ever() -> None:
    protocol = BrokerProtocol(Address("amqp://localhost"), Clock())
    channel = Channel(protocol._impl, 1, lambda _: None)
    protocol._impl._channels[1] = channel
    taken: list[bytes] = []
    channel._consumers["tag"] = lambda _, method, properties, body: taken.append(body)
    protocol.dataReceived(Method(1, Basic.Deliver("tag", 6, True, "", "")).marshal() + message())
    assert taken == [b"body"]


def test_a_message_of_a_channel_that_there_is_not_is_nobody_s() -> None:
    protocol = BrokerProtocol(Address("amqp://localhost"), Clock())
    protocol.dataReceived(message(channel=9, of=9))
    assert protocol._impl.frames_received == 3


def test_what_is_written_in_one_turn_goes_at_once_and_before_the_end() -> None:
    clock, transport = Clock(), StringTransport()
    own = _Transport(transport, clock)
    own.write(b"a")
    own.write(b"b")
    assert transport.value() == b""
    clock.advance(0)
    assert transport.value() == b"ab"
    own.write(b"c")
    own.loseConnection()
    assert transport.value() == b"abc"
    assert transport.disconnecting
    own.write(b"lost")
    own.gone()
    assert clock.getDelayedCalls() == []
