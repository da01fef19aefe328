"""
The properties of an outcome.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from pika.spec import BasicProperties

from .progress import ATTEMPT, FIRST_SEEN

__all__ = ["PERSISTENT", "OutcomeProperties"]

#: AMQP's delivery mode of what survives the broker's restart.
PERSISTENT: Final = 2

#: Octets of a short string at the most.
_SHORT: Final = 255


class OutcomeProperties(BasicProperties):  # type: ignore[misc]  # pika has no types
    """
    As pika writes them, but that what many outcomes have in common is written
    once: all of it, for each, is a tenth of the work of a request.

    :param word: the outcome's.
    :param correlation_id: whose it is; None where nobody knows.
    :param message_id: its own.
    :param attempt: the number of the try that it is the outcome of.
    :param first_seen: when the request was, in seconds since 1970.
    """

    def __init__(
        self, word: str, correlation_id: str | bytes | None, message_id: str, attempt: int, first_seen: int
    ) -> None:
        headers = {ATTEMPT: attempt, FIRST_SEEN: first_seen}
        super().__init__(
            content_type="application/json",
            delivery_mode=PERSISTENT,
            correlation_id=correlation_id,
            message_id=message_id,
            type=word,
            headers=headers,
        )
        self._usual = headers

    def encode(self) -> list[bytes]:
        """The octets, in pieces."""
        usual = self._usual
        correlation, message = _octets(self.correlation_id), _octets(self.message_id)
        if self.headers is not usual or max(len(correlation), len(message)) > _SHORT:
            pieces: list[bytes] = super().encode()
            return pieces
        known = self.correlation_id is not None
        before, behind = _common(self.type, usual[ATTEMPT], usual[FIRST_SEEN], known)
        if known:
            before += bytes((len(correlation),)) + correlation
        return [before, bytes((len(message),)), message, behind]


def _octets(name: str | bytes | None) -> bytes:
    return name.encode() if isinstance(name, str) else name or b""


@lru_cache(maxsize=256)
def _common(word: str, attempt: int, first_seen: int, known: bool) -> tuple[bytes, bytes]:
    """What stands before the names, and behind them."""
    given: dict[str, Any] = {"content_type": "application/json", "delivery_mode": PERSISTENT, "type": word}
    properties = BasicProperties(
        headers={ATTEMPT: attempt, FIRST_SEEN: first_seen},
        correlation_id="" if known else None,
        message_id="",
        **given,
    )
    octets = b"".join(properties.encode())
    behind = bytes((len(word),)) + word.encode()
    # Between stand the lengths of names that are empty.
    return octets[: -len(behind) - (2 if known else 1)], behind
