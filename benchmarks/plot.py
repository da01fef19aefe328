"""
The report as a picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Measured, Run
from benchmarks.results import Results, cpu
from benchmarks.rows import CONNECTIONS, NETWORK, RECIPIENTS, SIZES, Contender, Row

__all__ = ["NotInstalled", "draw"]

#: One color a contender, told apart by the color-blind as well (Okabe and Ito).
_COLORS: Final = {
    Contender.API: "#0072B2",
    Contender.DAEMON: "#56B4E9",
    Contender.SMTP_SOURCE: "#D55E00",
    Contender.SMTPLIB: "#E69F00",
    Contender.AIOSMTPLIB: "#009E73",
    Contender.ESMTP_CLIENT: "#CC79A7",
    Contender.SENDMAIL: "#999999",
}


class NotInstalled(Exception):
    """There is no matplotlib."""


def draw(results: Results, files: list[Path], caption: str) -> None:
    """
    Write the figure into each of the files, of the kind that its name says.

    :raises NotInstalled: without matplotlib.
    """
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
    except ImportError:
        raise NotInstalled("matplotlib is not installed: no plot (it comes with the extra 'bench')") from None
    matplotlib.use("Agg")
    # Text stays text: smaller, and found by a search.
    matplotlib.rcParams["svg.fonttype"] = "none"
    # The same picture from the same numbers, octet by octet.
    matplotlib.rcParams["svg.hashsalt"] = "twisted_smtpclient"
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, panels = pyplot.subplots(3, 2, figsize=(13, 15), layout="constrained")
    _bars(panels[0][0], results, CONNECTIONS, lambda run: run.rate, "messages/s, 1 KiB")
    _bars(panels[0][1], results, CONNECTIONS, cpu, "CPU µs a message, 1 KiB")
    _lines(panels[1][0], results, SIZES, lambda row: row.size, "octets", lambda run: run.rate, "messages/s")
    _lines(
        panels[1][1], results, RECIPIENTS, lambda row: row.recipients, "recipients", cpu, "CPU µs a message"
    )
    _bars(panels[2][0], results, NETWORK, lambda run: run.rate, "messages/s, replies held back 25 ms")
    _lines(panels[2][1], results, SIZES, lambda row: row.size, "octets", cpu, "CPU µs a message")
    figure.suptitle(caption, fontsize="small")
    for file in files:
        figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def _bars(panel: Any, results: Results, group: str, value: Callable[[Run], float], title: str) -> None:
    measured = [each for each in results.measured if each.row.group == group and each.runs]
    labels = [_label(each) for each in measured]
    figures = [results.figure(each, value) for each in measured]
    heights = [figure.median for figure in figures if figure]
    spread = [
        [figure.median - figure.least for figure in figures if figure],
        [figure.most - figure.median for figure in figures if figure],
    ]
    colors = [_COLORS[each.row.contender] for each in measured]
    panel.set_title(title)
    if not measured:
        return
    bars = panel.barh(labels, heights, xerr=spread, color=colors, error_kw={"elinewidth": 1})
    panel.bar_label(
        bars, fmt=lambda height: f" {height:,.0f}" if height >= 10 else f" {height:.1f}", fontsize="x-small"
    )
    panel.set_xscale("log")
    panel.margins(x=0.15)
    panel.invert_yaxis()
    panel.tick_params(axis="y", labelsize="x-small")


def _label(each: Measured) -> str:
    row = each.row
    words = f"{row.contender.value} {row.connections}x{row.depth}"
    return words if row.chunking else f"{words} DATA"


def _lines(
    panel: Any,
    results: Results,
    group: str,
    along: Callable[[Row], float],
    axis: str,
    value: Callable[[Run], float],
    title: str,
) -> None:
    panel.set_title(f"{title}, ten connections")
    for contender in Contender:
        points = [
            (along(each.row), figure.median)
            for each in results.measured
            if (each.row.group, each.row.contender) == (group, contender)
            and (figure := results.figure(each, value)) is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            panel.plot(x, y, marker="o", color=_COLORS[contender], label=contender.value)
            panel.legend(fontsize="x-small")
            panel.set_xscale("log")
            panel.set_yscale("log")
    panel.set_xlabel(axis)
    panel.grid(alpha=0.3)
