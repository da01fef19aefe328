"""Throw-away certificates for tests: an authority and a server's certificate, valid for an hour."""

from __future__ import annotations

import hashlib
import ipaddress
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)

__all__ = ["Certificates", "make_certificates"]

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Certificates:
    """
    An authority and one certificate for a server.

    :ivar authority_pem: the authority's certificate.
    :ivar certificate_pem: the server's certificate.
    :ivar key_pem: the server's private key, unencrypted.
    :ivar fingerprint: ``sha256:`` and the hex digest of the server's
        certificate.
    :ivar client_pem: a client's private key and certificate, for the name
        that it was asked for.
    """

    authority_pem: bytes
    certificate_pem: bytes
    fingerprint: str
    key_pem: bytes = field(repr=False)
    client_pem: bytes = field(repr=False)

    def server_context(self, *, client_certificates: bool = False) -> CertificateOptions:
        """
        For :class:`~twisted_smtpclient.testing.Sink`'s ``starttls`` and ``implicit_tls``.

        :param client_certificates: a client must show a certificate of this
            authority; without one the handshake fails.
        """
        pair = PrivateCertificate.loadPEM(self.key_pem + self.certificate_pem)
        authorities = [Certificate.loadPEM(self.authority_pem)] if client_certificates else []
        options: CertificateOptions = pair.options(*authorities)
        with warnings.catch_warnings():
            # Twisted hands pyOpenSSL's certificates to pyOpenSSL, which has come to prefer
            # cryptography's.  The context is made once, so here, and not under the caller's filters.
            warnings.simplefilter("ignore", DeprecationWarning)
            options.getContext()
        return options

    def client_certificate(self) -> PrivateCertificate:
        """For ``optionsForClientTLS(…, clientCertificate=…)``."""
        pair: PrivateCertificate = PrivateCertificate.loadPEM(self.client_pem)
        return pair

    def trust_root(self) -> IOpenSSLTrustRoot:
        """For ``optionsForClientTLS``: trusts the authority and nobody else."""
        root: IOpenSSLTrustRoot = trustRootFromCertificates([Certificate.loadPEM(self.authority_pem)])
        return root


def make_certificates(
    *names: str,
    expired: bool = False,
    wrong_name: bool = False,
    self_signed: bool = False,
    client: str = "client.example",
) -> Certificates:
    """
    Make them anew; some milliseconds.

    :param names: host names and IP addresses that the certificate bears;
        without any, ``localhost``, ``127.0.0.1`` and ``::1``.
    :param expired: the server's certificate was valid until an hour ago.
    :param wrong_name: it bears a name that is none of these.
    :param self_signed: it is signed with its own key, and the authority knows
        nothing of it.
    :param client: the common name of the client's certificate.
    """
    bears = ("wrong.invalid",) if wrong_name else names or ("localhost", "127.0.0.1", "::1")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("throw-away authority", authority_key, None, authority_key, authority=True)
    issuer, signer = (None, key) if self_signed else (authority, authority_key)
    certificate = _certificate(bears[0], key, issuer, signer, names=bears, expired=expired)
    client_key = ec.generate_private_key(ec.SECP256R1())
    shown = _certificate(client, client_key, authority, authority_key, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    pem = serialization.Encoding.PEM
    return Certificates(
        authority_pem=authority.public_bytes(pem),
        certificate_pem=certificate.public_bytes(pem),
        fingerprint=f"sha256:{hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()}",
        key_pem=_pem_of(key),
        client_pem=_pem_of(client_key) + shown.public_bytes(pem),
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    *,
    names: tuple[str, ...] = (),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    expired: bool = False,
    authority: bool = False,
) -> x509.Certificate:
    # An hour back for clocks that differ, and what OpenSSL's strict mode asks for (RFC 5280 4.2.1).
    now = datetime.now(timezone.utc)
    begin, end = (now - 2 * _HOUR, now - _HOUR) if expired else (now - _HOUR, now + _HOUR)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
