"""
Tells the service manager how the daemon is: ``sd_notify(3)``.

The manager names a socket in ``NOTIFY_SOCKET``; without one nothing is told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .life import Life, State

__all__ = ["ServiceManager"]

_log = Logger(__name__)

_SAID: Final = {
    State.READY: "READY=1\nSTATUS=takes requests",
    State.RELOADING: "RELOADING=1",
    State.DRAINING: "STOPPING=1\nSTATUS=finishes what is under way",
}


class ServiceManager(Service):
    """
    Tells the service manager each state of a life; and, where it wants that
    (``WatchdogSec=``), twice in its time that the reactor still turns.

    :param life: what is told of.
    :param clock: for time.
    :param environment: the process's own, in which the manager says where and
        how often it wants to be told.
    """

    def __init__(self, life: Life, clock: IReactorTime, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog = LoopingCall(self._say, "WATCHDOG=1")
        self._watchdog.clock = clock
        self._interval = _watchdog_interval(environment)
        life.watch(self._entered)

    def startService(self) -> None:
        """Feed the watchdog from now on."""
        Service.startService(self)
        if self._interval is not None and self._address is not None:
            self._watchdog.start(self._interval)

    def stopService(self) -> None:
        """Feed it no more: the daemon has drained."""
        Service.stopService(self)
        if self._watchdog.running:
            self._watchdog.stop()

    def _entered(self, state: State) -> None:
        said = _SAID.get(state)
        if state is State.RELOADING:
            # So that it can tell this from an earlier one (Type=notify-reload).
            said = f"{said}\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        if said is not None:
            self._say(said)

    def _say(self, what: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                # A manager that does not listen is nothing to wait for.
                notify.setblocking(False)
                notify.sendto(what.encode(), self._address)
        except OSError as error:
            _log.warn("the service manager could not be told: {error}", error=str(error))


def _address(named: str) -> str | None:
    """A path, or with ``@`` a name in the abstract namespace; None for what is neither."""
    if named.startswith("@"):
        return "\0" + named[1:]
    return named if named.startswith("/") else None


def _watchdog_interval(environment: Mapping[str, Any]) -> float | None:
    """Seconds between two signs of life: half of what the manager waits for one."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2e6
