"""
One line in the log for each delivery, at the price of one event for many.

An event of Twisted's log costs some 30 µs with a text observer, more than all
else that a delivery costs.  So the lines of one turn of the reactor are
logged together, and where events follow each other closely, those of
:data:`GATHER` seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..errors import DeliveryError
from ..smtp.policy import Server
from ..smtp.result import RecipientStatus, Status
from ..smtp.trace import Trace
from .reply import wire_name

__all__ = ["MAX_LINES", "Entry", "Journal"]

#: Lines of one event; some 100 octets each, so 25 KiB.  With more the cost of
#: an event is no longer what counts.
MAX_LINES: Final = 250

#: Seconds between two events.  A turn of a busy daemon lasts a millisecond and
#: ends some ten deliveries, so an event for each of them cost 8 µs a delivery;
#: 20 events a second cost nothing.
GATHER: Final = 0.05

#: Characters of an error in a line: a server's reply, which stands in some, may
#: have 64 KiB, and where it is said to a session, a thousand mails have it.
MAX_WORDS: Final = 1000

_log = Logger(__name__)

#: Statuses are counted by name: to hash an Enum member is to run Python code.
_status_name = attrgetter("status._value_")

#: What most deliveries come to, made once: one recipient, of each status.  Nobody
#: changes it.
_ONE: Final = {status.value: {status.value: 1} for status in Status}

#: What took less than a second, as it is told: to format a number costs more than
#: the rest of a line.
_UNDER_A_SECOND: Final = [f"{milliseconds / 1000:.3f} s" for milliseconds in range(1000)]

#: What a server is called, but for UNIX sockets at odd places.
_is_plain = re.compile(r"[!#-&(-~]+", re.ASCII).fullmatch

#: What is kept of a delivery until its turn is over: the server, the sender,
#: how many recipients have which status, the error, the seconds, and where
#: they went, where that was watched.
Entry = tuple[Server, str | None, dict[str, int], DeliveryError | None, float, Trace | None]


class Journal:
    """
    Tells the log of deliveries.

    What came from others cannot break a line: it is printable, or quoted as
    by :func:`repr`.

    :param clock: for time.
    :ivar listeners: each is told of the deliveries too, as many at a time as
        go in one event.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        self._entries: list[Entry] = []
        self._due: IDelayedCall | None = None
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Journal: {len(self._entries)} lines waiting>"

    def tell(
        self,
        server: Server,
        sender: str | None,
        recipients: Sequence[RecipientStatus],
        error: DeliveryError | None,
        seconds: float,
        trace: Trace | None = None,
    ) -> None:
        """A delivery has ended, ``seconds`` after it began."""
        if len(recipients) == 1:
            counts = _ONE[recipients[0].status._value_]
        else:
            counts = dict(Counter(map(_status_name, recipients)))
        entries = self._entries
        entries.append((server, sender, counts, error, seconds, trace))
        if len(entries) >= MAX_LINES:
            self.flush()
        elif self._due is None:
            seconds = self._not_before - self._clock.seconds()
            self._due = self._clock.callLater(max(0.0, seconds), self._is_due)

    def tell_probe(self, server: Server, error: DeliveryError | None, seconds: float) -> None:
        """A look at a server has ended; they are few, so this is an event at once."""
        _log.info(
            "{server} probed: {outcome}, {seconds:.3f} s",
            server=_quoted(str(server)),
            outcome="Ok" if error is None else _outcome({}, error),
            error=None if error is None else wire_name(error),
            seconds=seconds,
        )

    def flush(self) -> None:
        """Log what waits, now."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._write()

    def _is_due(self) -> None:
        self._due = None
        self._write()

    def _write(self) -> None:
        entries, self._entries = self._entries, []
        if not entries:
            return
        self._not_before = self._clock.seconds() + GATHER
        for listener in self.listeners:
            _tell(listener, entries)
        deliveries, lines = _told(entries)
        if len(deliveries) == 1:
            _log.info("{server} from {sender!r}: {outcome}, {seconds:.3f} s", **deliveries[0])
            return
        _log.info(
            "{count} deliveries\n{lines}", count=len(lines), lines="\n".join(lines), deliveries=deliveries
        )


def _tell(listener: Callable[[Sequence[Entry]], None], entries: Sequence[Entry]) -> None:
    try:
        listener(entries)
    except Exception:
        _log.failure("deliveries could not be told of")


def _told(entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], list[str]]:
    """What an event tells of each: in fields, for observers that want them, and as a line."""
    fields: list[dict[str, Any]] = []
    lines: list[str] = []
    last_server: Server | None = None
    last_sender: str | None = None
    last_counts: dict[str, int] | None = None
    words = ""
    told: dict[str, Any] = {}
    for server, sender, counts, error, seconds, _ in entries:
        # What is as it was with the one before is not made again.
        if (
            server is not last_server
            or sender != last_sender
            or counts is not last_counts
            or error is not None
        ):
            name = _quoted(str(server))
            outcome = _outcome(counts, error)
            words = f"{name} from {sender!r}: {outcome}, "
            told = {
                "server": name,
                "sender": sender,
                "outcome": outcome,
                "counts": counts,
                "error": None if error is None else wire_name(error),
                # Each has its own, in a copy that need not grow for it.
                "seconds": seconds,
            }
            last_server, last_sender, last_counts = server, sender, None if error is not None else counts
        each = told.copy()
        each["seconds"] = seconds
        fields.append(each)
        milliseconds = int(seconds * 1000 + 0.5)
        # Compiled, a format within costs twice as much as all the rest of the line.
        took = _UNDER_A_SECOND[milliseconds] if 0 <= milliseconds < 1000 else f"{seconds:.3f} s"
        lines.append(words + took)
    return fields, lines


def _outcome(counts: dict[str, int], error: DeliveryError | None) -> str:
    if error is None and len(counts) == 1:
        # What most have.
        ((status, count),) = counts.items()
        return f"{count} {status}"
    outcome = ", ".join([f"{count} {status}" for status, count in counts.items()])
    if error is None:
        return outcome
    return f"{wire_name(error)} ({_printable(str(error))}) {outcome}".rstrip()


def _quoted(name: str) -> str:
    """A server's name; in quotes where it could be taken for more than a name."""
    return name if _is_plain(name) else repr(name)


def _printable(text: str) -> str:
    """A server's words, fit for a line of the log."""
    shown = text[:MAX_WORDS]
    shown = shown if shown.isprintable() else repr(shown)[1:-1]
    return f"{shown}..." if len(text) > MAX_WORDS else shown
