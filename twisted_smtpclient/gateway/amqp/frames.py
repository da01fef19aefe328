"""
Frames as pika reads them, but that headers which it cannot read are one
message's fault.

pika takes them for a fault of the connection: one message with a time in
milliseconds, where AMQP has seconds, or with a number that is none, would end
the connection of whoever gets it, time and again, and have all that is under
way there delivered twice.
"""

from __future__ import annotations

import struct
from typing import Any

from pika.exceptions import InvalidFrameError
from pika.frame import Header, decode_frame
from pika.spec import FRAME_HEADER, FRAME_HEADER_SIZE, BasicProperties

from .progress import Unreadable

__all__ = ["read_frame"]

#: Octets of a header frame's payload before the properties.
_BEFORE_PROPERTIES = 12


def read_frame(octets: bytes) -> tuple[int, Any]:
    """
    The frame that ``octets`` begin with.

    :returns: how many octets it is of, and the frame; 0 and None where it is
        not complete.  A message's headers may be :class:`.progress.Unreadable`.
    """
    try:
        frame: tuple[int, Any] = decode_frame(octets)
    except InvalidFrameError:
        raise
    except Exception as error:
        kind, channel, size = struct.unpack(">BHL", octets[:FRAME_HEADER_SIZE])
        if kind != FRAME_HEADER:
            raise
        payload = octets[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + size]
        properties = BasicProperties().decode(_without_headers(payload[_BEFORE_PROPERTIES:]))
        properties.headers = Unreadable(str(error))
        (length,) = struct.unpack_from(">Q", payload, 4)
        return FRAME_HEADER_SIZE + size + 1, Header(channel, length, properties)
    return frame


def _without_headers(properties: bytes) -> bytes:
    """The properties of a message but for its headers, which are the third."""
    (flags,) = struct.unpack_from(">H", properties)
    start = 2
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + properties[start]
    (length,) = struct.unpack_from(">I", properties, start)
    end = start + 4 + length
    return struct.pack(">H", flags & ~BasicProperties.FLAG_HEADERS) + properties[2:start] + properties[end:]
