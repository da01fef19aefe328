"""
The life of a service: what it is doing, and what it can be told while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from twisted.logger import Logger

__all__ = ["Life", "State"]

_log = Logger(__name__)


class State(Enum):
    """What a service is doing."""

    STARTING = "starting"
    READY = "ready"
    RELOADING = "reloading"
    DRAINING = "draining"
    STOPPED = "stopped"


class Life:
    """
    Holds a service's state, tells those who watch it, and reads files again.

    :ivar state: what the service is doing now.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self._watchers: list[Callable[[State], None]] = []
        self._reloads: list[tuple[str, Callable[[], object]]] = []

    def watch(self, watcher: Callable[[State], None]) -> None:
        """Call ``watcher`` with each state that is entered from now on."""
        self._watchers.append(watcher)

    def enter(self, state: State) -> None:
        """From now on the service is in ``state``; watchers that fail are logged."""
        self.state = state
        for watcher in tuple(self._watchers):
            _tell(watcher, state)

    def on_reload(self, name: str, reload: Callable[[], object]) -> None:
        """
        Have ``reload`` called when files are to be read again.

        :param name: what it is called in the log, such as ``--ca-file``.
        :param reload: takes the new over as a whole or, with an exception
            (ValueError or OSError where the file is at fault), keeps the old.
        """
        self._reloads.append((name, reload))

    def reload(self) -> None:
        """Read all files again; one that is broken leaves the others alone."""
        before = self.state
        if before is not State.READY:
            _log.info("nothing is read again while {state}", state=before.value)
            return
        self.enter(State.RELOADING)
        for name, reload in self._reloads:
            _read_again(name, reload)
        if not self._reloads:
            _log.info("there is no file to read again")
        self.enter(before)


def _tell(watcher: Callable[[State], None], state: State) -> None:
    try:
        watcher(state)
    except Exception:
        _log.failure("a watcher failed at {state}", state=state.value)


def _read_again(name: str, reload: Callable[[], object]) -> None:
    try:
        reload()
    except (OSError, ValueError) as error:
        _log.error(
            "{name}: not read again, what was read before stands: {error}", name=name, error=str(error)
        )
    except Exception:
        _log.failure("{name}: not read again, what was read before stands", name=name)
    else:
        _log.info("{name}: read again", name=name)
