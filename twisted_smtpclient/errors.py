"""
Why a delivery has no verdict.

A verdict of the server on a mail, good or bad, is a *result*
(:class:`twisted_smtpclient.smtp.result.DeliveryResult`).  What stands here is
the lack of one.  Each error tells three things: whether trying again may help
(``temporary``), what is known of each recipient so far (``recipients``), and
whether the mail may have been delivered all the same (``in_doubt``).  To send
again without a second thought is right where ``temporary`` is true and
``in_doubt`` is false.

Where there is a builtin that one would expect, an error inherits it too, so
that ``except TimeoutError`` and ``except ConnectionError`` work.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    # For the annotation alone: nothing of smtp/ is imported when this runs.
    from .smtp.result import RecipientStatus

__all__ = [
    "Cancelled",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectionTimeout",
    "DeadlineExceeded",
    "DeliveryError",
    "ExtensionUnsupported",
    "HostNotFound",
    "InternalError",
    "InvalidRequest",
    "MessageTooLarge",
    "NotAllowed",
    "ProtocolError",
    "QueueFull",
    "Refused",
    "RequestTooLarge",
    "ResponseTimeout",
    "ShuttingDown",
    "TLSFailed",
]


class DeliveryError(Exception):
    """
    The base of all errors here; never raised itself.

    :ivar temporary: whether the same request may succeed later.
    :ivar recipients: what is known of each recipient, in the request's order;
        empty where MAIL was never written.
    """

    temporary: bool = False
    recipients: Sequence[RecipientStatus] = ()

    #: For who opens sessions: how the one came to be that ended with it.
    chronicle: Any = None

    #: Set on each class that may be raised; keeps the base abstract.
    _concrete: ClassVar[bool] = False

    def __init__(self, message: str = "", /) -> None:
        if not self._concrete:
            raise TypeError(f"{type(self).__name__} is abstract")
        super().__init__(message)

    def __init_subclass__(cls) -> None:
        cls._concrete = True

    def __str__(self) -> str:
        # OSError, which some of the builtins are, would print its errno.
        return str(self.args[0]) if self.args else ""

    def concerning(self, recipients: Sequence[RecipientStatus]) -> DeliveryError:
        """The same error, with what is known of each recipient."""
        error = copy.copy(self)
        error.recipients = tuple(recipients)
        # Which a copy does not have.
        error.__cause__ = self.__cause__
        return error

    @property
    def in_doubt(self) -> bool:
        """Whether the mail may have been delivered to any recipient."""
        return any(recipient.in_doubt for recipient in self.recipients)


class InvalidRequest(DeliveryError, ValueError):
    """
    A value was refused before anything was sent.

    :ivar field: the name of the field, such as ``recipients[1]``, or None
        where the request as a whole is at fault.
    """

    def __init__(self, message: str, field: str | None = None, /) -> None:
        super().__init__(message)
        # What the constructor takes, so that a copy or a pickle is the same.
        self.args = (message, field)
        self.field = field
        self.expected = message

    def __str__(self) -> str:
        return f"{self.field}: {self.expected}" if self.field else self.expected

    def inside(self, field: str) -> InvalidRequest:
        """The same complaint, told of a value inside ``field``."""
        return InvalidRequest(self.expected, f"{field}.{self.field}" if self.field else field)


class RequestTooLarge(DeliveryError, ValueError):
    """A request is over the bound that the daemon was given."""


class NotAllowed(DeliveryError, PermissionError):
    """The operator's rules forbid this server or this client."""


class ConnectionRefused(DeliveryError, ConnectionRefusedError):
    """No address of the server could be connected to, and one at least refused."""

    temporary = True


class ConnectionTimeout(DeliveryError, TimeoutError):
    """Looking up and connecting took longer than the bound on both."""

    temporary = True


class HostNotFound(DeliveryError, LookupError):
    """The name has no address; temporary where the resolver said so."""

    def __init__(self, message: str, /, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class ConnectionFailed(DeliveryError, ConnectionError):
    """Connecting failed otherwise: unreachable, no such socket, no route."""

    temporary = True


class ConnectionLost(DeliveryError, ConnectionError):
    """The connection ended before the verdict."""

    temporary = True


class ResponseTimeout(DeliveryError, TimeoutError):
    """The server did not answer, or take our octets, within the bound."""

    temporary = True


class ProtocolError(DeliveryError):
    """
    The server said what SMTP does not allow at that place.

    The connection is closed: after such a reply no further one can be
    trusted to answer what it seems to answer.
    """


class Refused(DeliveryError):
    """
    The server refused the session, before MAIL.

    :ivar command: what it refused: ``CONNECT`` for the greeting, ``EHLO``,
        ``HELO``, ``LHLO``, ``STARTTLS`` or ``AUTH``.
    :ivar code: the reply code.
    :ivar response: the whole reply, lines joined by LF.
    :ivar detail: what the server has said besides: of ``AUTH``, the error
        within the exchange (RFC 7628 section 3.2.2); mostly empty.
    """

    def __init__(self, command: str, code: int, response: str, /, *, detail: str = "") -> None:
        super().__init__(response)
        self.args = (command, code, response)
        self.command = command
        self.code = code
        self.response = response
        self.detail = detail
        self.temporary = code // 100 == 4

    def __str__(self) -> str:
        told = f"{self.command} refused: {self.response}"
        return f"{told} ({self.detail})" if self.detail else told


class ExtensionUnsupported(DeliveryError):
    """The request asks for an extension that the server does not offer."""


class TLSFailed(DeliveryError):
    """The TLS handshake failed, or the certificate does not verify."""


class MessageTooLarge(DeliveryError):
    """The message is over the limit that the server announced (RFC 1870)."""


class DeadlineExceeded(DeliveryError, TimeoutError):
    """The request as a whole took longer than its deadline."""

    temporary = True


class Cancelled(DeliveryError):
    """The delivery was cancelled by the one who asked for it."""

    temporary = True


class ShuttingDown(DeliveryError):
    """The daemon or the agent is being stopped."""

    temporary = True


class QueueFull(DeliveryError):
    """A bound on what may be held at a time was reached."""

    temporary = True


class InternalError(DeliveryError):
    """A fault of this software; its log has the traceback."""
