"""
What is measured: one :class:`Row` for each number of the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Final

__all__ = ["MEMORY", "PEER", "Contender", "Kind", "Row", "all_rows", "by_group", "quick_rows"]

KIB: Final = 1024

#: The issue's "50 MB", in octets.  In base64 it just fits the daemon's longest
#: request line of 64 MiB.
MEMORY: Final = 50_000_000


class Contender(str, Enum):
    """Who sends."""

    API = "API"
    DAEMON = "JSON daemon"
    SMTP_SOURCE = "smtp-source"
    SMTPLIB = "smtplib"
    AIOSMTPLIB = "aiosmtplib"
    ESMTP_CLIENT = "Twisted ESMTPClient"
    SENDMAIL = "Twisted sendmail"


#: Everything is set against this one, on ten connections.
PEER: Final = Contender.SMTP_SOURCE


class Kind(str, Enum):
    """What a row is about."""

    #: Messages a second, CPU a message: as many messages as take the time that is wanted.
    SPEED = "speed"
    #: CPU of one message to many recipients.
    RECIPIENTS = "recipients"
    #: Memory at its highest over the process before.
    MEMORY = "memory"
    #: The same, with many connections at a time.
    SLOW = "slow servers"


@dataclass(frozen=True)
class Row:
    """
    One measurement, to be made several times.

    :ivar group: rows of one group are measured in turns, and set against each
        other.
    :ivar connections: to the server, at a time.
    :ivar depth: messages under way on one connection; 1 for all who send one
        after the other.
    :ivar size: octets of the body; the header comes on top, as with
        ``smtp-source -l``.
    :ivar delay: milliseconds for which the server holds its replies back.
    :ivar messages: how many; 0 for as many as take the time that is wanted.
    :ivar stretch: how many times that time.
    :ivar judged: whether a promise of :mod:`benchmarks.targets` is about it.
    """

    group: str
    contender: Contender
    connections: int = 1
    depth: int = 1
    size: int = KIB
    recipients: int = 1
    pipelining: bool = True
    chunking: bool = True
    delay: float = 0.0
    kind: Kind = Kind.SPEED
    messages: int = 0
    stretch: float = 1.0
    judged: bool = False

    @property
    def extensions(self) -> str:
        """What the server offers."""
        offered = [
            word for word, offers in (("PIPELINING", self.pipelining), ("CHUNKING", self.chunking)) if offers
        ]
        return "+".join(offered) or "neither"

    @property
    def name(self) -> str:
        """Tells it from all others; what ``--only`` is matched with."""
        words = [
            self.group,
            self.contender.value,
            f"{self.connections}x{self.depth}",
            f"{self.size} octets",
            f"{self.recipients} rcpt",
            self.extensions,
        ]
        return ", ".join([*words, f"{self.delay:g} ms"] if self.delay else words)

    @property
    def circumstances(self) -> tuple[object, ...]:
        """
        What must be alike for two rows to be set against each other.

        Not the extensions: whoever uses none of them goes the same way
        whatever is offered.
        """
        return (self.group, self.kind, self.size, self.recipients, self.delay)

    def is_peer_of(self, other: Row) -> bool:
        """Whether it is what the other is set against."""
        return (
            self.contender is PEER
            and self.connections == 10
            and self.kind is Kind.SPEED
            and self.circumstances == other.circumstances
        )


#: Those who can do several connections and no more than one message on each.
ONE_AT_A_TIME: Final = (
    Contender.SMTP_SOURCE,
    Contender.SMTPLIB,
    Contender.AIOSMTPLIB,
    Contender.ESMTP_CLIENT,
    Contender.SENDMAIL,
)

CONNECTIONS: Final = "connections and depth"
EXTENSIONS: Final = "extensions"
SIZES: Final = "message size"
RECIPIENTS: Final = "recipients"
NETWORK: Final = "delayed network"
MANY: Final = "many recipients"
LARGE: Final = "large message"
SLOW: Final = "slow servers"

#: Milliseconds.
ROUND_TRIP: Final = 25.0


def _connections() -> Iterator[Row]:
    for connections, depth in ((1, 1), (1, 10), (1, 50), (10, 1), (10, 10), (10, 50)):
        judged = connections == 1 and depth > 1
        yield Row(CONNECTIONS, Contender.API, connections, depth, judged=judged)
    for connections in (1, 10):
        judged = connections == 10
        yield Row(CONNECTIONS, Contender.DAEMON, connections, 10, judged=judged)
        for contender in ONE_AT_A_TIME:
            yield Row(CONNECTIONS, contender, connections, judged=judged and contender is PEER)


def _extensions() -> Iterator[Row]:
    yield Row(EXTENSIONS, Contender.API, 10, 10, chunking=False, judged=True)
    yield Row(EXTENSIONS, Contender.API, 1, 10, chunking=False)
    yield Row(EXTENSIONS, Contender.DAEMON, 10, 10, chunking=False)
    yield Row(EXTENSIONS, Contender.API, 10, 10)
    yield Row(EXTENSIONS, Contender.API, 10, 10, pipelining=False)
    yield Row(EXTENSIONS, Contender.API, 10, 10, pipelining=False, chunking=False)
    yield Row(EXTENSIONS, Contender.SMTP_SOURCE, 10, chunking=False)


def _side_by_side(row: Row) -> Iterator[Row]:
    """Each contender on ten connections, under the circumstances of the row."""
    for contender in Contender:
        if contender is not Contender.SENDMAIL:
            depth = 10 if contender in (Contender.API, Contender.DAEMON) else 1
            yield Row(row.group, contender, 10, depth, row.size, row.recipients, delay=row.delay)


def _network() -> Iterator[Row]:
    def row(contender: Contender, connections: int, depth: int = 1, chunking: bool = True) -> Row:
        # Long enough for the flights of the handshake to count little.
        return Row(NETWORK, contender, connections, depth, chunking=chunking, delay=ROUND_TRIP, stretch=3.0)

    yield row(Contender.API, 1, 10)
    yield replace(row(Contender.API, 1, 10, chunking=False), judged=True)
    yield row(Contender.API, 1, 1)
    yield row(Contender.API, 10, 10)
    yield row(Contender.DAEMON, 10, 10)
    for contender in ONE_AT_A_TIME:
        yield row(contender, 1)
        yield row(contender, 10)


def all_rows() -> list[Row]:
    """The rows in the order of the report; those of a group stand together."""
    rows = [*_connections(), *_extensions()]
    for size in (KIB, 10 * KIB, 100 * KIB, KIB * KIB):
        rows += _side_by_side(Row(SIZES, PEER, size=size))
    for recipients in (1, 10, 100):
        rows += _side_by_side(Row(RECIPIENTS, PEER, recipients=recipients))
    rows += _network()
    for recipients in (1, 10_000, 100_000):
        rows.append(
            Row(MANY, Contender.API, recipients=recipients, kind=Kind.RECIPIENTS, messages=1, judged=True)
        )
    for chunking in (True, False):
        for contender in (Contender.API, Contender.DAEMON, Contender.SMTPLIB, Contender.AIOSMTPLIB):
            rows.append(Row(LARGE, contender, size=MEMORY, chunking=chunking, kind=Kind.MEMORY, messages=1))
    rows.append(Row(SLOW, Contender.API, 10_000, delay=3000.0, kind=Kind.SLOW, messages=10_000))
    return rows


def quick_rows() -> list[Row]:
    """
    One row for each group and contender, and all that are judged, made small:
    to see that all of it runs.
    """
    seen = set()
    rows = []
    for row in all_rows():
        if row.judged or (row.group, row.contender) not in seen:
            seen.add((row.group, row.contender))
            rows.append(_made_small(row))
    return rows


def _made_small(row: Row) -> Row:
    if row.kind is Kind.SLOW:
        return replace(row, connections=50, messages=50, delay=100.0)
    return replace(
        row,
        messages=row.messages or 10,
        recipients=min(row.recipients, 1000 + row.recipients // 100),
        size=min(row.size, KIB * KIB),
    )


def by_group(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each group."""
    for group, members in groupby(rows, key=lambda row: row.group):
        yield group, list(members)
