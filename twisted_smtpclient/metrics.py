"""
What the daemon has done and how it stands, for Prometheus.

Nothing is counted while a mail is on its way.  How things stand is read where
they stand, when somebody asks; deliveries are counted from the batches in
which the journal logs them.

No label names a host, a sender or a client: whoever may name servers would
make as many time series.  Which server is slow or refuses is told by the log,
delivery by delivery.  All labels and their values are in the tables below.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from . import errors
from .errors import DeliveryError
from .smtp.policy import Server
from .smtp.result import Status
from .smtp.trace import Trace

__all__ = ["PHASES", "READINGS", "Metrics", "Told"]

PREFIX: Final = "smtpclient_"

#: What is told of a delivery that has ended: the server, the sender, how many
#: recipients have which status, the error, the seconds, and where they went,
#: where that was watched.
Told = tuple[Server, str | None, Mapping[str, int], DeliveryError | None, float, Trace | None]

#: The ``error`` of a delivery; without one it is empty.
ERRORS: Final = tuple(name for name in errors.__all__ if name != "DeliveryError")

#: Where time goes: those of one delivery, then those of one connection.
PHASES: Final = {
    "total": "a delivery, from its request to its outcome",
    "queued": "a delivery, waiting for a connection",
    "envelope": "a delivery, from the connection's choice to the last reply to RCPT",
    "content": "a delivery, from there to the final reply",
    "connect": "a connection, looking up the name and connecting",
    "tls": "a connection, the TLS handshake",
    "session": "a connection, the greeting, EHLO, STARTTLS and AUTH",
}
_TRACED: Final = ("queued", "envelope", "content")

#: Seconds: from a mail on a loopback connection to RFC 5321's ten minutes for
#: the final reply.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_BOUNDS: Final = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]


class Reading(NamedTuple):
    """A number that somebody's ``state()`` has, and what it is."""

    kind: Literal["gauge", "counter"]
    told: str


#: Each key that a source may have, which is the metric's name too.
READINGS: Final[dict[str, Reading]] = {
    "clients": Reading("gauge", "Clients that are connected."),
    "clients_paused": Reading("gauge", "Clients that are not read from: too much of theirs is under way."),
    "clients_accepted": Reading("counter", "Clients that have connected."),
    "requests_waiting": Reading("gauge", "Requests that were read and are not taken yet."),
    "in_flight": Reading("gauge", "Deliveries and probes under way."),
    "draining": Reading("gauge", "1 while the daemon drains, else 0."),
    "queue_length": Reading("gauge", "Mails that wait for a connection."),
    "servers": Reading("gauge", "Servers, on different terms, with a connection or a mail that waits."),
    "connections_open": Reading("gauge", "Connections to servers that take mails."),
    "connections_busy": Reading("gauge", "Those of them with a mail under way."),
    "connections_opening": Reading("gauge", "Connections to servers that do not take mails yet."),
    "connections_opened": Reading("counter", "Connections to servers that came to take mails."),
    "connections_failed": Reading("counter", "Connections to servers that came to nothing before a mail."),
    "connections_reused": Reading("counter", "Mails given to a connection that had been given one before."),
    "flights": Reading("counter", "Writes to servers, one for all that was to be said at that time."),
    "bytes_sent": Reading("counter", "Octets written to servers, TLS's own not counted."),
    "bytes_received": Reading("counter", "Octets read from servers, TLS's own not counted."),
    "broken_servers": Reading("gauge", "Extensions left out because a server broke on them, by server."),
    "memory_bytes": Reading("gauge", "Octets of lines, messages and replies held, as --max-memory counts."),
    "amqp_connected": Reading("gauge", "1 while there is a connection to RabbitMQ, else 0."),
    "amqp_blocked": Reading("gauge", "1 while RabbitMQ wants nothing published, else 0."),
    "amqp_consuming": Reading("gauge", "Queues that requests are taken from."),
    "amqp_under_way": Reading("gauge", "Requests from queues whose outcome RabbitMQ has not confirmed."),
    "amqp_waiting": Reading("gauge", "Requests from queues that have come and are not begun."),
    "amqp_unconfirmed": Reading("gauge", "Outcomes and further tries that RabbitMQ has not confirmed."),
    "amqp_consumed": Reading("counter", "Requests that have come from queues."),
    "amqp_acknowledged": Reading("counter", "Requests from queues that were acknowledged."),
    "amqp_redelivered": Reading("counter", "Requests from queues that had been given out before."),
    "amqp_retried": Reading("counter", "Requests from queues that were put back for a further try."),
    "amqp_dead_lettered": Reading("counter", "Outcomes that no queue took, put aside."),
    "amqp_reconnects": Reading("counter", "Connections to RabbitMQ, but for the first."),
    "keys": Reading("gauge", "Keys that are known: of deliveries under way and of outcomes kept."),
}

