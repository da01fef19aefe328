"""
What the project has set itself, and what was reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.measure import Measured
from benchmarks.results import Results, cpu, per_round_trip
from benchmarks.rows import CONNECTIONS, EXTENSIONS, LARGE, MANY, NETWORK, SLOW, Contender

__all__ = ["Target", "judge"]

#: Octets of memory for one of many connections.
PER_CONNECTION: Final = 32 * 1024


@dataclass(frozen=True)
class Target:
    """
    One promise.

    :ivar reached: what was measured; None where it was not.
    :ivar met: whether that keeps the promise; None where it was not measured.
    :ivar goal_met: whether it also is as good as we want it; None where the
        promise is all that we want.
    """

    what: str
    promise: str
    reached: str | None
    met: bool | None
    goal_met: bool | None = None


def _unmeasured(what: str, promise: str) -> Target:
    return Target(what, promise, None, None)


def _times_as_fast(
    results: Results, what: str, measured: Measured | None, least: float, goal: float | None = None
) -> Target:
    promise = f"at least {least:g} times smtp-source" + (f"; go for {goal:g}" if goal else "")
    figure = results.against_peer(measured, lambda run: run.rate) if measured else None
    if figure is None:
        return _unmeasured(what, promise)
    return Target(
        what,
        promise,
        f"{figure.median:.2f} times",
        figure.median >= least,
        figure.median >= goal if goal else None,
    )


def _share_of_cpu(results: Results, what: str, measured: Measured | None) -> Target:
    promise = "at most 0.25 of smtp-source's CPU a message"
    figure = results.against_peer(measured, cpu) if measured else None
    if figure is None:
        return _unmeasured(what, promise)
    return Target(what, promise, f"{figure.median:.2f}", figure.median <= 0.25)


def _daemon_cpu(results: Results, what: str, measured: Measured | None) -> Target:
    promise = "at most 25 µs of its own CPU a request; go for 15"
    figure = results.figure(measured, cpu) if measured else None
    if figure is None:
        return _unmeasured(what, promise)
    return Target(what, promise, f"{figure.median:.1f} µs", figure.median <= 25, figure.median <= 15)


def _round_trips(results: Results, what: str, measured: Measured | None, least: float, most: float) -> Target:
    promise = f"{least:g} to {most:g} mails a round trip"
    figure = results.figure(measured, per_round_trip(measured.row)) if measured else None
    if figure is None:
        return _unmeasured(what, promise)
    return Target(what, promise, f"{figure.median:.2f}", least <= figure.median <= most)


def _recipients(results: Results) -> Iterator[Target]:
    """By the least of the runs: what is above it is the machine's."""
    rows = [each for each in results.measured if each.row.group == MANY and each.runs]
    least = {each.row.recipients: min(run.cpu for run in each.runs) for each in rows}
    what, promise = "a further recipient in the same mail", "at most 2 µs of CPU"
    whole, times = "100,000 recipients", "at most 12 times the CPU of 10,000, best of the runs"
    if len(least) < 3:
        yield _unmeasured(what, promise)
        yield _unmeasured(whole, times)
        return
    one, few, many = sorted(least)
    further = (least[many] - least[one]) / (many - one) * 1e6
    yield Target(what, promise, f"{further:.2f} µs", further <= 2)
    ratio = least[many] / least[few]
    yield Target(whole, times, f"{ratio:.1f} times", ratio <= 12)


def _memory(results: Results, contender: Contender, most: float) -> Target:
    """By the worse of BDAT and DATA, and the worst of the runs."""
    what = f"50 MB message, {contender.value}"
    promise = f"peak at most {most:g} times the message over the idle process"
    rows = [
        each
        for each in results.measured
        if (each.row.group, each.row.contender) == (LARGE, contender) and each.runs
    ]
    if not rows:
        return _unmeasured(what, promise)
    times = max(run.peak / each.row.size for each in rows for run in each.runs)
    return Target(what, promise, f"{times:.2f} times", times <= most)


def _slow_servers(results: Results) -> Iterator[Target]:
    measured = next((each for each in results.measured if each.row.group == SLOW), None)
    if measured is None:
        return
    row = measured.row
    what = f"{row.messages:,} deliveries to slow servers at a time"
    open_at_a_time = min((run.connections for run in measured.runs), default=0)
    all_of_them = f"all succeed, on {row.messages:,} connections"
    per_delivery = f"at most {PER_CONNECTION // 1024} KiB of memory each"
    if not measured.runs:
        yield Target(what, all_of_them, measured.missing, False if measured.missing else None)
        yield _unmeasured(what, per_delivery)
        return
    yield Target(what, all_of_them, f"all, on {open_at_a_time:,} at a time", open_at_a_time >= row.messages)
    most = max(run.peak / run.messages for run in measured.runs)
    yield Target(what, per_delivery, f"{most / 1024:.1f} KiB", most <= PER_CONNECTION)


def judge(results: Results) -> list[Target]:
    """Each promise, in order; a quick run keeps none and breaks none."""
    targets = list(_judged(results))
    return [replace(each, met=None, goal_met=None) for each in targets] if results.quick else targets


def _judged(results: Results) -> Iterator[Target]:
    deep = results.find_api(CONNECTIONS, 1, 50)
    daemon = results.find(
        lambda row: (row.group, row.contender, row.connections) == (CONNECTIONS, Contender.DAEMON, 10)
    )
    one_deep = "API, one connection, depth 50, 1 KiB, CHUNKING"
    json = "JSON daemon, one client, 1000 in flight, ten connections"
    network = "25 ms round trip, one connection, depth 10, "
    yield _times_as_fast(results, one_deep, deep, 3.5, 5)
    yield _share_of_cpu(results, one_deep, deep)
    depth_10 = results.find_api(CONNECTIONS, 1, 10)
    yield _times_as_fast(results, "API, one connection, depth 10", depth_10, 1.5)
    data = results.find_api(EXTENSIONS, 10, 10, chunking=False)
    yield _times_as_fast(results, "API, PIPELINING only, ten connections", data, 1.3, 2)
    yield _daemon_cpu(results, json, daemon)
    yield _times_as_fast(results, json, daemon, 1.5, 2.5)
    bdat_far, data_far = (results.find_api(NETWORK, 1, 10, chunking=chunking) for chunking in (True, False))
    yield _round_trips(results, network + "CHUNKING", bdat_far, 9, 10)
    yield _round_trips(results, network + "PIPELINING only", data_far, 0.9, 1)
    yield from _recipients(results)
    yield _memory(results, Contender.API, 1.2)
    yield _memory(results, Contender.DAEMON, 2.6)
    yield from _slow_servers(results)
