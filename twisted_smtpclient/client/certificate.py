"""
What came of a TLS handshake: the certificate, what it says, and whether its
chain is in order.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

from ..smtp.probe import TLSSession

#: OpenSSL's X509_V_ERR_* that a user can do something about.
_COMPLAINTS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its authority is self-signed and not trusted",
    20: "its authority is not trusted",
    21: "its authority is not trusted",
    23: "it has been revoked",
}


def tls_session(connection: object, complaint: str | None) -> TLSSession:
    """
    What is to be told of a connection that is under TLS.

    :param connection: the transport's handle.
    :param complaint: why the certificate is not verified; None where it is.
    """
    verified = complaint is None
    if not isinstance(connection, SSL.Connection):
        # TLS of another making than Twisted's; its transport says no more.
        return TLSSession(version="", cipher="", verified=verified, complaint=complaint)
    certificate = connection.get_peer_certificate()
    return TLSSession(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        verified=verified,
        complaint=complaint,
        names=() if certificate is None else names_of(certificate),
        expires="" if certificate is None else expiry_of(certificate),
        fingerprint="" if certificate is None else fingerprint_of(certificate),
    )


def complaint_of(code: int) -> str:
    """What OpenSSL's verify error means."""
    return _COMPLAINTS.get(code, f"OpenSSL's verify error {code}")


def chain_complaint(context: SSL.Context, connection: SSL.Connection) -> str | None:
    """
    What is wrong with the chain that a server has shown, by a context's trust roots.

    For connections whose handshake was another's: of ours, OpenSSL has asked
    for each certificate.

    :returns: None where it is in order.
    """
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return "there is none"
    chain = connection.get_peer_cert_chain()
    try:
        crypto.X509StoreContext(context.get_cert_store(), certificate, chain).verify_certificate()
    except crypto.X509StoreContextError as error:
        return complaint_of(error.errors[0])
    # In a handshake OpenSSL looks at this by itself.
    return None if _is_for_servers(certificate) else "it is not for servers"


def fingerprint_of(certificate: crypto.X509) -> str:
    """``sha256:`` and 64 hex digits."""
    return "sha256:" + certificate.digest("sha256").decode("ascii").replace(":", "").lower()


def names_of(certificate: crypto.X509) -> tuple[str, ...]:
    """Its host names and IP addresses, as they stand in it; none where they cannot be read."""
    try:
        extensions = certificate.to_cryptography().extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def expiry_of(certificate: crypto.X509) -> str:
    """When it expires, as ISO 8601 has it; empty where it does not say."""
    # YYYYMMDDhhmmssZ, whichever of its two forms stands in the certificate.
    told = (certificate.get_notAfter() or b"").decode("ascii", "replace")
    try:
        return datetime.strptime(told, "%Y%m%d%H%M%SZ").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""


def _is_for_servers(certificate: crypto.X509) -> bool:
    try:
        extensions = certificate.to_cryptography().extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        # RFC 5280 4.2.1.12: without it, any purpose will do.
        return True
    except ValueError:
        return False
    return any(
        purpose in usage
        for purpose in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    )
