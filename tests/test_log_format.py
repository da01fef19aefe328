from __future__ import annotations

import io
import json
import signal
import syslog
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.internet.task import Clock
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    globalLogPublisher,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from tests.gateway.fakes import verdict
from twisted_smtpclient import errors, tap
from twisted_smtpclient.gateway.journal import GATHER, Journal
from twisted_smtpclient.operations.logs import SyslogLines, as_lines, choose_format, json_lines
from twisted_smtpclient.smtp.policy import Server, TLSMode

WHEN = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc).timestamp()
NAMESPACE = "twisted_smtpclient.gateway.journal"


def event(log_format: str = "", namespace: str = NAMESPACE, **fields: Any) -> LogEvent:
    base = {
        "log_format": log_format,
        "log_namespace": namespace,
        "log_level": LogLevel.info,
        "log_time": WHEN,
    }
    return {**base, **fields}


def lines_of(*events: LogEvent) -> list[dict[str, Any]]:
    text = "".join(map(as_lines, events))
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def logged(action: Any) -> list[dict[str, Any]]:
    """What is written of the events of ``action``."""
    file = io.StringIO()
    observer = json_lines(file)
    globalLogPublisher.addObserver(observer)
    try:
        action()
    finally:
        globalLogPublisher.removeObserver(observer)
    return [json.loads(line) for line in file.getvalue().split("\n")[:-1]]


def test_an_event_is_one_object_with_its_fields() -> None:
    assert lines_of(event("{server}: {count}", server="mx.example:25", count=3)) == [
        {
            "time": "2026-01-31T12:00:00.123456Z",
            "level": "info",
            "namespace": NAMESPACE,
            "message": "mx.example:25: 3",
            "server": "mx.example:25",
            "count": 3,
        }
    ]


@pytest.mark.parametrize(
    "level", [LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical]
)
def test_each_has_its_level(level: Any) -> None:
    (told,) = lines_of(event("x", log_level=level))
    assert told["level"] == level.name


def test_an_event_that_says_nothing_is_no_line() -> None:
    assert as_lines(event("")) == ""


def test_fields_that_are_objects_are_told_by_the_message_alone() -> None:
    (told,) = lines_of(event("{a} {b}", a=object, b={"c": [1, None, True, 0.5, ("x",)]}, d={1: 2}))
    assert "object" in told["message"]
    assert {"a", "d"}.isdisjoint(told)
    assert told["b"] == {"c": [1, None, True, 0.5, ["x"]]}


def test_fields_of_others_events_are_told_by_the_message_alone() -> None:
    (told,) = lines_of(event("version {version}", "twisted.scripts._twistd_unix.UnixAppLogger", version="1"))
    assert told["message"] == "version 1"
    assert "version" not in told


def test_no_field_stands_in_the_place_of_what_each_line_has() -> None:
    (told,) = lines_of(event("said", time="never", level="x", message="forged", log_source="y"))
    assert told["message"] == "said"
    assert told["level"] == "info"
    assert told["time"].startswith("2026")
    assert told["namespace"] == NAMESPACE
    assert "log_source" not in told


def test_a_failure_has_its_traceback_as_a_string() -> None:
    try:
        raise KeyError("the fault")
    except KeyError:
        failure = Failure()
    (told,) = lines_of(event("it failed", log_failure=failure, log_level=LogLevel.critical))
    assert told["message"] == "it failed"
    assert "KeyError: 'the fault'" in told["traceback"]
    assert "test_a_failure_has" in told["traceback"]
    assert "log_failure" not in told
    (told,) = lines_of(event("", log_failure=failure))
    assert told["message"] == "'the fault'"


def test_what_twisted_s_old_log_says_is_told_too(logged_failures: Any) -> None:
    def act() -> None:
        legacy.msg("hello", "there")
        legacy.err(ValueError("bad"), "why")

    first, second = logged(act)
    assert first["message"] == "hello there"
    assert second["level"] == "critical"
    assert second["message"] == "why"
    assert "ValueError: bad" in second["traceback"]
    logged_failures.flush(ValueError)


# Deliveries


def journal_of(deliveries: int, **changed: Any) -> list[dict[str, Any]]:
    given = {"server": Server(host="mx.example"), "sender": "foo@bar.de", "error": None, **changed}

    def act() -> None:
        clock = Clock()
        journal = Journal(clock)
        for number in range(deliveries):
            recipients = [verdict("a@b.de"), verdict("b@b.de", "550 no")]
            journal.tell(given["server"], given["sender"], recipients, given["error"], 0.5 + number)
        clock.advance(GATHER)

    return logged(act)


@pytest.mark.parametrize("deliveries", [1, 2, 250])
def test_each_delivery_is_a_line_of_its_own(deliveries: int) -> None:
    told = journal_of(deliveries)
    assert len(told) == deliveries
    for number, each in enumerate(told):
        assert datetime.fromisoformat(each.pop("time").replace("Z", "+00:00")).tzinfo is not None
        seconds = 0.5 + number
        assert each == {
            "level": "info",
            "namespace": NAMESPACE,
            "message": f"mx.example:25 from 'foo@bar.de': 1 Ok, 1 PermanentError, {seconds:.3f} s",
            "server": "mx.example:25",
            "sender": "foo@bar.de",
            "outcome": "1 Ok, 1 PermanentError",
            "counts": {"Ok": 1, "PermanentError": 1},
            "error": None,
            "seconds": seconds,
        }


EVIL = st.text(
    st.characters() | st.sampled_from("\r\n\t\x0b\x0c\x1c\x85\u2028\u2029\u202e\x1b'\"\\ {}\ud800")
)


