"""
Where a mail goes and on what terms: the values that make a session.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import idna

from ..errors import InvalidRequest
from .credentials import Credentials
from .grammar import HELO_NAME, HOST_NAME, MAX_DOMAIN

_T = TypeVar("_T")


class Protocol(enum.Enum):
    """Which protocol is spoken: SMTP (RFC 5321) or LMTP (RFC 2033)."""

    SMTP = "SMTP"
    LMTP = "LMTP"


class Mode(enum.Enum):
    """How an extension is used: where offered, at any rate, or never."""

    TRY = "TRY"
    DEPEND = "DEPEND"
    NO = "NO"


class TLSMode(enum.Enum):
    """
    How a connection is protected.

    ``NO``: in clear.  ``TRY``: STARTTLS where it is offered, the certificate
    need not verify, and in clear where it is refused or fails (RFC 7435).
    ``DEPEND``: STARTTLS and a certificate that verifies, or an error.
    ``IMPLICIT``: TLS from the first octet, and a certificate that verifies
    (RFC 8314 section 3.3).
    """

    NO = "NO"
    TRY = "TRY"
    DEPEND = "DEPEND"
    IMPLICIT = "IMPLICIT"

    @property
    def verified(self) -> bool:
        """Whether only a certificate that verifies will do."""
        return self in (TLSMode.DEPEND, TLSMode.IMPLICIT)


#: One day; a bound so that no timer overflows.
MAX_SECONDS: Final = 86400


def _check_seconds(value: object, field: str) -> None:
    # A bool is an int to Python, NaN compares false with everything, and a
    # day is beyond any use.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
        raise InvalidRequest(f"expected seconds, over 0 and at most {MAX_SECONDS}", field)


def _seconds(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    _check_seconds(value, attribute.name)


@attrs.frozen
class Timeouts:
    """
    How long each reply may take, in seconds.

    The defaults are the minima of RFC 5321 section 4.5.3.2.  A server that
    sends its reply bit by bit does not get longer.
    """

    greeting: float = attrs.field(default=300.0, validator=_seconds)
    mail: float = attrs.field(default=300.0, validator=_seconds)
    rcpt: float = attrs.field(default=300.0, validator=_seconds)
    data_initiation: float = attrs.field(default=120.0, validator=_seconds)
    #: for the transport to take a further block of content
    data_block: float = attrs.field(default=180.0, validator=_seconds)
    data_termination: float = attrs.field(default=600.0, validator=_seconds)
    bdat_last: float = attrs.field(default=600.0, validator=_seconds)
    #: EHLO, HELO, LHLO, STARTTLS, the TLS handshake, AUTH, RSET
    other: float = attrs.field(default=300.0, validator=_seconds)
    quit: float = attrs.field(default=5.0, validator=_seconds)

    @classmethod
    def uniform(cls, seconds: float) -> Timeouts:
        """
        The same bound for each reply; never more than 5 s for QUIT's.

        :raises InvalidRequest: naming ``response_timeout``.
        """
        _check_seconds(seconds, "response_timeout")
        names = [field.name for field in attrs.fields(cls) if field.name != "quit"]
        return cls(**dict.fromkeys(names, seconds), quit=min(seconds, cls().quit))


#: RFC 5321 4.5.4.2 and IANA; RFC 8314 3.3; RFC 2033 leaves LMTP's port open,
#: 24 is what servers use ("any private mail system").
SMTP_PORT: Final = 25
LMTP_PORT: Final = 24
SUBMISSIONS_PORT: Final = 465

_FINGERPRINT: Final = re.compile(r"sha256:[0-9A-Fa-f]{64}", re.ASCII)
_UNIX: Final = "unix:"
#: sun_path of sockaddr_un has 108 octets on Linux, the last one NUL.
_MAX_UNIX_PATH: Final = 107
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: What an IP address may consist of, before :mod:`ipaddress` looks at it: that
#: takes any character behind the "%" of a zone (RFC 4007 11.2), CR and LF too.
_IP_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.\-]{1,15})?", re.ASCII)


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("expected a string", field)
    return value


def _ip_address(value: str) -> str | None:
    """
    An IP address in its one spelling (RFC 5952), or None where it is none.

    An IPv6 address may stand in brackets.
    """
    if value.startswith("[") and value.endswith("]") and ":" in value:
        value = value[1:-1]
    if not _IP_ADDRESS.fullmatch(value):
        return None
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return None


def _name_or_address(value: str, field: str, expected: str) -> str:
    """A name to look up, in its ASCII form, or an IP address."""
    name = _string(value, field)
    address = _ip_address(name)
    if address is not None:
        return address
    if len(name) > MAX_DOMAIN or not HOST_NAME.fullmatch(name):
        raise InvalidRequest(expected, field)
    try:
        return name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidRequest(f"not a domain name: {error}", field) from None


def _check_unix_path(path: str) -> None:
    try:
        # As the operating system is given it: surrogates stand for octets
        # that are not UTF-8.
        octets = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = b""
    if not octets.startswith(b"/") or len(octets) > _MAX_UNIX_PATH or _CONTROL.search(path):
        raise InvalidRequest(
            f"expected unix: and an absolute path of at most {_MAX_UNIX_PATH} octets", "host"
        )


def is_loopback(address: str) -> bool:
    """Whether an IP address is of this machine alone: 127.0.0.0/8, ``::1``."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    # Python before 3.13 does not look behind ::ffff: by itself.
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _host(value: str) -> str:
    host = _string(value, "host")
    if host.startswith(_UNIX):
        _check_unix_path(host[len(_UNIX) :])
        return host
    return _name_or_address(host, "host", "expected a name, an IPv4 or IPv6 address, or unix:/path")


