"""
Tests of the limit of open files.
"""

from __future__ import annotations

import resource
from typing import Any

import pytest
from twisted.logger import capturedLogs
from twisted.python.usage import Options as UsageOptions

from twisted_smtpclient import tap
from twisted_smtpclient.operations.files import BESIDES, allow_files

UNLIMITED = resource.RLIM_INFINITY


class Limits:
    """The process's limits, in place of the real ones."""

    def __init__(self, soft: int, hard: int, *, refuses: Exception | None = None) -> None:
        self.now = (soft, hard)
        self.refuses = refuses

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == resource.RLIMIT_NOFILE
        return self.now

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.now = limits


def allowed(monkeypatch: pytest.MonkeyPatch, limits: Limits, clients: int) -> tuple[int, list[Any]]:
    """The soft limit afterwards, and what was logged."""
    monkeypatch.setattr(resource, "getrlimit", limits.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limits.setrlimit)
    with capturedLogs() as events:
        allow_files(clients)
    return limits.now[0], [(event["most"], event["wanted"]) for event in events]


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 1_048_576, 10_000 + BESIDES),
        (1024, UNLIMITED, 10_000 + BESIDES),
        (10_000 + BESIDES, 10_000 + BESIDES, 10_000 + BESIDES),
        (500_000, 500_000, 500_000),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_it_is_raised_to_what_is_needed_and_never_lowered(
    soft: int, hard: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(soft, hard)
    assert allowed(monkeypatch, limits, 10_000) == (after, [])
    assert limits.now[1] == hard


def test_where_it_cannot_be_raised_so_far_the_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed(monkeypatch, Limits(1024, 4096), 10_000) == (4096, [(4096, 10_000 + BESIDES)])


@pytest.mark.parametrize("error", [PermissionError(), ValueError("not allowed to raise maximum limit")])
def test_where_it_may_not_be_raised_the_log_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(1024, 1_048_576, refuses=error)
    assert allowed(monkeypatch, limits, 10_000) == (1024, [(1024, 10_000 + BESIDES)])


def test_making_the_daemon_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(tap, "allow_files", asked.append)
    options = tap.Options()
    UsageOptions.parseOptions(options, ["--listen=tcp:0:interface=127.0.0.1", "--max-clients=7"])
    tap.makeService(options)
    assert asked == [7]
