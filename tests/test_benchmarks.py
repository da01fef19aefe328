"""The benchmarks run, and tell all that they measure; how fast is not asked here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.children import Failed, Programs, Sink
from benchmarks.measure import Measured, Run, run_once
from benchmarks.results import Results
from benchmarks.rows import (
    CONNECTIONS,
    EXTENSIONS,
    LARGE,
    MANY,
    NETWORK,
    RECIPIENTS,
    SIZES,
    SLOW,
    Contender,
    Kind,
    Row,
    all_rows,
    quick_rows,
)
from benchmarks.senders.job import message
from benchmarks.targets import Target, judge

ROOT = Path(__file__).resolve().parents[1]

#: Seconds for a command that is about to fail.
PATIENCE = 120.0


def benchmarks(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def run(rate: float = 1000.0, cpu: float = 1e-3, peak: int = 0, connections: int = 1) -> Run:
    return Run(messages=1000, seconds=1000 / rate, cpu=cpu, peak=peak, turns=100, connections=connections)


def targets_of(*measured: Measured) -> dict[str, Target]:
    """By what and what was promised."""
    judged = judge(Results(list(measured), quick=False))
    return {f"{target.what}: {target.promise}": target for target in judged}


# The command


@pytest.mark.slow
def test_a_quick_run_has_every_row_and_every_target_in_its_json(tmp_path: Path) -> None:
    done = benchmarks("--quick", "--output", tmp_path)

    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in document["rows"]] == [row.name for row in quick_rows()]
    for row in document["rows"]:
        measured = row["messages_per_second"] is not None and row["runs"][0]["messages"] > 0
        assert measured or row["missing"].endswith("is not installed"), row
    assert [target["what"] for target in document["targets"]] == [
        target.what for target in judge(Results([Measured(row) for row in quick_rows()], quick=True))
    ]
    assert all(target["met"] is None for target in document["targets"])
    assert document["quick"] is True
    # Nothing was built for it.
    assert document["about"]["package"].startswith("sources, ")
    for group in (CONNECTIONS, EXTENSIONS, SIZES, RECIPIENTS, NETWORK, MANY, LARGE, SLOW):
        assert group.upper() in done.stdout
    assert "TARGETS" in done.stdout
    assert ".. list-table:: What must be reached" in (tmp_path / "results.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_only_measures_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    patterns = ["--only", "depth, smtplib, 1x*", "--only", "SENDMAIL, 1X1"]

    done = benchmarks("--pure", "--runs", 2, "--seconds", 0.01, *patterns, "--output", tmp_path)

    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {(row["contender"], row["connections"]) for row in document["rows"]} == {
        ("smtplib", 1),
        ("Twisted sendmail", 1),
    }
    assert {len(row["runs"]) for row in document["rows"]} == {2}


def test_a_pattern_that_no_row_has_is_told() -> None:
    done = benchmarks("--only", "no such row")

    assert done.returncode == 64
    assert "--list" in done.stderr


# The rows


def test_each_row_has_a_name_of_its_own() -> None:
    names = [row.name for row in all_rows()]

    assert len(set(names)) == len(names)


def test_a_quick_run_has_each_contender_in_each_group() -> None:
    assert {(row.group, row.contender) for row in quick_rows()} == {
        (row.group, row.contender) for row in all_rows()
    }


def test_each_row_on_ten_connections_that_is_judged_has_smtp_source_to_be_set_against() -> None:
    rows = all_rows()
    for row in rows:
        if row.judged and row.group in (CONNECTIONS, EXTENSIONS):
            assert sum(other.is_peer_of(row) for other in rows) == 1, row.name


def test_the_targets_find_all_that_they_judge_among_the_rows() -> None:
    measured = [Measured(row, [run()]) for row in all_rows()]

    assert [each.what for each in targets_of(*measured).values() if each.reached is None] == []


@pytest.mark.parametrize("size", [78, 79, 1024, 10 * 1024, 100 * 1024, 1024 * 1024])
def test_the_body_of_a_message_has_the_octets_that_are_asked_for(size: int) -> None:
    body = message(size).partition(b"\r\n\r\n")[2]

    assert len(body) == size
    assert body.endswith(b"\r\n")
    assert b"\r\n." not in body


# Figures


def test_ratios_are_taken_run_by_run() -> None:
    # The machine was ten times as slow in the second run, for both.
    ours = Measured(Row(CONNECTIONS, Contender.API, 1, 50), [run(3000), run(300), run(5000)])
    peer = Measured(Row(CONNECTIONS, Contender.SMTP_SOURCE, 10), [run(1000), run(100), run(1000)])

    ratio = Results([ours, peer], quick=False).against_peer(ours, lambda run: run.rate)

    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.most) == (3.0, 3.0, 5.0)


def test_a_promise_is_kept_from_its_bound_on() -> None:
    ours = Measured(Row(CONNECTIONS, Contender.API, 1, 50), [run(3500, cpu=0.25)])
    peer = Measured(Row(CONNECTIONS, Contender.SMTP_SOURCE, 10), [run(1000, cpu=1.0)])
    what = "API, one connection, depth 50, 1 KiB, CHUNKING"

    judged = targets_of(ours, peer)

    speed = judged[f"{what}: at least 3.5 times smtp-source; go for 5"]
    assert (speed.met, speed.goal_met) == (True, False)
    assert judged[f"{what}: at most 0.25 of smtp-source's CPU a message"].met is True


def test_the_cost_of_a_further_recipient_is_that_of_the_best_runs() -> None:
    measured = [
        Measured(
            Row(MANY, Contender.API, recipients=count, kind=Kind.RECIPIENTS), [run(cpu=cpu), run(cpu=9.0)]
        )
        for count, cpu in ((1, 0.001), (10_000, 0.010), (100_000, 0.121))
    ]

    judged = targets_of(*measured)

    further = judged["a further recipient in the same mail: at most 2 µs of CPU"]
    assert (further.reached, further.met) == ("1.20 µs", True)
    whole = judged["100,000 recipients: at most 12 times the CPU of 10,000, best of the runs"]
    assert (whole.reached, whole.met) == ("12.1 times", False)


def test_memory_is_judged_by_the_worst_of_the_runs() -> None:
    measured = [
        Measured(
            Row(LARGE, Contender.API, size=1000, chunking=chunking, kind=Kind.MEMORY),
            [run(peak=1100), run(peak=peak)],
        )
        for chunking, peak in ((True, 1150), (False, 1300))
    ]

    promise = "50 MB message, API: peak at most 1.2 times the message over the idle process"
    assert targets_of(*measured)[promise].met is False


# The sinks


@pytest.mark.parametrize("kind", ["as on this machine", "in Python"])
def test_a_sink_counts_what_it_got(kind: str, tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    if kind == "in Python":
        programs.sink = [sys.executable, "-m", "benchmarks.python_sink"]
    row = Row(CONNECTIONS, Contender.API, connections=1, depth=1, recipients=3)

    measured = run_once(row, programs, 4)

    assert (measured.messages, measured.turns, measured.connections) == (4, 5, 1)


def test_what_the_sink_did_not_get_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"seconds": 1.0, "cpu": 1.0, "peak": 0.0}
    monkeypatch.setattr("benchmarks.measure.run_sender", lambda *_: nothing)

    with pytest.raises(Failed, match="the sink has got"):
        run_once(Row(CONNECTIONS, Contender.API), Programs(tmp_path), 4)


@pytest.mark.parametrize("chunking", [True, False])
def test_the_daemon_is_measured_by_its_own_process(chunking: bool, tmp_path: Path) -> None:
    row = Row(CONNECTIONS, Contender.DAEMON, connections=2, depth=10, recipients=2, chunking=chunking)

    measured = run_once(row, Programs(tmp_path), 2500)

    assert measured.messages == 2500
    assert measured.cpu > 0


def test_without_a_compiler_the_sink_is_the_one_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **more: None if name in ("cc", "gcc", "clang") else found(name, **more)
    )

    programs = Programs(tmp_path)

    assert not programs.sink_is_fast
    assert programs.sink[-1] == "benchmarks.python_sink"
    with Sink(programs, pipelining=False, chunking=False, delay=0.0) as sink:
        assert sink.port > 0
