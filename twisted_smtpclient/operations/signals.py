"""
SIGHUP reads files again; a second SIGTERM or SIGINT ends the draining.

The first SIGTERM is Twisted's: it stops the service, which drains.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from twisted.application.service import Service
from twisted.logger import Logger

from .life import Life, State

__all__ = ["Signals"]

#: Twisted's annotations do not know that its reactor takes calls from threads.
Reactor = Any

_log = Logger(__name__)

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)


class Signals(Service):
    """
    Listens to the process's signals while it runs; for the main thread.

    :param life: told to read files again by SIGHUP.
    :param hurry: called by what is the second SIGTERM or SIGINT, that is by
        the first while the service drains.  A third ends the process as the
        system does.
    :param reactor: has it done in a turn of its own.
    """

    def __init__(self, life: Life, hurry: Callable[[], None], reactor: Reactor) -> None:
        self._life = life
        self._hurry = hurry
        self._reactor = reactor
        self._before: dict[signal.Signals, Any] = {}
        life.watch(self._entered)

    def startService(self) -> None:
        """Listen to SIGHUP."""
        Service.startService(self)
        self._take(signal.SIGHUP, self._hung_up)

    def stopService(self) -> None:
        """Leave all signals as they were."""
        Service.stopService(self)
        before, self._before = self._before, {}
        for each, action in before.items():
            signal.signal(each, action)

    def _take(self, which: signal.Signals, action: Callable[[int, FrameType | None], None]) -> None:
        self._before.setdefault(which, signal.getsignal(which))
        signal.signal(which, action)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._life.reload)

    def _entered(self, state: State) -> None:
        if state is State.DRAINING and self.running:
            for each in _ENDS:
                self._take(each, self._again)

    def _again(self, number: int, frame: FrameType | None) -> None:
        for each in _ENDS:
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._end_at_once, number)

    def _end_at_once(self, number: int) -> None:
        _log.warn("{signal} once more: draining ends now", signal=signal.Signals(number).name)
        self._hurry()
