"""
What holds for every test.

An error that Twisted logs fails the test that caused it, a skipped test fails
where ``REQUIRE_INTEGRATION`` is set, and hypothesis has its settings here.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

# Time on a shared machine says nothing about the code, so no test fails for
# taking long.  In CI the examples are the same in each run; elsewhere they
# are new ones, and a failing one is printed with how to have it again.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@implementer(ILogObserver)
class LoggedFailures:
    """The failures that were logged while a test ran."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            self._failures.append(failure)

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        """
        Take out the failures of ``types`` (all, where none is named).

        A test that wants an error in the log takes it out and looks at it.
        Deferreds tell of an error that nobody took only when they go, hence
        the collection.
        """
        gc.collect()
        taken = [failure for failure in self._failures if not types or failure.check(*types)]
        self._failures = [failure for failure in self._failures if failure not in taken]
        return taken


@pytest.fixture(autouse=True)
def logged_failures() -> Iterator[LoggedFailures]:
    """No error may be logged but those that the test takes out."""
    failures = LoggedFailures()
    globalLogPublisher.addObserver(failures)
    try:
        yield failures
    finally:
        globalLogPublisher.removeObserver(failures)
    left = failures._failures
    if left:
        text = "\n".join(failure.getTraceback() for failure in left)
        pytest.fail(f"errors were logged:\n{text}", pytrace=False)


@pytest.fixture(autouse=True, scope="module")
def deferreds_are_collected_here() -> Iterator[None]:
    """An error that nobody took is told of in the module that caused it."""
    failures = LoggedFailures()
    yield
    globalLogPublisher.addObserver(failures)
    try:
        left = failures.flush()
    finally:
        globalLogPublisher.removeObserver(failures)
    if left:
        text = "\n".join(failure.getTraceback() for failure in left)
        pytest.fail(f"Deferreds went with errors that nobody took:\n{text}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where integration is required, a skipped test is one that failed."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and os.environ.get("REQUIRE_INTEGRATION"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but REQUIRE_INTEGRATION is set: {report.longrepr}"
