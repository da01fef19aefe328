"""
Replies to AUTH and to what follows it that no honest server gives.

For :class:`~twisted_smtpclient.testing.Fault`'s ``reply`` at ``AUTH`` and
``RESPONSE``:

.. code-block:: python

    Fault("AUTH", "REPLY", lies.iterations(100_000_000))
    Fault("RESPONSE", "REPLY", lies.wrong_signature)
    Fault("RESPONSE", "REPLY", lies.challenge(b"again"), nth=None)

Those that take the sink's own reply and make another of it leave one alone
that is not what they are for.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final

__all__ = ["MALFORMED", "challenge", "iterations", "wrong_nonce", "wrong_signature"]

#: A challenge that is not base64.
MALFORMED: Final = b"334 not base64!\r\n"


def challenge(data: bytes) -> bytes:
    """A 334 that bears this."""
    return b"334 %b\r\n" % b64encode(data)


def wrong_nonce(own: bytes) -> bytes:
    """SCRAM's first challenge, with a nonce that does not begin with the client's (RFC 5802 5.1)."""
    return _changed(own, rb"^r=[^,]+", lambda match: b"r=" + match[0][:1:-1] + b"~")


def iterations(count: int) -> Callable[[bytes], bytes]:
    """SCRAM's first challenge, with another iteration count."""
    return lambda own: _changed(own, rb"(?<=,i=)[0-9]+$", lambda match: b"%d" % count)


def wrong_signature(own: bytes) -> bytes:
    """SCRAM's last challenge, with a signature of somebody who does not know the password."""
    return _changed(
        own, rb"(?<=^v=)[A-Za-z0-9+/]+=*$", lambda match: b64encode(b"\0" * len(b64decode(match[0])))
    )


def _changed(own: bytes, pattern: bytes, change: Callable[[re.Match[bytes]], bytes]) -> bytes:
    if not own.startswith(b"334 "):
        return own
    try:
        data = b64decode(own[4:].rstrip(), validate=True)
    except binascii.Error:
        return own
    changed, times = re.subn(pattern, change, data)
    return challenge(changed) if times else own