def helo_name(value: str) -> str:
    """
    A name for EHLO (RFC 5321 section 4.1.1.1), as it was given.

    :raises InvalidRequest: naming ``helo``, where it is none.
    """
    name = _string(value, "helo")
    if len(name) > MAX_DOMAIN or not HELO_NAME.fullmatch(name):
        raise InvalidRequest("expected a domain name or an address literal such as [192.0.2.1]", "helo")
    return name


def _tls_name(value: str) -> str:
    return _name_or_address(value, "tls_name", "expected a domain name or an IP address")


def _fingerprint(value: str) -> str:
    digest = _string(value, "tls_fingerprint")
    if not _FINGERPRINT.fullmatch(digest):
        raise InvalidRequest("expected sha256: and 64 hex digits", "tls_fingerprint")
    return digest.lower()


def _source_address(value: str) -> str:
    address = _ip_address(_string(value, "source_address"))
    if address is None:
        raise InvalidRequest("expected an IPv4 or IPv6 address", "source_address")
    return address


def _instance_of(kind: type[_T]) -> Callable[[object, attrs.Attribute[_T], _T], None]:
    """
    A validator: only a ``kind`` will do.

    A string in the place of a mode would compare unequal to all of them, and
    ``pipelining="NO"`` would pipeline.
    """

    def validate(_: object, attribute: attrs.Attribute[_T], value: _T) -> None:
        if not isinstance(value, kind):
            raise InvalidRequest(f"expected a {kind.__name__}", attribute.name.lstrip("_"))

    return validate


def _connects(_: object, attribute: attrs.Attribute[object], value: object) -> None:
    # All that is known of it here; what it is stands in Twisted's interface.
    if value is not None and not callable(getattr(value, "connect", None)):
        raise InvalidRequest("expected an IStreamClientEndpoint", attribute.name)


def _kind_of(value: object) -> str:
    """What is shown of an endpoint, which may hold the password of a proxy."""
    return "None" if value is None else f"<{type(value).__name__}>"


