"""
Tests of what is read from a certificate, and of chains whose handshake was another's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from twisted_smtpclient.client.certificate import (
    chain_complaint,
    complaint_of,
    expiry_of,
    fingerprint_of,
    names_of,
    tls_session,
)
from twisted_smtpclient.client.tls import ClientTLS
from twisted_smtpclient.smtp.policy import Server
from twisted_smtpclient.testing import make_certificates

NOW = datetime.now(timezone.utc)
LATER = NOW.replace(microsecond=0) + timedelta(days=30)
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example")])


def certificate(*extensions: x509.ExtensionType, until: datetime = LATER) -> crypto.X509:
    """One that has signed itself, so that it is its own authority."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(until)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return crypto.X509.from_cryptography(builder.sign(KEY, hashes.SHA256()))


class Shown:
    """A connection on which a server has shown a certificate, or none."""

    def __init__(self, certificate: crypto.X509 | None) -> None:
        self._certificate = certificate

    def get_peer_certificate(self) -> crypto.X509 | None:
        return self._certificate

    def get_peer_cert_chain(self) -> list[crypto.X509] | None:
        return None if self._certificate is None else [self._certificate]


def complaint(shown: crypto.X509 | None, trusted: crypto.X509 | None = None) -> str | None:
    context = SSL.Context(SSL.TLS_METHOD)
    store = context.get_cert_store()
    if trusted is not None:
        assert store is not None
        store.add_cert(trusted)
    connection: Any = Shown(shown)
    return chain_complaint(context, connection)


def usage(*purposes: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(purposes)


@pytest.mark.parametrize(
    ("extensions", "says"),
    [
        ([], None),
        ([usage(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)], None),
        ([usage(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)], None),
        ([usage(ExtendedKeyUsageOID.CLIENT_AUTH)], "it is not for servers"),
        ([usage(ExtendedKeyUsageOID.CODE_SIGNING)], "it is not for servers"),
    ],
)
def test_a_certificate_for_something_else_is_no_servers(
    extensions: Sequence[x509.ExtensionType], says: str | None
) -> None:
    shown = certificate(*extensions)
    assert complaint(shown, shown) == says


def test_a_chain_that_ends_nowhere_or_in_the_past_is_not_in_order() -> None:
    assert complaint(certificate(), certificate()) == "it is self-signed"
    expired = certificate(until=NOW - timedelta(days=1))
    assert complaint(expired, expired) == "it has expired"
    assert complaint(None) == "there is none"


def test_a_purpose_that_cannot_be_read_is_none() -> None:
    nonsense = x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"nonsense")
    shown = certificate(nonsense)
    # OpenSSL may refuse it first; either way it does not pass.
    assert complaint(shown, shown) is not None


def test_an_error_that_nobody_has_a_word_for_has_its_number() -> None:
    assert complaint_of(23) == "it has been revoked"
    assert complaint_of(999) == "OpenSSL's verify error 999"


def test_names_are_hosts_and_addresses_in_their_order() -> None:
    alternatives = x509.SubjectAlternativeName(
        [
            x509.DNSName("mx.example"),
            x509.RFC822Name("postmaster@mx.example"),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            x509.DNSName("*.mx.example"),
        ]
    )
    assert names_of(certificate(alternatives)) == ("mx.example", "2001:db8::1", "*.mx.example")


@pytest.mark.parametrize(
    "extensions", [[], [x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"nonsense")]]
)
def test_a_certificate_without_names_that_can_be_read_has_none(
    extensions: Sequence[x509.ExtensionType],
) -> None:
    assert names_of(certificate(*extensions)) == ()


@pytest.mark.parametrize("until", [LATER, datetime(2060, 1, 2, 3, 4, 5, tzinfo=timezone.utc)])
def test_the_expiry_is_told_in_one_form_for_both_of_asn1s(until: datetime) -> None:
    assert expiry_of(certificate(until=until)) == until.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_an_expiry_that_cannot_be_read_is_not_told() -> None:
    class Odd:
        def get_notAfter(self) -> bytes:
            return b"19700101000000+0100"

    odd: Any = Odd()
    assert expiry_of(odd) == ""


def test_the_fingerprint_is_that_of_the_terms() -> None:
    made = make_certificates()
    shown = crypto.load_certificate(crypto.FILETYPE_PEM, made.certificate_pem)
    assert fingerprint_of(shown) == made.fingerprint
    assert Server(host="mx", tls_fingerprint=fingerprint_of(shown)).tls_fingerprint == made.fingerprint


def test_of_tls_that_does_not_show_itself_little_is_told_and_nothing_verified() -> None:
    told = tls_session(object(), "its transport does not show it")
    assert (told.version, told.cipher, told.fingerprint, told.names) == ("", "", "", ())
    assert not told.verified


def test_tls_without_a_certificate_is_told_as_such() -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    told = tls_session(SSL.Connection(context, None), "there is none")
    assert (told.fingerprint, told.expires, told.names) == ("", "", ())
    assert told.complaint == "there is none"


def test_a_transport_that_shows_nothing_does_not_verify() -> None:
    terms = ClientTLS(make_certificates().trust_root()).terms(Server(host="mx.example"))
    terms.judge(object())
    assert (terms.verified, terms.complaint) == (False, "its transport does not show it")
    terms.judge(SSL.Connection(SSL.Context(SSL.TLS_METHOD), None))
    assert (terms.verified, terms.complaint) == (False, "there is none")
