"""
TLS on the client's side: what a certificate must be, by the terms of a server.

A context holds the trust roots and is shared by all connections, for loading
the platform's roots costs some 10 ms.  What differs from server to server,
the name and whether it matters, stands in :class:`ServerTLS`.
"""

from __future__ import annotations

import ipaddress
import os.path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..errors import TLSFailed
from ..smtp.policy import Server
from .certificate import chain_complaint, complaint_of, fingerprint_of

#: What ``trustRootFromCertificates`` and ``platformTrust`` of
#: :mod:`twisted.internet.ssl` give; Twisted has no public name for it.
TrustRoot = Any


def trust_root_of(path: str) -> TrustRoot:
    """
    The trust roots in a file of PEM certificates, however many.

    :raises ValueError: telling the path and what is wrong, where the file
        cannot be read or has no certificate that can.
    """
    try:
        with open(path, "rb") as file:
            certificates = load_pem_x509_certificates(file.read())
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a file of PEM certificates, got {path!r}: {error}") from None
    return trustRootFromCertificates(
        [Certificate.loadPEM(certificate.public_bytes(Encoding.PEM)) for certificate in certificates]
    )


class TrustFile:
    """
    The trust roots in a file, which may be read again.

    :ivar root: what was read last.
    :raises ValueError: as :func:`trust_root_of` does.
    """

    def __init__(self, path: str) -> None:
        # The working directory may be another one by then.
        self.path = os.path.abspath(path)
        self.root = trust_root_of(path)

    def reload(self) -> TrustRoot:
        """
        Read the file again.

        :raises ValueError: as :func:`trust_root_of` does; what was read
            before stands.
        """
        self.root = trust_root_of(self.path)
        return self.root


class ClientTLS:
    """
    Makes the TLS terms of servers.

    :param trust_root: what certificates are trusted; None for the platform's.
    :param certificate: ours, with its key; shown to each server that asks for
        one.
    """

    def __init__(
        self, trust_root: TrustRoot | None = None, certificate: PrivateCertificate | None = None
    ) -> None:
        self._trust_root = trust_root
        self._certificate = certificate
        self._context: SSL.Context | None = None

    def trust(self, trust_root: TrustRoot | None) -> None:
        """Terms that are made from now on trust this; None for the platform's."""
        self._trust_root = trust_root
        self._context = None

    def terms(self, server: Server) -> ServerTLS:
        """The terms of one server."""
        if self._context is None:
            root = self._trust_root if self._trust_root is not None else platformTrust()
            own = self._certificate
            self._context = CertificateOptions(
                trustRoot=root,
                certificate=None if own is None else own.original,
                privateKey=None if own is None else own.privateKey.original,
            ).getContext()
        return ServerTLS(self._context, server)


@implementer(IOpenSSLClientConnectionCreator)
class ServerTLS:
    """
    Makes the TLS of one connection, and judges what came of it.

    TLS that somebody else has made, on a transport that came with it, is
    judged too: the chain that was shown then is held against our own trust
    roots once more, whatever has been accepted.

    :ivar complaint: what is wrong with the certificate; None where it is the
        one that the terms name, or its chain and name are in order.  Known
        after :meth:`judge`.
    """

    def __init__(self, context: SSL.Context, server: Server) -> None:
        self.complaint: str | None = "it was not looked at"
        self._context = context
        self._made = False
        self._required = server.tls.verified
        self._fingerprint = server.tls_fingerprint
        self._name = certified_name(server)
        self._chain_complaint: str | None = None

    @property
    def verified(self) -> bool:
        """Whether there is no complaint."""
        return self.complaint is None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._made = True
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if self._name is not None and not _is_address(self._name):
            connection.set_tlsext_host_name(self._name.rstrip(".").encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER, self._verify_chain)
        return connection

    def _verify_chain(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int
    ) -> bool:
        """OpenSSL asks this for each certificate of the chain."""
        if not good and self._chain_complaint is None:
            self._chain_complaint = complaint_of(error)
        # What is not required is judged, and not held against the server.
        return bool(good) or not self._required or self._fingerprint is not None

    def judge(self, connection: object) -> None:
        """
        Look at the certificate once the handshake is complete.

        :raises TLSFailed: it must verify and does not.
        """
        self.complaint = self._complaint(connection)
        if self._required and self.complaint is not None:
            raise TLSFailed(f"the server's certificate does not verify: {self.complaint}")

    @property
    def failure(self) -> str | None:
        """Why the handshake failed, where the certificate's chain was the cause."""
        return self._chain_complaint if self._required and self._fingerprint is None else None

    def _complaint(self, connection: object) -> str | None:
        if not isinstance(connection, SSL.Connection):
            return "its transport does not show it"
        certificate = connection.get_peer_certificate()
        if certificate is None:
            return "there is none"
        if self._fingerprint is not None:
            digest = fingerprint_of(certificate)
            return None if digest == self._fingerprint else f"its fingerprint is {digest}"
        if not self._made:
            self._chain_complaint = chain_complaint(self._context, connection)
        if self._chain_complaint is not None:
            return self._chain_complaint
        if self._name is None:
            return "no name to hold it against"
        return None if is_for(connection, self._name) else f"it is not for {self._name}"


def certified_name(server: Server) -> str | None:
    """Whose certificate a server is to have; None where it has no such name."""
    return server.tls_name or (server.host if server.unix_path is None else None)


def is_for(connection: SSL.Connection, name: str) -> bool:
    """Whether a connection's certificate is for ``name``, a host or an address."""
    try:
        if _is_address(name):
            verify_ip_address(connection, name)
        else:
            verify_hostname(connection, name.rstrip("."))
    except (VerificationError, ValueError, crypto.Error):
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
