"""
From the greeting to the first MAIL: greeting, EHLO, HELO, LHLO, STARTTLS, AUTH.

Theory of operation
===================

The handshake is in lock step: one command, one reply.  Its legal walks are::

    GREETING -> EHLO -> READY
    GREETING -> EHLO -> HELO -> READY                 EHLO is not known there
    GREETING -> EHLO -> STARTTLS -> TLS -> EHLO -> READY
    GREETING -> EHLO -> STARTTLS -> READY             refused, and TLS is TRY
    GREETING -> LHLO -> ...                           the same with LMTP, no HELO
    ... -> EHLO -> AUTH -> READY                      with credentials
    ... -> AUTH -> AUTH -> ...                        a response, or the next mechanism
    ... -> AUTH -> CANCELED                           "*", and the session fails

A state is the reply that is waited for; what a reply does in a state stands
in one table.  TLS is the one state in which the server owes no reply: what it
says then, it said in clear and too early (RFC 3207 section 6).  Behind TLS
everything that was learnt in clear is forgotten (section 4.2).  AUTH stands
between the last EHLO and READY; which mechanism, and what is said, is
:mod:`.login`'s.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from ..errors import DeliveryError, ExtensionUnsupported, ProtocolError, Refused
from .extensions import Extensions
from .login import LogIn
from .policy import Mode, Protocol, Server, TLSMode
from .redaction import Redaction
from .reply import Reply


class State(enum.Enum):
    """What the handshake waits for."""

    GREETING = enum.auto()
    EHLO = enum.auto()
    LHLO = enum.auto()
    HELO = enum.auto()
    STARTTLS = enum.auto()
    TLS = enum.auto()
    AUTH = enum.auto()
    CANCELED = enum.auto()
    READY = enum.auto()


class Action(enum.Enum):
    """What the handshake asks for, besides octets to be written."""

    START_TLS = enum.auto()
    READY = enum.auto()


#: RFC 5321 4.1.1.1 and 4.1.4: these say that EHLO is not known.  Any other
#: refusal is meant, and HELO would only hide it.
_EHLO_UNKNOWN: Final = frozenset({500, 502, 504})


class Handshake:
    """
    One session's handshake.

    :param server: the terms.
    :param helo: the name for EHLO, HELO or LHLO.
    :param secure: whether the connection is under TLS from its first octet.
    :param may_start_tls: False where STARTTLS is to be left out although the
        terms would try it: it failed with this server before.
    :param helo_fallback: whether HELO may follow an EHLO that is not known.
    :param login: how to log in; None for not at all.
    :ivar state: what is waited for.
    :ivar extensions: what the server offers; complete once READY.  As it stands,
        a secret of ours included: :attr:`told_extensions` is for others.
    :ivar greeting: the server's first reply.
    :ivar secure: whether TLS is on.
    :ivar authenticated: whether the server has taken the login.
    :ivar redaction: what nobody else is to read, which is in nothing that this
        tells; None where nobody logs in.
    """

    def __init__(
        self,
        server: Server,
        helo: str,
        *,
        secure: bool = False,
        may_start_tls: bool = True,
        helo_fallback: bool = True,
        login: LogIn | None = None,
    ) -> None:
        self.state = State.GREETING
        self.extensions = Extensions()
        self.greeting: Reply | None = None
        self.secure = secure
        self.authenticated = False
        self.redaction: Redaction | None = login.redaction if login is not None else None
        self._server = server
        self._helo = helo.encode("ascii")
        self._said_ehlo = False
        self._offer: Reply | None = None
        self._wants_tls = server.tls is not TLSMode.NO and may_start_tls
        self._helo_fallback = helo_fallback
        self._login = login

    @property
    def command(self) -> str:
        """What the reply that is waited for answers, for errors."""
        row = _TABLE.get(self.state)
        return row.command if row is not None else self.state.name

    @property
    def fault(self) -> ProtocolError | None:
        """Why the client has given up on the login; None where it has not."""
        return self._login.fault if self._login is not None else None

    @property
    def told_extensions(self) -> Extensions:
        """What the server offers, fit for being shown."""
        return Extensions() if self._offer is None else Extensions.parse(self._told(self._offer))

    @property
    def tls_may_be_at_fault(self) -> bool:
        """Whether a failure now may be STARTTLS's, and not the server's."""
        return self.state in (State.STARTTLS, State.TLS)

    def receive(self, reply: Reply) -> bytes | Action:
        """
        Take the reply that is waited for.

        :returns: octets to be written, or what is to be done.
        :raises DeliveryError: the session has failed; write nothing more but
            QUIT.
        """
        row = _TABLE.get(self.state)
        if row is None:
            raise ProtocolError(f"a reply that no command waits for: {self._told(reply).text!r}")
        if reply.code == 334 and row.challenged is not None:
            return row.challenged(self, reply)
        if row.success in (reply.code, None):
            return row.accepted(self, reply)
        reply = self._told(reply)
        if reply.code < 400:
            raise ProtocolError(f"unexpected reply to {row.command}: {reply.text!r}")
        return row.refused(self, reply)

    def tls_established(self) -> bytes:
        """
        TLS is on, and the certificate is what the terms ask for.

        :returns: octets to be written.
        """
        self.secure = True
        self.extensions = Extensions()
        self._offer = None
        return self._hello()

    def _told(self, reply: Reply) -> Reply:
        """A reply, fit for being told."""
        if self.redaction is not None:
            (reply,) = self.redaction.clean([reply])
        return reply

    def _hello(self) -> bytes:
        self.state = State.LHLO if self._server.protocol is Protocol.LMTP else State.EHLO
        return b"%b %b\r\n" % (self.state.name.encode("ascii"), self._helo)

    def _greeted(self, reply: Reply) -> bytes:
        self.greeting = self._told(reply)
        return self._hello()

    def _extended(self, reply: Reply) -> bytes | Action:
        # A server that knew EHLO before TLS knows it behind it.
        self._said_ehlo = True
        # To hide a secret here could hide the mechanism that is named like it.
        self.extensions = Extensions.parse(reply)
        self._offer = reply
        if self._wants_tls and not self.secure and "STARTTLS" in self.extensions:
            self.state = State.STARTTLS
            return b"STARTTLS\r\n"
        return self._ready()

    def _ehlo_refused(self, reply: Reply) -> bytes:
        if reply.code not in _EHLO_UNKNOWN or self._said_ehlo or not self._helo_fallback:
            raise self._refusal(reply)
        # HELO offers nothing; what depends on an extension fails now.
        self._require_tls()
        self._require_extensions()
        if self._login is not None:
            raise ExtensionUnsupported("the server does not know EHLO, so it has no AUTH")
        self.state = State.HELO
        return b"HELO %b\r\n" % self._helo

    def _plain(self, _: Reply) -> bytes | Action:
        return self._ready()

    def _starttls_accepted(self, _: Reply) -> Action:
        self.state = State.TLS
        return Action.START_TLS

    def _starttls_refused(self, reply: Reply) -> bytes | Action:
        # 421 is the end of the session whatever the terms; one that merely
        # tries TLS starts over in clear.
        if self._server.tls.verified or reply.code == 421:
            raise self._refusal(reply)
        return self._ready()

    def _log_in(self, login: LogIn) -> bytes:
        self.state = State.AUTH
        return login.begin(self.extensions)

    def _challenged(self, reply: Reply) -> bytes:
        assert self._login is not None, "AUTH was said"
        said = self._login.challenged(reply)
        if self._login.fault is not None:
            self.state = State.CANCELED
        return said

    def _logged_in(self, _: Reply) -> bytes | Action:
        assert self._login is not None, "AUTH was said"
        self._login.succeeded()
        self.authenticated = True
        return self._ready()

    def _not_logged_in(self, reply: Reply) -> bytes:
        assert self._login is not None, "AUTH was said"
        return self._login.refused(reply)

    def _canceled(self, _: Reply) -> NoReturn:
        assert self.fault is not None, "which is why"
        raise self.fault

    def _refused(self, reply: Reply) -> bytes | Action:
        raise self._refusal(reply)

    def _refusal(self, reply: Reply) -> DeliveryError:
        return Refused(self.command, reply.code, reply.text)

    def _require_tls(self) -> None:
        mode = self._server.tls
        if mode.verified and not self.secure:
            raise ExtensionUnsupported(f"the server does not offer STARTTLS, and tls is {mode.value}")

    def _require_extensions(self) -> None:
        for field, keyword in (("pipelining", "PIPELINING"), ("chunking", "CHUNKING")):
            if getattr(self._server, field) is Mode.DEPEND and keyword not in self.extensions:
                raise ExtensionUnsupported(
                    f"the server does not offer {keyword}, and {field} is {Mode.DEPEND.value}"
                )

    def _ready(self) -> bytes | Action:
        # Whatever way led here: nothing that was to be secret is said in clear,
        # and no mail goes without the login that was asked for.
        self._require_tls()
        self._require_extensions()
        if self._login is not None and not self.authenticated:
            return self._log_in(self._login)
        self.state = State.READY
        return Action.READY


class _Row(NamedTuple):
    """What the reply in a state answers, and what it does."""

    command: str
    #: None where each reply will do
    success: int | None
    accepted: Callable[[Handshake, Reply], bytes | Action]
    refused: Callable[[Handshake, Reply], bytes | Action]
    #: what a 334 does; None where there is no such reply
    challenged: Callable[[Handshake, Reply], bytes] | None = None


_TABLE: Final = {
    State.GREETING: _Row("CONNECT", 220, Handshake._greeted, Handshake._refused),
    State.EHLO: _Row("EHLO", 250, Handshake._extended, Handshake._ehlo_refused),
    State.LHLO: _Row("LHLO", 250, Handshake._extended, Handshake._refused),
    State.HELO: _Row("HELO", 250, Handshake._plain, Handshake._refused),
    State.STARTTLS: _Row("STARTTLS", 220, Handshake._starttls_accepted, Handshake._starttls_refused),
    State.AUTH: _Row("AUTH", 235, Handshake._logged_in, Handshake._not_logged_in, Handshake._challenged),
    # RFC 4954 4: 501.  Whatever it says, the exchange was given up.
    State.CANCELED: _Row("AUTH", None, Handshake._canceled, Handshake._canceled),
}