#: Answers what a part of the daemon has to tell; it is asked at each scrape,
#: so it may take some milliseconds.
Source = Callable[[], Mapping[str, float]]


class _Histogram:
    """How many took how long; a tenth of what the library's own would cost."""

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """How many took at most so long."""
        total = 0
        told: list[tuple[str, float]] = []
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            total += count
            told.append((bound, total))
        return told


class Metrics(Collector):
    """
    Counts what it is told, and asks its sources for the rest.

    Each has a registry of its own, so two daemons in one process do not mix.

    :ivar registry: where an application may register collectors of its own.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._sources: list[Source] = []
        self._deliveries = dict.fromkeys(("", *ERRORS), 0)
        self._in_doubt = 0
        self._recipients = {status.value: 0 for status in Status}
        self._phases = {phase: _Histogram() for phase in PHASES}
        self._rejected: list[Callable[[], Mapping[str, int]]] = []

    def ask(self, source: Source) -> None:
        """Ask ``source`` at each scrape; its keys are those of :data:`READINGS`."""
        self._sources.append(source)

    def ask_for_rejected(self, source: Callable[[], Mapping[str, int]]) -> None:
        """Ask ``source`` how many requests never became a delivery, by the error's name."""
        self._rejected.append(source)

    # What is told.

    def told(self, deliveries: Iterable[Told]) -> None:
        """These have ended."""
        recipients, total = self._recipients, self._phases["total"]
        buckets = total.counts
        went_well = 0
        for _, _, counts, error, seconds, trace in deliveries:
            if error is None:
                went_well += 1
            else:
                self._failed(error)
            for status, count in counts.items():
                recipients[status] += count
            buckets[bisect_left(BUCKETS, seconds)] += 1
            total.sum += seconds
            if trace is not None and trace.total:
                # One that joined another's delivery has nothing to tell.
                for phase in _TRACED:
                    self._phases[phase].observe(getattr(trace, phase))
        self._deliveries[""] += went_well

    def _failed(self, error: DeliveryError) -> None:
        self._deliveries[_name(type(error))] += 1
        if error.in_doubt:
            self._in_doubt += 1

    def connected(self, phases: Mapping[Literal["connect", "tls", "session"], float]) -> None:
        """A connection is ready, or came to nothing, after these seconds in each phase."""
        for phase, seconds in phases.items():
            self._phases[phase].observe(seconds)

    # What is asked for.

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """
        All of it, as text.

        :param accept: what the HTTP client can read; what it says wrongly
            counts as nothing said.
        :returns: the text, and its content type.
        """
        try:
            encoder, content_type = choose_encoder(accept)
        except (ValueError, IndexError):
            encoder, content_type = choose_encoder("")
        return encoder(self.registry), content_type

    def collect(self) -> Iterator[Metric]:
        """For the registry alone."""
        yield InfoMetricFamily(PREFIX + "build", "The daemon's version.", {"version": _version()})
        deliveries = _counter("deliveries", "Deliveries that have ended.", "status", "error")
        for error, count in self._deliveries.items():
            deliveries.add_metric(["error" if error else "ok", error], count)
        yield deliveries
        in_doubt = _counter("deliveries_in_doubt", "Deliveries of which nobody knows whether they arrived.")
        in_doubt.add_metric([], self._in_doubt)
        yield in_doubt
        recipients = _counter("recipients", "Recipients of the deliveries that have ended.", "verdict")
        for status, count in self._recipients.items():
            recipients.add_metric([status], count)
        yield recipients
        yield self._collect_rejected()
        yield self._collect_phases()
        yield from self._collect_readings()

    def _collect_rejected(self) -> Metric:
        rejected = dict.fromkeys(ERRORS, 0)
        for source in self._rejected:
            for error, count in source().items():
                rejected[error] += count
        family = _counter("requests_rejected", "Requests that were answered without a delivery.", "error")
        for error, count in rejected.items():
            family.add_metric([error], count)
        return family

    def _collect_phases(self) -> Metric:
        family = HistogramMetricFamily(PREFIX + "phase_seconds", "Where time went.", labels=["phase"])
        for phase, histogram in self._phases.items():
            family.add_metric([phase], histogram.buckets, histogram.sum)
        return family

    def _collect_readings(self) -> Iterator[Metric]:
        readings: dict[str, float] = {}
        for source in self._sources:
            for key, value in source().items():
                readings[key] = readings.get(key, 0) + value
        for key, value in readings.items():
            reading = READINGS[key]
            kind: Any = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
            yield kind(PREFIX + key, reading.told, value)


def _counter(name: str, told: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, told, labels=labels)


def _name(kind: type[DeliveryError]) -> str:
    """The name of an error, or of the nearest class that it is one of."""
    for each in kind.__mro__:
        name: str = each.__name__
        if name in ERRORS and getattr(errors, name) is each:
            return name
    return "InternalError"


def _version() -> str:
    try:
        return version("twisted_smtpclient")
    except PackageNotFoundError:
        return "unknown"
