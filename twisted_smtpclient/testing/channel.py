"""What TLS tells a login: who the client is by its certificate, and what SCRAM binds to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport


class TLSChannel:
    """The TLS of one connection; while there is none, all is None."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def binding(self, kind: str) -> bytes | None:
        """The data of a channel binding of this kind; None where this connection has none."""
        connection = self._connection()
        return BINDINGS[kind](connection) if connection is not None else None

    def client(self) -> str | None:
        """
        The common name of the client's certificate.

        A context asks for one only where it verifies it, so it is verified.
        """
        connection = self._connection()
        shown = connection.get_peer_certificate() if connection is not None else None
        if shown is None:
            return None
        names = shown.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else None

    def _connection(self) -> SSL.Connection | None:
        transport = self._transport
        if not ISSLTransport.providedBy(transport):
            return None
        connection: SSL.Connection = transport.getHandle()  # type: ignore[attr-defined]  # ISystemHandle's
        return connection


def _exporter(connection: SSL.Connection) -> bytes | None:
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None
    return bytes(connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""))


def _unique(connection: SSL.Connection) -> bytes | None:
    # The first Finished: the client's, for a handshake that resumes no session.
    return connection.get_peer_finished() if connection.get_protocol_version_name() == "TLSv1.2" else None


def _server_end_point(connection: SSL.Connection) -> bytes | None:
    own = connection.get_certificate()
    certificate: x509.Certificate | None = own.to_cryptography() if own is not None else None
    if certificate is None or certificate.signature_hash_algorithm is None:
        return None
    # By the hash function of its signature, unless that is too weak (RFC 5929 4.1).
    name = certificate.signature_hash_algorithm.name
    name = "sha256" if name in ("md5", "sha1") else name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()


#: RFC 9266 2 and 4.2 (TLS 1.3), RFC 5929 3 (before it, where RFC 9266 1 still has it) and 4.
BINDINGS: Final[dict[str, Callable[[SSL.Connection], bytes | None]]] = {
    "tls-exporter": _exporter,
    "tls-unique": _unique,
    "tls-server-end-point": _server_end_point,
}
