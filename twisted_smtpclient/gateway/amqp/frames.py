"""
Frames as pika reads and writes them, but that headers which it cannot read are
one message's fault, and that a message is written at once.

Such headers pika takes for a fault of the connection: one message with a time in
milliseconds, where AMQP has seconds, or with a number that is none, would end
the connection of whoever gets it, time and again, and have all that is under
way there delivered twice.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pika.exceptions import InvalidFrameError
from pika.frame import Header, decode_frame
from pika.spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, BasicProperties

from .progress import Unreadable

__all__ = ["end_of_frame", "frames_of", "read_frame"]

_END: Final = bytes([FRAME_END])
#: Kind, channel, octets of a frame.
_FRAME: Final = struct.Struct(">BHL")
#: What a broker says that speaks another version, and octets of all of it.
_REFUSAL: Final = b"AMQP"
_REFUSED: Final = 8
#: Basic.Publish (60, 40), and a ticket that has had no use since AMQP 0-8.
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
#: The class Basic, a weight that has no use, octets of the body.
_CONTENT: Final = struct.Struct(">HHQ")

#: Octets of a header frame's payload before the properties.
_BEFORE_PROPERTIES: Final = _CONTENT.size


def end_of_frame(octets: bytes, start: int) -> int:
    """Where the frame ends that begins at ``start``; 0 where it is not complete."""
    begun = len(octets) - start
    if octets.startswith(_REFUSAL, start):
        return start + _REFUSED if begun >= _REFUSED else 0
    if begun < _FRAME.size:
        return 0
    _, _, size = _FRAME.unpack_from(octets, start)
    end: int = start + _FRAME.size + size + 1
    return end if end <= len(octets) else 0


def read_frame(octets: bytes) -> Any:
    """
    A frame, of which these are all octets.

    A message's headers may be :class:`.progress.Unreadable`.
    """
    try:
        _, frame = decode_frame(octets)
    except InvalidFrameError:
        raise
    except Exception as error:
        kind, channel, _ = _FRAME.unpack_from(octets)
        if kind != FRAME_HEADER:
            raise
        payload = octets[_FRAME.size : -1]
        properties = BasicProperties().decode(_without_headers(payload[_BEFORE_PROPERTIES:]))
        properties.headers = Unreadable(str(error))
        _, _, length = _CONTENT.unpack_from(payload)
        return Header(channel, length, properties)
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


def frames_of(channel: int, publish: Any, properties: Any, body: bytes, most: int) -> bytes:
    """
    The frames of a message to publish.

    pika makes an object of each frame, and writes it by itself.

    :param publish: a ``Basic.Publish``.
    :param properties: a ``BasicProperties``.
    :param most: octets of the body in one frame.
    """
    exchange, key = _octets(publish.exchange), _octets(publish.routing_key)
    method = b"".join(
        (_PUBLISH, bytes((len(exchange),)), exchange, bytes((len(key),)), key, bytes((publish.mandatory,)))
    )
    header = _CONTENT.pack(60, 0, len(body)) + b"".join(properties.encode())
    frames = [_FRAME.pack(FRAME_METHOD, channel, len(method)), method, _END]
    frames += (_FRAME.pack(FRAME_HEADER, channel, len(header)), header, _END)
    for start in range(0, len(body), most):
        piece = body[start : start + most]
        frames += (_FRAME.pack(FRAME_BODY, channel, len(piece)), piece, _END)
    return b"".join(frames)


def _octets(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()
