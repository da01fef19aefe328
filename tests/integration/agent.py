"""
The agent under test, with an end to the patience of a test.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from twisted_smtpclient.client.agent import DeliveryAgent
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Server
from twisted_smtpclient.smtp.result import DeliveryResult

from .certificates import Certificates

#: Seconds for a delivery: 20 MB through a server on a busy machine take a few.
PATIENCE: Final = 20.0

HELO: Final = "client.tests.example"


class ImpatientAgent(DeliveryAgent):
    """An agent whose deliveries errback with TimeoutError if they never end."""

    def __init__(self, certificates: Certificates) -> None:
        authority = Certificate.loadPEM(certificates.trusted.read_bytes())
        super().__init__(reactor, helo=HELO, trust_root=trustRootFromCertificates([authority]))

    def deliver(
        self, server: Server, envelope: Envelope, content: Content, **terms: Any
    ) -> Deferred[DeliveryResult]:
        return super().deliver(server, envelope, content, **terms).addTimeout(PATIENCE, reactor)
