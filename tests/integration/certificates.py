"""
Certificates for the servers, and what a client may trust.
"""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Final, NamedTuple

import trustme

#: The name in the certificates, which no resolver knows.
NAME: Final = "mx.tests.example"


class Identity(NamedTuple):
    """A server's key and certificates."""

    certificates: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """``sha256:`` and the digest of the server's own certificate."""
        first = self.certificates.read_text().split("-----END CERTIFICATE-----")[0]
        der = ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n")
        return "sha256:" + hashlib.sha256(der).hexdigest()


class Certificates:
    """
    An authority that the client under test trusts, and one that it does not.

    :ivar trusted: the authority's certificate, PEM.
    :ivar good: for loopback and :data:`NAME`, by the trusted authority.
    :ivar other_name: by the trusted authority, for another name.
    :ivar untrusted: for loopback and :data:`NAME`, by the other authority.
    """

    def __init__(self, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        self.trusted = folder / "trusted.pem"
        authority.cert_pem.write_to_path(str(self.trusted))
        self.good = self._issue(authority, folder / "good", "127.0.0.1", "localhost", NAME)
        self.other_name = self._issue(authority, folder / "other_name", "elsewhere.example")
        self.untrusted = self._issue(stranger, folder / "untrusted", "127.0.0.1", "localhost", NAME)

    @staticmethod
    def _issue(authority: trustme.CA, stem: Path, *names: str) -> Identity:
        leaf = authority.issue_cert(*names)
        identity = Identity(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        for number, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(identity.certificates), append=number > 0)
        leaf.private_key_pem.write_to_path(str(identity.key))
        identity.key.chmod(0o600)
        return identity
