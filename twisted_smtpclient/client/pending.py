"""
An outcome to come, for one who waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Pending"]

_log = Logger(__name__)


class Pending:
    """
    Of a Deferred what a daemon uses, at a fraction of its cost: no chain, and
    one listener, whose faults are logged.

    :param cancelled: called by :meth:`cancel`; it is to have the outcome told.
    :ivar called: whether the outcome was told.
    """

    __slots__ = ("_callback", "_cancelled", "_errback", "_failed", "_outcome", "called")

    def __init__(self, cancelled: Callable[[Any], None]) -> None:
        self.called = False
        self._cancelled: Callable[[Any], None] | None = cancelled
        self._outcome: Any = None
        self._failed = False
        self._callback: Callable[[Any], object] | None = None
        self._errback: Callable[[Any], object] | None = None

    def addCallbacks(self, callback: Callable[[Any], object], errback: Callable[[Any], object]) -> None:
        """Who waits: told at once where the outcome is known."""
        self._callback, self._errback = callback, errback
        if self.called:
            self._tell()

    def callback(self, result: object) -> None:
        """It has come to this."""
        self.called = True
        self._outcome = result
        self._tell()

    def errback(self, error: Exception) -> None:
        """It has come to nothing, for this reason; the listener is given a Failure."""
        self.called = True
        self._outcome = Failure(error)
        self._failed = True
        self._tell()

    def cancel(self) -> None:
        """It is not waited for any longer."""
        if self._cancelled is not None:
            self._cancelled(self)

    def _tell(self) -> None:
        # It knows the mail, which knows this: a circle would keep the content in
        # memory until the next collection.
        self._cancelled = None
        callback, errback = self._callback, self._errback
        if callback is None or errback is None:
            return
        self._callback = self._errback = None
        outcome, self._outcome = self._outcome, None
        try:
            # Not by its class: to ask for one that is not compiled takes long.
            if self._failed:
                errback(outcome)
            else:
                callback(outcome)
        except Exception:
            _log.failure("a fault with one who waited for an outcome")
