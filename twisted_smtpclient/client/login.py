"""
What a login needs of Twisted: the connection's TLS, mechanisms of the user's
own, and tokens that somebody has to be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.mail.smtp import LOGINAuthenticator
from twisted.python.failure import Failure

from ..errors import Cancelled, ConnectionFailed, ConnectionTimeout, DeliveryError, InvalidRequest, Refused
from ..smtp.credentials import Credentials, Secret
from ..smtp.login import Channel, LogIn, Offer
from ..smtp.policy import Server, TLSMode, is_loopback
from ..smtp.scram import EXPORTER, Binding
from .connect import Reactor
from .tls import is_for

T = TypeVar("T")

#: RFC 9266 section 2: the label, and how many octets are taken.
_LABEL: Final = b"EXPORTER-Channel-Binding"
_EXPORTED: Final = 32

#: Mechanisms whose exchange may be read by others, by how their names begin.
#: Of one that is not known here it is not known either.
_HIDE_SECRETS: Final = (
    "SCRAM-", "CRAM-", "DIGEST-", "GSSAPI", "GSS-SPNEGO", "GS2-", "NTLM", "EXTERNAL", "ANONYMOUS",
)  # fmt: skip


def log_in(
    server: Server,
    credentials: Credentials | None,
    channel: Callable[[], Channel],
    *,
    peer: object,
    terms_are_given: bool,
    authenticators: Sequence[Any],
    secret: object,
    required: bool,
) -> LogIn | None:
    """
    A session's login.

    :param channel: tells what the connection is by now.
    :param peer: what is connected to, as the transport has it.
    :param terms_are_given: whether it was somebody's choice what the terms say
        of TLS.
    :param authenticators: the user's ``IClientAuthentication``.
    :param secret: what they are given.
    :param required: whether there is to be a login in any case.
    :returns: None where nobody asked for one.
    """
    if credentials is None and not authenticators and secret is None and not required:
        return None
    hidden = Secret(secret) if isinstance(secret, str | bytes) else None
    return LogIn(
        server,
        credentials,
        channel,
        # What is behind an endpoint, a proxy on this machine say, nobody knows.
        local=server.endpoint is None and _is_local(peer),
        in_clear=terms_are_given and server.tls is TLSMode.NO,
        own=[_offer(authenticator, hidden or secret) for authenticator in authenticators],
        secrets=() if hidden is None else (hidden,),
    )


def _is_local(peer: object) -> bool:
    if isinstance(peer, UNIXAddress):
        return True
    return isinstance(peer, IPv4Address | IPv6Address) and is_loopback(peer.host.partition("%")[0])


# TLS.


def channel_of(connection: object, verified: bool | None, name: str | None = None) -> Channel:
    """
    What a connection under TLS is to a login.

    :param connection: what the transport has for its handle.
    :param verified: whether the certificate is in order; None where the context
        was the user's, who has had it verified or has not.
    :param name: whose certificate it is to be then, for many a context looks at
        the chain alone; None where nobody has named the server.
    """
    if not isinstance(connection, SSL.Connection):
        # TLS of another making, of which nothing is known.
        return Channel(True, bool(verified))
    if verified is None:
        verified = bool(connection.get_context().get_verify_mode() & SSL.VERIFY_PEER)
        verified = verified and (name is None or is_for(connection, name))
    return Channel(True, verified, tuple(_bindings(connection)))


def _bindings(connection: SSL.Connection) -> Generator[Binding, None, None]:
    if connection.get_protocol_version_name() == "TLSv1.3":
        # RFC 9266 section 3; tls-unique is not defined there.
        yield Binding(EXPORTER, bytes(connection.export_keying_material(_LABEL, _EXPORTED, b"")))
    elif finished := connection.get_finished():
        # RFC 5929 section 3: of a full handshake the client's comes first, and
        # we never resume a session.
        yield Binding("tls-unique", finished)
    certificate = connection.get_peer_certificate()
    if certificate is not None:
        parsed = certificate.to_cryptography()
        algorithm = parsed.signature_hash_algorithm
        if algorithm is not None:
            # RFC 5929 section 4.1: SHA-256 in place of what is weaker; without
            # a hash function it is not defined.
            name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
            digest = hashlib.new(name, parsed.public_bytes(Encoding.DER)).digest()
            yield Binding("tls-server-end-point", digest)


# Mechanisms of the user's own.


class _Own:
    """A user's ``IClientAuthentication`` as a mechanism; the server begins."""

    finished = True
    detail = b""

    def __init__(self, name: str, shows_secret: bool, authenticator: Any, secret: object) -> None:
        self.name = name
        self.shows_secret = shows_secret
        self._authenticator = authenticator
        self._secret = secret

    def start(self) -> bytes | None:
        return None

    def step(self, challenge: bytes) -> bytes:
        secret = self._secret.octets if isinstance(self._secret, Secret) else self._secret
        response = self._authenticator.challengeResponse(secret, challenge)
        # In a later frame it would have a name.
        del secret
        if not isinstance(response, bytes):
            raise TypeError(f"challengeResponse of {self.name} gave a {type(response).__name__}, not bytes")
        return response


