"""
The log as JSON: one object a line, for a log shipper to read.

Twisted's own JSON (:func:`twisted.logger.jsonFileLogObserver`) holds whatever
an event does, from the logger's address to parsed formats, and a record
separator before each line.  Here an event is what an operator reads of it::

    {"time": "2026-01-31T12:00:00.123456Z", "level": "info",
     "namespace": "twisted_smtpclient.gateway.journal",
     "message": "mx.example:25 from 'a@b.example': 1 Ok, 0.012 s",
     "server": "mx.example:25", "sender": "a@b.example", "counts": {"Ok": 1}, ...}

A delivery is a line, also where the journal logs many as one event.
"""

from __future__ import annotations

import signal
import sys
import syslog
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime, timezone
from functools import partial
from typing import IO, Any, Final, cast

import msgspec
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import implementer

__all__ = ["FORMATS", "SyslogLines", "as_lines", "choose_format", "json_lines"]

#: What ``--log-format`` may be.
FORMATS: Final = ("text", "json")

#: Whose fields are told; those of others repeat the message, or hold objects.
_OURS: Final = "twisted_smtpclient"

_encode_lines: Final = msgspec.json.Encoder().encode_lines

_PRIORITIES: Final = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


def as_lines(event: LogEvent) -> str:
    """An event as JSON, an object a line; empty where it says nothing."""
    told = _told(event)
    try:
        return _encode_lines(told).decode()
    except UnicodeEncodeError:
        # A lone surrogate: octets of a path that are no UTF-8.
        return _encode_lines(_scrubbed(told)).decode()


def json_lines(file: IO[Any]) -> FileLogObserver:
    """Writes each event to ``file`` as :func:`as_lines` has it."""
    return FileLogObserver(file, as_lines)


def _told(event: LogEvent) -> list[dict[str, Any]]:
    frame = {
        "time": _time(event),
        "level": _level(event).name,
        "namespace": str(event.get("log_namespace") or "-"),
    }
    ours = frame["namespace"].startswith(_OURS)
    deliveries = event.get("deliveries")
    if ours and isinstance(deliveries, list):
        # Of the journal, whose fields are plain; they are looked at no further
        # for they may be of twenty thousand deliveries a second.  The first
        # line is their number.
        lines = formatEvent(event).split("\n")[1:]
        return [frame | {"message": line} | each for line, each in zip(lines, deliveries, strict=True)]
    message = formatEvent(event)
    failure = event.get("log_failure")
    if "failure" in event:
        # Of twisted.python.log, whose text has the traceback in it.
        failure, message = event["failure"], str(event.get("why") or "")
    if isinstance(failure, Failure):
        frame["message"] = message or failure.getErrorMessage()
        frame["traceback"] = failure.getTraceback()
    elif message:
        frame["message"] = message
    else:
        return []
    return [frame | _fields(event, frame)] if ours else [frame]


def _fields(event: LogEvent, frame: Mapping[str, str]) -> dict[str, Any]:
    """What of an event can be told and does not hide what each line has."""
    return {
        name: value
        for name, value in event.items()
        if name not in frame and not name.startswith("log_") and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(each) for each in value]
    return value


def _time(event: LogEvent) -> str:
    seconds: float = event.get("log_time", 0.0)
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")[:-6] + "Z"


def _level(event: LogEvent) -> Any:
    level = event.get("log_level")
    return level if level in _PRIORITIES else LogLevel.info


@implementer(ILogObserver)
class SyslogLines:
    """Tells the system's log, each line with its level as priority."""

    def __init__(self, prefix: str) -> None:
        syslog.openlog(prefix)

    def __call__(self, event: LogEvent) -> None:
        """Tell it of one event."""
        for line in as_lines(event).split("\n")[:-1]:
            syslog.syslog(_PRIORITIES[_level(event)], line)


# How the two programs that may run us are told.


def choose_format(form: str, program: MutableMapping[str, Any]) -> Callable[[], Any] | None:
    """
    Have ``twistd`` or ``twist`` write the log in this form, where it writes it.

    :param form: one of :data:`FORMATS`.
    :param program: the program's own options, already read.
    :returns: what makes an observer, to be the application's
        :class:`~twisted.logger.ILogObserver`; None where there is no need.
    :raises ValueError: they ask for another observer themselves.
    """
    if "fileLogObserverFactory" in program:
        # twist.  Its own default depends on whether the log is a terminal.
        program["fileLogObserverFactory"] = json_lines if form == "json" else textFileLogObserver
        return None
    if form == "text":
        return None
    if program.get("logger"):
        raise ValueError("the log has its form by twistd's --logger")
    return partial(_observer_of, program)


def _observer_of(twistd: Mapping[str, Any]) -> Any:
    """Writes to where twistd would write the text."""
    if twistd.get("syslog"):
        return SyslogLines(str(twistd.get("prefix") or "twisted"))
    return json_lines(_file_of(twistd))


def _file_of(twistd: Mapping[str, Any]) -> IO[Any]:
    """The file that twistd would write the text to."""
    path = twistd.get("logfile")
    if path == "-" and not twistd.get("nodaemon"):
        sys.exit("Daemons cannot log to stdout, exiting!")
    if path == "-" or (not path and twistd.get("nodaemon")):
        return sys.stdout
    file: Any = LogFile.fromFullPath(path or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        # What twistd does of its own file.
        signal.signal(signal.SIGUSR1, lambda *_: _rotate(file))
    return cast("IO[Any]", file)


def _rotate(file: Any) -> None:
    # Not earlier: by now twistd has installed the reactor that was asked for.
    from twisted.internet import reactor

    from_thread: Any = reactor
    from_thread.callFromThread(file.rotate)
