"""
Logging in (RFC 4954): which mechanism, what is said, and when to give up.

What :mod:`.handshake` is told of AUTH is decided here.  Mechanisms are tried
from the strongest, or in the order that the credentials name.  The next one is
tried where the server does not do this one after all (504, 534), and after no
other refusal: each is a failed login, of which servers count only so many.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ..errors import ExtensionUnsupported, ProtocolError, Refused
from .credentials import EXTERNAL, PASSWORD_MECHANISMS, TOKEN_MECHANISMS, Credentials, Secret
from .extensions import Extensions
from .policy import Server, TLSMode
from .redaction import Redaction
from .reply import Reply
from .sasl import CramMD5, External, Login, Mechanism, OAuthBearer, Plain, XOAuth2, out_of_turn, printable
from .scram import Binding, Scram

#: RFC 4954 section 4: an initial response must fit RFC 5321's command line.
MAX_COMMAND: Final = 512

#: RFC 4954 section 4: a line of base64 within the exchange.
MAX_LINE: Final = 12288

#: Challenges of one exchange.  Of ours none has more than three; a mechanism of
#: the user's may, and a server is not to ask for ever.
MAX_CHALLENGES: Final = 16

#: 504: the mechanism is not known there.  534: too weak for this user.
_TRY_ANOTHER: Final = frozenset({504, 534})

#: sasl-mech (RFC 4422 section 3.1), and how many are told of in an error.
_SASL_NAME: Final = re.compile(r"[A-Z0-9_\-]{1,20}", re.ASCII)
_MAX_TOLD: Final = 20

_ORDER: Final = (*EXTERNAL, *PASSWORD_MECHANISMS, *TOKEN_MECHANISMS)


class Channel(NamedTuple):
    """
    What a connection is to somebody who would log in on it.

    :ivar secure: whether it is under TLS.
    :ivar verified: whether the server's certificate is in order.
    :ivar bindings: what a login can be bound to; the best first.
    """

    secure: bool = False
    verified: bool = False
    bindings: tuple[Binding, ...] = ()


class Choice(NamedTuple):
    """
    A mechanism that may be tried.

    :ivar make: makes it, for one attempt.
    :ivar obstacle: why it will not do here; empty where it will.
    """

    name: str
    make: Callable[[], Mechanism]
    obstacle: str = ""


class Offer(NamedTuple):
    """
    A mechanism of the user's own, beside ours.

    :ivar make: makes it, for one attempt.
    :ivar shows_secret: as of :class:`~.sasl.Mechanism`.
    """

    name: str
    make: Callable[[], Mechanism]
    shows_secret: bool


class LogIn:
    """
    One session's login.

    :param server: the terms of the session.
    :param credentials: who logs in; None where only ``own`` does.
    :param channel: tells what the connection is by now.
    :param local: whether the server is on this machine, by the address that is
        connected to.
    :param in_clear: whether the terms chose to have no TLS.
    :param own: mechanisms of the user's; each replaces ours of its name.
    :param secrets: what nobody else is to read, beside those of the
        credentials.
    :ivar redaction: what nobody else is to read: the secrets from the
        beginning, and what is said of them.
    :ivar fault: why the exchange was ended with ``*``; None where it was not.
    """

    def __init__(
        self,
        server: Server,
        credentials: Credentials | None,
        channel: Callable[[], Channel] = Channel,
        *,
        local: bool = False,
        in_clear: bool = False,
        own: Sequence[Offer] = (),
        secrets: Iterable[Secret] = (),
    ) -> None:
        self._server = server
        self._credentials = credentials
        self._channel = channel
        self._trusts = local or in_clear
        self._local = local
        self._own = own
        held = () if credentials is None else credentials.secrets
        self.redaction = Redaction((*secrets, *held))
        self._left: list[Choice] = []
        self._mechanism: Mechanism
        self._initial: bytes | None = None
        self._challenges = 0
        self.fault: ProtocolError | None = None

    def __repr__(self) -> str:
        return f"<LogIn {self._credentials!r}>"

    def begin(self, offered: Extensions) -> bytes:
        """
        The first AUTH.

        :param offered: what EHLO offers on the connection as it is now.
        :raises ExtensionUnsupported: nothing that is offered fits.
        """
        names = {name.upper(): None for name in offered.get("AUTH", ())}
        choices = [choice for choice in self._choices(names) if choice.name in names]
        self._left = [choice for choice in choices if not choice.obstacle]
        if not self._left:
            raise ExtensionUnsupported(self._nothing_fits(offered, list(names), choices))
        return self._next()

    def challenged(self, reply: Reply) -> bytes:
        """
        A 334: the response, or ``*`` where there is none.

        Behind a ``*`` :attr:`fault` tells why.
        """
        try:
            return _line(self._respond(_challenge_in(reply)))
        except ProtocolError as fault:
            # It may quote the challenge.
            told = self.redaction.hide(str(fault).encode("utf-8", "backslashreplace"))
            self.fault = ProtocolError(printable(told))
            return b"*\r\n"

    def succeeded(self) -> None:
        """
        A 235.

        :raises ProtocolError: it comes before the server has shown that it
            knows the password too.
        """
        if not self._mechanism.finished:
            raise ProtocolError(f"AUTH {self._mechanism.name}: a success before its time")

    def refused(self, reply: Reply) -> bytes:
        """
        A 4xx or 5xx: the next AUTH.

        :raises Refused: there is none, or none is to be tried.
        """
        if self._left and (reply.code in _TRY_ANOTHER or self._binds_otherwise(reply)):
            return self._next()
        # Hidden before it is cut: of a part of a secret less may be known.
        detail = self.redaction.hide(self._mechanism.detail)
        raise Refused("AUTH", reply.code, reply.text, detail=printable(detail))

    def _next(self) -> bytes:
        self._mechanism = mechanism = self._left.pop(0).make()
        self._challenges = 0
        self._initial = initial = mechanism.start()
        command = f"AUTH {mechanism.name}".encode("ascii")
        if initial is not None:
            self._remember(initial)
            # "=" is an empty one (RFC 4954 section 4).
            line = b"%b %b\r\n" % (command, b64encode(initial) or b"=")
            if len(line) <= MAX_COMMAND:
                return line
        return command + b"\r\n"

    def _respond(self, challenge: bytes) -> bytes:
        self._challenges += 1
        if self._challenges > MAX_CHALLENGES:
            raise out_of_turn(self._mechanism.name)
        initial, self._initial = self._initial, None
        if initial is not None and not challenge:
            # It was too long for the command, or the server is one that takes
            # none there.
            self._challenges = 0
            return initial
        response = self._mechanism.step(challenge)
        self._remember(response)
        return response

    def _remember(self, response: bytes) -> None:
        name = b"" if self._credentials is None else self._credentials.authcid.encode("utf-8")
        # An acknowledgment is no secret, nor is LOGIN's first response.
        if len(response) > 1 and response != name:
            self.redaction.add_response(response)

    def _binds_otherwise(self, reply: Reply) -> bool:
        """
        Whether the server may know another type of binding than this one.

        It has refused before the proof, so the password was not tried.  To go
        on without a binding would be what an attacker wants.
        """
        mechanism = self._mechanism
        unproved = isinstance(mechanism, Scram) and not mechanism.proved
        return unproved and reply.code >= 500 and self._left[0].name == mechanism.name

    # The choice.

    def _choices(self, offered: Container[str]) -> list[Choice]:
        """All that there is to log in with, in the order to be tried."""
        channel = self._channel()
        own = {offer.name: offer for offer in self._own}
        chosen = self._credentials.mechanisms if self._credentials is not None else None
        usable = self._credentials.usable if self._credentials is not None else ()
        names = [*own, *(name for name in usable if name not in own)]
        if chosen is not None:
            names = list(chosen)
        elif own:
            # What we do not know was registered for a reason.
            names.sort(key=lambda name: _ORDER.index(name) if name in _ORDER else -1)
        choices = []
        for name in names:
            if name in own:
                shown = self._shown(channel, "secret") if own[name].shows_secret else ""
                choices.append(Choice(name, own[name].make, shown))
            else:
                choices += self._ours(name, channel, offered)
        return choices

    def _ours(self, name: str, channel: Channel, offered: Container[str]) -> list[Choice]:
        credentials = self._credentials
        assert credentials is not None, "it named the mechanism"
        if name.startswith("SCRAM-"):
            return self._scram(name, credentials, channel, offered)
        if name == "OAUTHBEARER":
            host = None if self._server.unix_path is not None else self._server.host
            bearer = partial(OAuthBearer, credentials, host, self._server.port)
            return [Choice(name, bearer, self._shown(channel, "token"))]
        if name == "EXTERNAL":
            vouched = channel.secure or self._local
            return [Choice(name, partial(External, credentials), "" if vouched else "there is no TLS")]
        make = partial(_SIMPLE[name], credentials)
        if name == "CRAM-MD5":
            return [Choice(name, make, "" if _has_md5() else "there is no MD5 on this machine")]
        return [Choice(name, make, self._shown(channel, "token" if name == "XOAUTH2" else "password"))]

    def _scram(
        self, name: str, credentials: Credentials, channel: Channel, offered: Container[str]
    ) -> list[Choice]:
        bindings: Sequence[Binding | None] = channel.bindings
        obstacle = "" if credentials.has_prepared_form else "the name or the password has no form by SASLprep"
        if not name.endswith("-PLUS"):
            # Bound it would have been, had the server offered it (RFC 5802
            # section 6), or had it not said 504 to that; or nobody is to know
            # of bindings, of whom it would be no offer that was taken away.
            before = credentials.usable[: credentials.usable.index(name)]
            bound = f"{name}-PLUS"
            binds = bound in before or (bound in credentials.usable and bound not in offered)
            bindings = bindings[:1] if binds and bindings else (None,)
        elif not bindings:
            bindings, obstacle = (None,), "there is no TLS to bind to"
        return [Choice(name, partial(Scram, name, credentials, binding), obstacle) for binding in bindings]

    def _shown(self, channel: Channel, what: str) -> str:
        """Why a secret may not be shown here; empty where it may."""
        if channel.verified or self._trusts:
            return ""
        where = "whose certificate does not verify" if channel.secure else "in clear"
        return f"it would show the {what} on a connection {where}"

    def _nothing_fits(self, offered: Extensions, names: list[str], choices: list[Choice]) -> str:
        if "AUTH" not in offered:
            clear = self._server.tls is TLSMode.NO and "STARTTLS" in offered
            hint = "; it offers STARTTLS, and tls is NO" if clear else ""
            return f"the server does not offer AUTH, and there are credentials{hint}"
        obstacles = {choice.name: choice.obstacle for choice in choices}
        told = [
            f"{name} ({obstacles.get(name) or self._no_choice(name)})"
            for name in names[:_MAX_TOLD]
            if self._may_be_told(name)
        ]
        return f"no mechanism to log in with; the server offers {', '.join(told) or 'none'}"

    def _no_choice(self, name: str) -> str:
        fits = self._credentials is not None and name in self._credentials.fitting
        return "mechanisms leaves it out" if fits else "not one that these credentials go with"

    def _may_be_told(self, name: str) -> bool:
        octets = name.encode("utf-8", "backslashreplace")
        return bool(_SASL_NAME.fullmatch(name)) and self.redaction.hide(octets) == octets


#: Those that need the credentials alone.
_SIMPLE: Final[dict[str, Callable[[Credentials], Mechanism]]] = {
    "CRAM-MD5": CramMD5,
    "PLAIN": Plain,
    "LOGIN": Login,
    "XOAUTH2": XOAuth2,
}


def _has_md5() -> bool:
    """Machines that go by FIPS 140 have none."""
    try:
        hashlib.new("md5")  # noqa: S324  # asked for, and not used
    except ValueError:
        return False
    return True


def _line(response: bytes) -> bytes:
    line = b64encode(response) + b"\r\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(f"AUTH: a response over {MAX_LINE} octets")
    return line


def _challenge_in(reply: Reply) -> bytes:
    """
    The challenge: base64 as RFC 4648 section 4 has it, and nothing besides.

    :raises ProtocolError: it is anything else.  It is not quoted, for it may
        repeat what it was given.
    """
    encoded = reply.lines[0][4:]
    try:
        challenge = b64decode(encoded, validate=True)
    except ValueError:
        challenge = b""
    if len(reply.lines) > 1 or b64encode(challenge) != encoded:
        raise ProtocolError("AUTH: a challenge that is not base64")
    return challenge
