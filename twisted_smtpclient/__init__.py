"""
Sends raw e-mail over SMTP and LMTP with Twisted, in as few flights as the
server allows, and tells the server's verdict on every recipient.

>>> from twisted_smtpclient import deliver
>>> d = deliver("localhost", "me@example.org", ["you@example.org"], b"Subject: hi\\r\\n\\r\\nhello\\r\\n")
"""

from .client.access import Access
from .client.agent import DeliveryAgent
from .client.calls import deliver, probe
from .client.delivery import DeliveryCancelled
from .client.protocol import PipeliningESMTPClient
from .errors import (
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimeout,
    DeadlineExceeded,
    DeliveryError,
    ExtensionUnsupported,
    HostNotFound,
    InternalError,
    InvalidRequest,
    MessageTooLarge,
    NotAllowed,
    ProtocolError,
    QueueFull,
    Refused,
    RequestTooLarge,
    ResponseTimeout,
    ShuttingDown,
    TLSFailed,
)
from .smtp.content import Content
from .smtp.credentials import Credentials
from .smtp.dsn import DSN, Notify, Return
from .smtp.envelope import Envelope, Recipient
from .smtp.policy import Mode, Protocol, Server, Timeouts, TLSMode
from .smtp.probe import Probe, TLSSession
from .smtp.reply import EnhancedStatusCode, Reply
from .smtp.result import DeliveryResult, RecipientStatus, Status
from .smtp.trace import Trace, Transcript

__all__ = [
    "DSN",
    "Access",
    "Cancelled",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectionTimeout",
    "Content",
    "Credentials",
    "DeadlineExceeded",
    "DeliveryAgent",
    "DeliveryCancelled",
    "DeliveryError",
    "DeliveryResult",
    "EnhancedStatusCode",
    "Envelope",
    "ExtensionUnsupported",
    "HostNotFound",
    "InternalError",
    "InvalidRequest",
    "MessageTooLarge",
    "Mode",
    "NotAllowed",
    "Notify",
    "PipeliningESMTPClient",
    "Probe",
    "Protocol",
    "ProtocolError",
    "QueueFull",
    "Recipient",
    "RecipientStatus",
    "Refused",
    "Reply",
    "RequestTooLarge",
    "ResponseTimeout",
    "Return",
    "Server",
    "ShuttingDown",
    "Status",
    "TLSFailed",
    "TLSMode",
    "TLSSession",
    "Timeouts",
    "Trace",
    "Transcript",
    "deliver",
    "probe",
]