def _offer(authenticator: Any, secret: object) -> Offer:
    name = bytes(authenticator.getName()).decode("ascii").upper()
    if type(authenticator) is LOGINAuthenticator:
        # Used once before, it answers the question for the name with the
        # password.
        authenticator = LOGINAuthenticator(authenticator.user)
    shows_secret = not name.startswith(_HIDE_SECRETS)
    return Offer(name, partial(_Own, name, shows_secret, authenticator, secret), shows_secret)


# Tokens.


def check_resolved(credentials: Credentials | None) -> None:
    """
    Refuse, for a single session, a token that is still to be asked for.

    :raises InvalidRequest: naming ``auth.token``.
    """
    if credentials is not None and credentials.token_provider is not None:
        raise InvalidRequest("a provider is asked by a DeliveryAgent; a session takes a token", "auth.token")


def ask_for_token(server: Server, reactor: Reactor) -> Deferred[Secret]:
    """
    Ask a server's token provider.

    :returns: errbacks with ConnectionTimeout where it takes longer than the
        bound on connecting, with Cancelled, or with ConnectionFailed, whose
        cause is what it failed with.
    """
    assert server.auth is not None
    assert server.auth.token_provider is not None
    seconds = server.connection_timeout
    asked: Deferred[Any] = maybeDeferred(server.auth.token_provider)
    # Ours; the provider may give the same one to who asks next.
    answer: Deferred[Any] = Deferred(lambda _: asked.cancel())
    asked.addBoth(_pass_on, answer)
    answer.addTimeout(seconds, reactor)
    return answer.addCallbacks(Secret, _no_token, errbackArgs=(seconds,))


class _Failed(NamedTuple):
    """
    Stands in a provider's Deferred for its failure, for the next who asks: left
    there it would be logged, which may tell a secret.
    """

    failure: Failure


def _pass_on(outcome: Any, answer: Deferred[Any]) -> Any:
    if isinstance(outcome, Failure):
        outcome = _Failed(outcome)
    if isinstance(outcome, _Failed):
        answer.errback(outcome.failure)
    else:
        answer.callback(outcome)
    return outcome


def _no_token(failure: Failure, seconds: float) -> Any:
    cause = failure.value
    if isinstance(cause, DeliveryError):
        return failure
    told: DeliveryError
    if isinstance(cause, CancelledError):
        told = Cancelled("cancelled while waiting for a token")
    elif isinstance(cause, error.TimeoutError | defer.TimeoutError):
        told = ConnectionTimeout(f"no token within {seconds:g} s")
    else:
        # By its kind alone: its text is not ours, and may tell a secret.
        told = ConnectionFailed(f"the token provider failed: {type(cause).__name__}")
    told.__cause__ = cause
    return Failure(told)


@inlineCallbacks
def open_with_token(
    auth: Credentials,
    ask: Callable[[], Deferred[Secret]],
    open_session: Callable[[Credentials], Deferred[T]],
) -> Generator[Deferred[Any], Any, T]:
    """
    Open a session with a token that is asked for before, and once more after a
    535.

    The second attempt has a connection of its own: the provider may take its
    time, and many servers close after a 535 or answer the next AUTH late.  The
    token that was refused is not shown again.
    """
    token: Secret = yield ask()
    try:
        session: T = yield open_session(auth.with_token(token))
    except Refused as refused:
        if (refused.command, refused.code) != ("AUTH", 535):
            raise
        again: Secret = yield ask()
        if again == token:
            raise
        session = yield open_session(auth.with_token(again, spent=token))
    return session
