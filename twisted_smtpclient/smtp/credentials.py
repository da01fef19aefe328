"""
Who logs in, and with what secret.

Whatever holds a password or a token here shows it to nobody who does not ask
for it by name: reprs are blind, and no local variable of a frame that may end
up in a traceback is the secret itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, Final, cast

from scramp import ScramException
from scramp.core import saslprep

from ..errors import InvalidRequest

#: Gives an OAuth 2 token: a string, or a Deferred of one.
TokenProvider = Callable[[], Any]

#: Mechanisms that show that one knows a password, strongest first.
PASSWORD_MECHANISMS: Final = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-1",
    "CRAM-MD5",
    "PLAIN",
    "LOGIN",
)
#: The same for a token.
TOKEN_MECHANISMS: Final = ("OAUTHBEARER", "XOAUTH2")
#: For what TLS has shown already.
EXTERNAL: Final = ("EXTERNAL",)

_KNOWN: Final = frozenset((*PASSWORD_MECHANISMS, *TOKEN_MECHANISMS, *EXTERNAL))

#: Octets of UTF-8.  RFC 4616 section 2 has a server take 255 of each.  A line of
#: base64 has 12288 octets at most (RFC 4954 section 4), which carry 9213; the
#: longest response is OAUTHBEARER's: the token, the name with each octet
#: escaped as three (765), a host (255), and 45 for what stands between.
MAX_USERNAME: Final = 255
MAX_SECRET: Final = 8000

#: What RFC 4013 section 2.3 prohibits and RFC 4616's grammar cannot carry, CR,
#: LF and NUL among them; and half a surrogate pair, which has no UTF-8 form.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: b64token (RFC 6750 section 2.1), widened to what is visible: some servers'
#: tokens are not of its alphabet.
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)


class Secret:
    """
    A string that shows itself when asked for, and only then.

    Two are equal where what they hide is.
    """

    __slots__ = ("_hidden",)

    def __init__(self, hidden: str | bytes) -> None:
        self._hidden = hidden

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return self._hidden == other._hidden if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._hidden)

    @property
    def text(self) -> str:
        """The secret."""
        hidden = self._hidden
        return hidden if isinstance(hidden, str) else hidden.decode("utf-8", "surrogateescape")

    @property
    def octets(self) -> bytes:
        """The secret in UTF-8."""
        hidden = self._hidden
        return hidden.encode("utf-8", "surrogateescape") if isinstance(hidden, str) else hidden


class Credentials:
    """
    Who logs in to a server, and with what.

    Either a password or a token; values are validated, never repaired.  Two
    that are equal log in alike, so that connections may be shared; token
    providers are compared by identity, bound methods by their object's.

    :param username: who logs in.
    :param password: by SCRAM, CRAM-MD5, PLAIN or LOGIN.  It is prepared by
        SASLprep (RFC 4013); one that has no prepared form goes as it stands,
        and not by SCRAM.
    :param token: by OAUTHBEARER (RFC 7628) or XOAUTH2: an OAuth 2 access token,
        or a callable that returns one or a Deferred of one.  A
        :class:`~twisted_smtpclient.DeliveryAgent` asks it before it opens a
        connection, and once more where the server has answered 535.
    :param mechanisms: the only ones to try, in that order, in upper or lower
        case; None for all that fit, strongest first.
    :raises InvalidRequest: naming ``auth.username``, ``auth.password``,
        ``auth.token``, ``auth.mechanisms`` or ``auth``.
    :ivar username: as given.
    :ivar mechanisms: in upper case, or None.
    """

    __slots__ = (
        "_hash", "_password", "_spent", "_token",
        "authcid", "has_prepared_form", "mechanisms", "passwd", "username",
    )  # fmt: skip

    username: str
    mechanisms: tuple[str, ...] | None
    #: the name as SASLprep makes it, or as given where it has no such form
    authcid: str
    #: the password likewise; None where there is none
    passwd: Secret | None
    #: whether both have such a form, without which there is no SCRAM
    has_prepared_form: bool
    _password: Secret | None
    _token: Secret | TokenProvider | None
    #: a token that was refused before this one, which is still nobody's business
    _spent: Secret | None
    _hash: int

    def __init__(
        self,
        username: str,
        password: str | None = None,
        *,
        token: str | TokenProvider | None = None,
        mechanisms: Iterable[str] | None = None,
    ) -> None:
        # From here on no frame has them in the open.
        hidden, password = _hide(password), None
        shown, token = (token, None) if callable(token) else (_hide(token), None)
        if (hidden is None) == (shown is None):
            raise InvalidRequest("expected a password or a token, one of them", "auth")
        _check_username(username, empty=False)
        if hidden is not None:
            _check_secret(hidden, "auth.password")
        if isinstance(shown, Secret):
            _check_token(shown)
        usable = PASSWORD_MECHANISMS if shown is None else TOKEN_MECHANISMS
        self._store(username, hidden, shown, _names(mechanisms, usable))

    @classmethod
    def external(cls, username: str = "") -> Credentials:
        """
        Log in as whom TLS has shown us to be, by a client's certificate.

        :param username: whom to act as; empty for the one that the server
            takes from the certificate (RFC 4422 appendix A).
        """
        _check_username(username, empty=True)
        return _restored(username, None, None, EXTERNAL)

    def _store(
        self,
        username: str,
        password: Secret | None,
        token: Secret | TokenProvider | None,
        mechanisms: tuple[str, ...] | None,
        spent: Secret | None = None,
    ) -> None:
        store = object.__setattr__
        name = _prepared(Secret(username))
        prepared = None if password is None else _prepared(password)
        store(self, "username", username)
        store(self, "authcid", username if name is None else name.text)
        store(self, "_password", password)
        store(self, "passwd", password if prepared is None else prepared)
        store(self, "has_prepared_form", name is not None and (prepared is not None or password is None))
        store(self, "_token", token)
        store(self, "_spent", spent)
        store(self, "mechanisms", mechanisms)
        store(self, "_hash", hash(self._key))

    @property
    def _key(self) -> tuple[object, ...]:
        token = self._token
        provider = None if token is None or isinstance(token, Secret) else _identity(token)
        return self.username, self._password, self.token, provider, self.mechanisms

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"credentials do not change; make new ones for another {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("credentials do not change")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Credentials):
            return NotImplemented
        return self is other or self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        # A debugger may look at one that was refused.
        return f"<Credentials {getattr(self, 'username', '')!r}>"

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, _: object) -> Credentials:
        # A provider's copy would be another provider.
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.username, self._password, self._token, self.mechanisms, self._spent)

    @property
    def password(self) -> Secret | None:
        """The password as it was given."""
        return self._password

    @property
    def token(self) -> Secret | None:
        """The token; None where there is none, or a provider."""
        return self._token if isinstance(self._token, Secret) else None

    @property
    def token_provider(self) -> TokenProvider | None:
        """What gives the token, where it was given as that."""
        return None if isinstance(self._token, Secret) else self._token

    @property
    def secrets(self) -> frozenset[Secret]:
        """All that nobody else is to read."""
        held = (self._password, self.passwd, self.token, self._spent)
        return frozenset(secret for secret in held if secret is not None)

    @property
    def fitting(self) -> tuple[str, ...]:
        """The mechanisms that such a secret will do for, strongest first."""
        if self._password is not None:
            return PASSWORD_MECHANISMS
        return EXTERNAL if self._token is None else TOKEN_MECHANISMS

    @property
    def usable(self) -> tuple[str, ...]:
        """Those of them that may be tried, in that order."""
        return self.fitting if self.mechanisms is None else self.mechanisms

    def with_token(self, token: Secret, spent: Secret | None = None) -> Credentials:
        """
        The same with a token in place of its provider.

        :param spent: the one that was refused before it; a server may have
            kept it, and repeat it.
        :raises InvalidRequest: naming ``auth.token``, which it is not.
        """
        _check_token(token)
        return _restored(self.username, None, token, self.mechanisms, spent)


def _identity(provider: TokenProvider) -> tuple[object, ...]:
    """What tells a provider from others that are equal, or cannot be compared."""
    if isinstance(provider, MethodType):
        # Made anew each time that it is asked for.
        return id(provider.__self__), id(provider.__func__)
    return (id(provider),)


def _restored(*given: Any) -> Credentials:
    credentials = Credentials.__new__(Credentials)
    credentials._store(*given)
    return credentials


def _hide(value: object) -> Secret | None:
    # What is no string is refused further on, and may be as secret.
    return None if value is None else Secret(cast("str", value))


def _check_username(username: object, *, empty: bool) -> None:
    field = "auth.username"
    if not isinstance(username, str):
        raise InvalidRequest("expected a string", field)
    _check_text(Secret(username), field, MAX_USERNAME)
    if not username and not empty:
        raise InvalidRequest("expected a name, not the empty string", field)


def _check_secret(secret: Secret, field: str) -> None:
    if not isinstance(secret._hidden, str):
        raise InvalidRequest("expected a string", field)
    if not secret.text:
        raise InvalidRequest("expected one, not the empty string", field)
    _check_text(secret, field, MAX_SECRET)


def _check_text(text: Secret, field: str, most: int) -> None:
    if _CONTROL.search(text.text):
        raise InvalidRequest("expected no control characters", field)
    if len(text.octets) > most:
        raise InvalidRequest(f"expected at most {most} octets of UTF-8", field)


def _check_token(token: Secret) -> None:
    _check_secret(token, "auth.token")
    if not _TOKEN.fullmatch(token.text):
        raise InvalidRequest("expected visible ASCII characters (RFC 6750 section 2.1)", "auth.token")


def _names(mechanisms: Iterable[str] | None, usable: tuple[str, ...]) -> tuple[str, ...] | None:
    if mechanisms is None:
        return None
    field = "auth.mechanisms"
    expected = f"expected a list of some of {', '.join(usable)}"
    if isinstance(mechanisms, (str, bytes)) or not isinstance(mechanisms, Iterable):
        raise InvalidRequest(expected, field)
    given = list(mechanisms)
    if not given or not all(isinstance(name, str) for name in given):
        raise InvalidRequest(expected, field)
    names = tuple(dict.fromkeys(name.upper() for name in given))
    for name in names:
        if name not in _KNOWN:
            # Not told back: somebody's password may have come to stand here.
            raise InvalidRequest(f"unknown mechanism; {expected}", field)
        if name not in usable:
            raise InvalidRequest(f"{name} does not go with that; {expected}", field)
    return names


def _prepared(given: Secret) -> Secret | None:
    """By SASLprep (RFC 4013); None where that prohibits it, or leaves nothing."""
    if given.text.isascii():
        # All of it but controls, which were refused, is its own prepared form.
        return given
    try:
        prepared = Secret(saslprep(given.text))
    except ScramException:
        return None
    return prepared if prepared.text else None
