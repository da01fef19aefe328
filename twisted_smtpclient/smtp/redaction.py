"""
Secrets in what a server says: ``***`` stands in their place.

A server that quotes the command it did not understand, or logs in its reply
what it was given, has the secret in an error, a log, a client's screen.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Final

from ..errors import ProtocolError
from .credentials import Secret
from .reply import Reply

_STARS: Final = b"***"

#: Characters of base64 that are taken for a part of the secret; with fewer,
#: one word in some millions of any text would be.
_MIN_PART: Final = 6

#: Octets; what is shorter is a secret only where it stands alone, or a reply
#: would show by its gaps what it hides.
_MIN_WITHIN_WORDS: Final = 4

_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/]{%d,}={0,2}" % _MIN_PART)


class Redaction:
    """What a session has said that nobody else is to read."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._plain: dict[bytes, re.Pattern[bytes]] = {}
        self._parts: dict[bytes, None] = {}
        for secret in secrets:
            self.add(secret.octets)

    def __repr__(self) -> str:
        return "<Redaction>"

    def add(self, secret: bytes) -> None:
        """A further secret; as it is, and within whatever base64."""
        alone = rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])" if len(secret) < _MIN_WITHIN_WORDS else rb"%b"
        self._plain[secret] = re.compile(alone % re.escape(secret))
        for before in range(3):
            # Of three octets four characters are made, so a secret looks
            # different by how many stand before it; the characters at its ends
            # have bits of its neighbors.
            encoded = b64encode(bytes(before) + secret)
            part = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
            if len(part) >= _MIN_PART:
                self._parts[part] = None

    def clean(self, replies: list[Reply]) -> list[Reply]:
        """The same replies without what is secret; their codes stay."""
        return [self._clean(reply) for reply in replies]

    def hide(self, text: str) -> str:
        """The same text without what is secret."""
        return self._hide(text.encode("utf-8", "surrogateescape")).decode("utf-8", "backslashreplace")

    def blunt(self, error: ProtocolError) -> ProtocolError:
        """
        The same error without the octets that it quotes.

        They are cut, and escaped: a part of a secret would not be known.
        """
        return ProtocolError(str(error).partition(": ")[0])

    def _clean(self, reply: Reply) -> Reply:
        lines = tuple(line[:4] + self._hide(line[4:]) for line in reply.lines)
        return reply if lines == reply.lines else Reply(reply.code, lines)

    def _hide(self, octets: bytes) -> bytes:
        if any(part in octets for part in self._parts):
            octets = _BASE64_RUN.sub(self._hide_run, octets)
        for plain, pattern in self._plain.items():
            if plain in octets:
                octets = pattern.sub(_STARS, octets)
        return octets

    def _hide_run(self, run: re.Match[bytes]) -> bytes:
        return _STARS if any(part in run[0] for part in self._parts) else run[0]
