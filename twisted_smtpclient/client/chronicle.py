"""
How a session came to be: when it connected, started TLS and was ready, and
what was said until then.

Each session has one, for a mail that comes to it later may ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from ..smtp.handshake import Handshake, State
from ..smtp.reply import Reply
from ..smtp.trace import Transcript

Phase = Literal["connect", "tls", "session"]

#: What stands for what is secret.
_STARS: Final = b"***"

_LOGGING_IN: Final = (State.AUTH, State.CANCELED)


class Chronicle:
    """
    The phases of a session up to its first mail, and what was said in them.

    :param seconds: tells the time.
    :ivar transcript: the handshake; what it said of secrets is left out.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._spans: list[tuple[Phase, float, float]] = []
        self._phase: Phase | None = "connect"
        self._since = seconds()
        self.transcript = Transcript()

    def enter(self, phase: Phase | None) -> None:
        """From now on it is in ``phase``; None where it is ready."""
        now = self._seconds()
        if self._phase is not None:
            self._spans.append((self._phase, self._since, now))
        self._phase, self._since = phase, now

    def within(self, since: float, until: float) -> dict[Phase, float]:
        """The seconds of each phase that lie between two times."""
        spans = list(self._spans)
        if self._phase is not None:
            spans.append((self._phase, self._since, until))
        seconds: dict[Phase, float] = {}
        for phase, begun, ended in spans:
            within = min(ended, until) - max(begun, since)
            if within > 0:
                seconds[phase] = seconds.get(phase, 0.0) + within
        return seconds

    def ready_before(self, when: float) -> bool:
        """Whether it was ready for mails by then."""
        return self._phase is None and self._since <= when

    def said(self, command: bytes, handshake: Handshake) -> None:
        """The client wrote ``command``, after which ``handshake`` is as it is."""
        if handshake.state in _LOGGING_IN and command != b"*\r\n":
            words = command.split()
            begins = words[:1] == [b"AUTH"] and len(words) > 1
            kept = words[:2] if begins else []
            hidden = [_STARS] if not begins or len(words) > 2 else []
            command = b" ".join(kept + hidden) + b"\r\n"
        self.transcript.said(command)

    def heard(self, reply: Reply, handshake: Handshake) -> None:
        """The server said ``reply``, which ``handshake`` has yet to take."""
        if reply.code == 334:
            # A challenge may hold what the client has said.
            reply = Reply(334, (b"334 " + _STARS,))
        elif handshake.redaction is not None:
            (reply,) = handshake.redaction.clean([reply])
        self.transcript.heard(reply)
