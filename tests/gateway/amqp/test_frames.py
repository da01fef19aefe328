"""Frames whose headers pika cannot read."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from typing import Any

import pytest
from pika import BasicProperties
from pika.exceptions import InvalidFrameError
from pika.frame import Body, Header, Method
from pika.spec import Basic

from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.gateway.amqp.frames import read_frame
from twisted_smtpclient.gateway.amqp.progress import Unreadable, read

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
    consumed, frame = read_frame(octets + b"more")
    assert consumed == len(octets)
    assert (frame.channel_number, frame.body_size) == (7, 1234)
    assert {name: getattr(frame.properties, name) for name in PROPERTIES} == PROPERTIES
    assert isinstance(frame.properties.headers, Unreadable)
    with pytest.raises(InvalidRequest, match="headers: expected values that can be read: "):
        read(frame.properties.headers, 0.0)


def test_they_may_be_all_that_there_is() -> None:
    octets = Header(1, 2, BasicProperties(headers={"x": NOON})).marshal()
    octets = octets.replace(struct.pack(">Q", int(NOON.timestamp())), struct.pack(">Q", 2**63))
    consumed, frame = read_frame(octets)
    assert consumed == len(octets)
    assert isinstance(frame.properties.headers, Unreadable)
    assert frame.properties.message_id is None


@pytest.mark.parametrize(
    "octets",
    [
        header(headers={"sent": NOON, "x-tenant": "anna"}),
        Body(1, b"body").marshal(),
        Method(1, Basic.Ack(5, False)).marshal(),
    ],
)
def test_all_else_is_read_as_pika_reads_it(octets: bytes) -> None:
    consumed, frame = read_frame(octets)
    assert consumed == len(octets)
    assert frame.marshal() == octets
    for end in range(len(octets)):
        assert read_frame(octets[:end]) == (0, None)


def test_what_is_no_frame_is_the_connection_s_fault() -> None:
    with pytest.raises(InvalidFrameError):
        read_frame(Body(1, b"body").marshal()[:-1] + b"?")
    with pytest.raises(KeyError):
        # A method that there is not.
        read_frame(struct.pack(">BHLIB", 1, 1, 4, 0xFFFFFFFF, 0xCE))
