"""AUTH, and the lines of the exchange behind it (RFC 4954)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from . import login, replies
from .accounts import MECHANISMS, Channel
from .faults import FaultPlan, Stage
from .records import Attempt, Login, Session
from .replies import Settings
from .wire import INTERMEDIATE, POSITIVE, Reading, Wire

#: Octets of an AUTH command: RFC 4954 4 leaves it at RFC 5321 4.5.3.1.4's.  An initial response
#: that does not fit is to wait for an empty challenge.
MAX_COMMAND: Final = 512

#: Octets of a response, CRLF included: what RFC 4954 4 wants each server to take.
MAX_RESPONSE: Final = 12288 + 2

#: sasl-mech and initial-response (RFC 4954 8); the response is judged on its own.
_AUTH: Final = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: (.*))?", re.DOTALL)


class Authentication(Wire):
    """
    :param channel: what TLS tells of the client.
    """

    def __init__(
        self,
        settings: Settings,
        plan: FaultPlan,
        session: Session,
        busy: Callable[[], bool],
        channel: Channel,
    ) -> None:
        super().__init__(settings, plan, session, busy)
        self._channel = channel
        self._readers[Reading.RESPONSE] = self._read_response
        self._exchange: login.Exchange | None = None
        self._parties: login.Parties | None = None
        self._attempt = Attempt("")
        # The last word on the exchange: a fault may have said another.
        self._verdict = b""

    # What a dialogue adds.

    def _in_transaction(self) -> bool:
        raise NotImplementedError

    # What a dialogue asks.

    def _mechanisms(self) -> tuple[str, ...]:
        """What the sink offers on this connection as it is now."""
        return self._settings.accounts.offered(self._session.tls, self._channel)

    def _needs_login(self) -> bool:
        return self._settings.accounts.required and self._session.login is None

    def _auth(self, argument: bytes) -> None:
        match = _AUTH.fullmatch(argument)
        name = match[1].decode("ascii") if match is not None else ""
        initial = match[2] if match is not None else None
        attempt = self._attempt = Attempt(name)
        if self._settings.keep_records:
            self._session.attempts.append(attempt)
        self._exchange, self._parties = None, None
        refusal = self._refusal(name, argument, initial) or self._begin(name, initial)
        if refusal is not None:
            self._verdict = self._phrases[refusal]
        self._answer(Stage.AUTH)

    def _refusal(self, name: str, argument: bytes, initial: bytes | None) -> str | None:
        """What stands against an exchange at all."""
        accounts, offered = self._settings.accounts, self._offered.get("AUTH")
        if offered is None:
            self._violation("AUTH, which was not offered")
        elif name not in offered:
            what = f"AUTH {name}, which was not offered" if name else f"the syntax of AUTH: {argument[:80]!r}"
            self._violation(what)
        if self._session.login is not None:
            self._violation("AUTH by a client that is logged in")
            return replies.LOGGED_IN_ALREADY
        if self._in_transaction():
            self._violation("AUTH within a transaction")
            return replies.NO_AUTH_NOW
        if not accounts.mechanisms:
            return replies.UNKNOWN
        if self._session.helo is None:
            return replies.HELO_FIRST
        if not name:
            return replies.AUTH_SYNTAX
        if len("AUTH ") + len(argument) + 2 > MAX_COMMAND:
            self._violation(f"an AUTH command of over {MAX_COMMAND} octets")
            return replies.RESPONSE_TOO_LONG
        if name in accounts.refused:
            return accounts.refused[name]
        if name not in self._mechanisms():
            return replies.NEEDS_TLS if name in accounts.mechanisms else replies.NO_MECHANISM
        if initial is not None and not MECHANISMS[name].client_begins:
            self._violation(f"an initial response with {name}, in which the server begins")
            return replies.NO_INITIAL_RESPONSE
        return None

    def _begin(self, name: str, initial: bytes | None) -> str | None:
        response: bytes | None = None
        if initial is not None:
            if not initial:
                self._violation('an empty initial response that is not "="')
                return replies.NOT_BASE64
            response = b"" if initial == b"=" else self._decoded(initial, "an initial response")
            if response is None:
                return replies.NOT_BASE64
            self._attempt.initial_response = response
        self._parties = login.Parties(
            self._settings.accounts,
            self._channel,
            self._mechanisms(),
            self._offered.get("AUTH", ()),
            self._violation,
        )
        self._exchange = login.exchange(name, self._parties, response)
        self._advance(None)
        return None

    def _decoded(self, octets: bytes, what: str) -> bytes | None:
        """RFC 4648 3.3 and 3.5: no other character, no other padding."""
        try:
            decoded = base64.b64decode(octets, validate=True)
        except binascii.Error:
            decoded = None
        if decoded is None or base64.b64encode(decoded) != octets:
            self._violation(f"{what} that is not base64: {octets[:80]!r}")
            return None
        return decoded

    # The exchange.

    def _read_response(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if (end if end >= 0 else len(data)) - at >= MAX_RESPONSE:
            self._violation(f"a response of over {MAX_RESPONSE} octets")
            self._exchange = None
            self._long_line_reply = replies.RESPONSE_TOO_LONG
            self._attempt.reply = replies.RESPONSE_TOO_LONG
            self._reading = Reading.LONG_LINE
            return at
        if end < 0:
            self._tail = data[at:]
            return len(data)
        if self._unseen():
            self._violation(f"a response was sent before the reply to {self._previous}")
        if end > at and data[end - 1] == 13:
            line = data[at : end - 1]
        else:
            line = data[at:end]
            self._violation("a response ended with a bare LF")
        self._previous = "a response"
        self._response(line)
        return end + 1

    def _response(self, line: bytes) -> None:
        if self._settings.keep_transcript:
            self._session.transcript.append(("C", line))
        if line == b"*":
            self._attempt.cancelled = True
            self._exchange, self._verdict = None, self._phrases[replies.CANCELLED]
        else:
            response = self._decoded(line, "a response")
            if response is None:
                self._exchange, self._verdict = None, self._phrases[replies.NOT_BASE64]
            else:
                self._attempt.responses.append(response)
                self._advance(response)
        self._answer(Stage.RESPONSE)

    def _advance(self, response: bytes | None) -> None:
        """Take the exchange one step further, to a challenge or to its end."""
        exchange = self._exchange
        if exchange is None:
            return
        try:
            # None begins it.
            challenge = exchange.send(response)  # type: ignore[arg-type]
        except StopIteration:
            self._exchange, self._verdict = None, self._phrases[replies.LOGGED_IN]
        except login.Denied as denied:
            self._exchange, self._verdict = None, self._phrases[denied.reply]
        else:
            self._verdict = b"334 %b\r\n" % base64.b64encode(challenge)

    def _answer(self, stage: Stage) -> None:
        believed = self._say(stage, self._verdict)
        if believed == INTERMEDIATE:
            self._reading = Reading.RESPONSE
            return
        if self._reading is Reading.RESPONSE:
            self._reading = Reading.COMMAND
        self._attempt.reply = replies.text_of(self._heard)
        if believed == POSITIVE:
            claimed = self._parties.claimed if self._parties is not None else ""
            self._session.login = Login(claimed, self._attempt.mechanism)