@attrs.frozen(kw_only=True, cache_hash=True)
class Server:
    """
    A server and the terms of a session with it.

    Two equal servers make connections that are interchangeable.  Values are
    validated, never repaired; the first that is wrong raises
    :class:`~twisted_smtpclient.errors.InvalidRequest` with its field's name.

    :ivar host: a name, an IPv4 or IPv6 address (``[::1]`` or ``::1``), or
        ``unix:/path``.
    :ivar port: 25 unless told; 465 with ``IMPLICIT``, 24 with LMTP.
    :ivar helo: the name for EHLO, HELO or LHLO; None for the agent's.
    :ivar tls: ``TRY`` unless told; ``IMPLICIT`` on port 465; ``DEPEND`` with
        ``auth``, unless the server :attr:`is_local`.
    :ivar tls_name: the name that the certificate must bear; None for the host.
    :ivar tls_fingerprint: ``sha256:`` and 64 hex digits.  Where a certificate
        must verify, only the one with this digest does, whatever its chain
        and name.
    :ivar auth: who logs in; None for nobody.  Then no mail is sent without a
        login.  A password or token is shown only over verified TLS, to this
        machine, or where ``tls`` is ``NO`` by choice.
    :ivar source_address: the local IP address to connect from.
    :ivar endpoint: connects in place of host and port: any
        :class:`~twisted.internet.interfaces.IStreamClientEndpoint`, such as a
        proxy's or a tunnel's.  ``host`` is then no more than a name: the one
        that the certificate must bear, and that errors tell; it is not looked
        up.  Connections are shared where the endpoint is the same object.
    :ivar connection_timeout: seconds for looking up the name and connecting.
    :ivar timeouts: seconds for each reply.
    """

    host: str = attrs.field(converter=_host)
    # What was given; what it comes to is below, and what is compared.
    _port: int | None = attrs.field(default=None, alias="port", eq=False, repr=False)
    helo: str | None = attrs.field(default=None, converter=attrs.converters.optional(helo_name))
    protocol: Protocol = attrs.field(default=Protocol.SMTP, validator=_instance_of(Protocol))
    pipelining: Mode = attrs.field(default=Mode.TRY, validator=_instance_of(Mode))
    chunking: Mode = attrs.field(default=Mode.TRY, validator=_instance_of(Mode))
    _tls: TLSMode | None = attrs.field(
        default=None,
        alias="tls",
        eq=False,
        repr=False,
        validator=attrs.validators.optional(_instance_of(TLSMode)),
    )
    tls_name: str | None = attrs.field(default=None, converter=attrs.converters.optional(_tls_name))
    tls_fingerprint: str | None = attrs.field(default=None, converter=attrs.converters.optional(_fingerprint))
    auth: Credentials | None = attrs.field(
        default=None, validator=attrs.validators.optional(_instance_of(Credentials))
    )
    source_address: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(_source_address)
    )
    # Compared by identity: to be equal is more than two endpoints promise.
    endpoint: object | None = attrs.field(default=None, eq=id, repr=_kind_of, validator=_connects)
    connection_timeout: float = attrs.field(default=10.0, validator=_seconds)
    timeouts: Timeouts = attrs.field(default=Timeouts(), validator=_instance_of(Timeouts))
    port: int = attrs.field(init=False)
    tls: TLSMode = attrs.field(init=False)

    @port.default
    def _default_port(self) -> int:
        if self._port is not None:
            return self._port
        if self._tls is TLSMode.IMPLICIT:
            return SUBMISSIONS_PORT
        return LMTP_PORT if self.protocol is Protocol.LMTP else SMTP_PORT

    @tls.default
    def _default_tls(self) -> TLSMode:
        if self._tls is not None:
            return self._tls
        if self._port == SUBMISSIONS_PORT:
            return TLSMode.IMPLICIT
        return TLSMode.TRY if self.auth is None or self.is_local else TLSMode.DEPEND

    def __attrs_post_init__(self) -> None:
        if type(self.port) is not int or not 1 <= self.port <= 65535:
            raise InvalidRequest("expected an integer from 1 to 65535", "port")
        if self.tls.verified and self.unix_path and not (self.tls_name or self.tls_fingerprint):
            raise InvalidRequest("needed where TLS is verified on a UNIX socket", "tls_name")
        if self.endpoint is not None:
            self._check_endpoint()
        if self.source_address is not None:
            self._check_family(self.source_address)

    def _check_endpoint(self) -> None:
        if self.unix_path is not None:
            raise InvalidRequest("connects by itself; host is to be the server's name", "endpoint")
        if self.source_address is not None:
            raise InvalidRequest("has no meaning with an endpoint", "source_address")

    def _check_family(self, source_address: str) -> None:
        if self.unix_path is not None:
            raise InvalidRequest("has no meaning with a UNIX socket", "source_address")
        try:
            host = ipaddress.ip_address(self.host)
        except ValueError:
            return
        if host.version != ipaddress.ip_address(source_address).version:
            raise InvalidRequest("is of another family than the host", "source_address")

    @property
    def is_local(self) -> bool:
        """
        Whether the host is this machine: a loopback address or a UNIX socket.

        ``localhost`` is one too, for it never means anything else (RFC 6761
        section 6.3); should it all the same, what counts in the session is the
        address that is connected to.  With an endpoint nobody knows.
        """
        if self.endpoint is not None:
            return False
        if self.unix_path is not None or self.host.lower().rstrip(".") == "localhost":
            return True
        return is_loopback(self.host)

    @property
    def unix_path(self) -> str | None:
        """The path of a UNIX socket, or None for TCP."""
        return self.host[len(_UNIX) :] if self.host.startswith(_UNIX) else None

    def __str__(self) -> str:
        if self.unix_path is not None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
