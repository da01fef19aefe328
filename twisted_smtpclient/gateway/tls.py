"""
Listening with TLS where clients show a certificate: the endpoint ``mtls:``.

Twisted's own ``ssl:`` has no word for whom a client's certificate must be from.
The plugin beside the daemon's makes ``mtls:`` known to
:func:`twisted.internet.endpoints.serverFromString`, in any program.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    TLSVersion,
    trustRootFromCertificates,
)

__all__ = ["mutual_tls"]


def mutual_tls(
    reactor: Any,
    port: str,
    privateKey: str,
    clientCA: str,
    certKey: str | None = None,
    extraCertChain: str | None = None,
    interface: str = "",
    backlog: str = "50",
) -> IStreamServerEndpoint:
    """
    An endpoint on which a client must show a certificate.

    All are strings, as they stand in
    ``mtls:7025:privateKey=…:certKey=…:clientCA=…``.

    :param privateKey: PEM file of the private key.
    :param certKey: PEM file of its certificate; left out, it is in the same
        file as the key.
    :param extraCertChain: PEM file of certificates between that and a root.
    :param clientCA: PEM file of the authorities of whom a client's certificate
        must be.  Whoever has one of theirs is let in, whatever its name.
    :param interface: the address to listen on; all IPv4 ones if left out.
    :raises ValueError: a file has no certificate.
    :raises OSError: a file cannot be read.
    """
    pair = PrivateCertificate.loadPEM(_octets(certKey or privateKey) + b"\n" + _octets(privateKey))
    chain = [] if extraCertChain is None else _certificates(extraCertChain)
    options = CertificateOptions(
        privateKey=pair.privateKey.original,
        certificate=pair.original,
        extraCertChain=[certificate.original for certificate in chain],
        # With trust roots a certificate is asked for, and no client goes without.
        trustRoot=trustRootFromCertificates(_certificates(clientCA)),
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    endpoint: IStreamServerEndpoint = SSL4ServerEndpoint(reactor, int(port), options, int(backlog), interface)
    return endpoint


def _octets(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _certificates(path: str) -> list[Certificate]:
    try:
        found = load_pem_x509_certificates(_octets(path))
    except ValueError as error:
        raise ValueError(f"no certificate in {path!r}: {error}") from None
    return [Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in found]
