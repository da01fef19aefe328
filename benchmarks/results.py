"""
Numbers from runs: medians, what lies between the least and the most, and
ratios run by run.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from statistics import median
from typing import Any

from benchmarks.measure import Measured, Run
from benchmarks.rows import Contender, Kind, Row

__all__ = ["Figure", "Results", "machine"]


@dataclass(frozen=True)
class Figure:
    """The median of some runs, with the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


def cpu(run: Run) -> float:
    """Microseconds of CPU a message."""
    return run.cpu / run.messages * 1e6


def turns(run: Run) -> float:
    """Batches of replies a message."""
    return run.turns / run.messages


class Results:
    """
    All rows with their runs.

    :ivar quick: whether the numbers mean nothing.
    """

    def __init__(self, measured: list[Measured], *, quick: bool) -> None:
        self.measured = measured
        self.quick = quick
        self._by_row = {each.row: each for each in measured}

    def figure(self, measured: Measured, value: Callable[[Run], float]) -> Figure | None:
        """Over the row's runs; None where there are none."""
        return Figure.of([value(run) for run in measured.runs]) if measured.runs else None

    def against_peer(self, measured: Measured, value: Callable[[Run], float]) -> Figure | None:
        """
        Run by run, how many times the value of smtp-source on ten connections:
        both are of the same minute.
        """
        peer = next((each for each in self.measured if each.row.is_peer_of(measured.row)), None)
        if peer is None or not peer.runs or not measured.runs:
            return None
        pairs = zip(measured.runs, peer.runs, strict=False)
        return Figure.of([value(one) / value(other) for one, other in pairs])

    def find(self, wanted: Callable[[Row], bool]) -> Measured | None:
        """The first such row that has runs."""
        return next((each for each in self.measured if wanted(each.row) and each.runs), None)

    def find_api(self, group: str, connections: int, depth: int, *, chunking: bool = True) -> Measured | None:
        """The row of this project, on a server with PIPELINING."""
        return self.find(
            lambda row: (
                (row.group, row.contender) == (group, Contender.API)
                and (row.connections, row.depth) == (connections, depth)
                and (row.pipelining, row.chunking) == (True, chunking)
            )
        )

    def as_json(self) -> list[dict[str, Any]]:
        """Each row with its runs and its figures."""
        return [self._row_as_json(each) for each in self.measured]

    def _row_as_json(self, each: Measured) -> dict[str, Any]:
        figures: dict[str, Figure | None] = {
            "messages_per_second": self.figure(each, lambda run: run.rate),
            "cpu_microseconds_per_message": self.figure(each, cpu),
            "turns_per_message": self.figure(each, turns),
            "peak_octets": self.figure(each, lambda run: run.peak),
            "rate_against_smtp_source": self.against_peer(each, lambda run: run.rate),
            "cpu_against_smtp_source": self.against_peer(each, cpu),
        }
        if each.row.delay and each.row.kind is Kind.SPEED:
            figures["messages_per_round_trip"] = self.figure(each, per_round_trip(each.row))
        return {
            "name": each.row.name,
            **asdict(each.row),
            "missing": each.missing,
            "runs": [asdict(run) for run in each.runs],
            **{name: figure and asdict(figure) for name, figure in figures.items()},
        }


def per_round_trip(row: Row) -> Callable[[Run], float]:
    """Messages in the time for which the server holds a reply back, handshake included."""
    return lambda run: run.rate * row.delay / 1000


def machine() -> dict[str, Any]:
    """The kind of machine: nothing that tells which one."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "twisted": metadata.version("twisted"),
    }
