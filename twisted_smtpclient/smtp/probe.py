"""
What a server turned out to be: the result of looking at it without a mail.
"""

from __future__ import annotations

import attrs

from .extensions import Extensions
from .limits import Limits


@attrs.frozen(kw_only=True)
class TLSSession:
    """
    What came of a connection's TLS handshake.

    :ivar version: the protocol, such as ``TLSv1.3``.
    :ivar cipher: the cipher suite, by OpenSSL's name.
    :ivar verified: whether the server's certificate is the one with
        ``tls_fingerprint``, or without that its chain and its name are in
        order.
    :ivar complaint: why it is not verified, such as ``it has expired``; None
        where it is.
    :ivar names: the host names and IP addresses that the certificate bears
        (subjectAltName, RFC 5280 section 4.2.1.6), in its order.
    :ivar expires: when it expires: UTC, ``2026-12-24T00:00:00Z``.
    :ivar fingerprint: ``sha256:`` and 64 hex digits, as ``tls_fingerprint``
        takes it; empty where the server has shown no certificate.
    """

    version: str
    cipher: str
    verified: bool
    complaint: str | None = None
    names: tuple[str, ...] = ()
    expires: str = ""
    fingerprint: str = ""


@attrs.frozen(kw_only=True)
class Probe:
    """
    What a server is, and offers.

    :ivar greeting: its greeting, lines joined by LF, each with its code.
    :ivar extensions: what it offers, by keyword in upper case, each with its
        parameters; of the last EHLO or LHLO, that behind TLS.  Empty where it
        knows HELO alone.
    :ivar tls: None where the connection is in clear.
    :ivar authenticated: whether it was logged in to.
    :ivar limits: what it takes in one transaction and on one connection (RFC
        9422).
    """

    greeting: str
    extensions: Extensions
    tls: TLSSession | None = None
    authenticated: bool = False
    limits: Limits

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that it offers (RFC 4954), in its order."""
        return self.extensions.get("AUTH", ())

    @property
    def size_limit(self) -> int | None:
        """The largest message in octets that it takes (RFC 1870); None where it tells none."""
        return self.extensions.size_limit
