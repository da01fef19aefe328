"""
The daemon's command line: ``twistd smtpclient`` and ``twist smtpclient``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import IService, MultiService
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from .client.access import Access, Pattern
from .client.agent import DeliveryAgent
from .client.tls import TrustFile
from .errors import InvalidRequest
from .gateway.amqp.consumer import PREFETCH
from .gateway.amqp.options import Broker, count_of, delays_of, name_of
from .gateway.amqp.retries import AGE, ATTEMPTS, DELAYS, Retries
from .gateway.jsonlines import MAX_IN_FLIGHT, MAX_REQUEST
from .gateway.keys import KEY_TTL
from .gateway.limit import MAX_CLIENTS
from .gateway.memory import MAX_MEMORY, MIN_MEMORY
from .gateway.token import Tokens
from .operations.collector import Collector
from .operations.files import allow_files
from .operations.life import State
from .operations.logs import FORMATS, choose_format
from .operations.pages import Pages, PagesFactory, pages_of
from .operations.signals import Signals
from .operations.systemd import ServiceManager
from .service import DRAIN_TIMEOUT, Daemon, metrics_of
from .smtp.policy import MAX_SECONDS, Server

if TYPE_CHECKING:
    from .gateway.amqp.connection import AMQPService

__all__ = ["Options", "makeService"]

DEFAULT_ENDPOINT: Final = "tcp:7025:interface=127.0.0.1"

_SIZE: Final = re.compile(r"(\d{1,15})\s*(|KiB|MiB|GiB)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected octets such as 1048576 or 64MiB, got {text!r}")
    return int(match[1]) * _UNITS[match[2].lower()]


def _memory(text: str) -> int:
    octets = _size(text)
    if octets < MIN_MEMORY:
        raise ValueError(f"expected at least {MIN_MEMORY} octets, got {text!r}")
    return octets


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) == 0:
        raise ValueError(f"expected an integer over 0, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"expected seconds from 0 to {MAX_SECONDS}, got {text!r}")
    return seconds


def _helo(text: str) -> str:
    try:
        Server(host="localhost", helo=text)
    except InvalidRequest as error:
        raise ValueError(f"{error.expected}, got {text!r}") from None
    return text


def _redelivered(text: str) -> str:
    if text not in ("deliver", "indoubt"):
        raise ValueError(f"expected deliver or indoubt, got {text!r}")
    return text


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(f"expected {' or '.join(FORMATS)}, got {text!r}")
    return text


def _option(name: str, default: object, told: str, read: Callable[[str], object]) -> list[object]:
    """A row of optParameters, whose errors name the option as ``--listen``'s do."""

    def named(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise usage.UsageError(f"--{name}: {error}") from None

    return [name, None, default, told, named]


class Options(usage.Options):
    """What the daemon can be told."""

    synopsis = "[options]"
    longdesc = (
        "Takes requests to deliver mail as lines of JSON, and answers each with "
        "the server's verdict on every recipient."
    )

    optParameters: ClassVar = [
        _option("helo", None, "name for EHLO, HELO and LHLO (the host's full name)", _helo),
        _option("max-request", MAX_REQUEST, "longest request line in octets, or with KiB or MiB", _size),
        _option("max-in-flight", MAX_IN_FLIGHT, "requests under way for one client", _count),
        _option("max-clients", MAX_CLIENTS, "clients at a time; more wait to be accepted", _count),
        _option("max-memory", MAX_MEMORY, "octets of lines, messages and replies held", _memory),
        _option("key-ttl", KEY_TTL, "seconds for which the outcome of a key is kept", _seconds),
        _option("connections-per-host", 10, "open connections to one server", _count),
        _option("pipelining-depth", 10, "messages under way on one connection", _count),
        _option("messages-per-connection", 1000, "a connection is closed after so many", _count),
        _option("idle-timeout", 30.0, "seconds for which an unused connection is kept", _seconds),
        _option("ca-file", None, "PEM file of trust roots (the platform's)", TrustFile),
        _option("token-file", None, "file of tokens, of which each client must show one first", Tokens),
        _option("log-format", "text", "form of the log, text or json", _log_format),
        _option("drain-timeout", DRAIN_TIMEOUT, "seconds for what is under way at SIGTERM", _seconds),
        ["amqp", None, None, "requests from RabbitMQ too, at amqp://user:password@host:port/vhost or amqps:"],
        ["amqp-file", None, None, "file whose first line is that URL, as TWISTED_SMTPCLIENT_AMQP may be"],
        _option("amqp-prefetch", PREFETCH, "requests of each queue under way", count_of),
        _option("amqp-replies", None, "exchange for outcomes, where a request has no reply_to", name_of),
        _option("amqp-attempts", ATTEMPTS, "tries of a request, the first included", _count),
        _option("amqp-age", AGE, "seconds after the first in which the last is begun", _seconds),
        _option("amqp-delays", DELAYS, "seconds before the second try, the third, ...", delays_of),
        _option(
            "amqp-redelivered",
            "deliver",
            "what becomes of a request that RabbitMQ has given out before, deliver or indoubt",
            _redelivered,
        ),
    ]

    optFlags: ClassVar = [
        ["amqp-retry-indoubt", None, "try recipients in doubt again, who may get the mail twice"],
    ]

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.endpoints: list[IStreamServerEndpoint] = []
        self.allow: list[Pattern] = []
        self.deny: list[Pattern] = []
        self.metrics: IStreamServerEndpoint | None = None
        self.queues: list[str] = []
        self.broker: Broker | None = None
        self.log_observer: Callable[[], ILogObserver] | None = None

    def opt_listen(self, endpoint: str) -> None:
        """
        Where clients connect, as an endpoint string; may be given more than once.

        [default: tcp:7025:interface=127.0.0.1]
        """
        self.endpoints.append(_endpoint("listen", endpoint))

    def opt_metrics(self, endpoint: str) -> None:
        """
        Where /metrics, /healthz and /readyz are, as an endpoint string.

        [default: nowhere]
        """
        self.metrics = _endpoint("metrics", endpoint)

    def opt_allow_host(self, pattern: str) -> None:
        """
        Servers that clients may name: a name with *, an address, a network or
        unix:/path, each with an optional :port; may be given more than once.

        [default: any TCP server, no unix:]
        """
        self.allow.append(_rule("allow-host", pattern))

    def opt_deny_host(self, pattern: str) -> None:
        """
        Servers that they may not, by name or by the address connected to; wins
        over --allow-host; may be given more than once.
        """
        self.deny.append(_rule("deny-host", pattern))

    def opt_amqp_queue(self, name: str) -> None:
        """
        Queue of RabbitMQ to take requests from; may be given more than once.
        """
        try:
            self.queues.append(name_of(name))
        except ValueError as error:
            raise usage.UsageError(f"--amqp-queue: {error}") from None

    def _find_broker(self) -> None:
        if not self.queues:
            if self["amqp"] is not None or self["amqp-file"] is not None:
                raise usage.UsageError("--amqp: at least one --amqp-queue is needed")
            return
        try:
            self.broker = Broker(self["amqp"], self["amqp-file"], os.environ)
        except ValueError as error:
            raise usage.UsageError(f"--amqp: {error}") from None

    def postOptions(self) -> None:
        self._find_broker()
        if not self.endpoints:
            self.opt_listen(DEFAULT_ENDPOINT)
        if self["helo"] is None:
            self["helo"] = full_host_name()
        if self.parent is not None:
            try:
                self.log_observer = choose_format(self["log-format"], self.parent)
            except ValueError as error:
                raise usage.UsageError(f"--log-format: {error}") from None


_TCP_PORT: Final = re.compile(r"(?:tcp6?|ssl|mtls):(?:port=)?(\d+)", re.ASCII)


def _rule(option: str, pattern: str) -> Pattern:
    try:
        return Pattern.parse(pattern)
    except ValueError as error:
        raise usage.UsageError(f"--{option}: {error}") from None


def _endpoint(option: str, description: str) -> IStreamServerEndpoint:
    # Imported here and in makeService only: by then twistd has installed the
    # reactor that was asked for.
    from twisted.internet import reactor

    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
        port = _TCP_PORT.match(description)
        if port is not None and int(port[1]) > 65535:
            # Twisted finds out when it listens, with an OverflowError.
            raise ValueError("a port is at most 65535")
    except Exception as error:
        # Each kind of endpoint has exceptions of its own for what it cannot use.
        raise usage.UsageError(
            f"--{option}: expected an endpoint such as {DEFAULT_ENDPOINT}, got {description!r}: {error}"
        ) from None
    return endpoint


class _Application(Daemon):
    """The daemon as twistd runs it, with the form of the log."""

    log_observer: Callable[[], ILogObserver] | None = None

    def setServiceParent(self, parent: Any) -> None:
        if self.log_observer is not None and isinstance(parent, Componentized):
            # By the time that twistd has daemonized, files are found elsewhere.
            parent.setComponent(ILogObserver, self.log_observer())
        MultiService.setServiceParent(self, parent)


def full_host_name() -> str | None:
    """The host's name, where it has a dot and is fit for HELO; else None."""
    name = socket.getfqdn()
    try:
        return _helo(name) if "." in name else None
    except ValueError:
        return None


def _amqp(reactor: Any, options: Options, daemon: Daemon, broker: Broker) -> AMQPService:
    """The gateway to RabbitMQ that the options ask for, as a part of the daemon."""
    # Here, for pika's adapter imports the reactor, and is not there without the extra.
    from .gateway.amqp.connection import AMQPService
    from .gateway.amqp.gateway import AMQPGateway
    from .gateway.amqp.topology import RETRY_EXCHANGE

    gateway = AMQPGateway(
        daemon.deliveries,
        reactor,
        list(dict.fromkeys(options.queues)),
        max_request=options["max-request"],
        prefetch=options["amqp-prefetch"],
        replies=options["amqp-replies"],
        retries=Retries(
            options["amqp-attempts"],
            options["amqp-age"],
            options["amqp-delays"],
            bool(options["amqp-retry-indoubt"]),
        ),
        redelivered_is_in_doubt=options["amqp-redelivered"] == "indoubt",
    )
    exchanges = [options["amqp-replies"]] if options["amqp-replies"] is not None else []
    if options["amqp-attempts"] > 1:
        exchanges.append(RETRY_EXCHANGE)
    trusted: TrustFile | None = options["ca-file"]
    if options["amqp-file"] is not None:
        daemon.life.on_reload("--amqp-file", broker.reload)
    daemon.life.watch(lambda state: gateway.stop_taking() if state is State.DRAINING else None)
    return AMQPService(
        reactor, gateway, lambda: broker.address, lambda: None if trusted is None else trusted.root, exchanges
    )


def makeService(options: Options) -> IService:
    """The daemon that the options ask for, not yet started."""
    from twisted.internet import reactor

    allow_files(options["max-clients"])
    trusted: TrustFile | None = options["ca-file"]
    agent = DeliveryAgent(
        reactor,
        helo=options["helo"],
        trust_root=None if trusted is None else trusted.root,
        access=Access(options.allow, options.deny),
        connections_per_host=options["connections-per-host"],
        pipelining_depth=options["pipelining-depth"],
        messages_per_connection=options["messages-per-connection"],
        idle_timeout=options["idle-timeout"],
    )
    daemon = _Application(
        reactor,
        agent,
        options.endpoints,
        max_request=options["max-request"],
        max_in_flight=options["max-in-flight"],
        max_clients=options["max-clients"],
        max_memory=options["max-memory"],
        key_ttl=options["key-ttl"],
        tokens=options["token-file"],
        drain_timeout=options["drain-timeout"],
    )
    daemon.log_observer = options.log_observer
    if trusted is not None:
        daemon.life.on_reload("--ca-file", lambda: agent.trust(trusted.reload()))
    if options["token-file"] is not None:
        daemon.life.on_reload("--token-file", options["token-file"].reload)
    metrics = None if options.metrics is None else metrics_of(daemon, agent)
    if options.broker is not None:
        amqp = _amqp(reactor, options, daemon, options.broker)
        MultiService.addService(daemon, amqp)
        if metrics is not None:
            metrics.ask(amqp.gateway.state)
    if options.metrics is not None and metrics is not None:
        pages = PagesFactory(pages_of(metrics, daemon.life), reactor)
        MultiService.addService(daemon, Pages(options.metrics, pages))
    MultiService.addService(daemon, Collector())
    MultiService.addService(daemon, Signals(daemon.life, daemon.hurry, reactor))
    MultiService.addService(daemon, ServiceManager(daemon.life, reactor))
    return daemon
