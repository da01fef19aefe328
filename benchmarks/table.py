"""
The report as text: for the terminal, and as reStructuredText for the pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measure import Measured
from benchmarks.results import Figure, Results, cpu, per_round_trip, turns
from benchmarks.rows import Kind, Row, by_group
from benchmarks.targets import Target

__all__ = ["pages", "terminal"]

_HEADINGS = ("who", "how", "messages/s", "CPU µs/message", "turns/message", "x smtp-source", "more")

_UNMEASURED = "not measured"


def terminal(results: Results, targets: Sequence[Target], about: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield _machine(about)
    for group, rows in _tables(results):
        yield ""
        yield group.upper()
        yield from _columns([_HEADINGS, *rows])
    yield ""
    yield "TARGETS" + (" (a quick run: the numbers mean nothing)" if results.quick else "")
    yield from _columns([("what", "must reach", "reached", ""), *map(_target, targets)])


def pages(results: Results, targets: Sequence[Target], about: dict[str, Any]) -> Iterator[str]:
    """The same for ``docs/``, to be included."""
    yield _machine(about)
    yield ""
    yield from _list_table(
        "What must be reached", [("what", "must reach", "reached", ""), *map(_target, targets)]
    )
    for group, rows in _tables(results):
        yield from _list_table(group.capitalize(), [_HEADINGS, *rows])


def _machine(about: dict[str, Any]) -> str:
    return (
        f"{about['date']}: {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}, "
        f"{about['python']}, Twisted {about['twisted']}; {about['settings']}; package: {about['package']}; "
        f"sink: {about['sink']}."
    )


def _tables(results: Results) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    by_row = {each.row: each for each in results.measured}
    for group, rows in by_group([each.row for each in results.measured]):
        yield group, [_line(results, by_row[row]) for row in rows]


def _line(results: Results, each: Measured) -> tuple[str, ...]:
    row = each.row
    if not each.runs:
        return (row.contender.value, _how(row), f"{_UNMEASURED}: {each.missing}", "", "", "", "")
    ratio = results.against_peer(each, lambda run: run.rate)
    return (
        row.contender.value,
        _how(row),
        _spread(results.figure(each, lambda run: run.rate)),
        _spread(results.figure(each, cpu)),
        _spread(results.figure(each, turns)),
        f"{ratio.median:.2f}" if ratio else "",
        _more(results, each),
    )


def _how(row: Row) -> str:
    words = [f"{row.connections}x{row.depth}"]
    if row.size != 1024:
        words.append(f"{row.size // 1024} KiB" if row.size % 1024 == 0 else f"{row.size // 10**6} MB")
    if row.recipients > 1:
        words.append(f"{row.recipients} rcpt")
    if row.extensions != "PIPELINING+CHUNKING":
        words.append(row.extensions)
    return ", ".join(words)


def _more(results: Results, each: Measured) -> str:
    row = each.row
    if row.kind is Kind.MEMORY:
        return f"peak {max(run.peak for run in each.runs) / row.size:.2f} times the message"
    if row.kind is Kind.SLOW:
        return f"{max(run.peak / run.messages for run in each.runs) / 1024:.1f} KiB each"
    if row.delay:
        figure = results.figure(each, per_round_trip(row))
        return f"{figure.median:.2f} mails a round trip" if figure else ""
    return each.missing or ""


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return ""
    middle, least, most = map(_number, (figure.median, figure.least, figure.most))
    return middle if least == most else f"{middle} ({least}-{most})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _target(target: Target) -> tuple[str, ...]:
    verdict = "" if target.met is None else "yes" if target.met else "NO"
    if target.met and target.goal_met is not None:
        verdict += ", and the goal" if target.goal_met else ", not the goal"
    return (target.what, target.promise, target.reached or _UNMEASURED, verdict)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    # What is missing says why, at any length, where the numbers would begin.
    widths = [max(len(row[n]) for row in rows if not _is_missing(row)) for n in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _is_missing(row: Sequence[str]) -> bool:
    return row[2].startswith(_UNMEASURED)


def _list_table(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f".. list-table:: {title}"
    yield "    :header-rows: 1"
    yield ""
    for first, *others in rows:
        yield f"    * - {first}"
        for cell in others:
            yield f"      - {cell}".rstrip()
    yield ""
