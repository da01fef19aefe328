"""
Measuring: rows of a group in turns (A B C, A B C, ...), so that a machine that
grows slower or faster does so for all of them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from benchmarks.children import Daemon, Failed, Programs, Sink, measured_from_outside, run_sender
from benchmarks.rows import Contender, Kind, Row, by_group
from benchmarks.senders.job import HELO, HOST, SENDER, Job

__all__ = ["Measured", "Run", "measure"]

#: Where each of them is, below benchmarks.senders.
_MODULES: Final = {
    Contender.API: "agent",
    Contender.DAEMON: "gateway",
    Contender.SMTPLIB: "blocking",
    Contender.AIOSMTPLIB: "aio",
    Contender.ESMTP_CLIENT: "lockstep",
    Contender.SENDMAIL: "one_by_one",
}

#: The number of messages is found with runs that take at least this share of
#: the time that is wanted: less, and starting is what they measure.
_TRIAL: Final = 0.15

#: Messages of one run at the most, so that nothing runs away.
_MOST: Final = 500_000


@dataclass(frozen=True)
class Run:
    """
    One run of a row.

    :ivar seconds: from the first message's begin to the last one's end.
    :ivar cpu: seconds of user and system, of the client process alone.
    :ivar peak: octets of memory over the process before.
    :ivar turns: batches of replies, as the sink counts them.
    :ivar connections: that the sink had open at a time.
    """

    messages: int
    seconds: float
    cpu: float
    peak: int
    turns: int
    connections: int

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


@dataclass
class Measured:
    """
    A row and its runs.

    :ivar missing: why there are none, or fewer.
    """

    row: Row
    runs: list[Run] = field(default_factory=list)
    missing: str | None = None


def measure(
    rows: list[Row],
    programs: Programs,
    *,
    runs: int,
    seconds: float,
    at_once: bool,
    tell: Callable[[str], None],
) -> list[Measured]:
    """
    Measure the rows, each so many times.

    :param seconds: that a run is to take.
    :param at_once: several rows at a time, which is quick, and measures nothing.
    :param tell: is told what is done now.
    """
    if at_once:
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads:
            return list(
                threads.map(lambda row: _measure_group([row], programs, runs, seconds, tell)[0], rows)
            )
    measured: list[Measured] = []
    for _, members in by_group(rows):
        # Circumstances in turn, and within each its contenders in turns.
        for _, alike in _by_circumstances(members):
            measured += _measure_group(alike, programs, runs, seconds, tell)
    return measured


def _by_circumstances(rows: list[Row]) -> Iterator[tuple[object, list[Row]]]:
    alike: dict[object, list[Row]] = {}
    for row in rows:
        alike.setdefault(row.circumstances, []).append(row)
    return iter(alike.items())


def _measure_group(
    rows: list[Row], programs: Programs, runs: int, seconds: float, tell: Callable[[str], None]
) -> list[Measured]:
    measured = [Measured(row, missing=_missing(row, programs)) for row in rows]
    counts: dict[Row, int] = {}
    for number in range(runs):
        for each in measured:
            if each.missing is not None:
                continue
            tell(f"{number + 1}/{runs}  {each.row.name}")
            try:
                if not number:
                    counts[each.row] = _messages_of(each.row, programs, seconds)
                each.runs.append(run_once(each.row, programs, counts[each.row]))
            except Failed as error:
                each.missing = str(error)
    return measured


def _missing(row: Row, programs: Programs) -> str | None:
    if row.contender is Contender.SMTP_SOURCE and programs.smtp_source is None:
        return "smtp-source is not installed"
    if row.contender is Contender.AIOSMTPLIB and importlib.util.find_spec("aiosmtplib") is None:
        return "aiosmtplib is not installed"
    return None


def _messages_of(row: Row, programs: Programs, seconds: float) -> int:
    """As many messages as take the time that is wanted."""
    if row.messages:
        return row.messages
    wanted = seconds * row.stretch
    messages = row.connections * row.depth
    while True:
        trial = run_once(row, programs, messages)
        if trial.seconds >= wanted * _TRIAL or messages >= _MOST:
            # Each connection the same share.
            share = round(trial.rate * wanted / row.connections) or 1
            return min(share * row.connections, _MOST)
        messages = min(messages * 8, _MOST)


def run_once(row: Row, programs: Programs, messages: int) -> Run:
    """
    One run against a sink of its own.

    :raises Failed: also where the sink has not got all of it.
    """
    warm = row.kind is not Kind.SPEED
    with ExitStack() as stack:
        sink = Sink(programs, pipelining=row.pipelining, chunking=row.chunking, delay=row.delay)
        stack.enter_context(sink)
        job = Job(
            port=sink.port,
            messages=messages,
            connections=row.connections,
            depth=row.depth,
            size=row.size,
            recipients=row.recipients,
            warm=warm,
            servers=messages if row.kind is Kind.SLOW else 1,
        )
        result = _send(row, job, programs)
    warmed = int(warm)
    got = sink.counts
    if got.get("messages") != messages + warmed or got["recipients"] != messages * row.recipients + warmed:
        raise Failed(f"{messages} messages to {row.recipients} recipients, and the sink has got {got}")
    return Run(messages, result["seconds"], result["cpu"], int(result["peak"]), got["turns"], got["peak"])


def _send(row: Row, job: Job, programs: Programs) -> dict[str, float]:
    if row.contender is Contender.SMTP_SOURCE:
        assert programs.smtp_source is not None
        return measured_from_outside(_smtp_source(programs.smtp_source, job), programs)
    module = _MODULES[row.contender]
    if row.contender is not Contender.DAEMON:
        return run_sender(module, job.argument, programs)
    with Daemon(programs, connections=row.connections, depth=row.depth) as daemon:
        return run_sender(module, job.to_daemon(daemon.port, daemon.pid).argument, programs)


def _smtp_source(program: str, job: Job) -> list[object]:
    command: list[object] = [program, "-d", "-s", job.connections, "-l", job.size, "-m", job.messages]
    if job.recipients > 1:
        command += ["-r", job.recipients]
    # An address, so that nothing is looked up.
    return [*command, "-M", HELO, "-f", SENDER, "-t", "recipient@example.net", f"inet:{HOST}:{job.port}"]