@given(EVIL, EVIL, st.integers(1, 3))
def test_no_value_can_forge_a_line(sender: str, text: str, deliveries: int) -> None:
    told = journal_of(deliveries, sender=sender, error=errors.ProtocolError(text))
    assert len(told) == deliveries
    for each in told:
        assert each["error"] == "ProtocolError"
        assert each["sender"] == sender.encode("utf-8", "backslashreplace").decode()


def test_a_path_that_is_no_text_is_written_all_the_same() -> None:
    server = Server(host="unix:/run/\udcff", tls=TLSMode.NO)
    (told,) = journal_of(1, server=server, sender="a\ud800")
    assert told["sender"] == "a\\ud800"
    assert told["server"] == "'unix:/run/\\udcff'"


# Where it is written


def options_of(program: dict[str, Any], *arguments: str) -> tap.Options:
    class Program(UsageOptions):
        """Stands for twistd or twist."""

    parent: Any = Program()  # type: ignore[no-untyped-call]  # Twisted has no types here
    parent.update(program)
    options = tap.Options()
    options.parent = parent
    UsageOptions.parseOptions(options, list(arguments))
    program.clear()
    program.update(parent)
    return options


def test_twist_writes_the_form_that_the_daemon_is_told() -> None:
    for arguments, factory in (
        (["--log-format", "json"], json_lines),
        (["--log-format=text"], textFileLogObserver),
        ([], textFileLogObserver),
    ):
        program: dict[str, Any] = {"fileLogObserverFactory": jsonFileLogObserver}
        assert options_of(program, *arguments).log_observer is None
        assert program["fileLogObserverFactory"] is factory


def test_twistd_is_left_alone_where_text_is_wanted() -> None:
    program: dict[str, Any] = {"logfile": None, "logger": None, "syslog": 0, "nodaemon": True}
    before = dict(program)
    assert options_of(program).log_observer is None
    assert program == before


def test_a_logger_of_twistd_s_has_a_form_of_its_own() -> None:
    with pytest.raises(UsageError, match="--log-format: the log has its form by twistd's --logger"):
        options_of({"logger": "some.factory"}, "--log-format=json")
    assert options_of({"logger": "some.factory"}).log_observer is None


@pytest.mark.parametrize("form", ["", "JSON", "xml"])
def test_another_form_is_a_usage_error(form: str) -> None:
    with pytest.raises(UsageError, match="--log-format: expected text or json, got"):
        options_of({}, "--log-format", form)


@pytest.mark.parametrize("logfile", [None, "-"])
def test_twistd_in_the_foreground_writes_to_standard_output(
    logfile: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    make = choose_format("json", {"logfile": logfile, "nodaemon": True})
    assert make is not None
    make()(event("hello"))
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


def test_a_daemon_has_no_standard_output() -> None:
    make = choose_format("json", {"logfile": "-", "nodaemon": False})
    assert make is not None
    with pytest.raises(SystemExit, match="stdout"):
        make()


@pytest.fixture
def usr1() -> Any:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("usr1")
def test_a_file_is_written_as_utf_8_and_rotated_when_told(tmp_path: Path) -> None:
    from twisted.internet import reactor

    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    path = tmp_path / "daemon.log"
    make = choose_format("json", {"logfile": str(path), "nodaemon": False})
    assert make is not None
    observer = make()
    observer(event("grüße"))
    assert json.loads(path.read_bytes())["message"] == "grüße"
    rotate: Any = signal.getsignal(signal.SIGUSR1)
    called: list[Any] = []
    from_thread: Any = reactor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_thread, "callFromThread", called.append)
        rotate(signal.SIGUSR1, None)
    (action,) = called
    action()
    observer(event("new"))
    assert json.loads(path.read_bytes())["message"] == "new"
    assert (tmp_path / "daemon.log.1").exists()
    observer._outFile.close()


@pytest.mark.usefixtures("usr1")
def test_a_handler_of_another_for_the_signal_stays(tmp_path: Path) -> None:
    def other(*_: Any) -> None:
        """Somebody's."""

    signal.signal(signal.SIGUSR1, other)
    make = choose_format("json", {"logfile": str(tmp_path / "x"), "nodaemon": True})
    assert make is not None
    make()._outFile.close()
    assert signal.getsignal(signal.SIGUSR1) is other


def test_the_system_s_log_has_each_line_with_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "openlog", opened.append)
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: told.append((priority, line)))
    make = choose_format("json", {"syslog": 1, "prefix": "smtpclient", "nodaemon": True})
    assert make is not None
    observer = make()
    assert isinstance(observer, SyslogLines)
    observer(event("bad", log_level=LogLevel.error))
    observer(event("2 deliveries\na\nb", deliveries=[{"server": "a"}, {"server": "b"}]))
    assert opened == ["smtpclient"]
    assert [priority for priority, _ in told] == [syslog.LOG_ERR, syslog.LOG_INFO, syslog.LOG_INFO]
    assert [json.loads(line)["message"] for _, line in told] == ["bad", "a", "b"]


def test_the_application_is_given_the_observer(capsys: pytest.CaptureFixture[str]) -> None:
    options = options_of({"nodaemon": True}, "--log-format=json", "--listen=tcp:0:interface=127.0.0.1")
    service: Any = tap.makeService(options)
    application: Any = Application("smtpclient")
    service.setServiceParent(application)
    observer = application.getComponent(ILogObserver)
    assert isinstance(observer, FileLogObserver)
    observer(event("hello"))
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


def test_without_a_form_the_application_has_none_of_ours() -> None:
    service: Any = tap.makeService(options_of({"nodaemon": True}, "--listen=tcp:0:interface=127.0.0.1"))
    application: Any = Application("smtpclient")
    service.setServiceParent(application)
    assert application.getComponent(ILogObserver, None) is None
