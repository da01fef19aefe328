"""
The message of a line: octets, of a string of base64.

Most of a line is its message, so this is a fast library's.
"""

from __future__ import annotations

from typing import Final

import msgspec
import pybase64

from ..errors import InvalidRequest
from .schema import EXPECTED

__all__ = ["decode_base64", "loose_message_in", "message_in", "octets_of"]

#: The same, for a string with escapes: of "/" PHP makes "\\/".
_decode: Final = msgspec.json.Decoder(bytes).decode

#: Where it could not be built it is Python, which takes thrice the memory.
_IS_FAST: Final = "C extension" in pybase64.get_version()

_MARK: Final = 0x22


def message_in(raw: msgspec.Raw) -> bytes:
    """
    The octets in a value of a line: RFC 4648 section 4, and nothing else.

    :raises msgspec.MsgspecError: it is anything else, white space in it included.
    """
    value = memoryview(raw)
    if _IS_FAST and value[0] == _MARK:
        try:
            return pybase64.b64decode(value[1:-1], None, True)
        except ValueError:
            pass
    return _decode(raw)


def octets_of(encoded: bytes | memoryview) -> bytes | None:
    """
    The same of what stands in a string of JSON, between its marks.

    :returns: None where :func:`message_in` is to say what it is.
    """
    if not _IS_FAST:
        return None
    try:
        # By position: a third of the time of 1 KiB would be the names'.
        return pybase64.b64decode(encoded, None, True)
    except ValueError:
        return None


def loose_message_in(raw: msgspec.Raw) -> bytes:
    """
    The same by :func:`decode_base64`.

    :raises msgspec.MsgspecError: it is no string.
    :raises InvalidRequest: as there.
    """
    # One character beyond the first 65,536 would make four octets of each.
    return decode_base64(msgspec.json.decode(raw, type=str) if bytes(raw).isascii() else "-")


def decode_base64(text: str) -> bytes:
    """
    The octets in ``text``: RFC 4648 section 4, with ASCII white space ignored.

    :raises InvalidRequest: naming ``message``, where it is anything else: the
        alphabet of section 5, too little padding or too much, padding within.
    """
    for space in " \t\r\n\v\f":
        text = text.replace(space, "")
    try:
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError:
        raise InvalidRequest(EXPECTED["message"], "message") from None
