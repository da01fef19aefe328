"""
One mail, or one look at a server, with an agent of its own: what a script needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ..smtp.content import Content
from ..smtp.dsn import DSN
from ..smtp.envelope import Envelope, Recipient
from ..smtp.policy import SUBMISSIONS_PORT, Server, TLSMode
from ..smtp.probe import Probe
from ..smtp.result import DeliveryResult
from .agent import DeliveryAgent
from .connect import Reactor
from .tls import TrustRoot


def deliver(
    host: str,
    sender: str | None,
    recipients: Sequence[str | Recipient],
    message: bytes | Content,
    *,
    dsn: DSN | None = None,
    requiretls: bool = False,
    parameters: Mapping[str, str | None] | None = None,
    port: int | None = None,
    helo: str | None = None,
    trust_root: TrustRoot | None = None,
    reactor: Reactor = None,
    **terms: Any,
) -> Deferred[DeliveryResult]:
    """
    Deliver one mail over a connection of its own.

    What sends more than one is better served by a :class:`~twisted_smtpclient.DeliveryAgent`.

    :param host: a name, an address, or ``unix:/path``.
    :param sender: the reverse-path; None for ``<>``.
    :param recipients: addresses, each with its own RCPT.
    :param message: the message as octets, or as a
        :class:`~twisted_smtpclient.Content` with terms of its own.
    :param dsn: as :class:`~twisted_smtpclient.Envelope` has it, like
        ``requiretls`` and ``parameters``.  With ``requiretls`` a server's
        certificate must verify unless ``tls`` says otherwise.
    :param reactor: None takes the global one.
    :param terms: what else :class:`~twisted_smtpclient.Server` takes, such as
        ``tls=TLSMode.DEPEND``.
    :returns: the server's verdict on every recipient; errbacks with a
        :class:`~twisted_smtpclient.errors.DeliveryError` where there is none.
    :raises InvalidRequest: at once, naming the argument that is wrong.
    """
    if reactor is None:
        from twisted.internet import reactor
    if requiretls and terms.get("tls") is None:
        terms["tls"] = TLSMode.IMPLICIT if port == SUBMISSIONS_PORT else TLSMode.DEPEND
    server = Server(host=host, port=port, helo=helo, **terms)
    envelope = Envelope(sender, recipients, dsn=dsn, requiretls=requiretls, parameters=parameters)
    content = message if isinstance(message, Content) else Content(message)
    agent = DeliveryAgent(reactor, trust_root=trust_root)
    return agent.deliver(server, envelope, content, reuse=False)


def probe(
    host: str,
    *,
    port: int | None = None,
    helo: str | None = None,
    trust_root: TrustRoot | None = None,
    reactor: Reactor = None,
    **terms: Any,
) -> Deferred[Probe]:
    """
    Look at a server without sending it a mail; see :meth:`~twisted_smtpclient.DeliveryAgent.probe`.

    :param host: a name, an address, or ``unix:/path``.
    :param reactor: None takes the global one.
    :param terms: what else :class:`~twisted_smtpclient.Server` takes.
    :raises InvalidRequest: at once, naming the argument that is wrong.
    """
    if reactor is None:
        from twisted.internet import reactor
    server = Server(host=host, port=port, helo=helo, **terms)
    return DeliveryAgent(reactor, trust_root=trust_root).probe(server)
