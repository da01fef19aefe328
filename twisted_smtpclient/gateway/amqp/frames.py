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
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pika.exceptions import InvalidFrameError
from pika.frame import Header, Method, decode_frame
from pika.spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, Basic, BasicProperties

from .progress import Unreadable

__all__ = ["Delivered", "end_of_frame", "frames_of", "read_delivered", "read_frame"]

_END: Final = bytes([FRAME_END])
#: Kind, channel, octets of a frame.
_FRAME: Final = struct.Struct(">BHL")
#: What a broker says that speaks another version, and octets of all of it.
_REFUSAL: Final = b"AMQP"
_REFUSED: Final = 8
#: Basic.Publish (60, 40), and a ticket that has had no use since AMQP 0-8.
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
_DELIVER: Final = struct.pack(">I", Basic.Deliver.INDEX)
_CLASS: Final = BasicProperties.INDEX
#: The class Basic, a weight that has no use, octets of the body.
_CONTENT: Final = struct.Struct(">HHQ")
#: Both, as a header frame begins.
_HEADER: Final = struct.Struct(">BHLHHQ")
#: The frames of a message of which the body is in one.
_KINDS: Final = [FRAME_METHOD, FRAME_HEADER, FRAME_BODY]

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


class Delivered(NamedTuple):
    """
    A message that the broker gives out.

    :ivar end: where it ends in the octets.
    :ivar method: a ``Basic.Deliver`` in its frame.
    :ivar header: the frame with its properties.
    """

    end: int
    method: Any
    header: Any
    body: bytes


def read_delivered(octets: bytes, start: int) -> Delivered | None:
    """
    The message whose three frames begin at ``start``, which is what most have.

    :returns: None where it is none, where it is longer or not all there yet, or
        where it has headers that pika cannot read: then it is read frame by frame.
    """
    method = start + _FRAME.size
    if not octets.startswith(_DELIVER, method):
        return None
    try:
        kind, channel, size = _FRAME.unpack_from(octets, start)
        header = method + size + 1
        kinds = [kind]
        kind, second, size, of, _, length = _HEADER.unpack_from(octets, header)
        kinds.append(kind)
        begun = header + _FRAME.size + size + 1
        kind, third, size = _FRAME.unpack_from(octets, begun)
        kinds.append(kind)
        body = begun + _FRAME.size
        end = body + size
        ends = octets[header - 1] == octets[begun - 1] == octets[end] == FRAME_END
    except (struct.error, IndexError):
        # Not all there.
        return None
    if not (ends and kinds == _KINDS and channel == second == third and length == size and of == _CLASS):
        return None
    try:
        properties = BasicProperties().decode(octets[header + _HEADER.size : begun - 1])
    except Exception:
        return None
    deliver = Basic.Deliver().decode(octets[method : header - 1], len(_DELIVER))
    return Delivered(end + 1, Method(channel, deliver), Header(channel, length, properties), octets[body:end])


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
    method = _published_to(publish.exchange, publish.routing_key, publish.mandatory)
    header = _CONTENT.pack(60, 0, len(body)) + b"".join(properties.encode())
    frames = [_FRAME.pack(FRAME_METHOD, channel, len(method)), method, _END]
    frames += (_FRAME.pack(FRAME_HEADER, channel, len(header)), header, _END)
    for start in range(0, len(body), most):
        piece = body[start : start + most]
        frames += (_FRAME.pack(FRAME_BODY, channel, len(piece)), piece, _END)
    return b"".join(frames)


@lru_cache(maxsize=256)
def _published_to(exchange: str | bytes, key: str | bytes, mandatory: bool) -> bytes:
    exchange, key = _octets(exchange), _octets(key)
    lengths = bytes((len(exchange),)), bytes((len(key),))
    return b"".join((_PUBLISH, lengths[0], exchange, lengths[1], key, bytes((mandatory,))))


def _octets(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()
