"""
SASL mechanisms (RFC 4422), the client's side of them, as plain objects.

Each is made afresh for each attempt to log in, and knows neither SMTP nor
base64: :meth:`Mechanism.start` gives the initial response,
:meth:`Mechanism.step` a response for each challenge.  A challenge that the
mechanism does not have at that place raises ProtocolError, so every exchange
comes to an end by itself.
"""

from __future__ import annotations

import hmac
from typing import Final, Protocol

from ..errors import ProtocolError
from .credentials import Credentials, Secret

#: Characters of what a server says of a failure (RFC 7628 section 3.2.2): some
#: 60 for the status, the rest for a scope and a URL.
MAX_DETAIL: Final = 500


class Mechanism(Protocol):
    """
    One attempt to log in.

    :ivar name: as IANA has registered it.
    :ivar shows_secret: whether who reads the exchange has the password or the
        token.
    :ivar finished: whether the server's success may be believed now.
    :ivar detail: what the server has said of the failure within the exchange,
        as it stands: a secret is found in it, not in a part of it.  Empty where
        it has said nothing.
    """

    name: str
    shows_secret: bool
    finished: bool
    detail: bytes

    def start(self) -> bytes | None:
        """The initial response; None where the server begins."""

    def step(self, challenge: bytes) -> bytes:
        """
        The response to a challenge.

        :raises ProtocolError: there is no such challenge here.
        """


class _Single:
    """One message of the client's, and no challenge."""

    name = ""
    shows_secret = True
    finished = True
    detail = b""

    def __init__(self, message: Secret) -> None:
        self._message = message

    def start(self) -> bytes | None:
        return self._message.octets

    def step(self, challenge: bytes) -> bytes:
        raise out_of_turn(self.name)


class Plain(_Single):
    """PLAIN (RFC 4616): ``NUL authcid NUL passwd``; whom to act as is left to the server."""

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(Secret(f"\0{credentials.authcid}\0{_passwd(credentials).text}"))


class External(_Single):
    """EXTERNAL (RFC 4422 appendix A): whom to act as, or nothing."""

    name = "EXTERNAL"
    shows_secret = False

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(Secret(credentials.username))


class Login:
    """
    LOGIN (draft-murchison-sasl-login): the name, then the password.

    What the challenges say differs from server to server and does not matter.
    """

    name = "LOGIN"
    shows_secret = True
    finished = True
    detail = b""

    def __init__(self, credentials: Credentials) -> None:
        self._left = [_passwd(credentials), Secret(credentials.authcid)]

    def start(self) -> bytes | None:
        return None

    def step(self, challenge: bytes) -> bytes:
        if not self._left:
            # Twisted's gives the password again to whoever asks for more.
            raise out_of_turn(self.name)
        return self._left.pop().octets


class CramMD5:
    """CRAM-MD5 (RFC 2195): a digest of one challenge, keyed with the password."""

    name = "CRAM-MD5"
    shows_secret = False
    finished = True
    detail = b""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._answered = False

    def start(self) -> bytes | None:
        return None

    def step(self, challenge: bytes) -> bytes:
        # To none at all the response is the same each time, and may be used
        # again by who has heard it.
        if self._answered or not challenge:
            raise out_of_turn(self.name)
        self._answered = True
        digest = hmac.new(_passwd(self._credentials).octets, challenge, "md5").hexdigest()
        return f"{self._credentials.authcid} {digest}".encode()


class _Bearer(_Single):
    """A token, and one challenge that says why it will not do."""

    #: what the challenge is answered with, so that the server can say 535
    _acknowledgment = b""

    def step(self, challenge: bytes) -> bytes:
        if not self.finished or not challenge:
            raise out_of_turn(self.name)
        self.finished = False
        self.detail = challenge
        return self._acknowledgment


class XOAuth2(_Bearer):
    """XOAUTH2, of Google and Microsoft; its error is answered with nothing."""

    name = "XOAUTH2"

    def __init__(self, credentials: Credentials) -> None:
        token = _token(credentials)
        super().__init__(Secret(f"user={credentials.username}\1auth=Bearer {token.text}\1\1"))


class OAuthBearer(_Bearer):
    """
    OAUTHBEARER (RFC 7628); its error is answered with ``%x01``.

    :param host: what was connected to, by its name; None where it has none.
    """

    name = "OAUTHBEARER"
    _acknowledgment = b"\1"

    def __init__(self, credentials: Credentials, host: str | None, port: int) -> None:
        # saslname (RFC 5801 section 4): "=" and "," are escaped.
        user = credentials.username.replace("=", "=3D").replace(",", "=2C")
        where = f"host={host}\1port={port}\1" if host is not None else ""
        token = _token(credentials)
        super().__init__(Secret(f"n,a={user},\1{where}auth=Bearer {token.text}\1\1"))


def out_of_turn(name: str) -> ProtocolError:
    """The server asks for what the mechanism does not have at that place."""
    return ProtocolError(f"AUTH {name}: a challenge that the mechanism does not have there")


def printable(said: bytes) -> str:
    """What a server has said, fit for an error's text; cut at :data:`MAX_DETAIL`."""
    text = said[:MAX_DETAIL].decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def _passwd(credentials: Credentials) -> Secret:
    assert credentials.passwd is not None, "chosen by what the credentials have"
    return credentials.passwd


def _token(credentials: Credentials) -> Secret:
    assert credentials.token is not None, "chosen by what the credentials have"
    return credentials.token
