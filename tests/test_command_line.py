"""``python -m twisted_smtpclient``, run as its users run it: as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.child import Child, free_ports

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "twisted_smtpclient"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MESSAGE = b"Subject: test\n\n.dot\nlast"
REFUSED = "553 5.7.1 not in my list"


def run(*arguments: str, message: bytes = MESSAGE) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], input=message, capture_output=True, env=ENVIRONMENT, timeout=60, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def send(port: int, *arguments: str, recipients: tuple[str, ...] = ("valid@valid.de",)) -> list[str]:
    named = [word for recipient in recipients for word in ("--recipient", recipient)]
    return ["send", "--host", "127.0.0.1", "--port", str(port), "--sender", "foo@bar.de", *named, *arguments]


class Sink:
    """The command ``sink`` as a process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (self.port,) = free_ports(1)
        self.log = folder / "sink.log"
        command = [*COMMAND, "sink", "--port", str(self.port), *arguments]
        self._child = Child(command, self.log, environment=ENVIRONMENT)
        self._child.wait_until_it_answers([self.port])

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        return self._child.stop(by=by)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    refuse = (f"invalid@invalid.de={REFUSED}", "busy@busy.de=450 4.2.1 later")
    running = Sink(tmp_path, *(word for each in refuse for word in ("--refuse", each)))
    yield running
    running.stop()


def test_the_demo_shows_the_requests_the_replies_and_the_messages() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    requests = [json.loads(line[3:]) for line in lines if line.startswith("-> ")]
    replies = [json.loads(line[3:]) for line in lines if line.startswith("<- ")]
    assert [
        sorted(set(request) & {"recpients", "pipeling", "connection_timout"}) for request in requests[:2]
    ] == [
        ["connection_timout", "recpients"],
        ["pipeling"],
    ]
    assert all(request["port"] != 25 and request["host"] != "192.168.1.100" for request in requests)
    verdicts = [[entry["status"] for entry in reply["deliveryStatus"]] for reply in replies]
    assert verdicts == [["Ok", "Ok"], ["Ok", "Ok"], ["Ok", "PermanentError"]]
    assert done.stdout.count("Subject: test") == 3


def test_a_message_that_is_taken_for_all_ends_with_0(sink: Sink) -> None:
    done = run(*send(sink.port))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:3] == ["Ok", "valid@valid.de", "250"]


def test_the_message_arrives_as_it_was_read(sink: Sink, tmp_path: Path) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(MESSAGE)
    assert run(*send(sink.port, str(file)), message=b"").returncode == 0
    log = sink.log.read_text()
    assert "foo@bar.de" in log
    assert "\n    Subject: test\n\n    .dot\n    last\n" in log


def test_a_recipient_refused_for_good_ends_with_69_and_its_reply(sink: Sink) -> None:
    done = run(*send(sink.port, recipients=("valid@valid.de", "invalid@invalid.de", "busy@busy.de")))
    assert done.returncode == 69
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["Ok", "valid@valid.de"],
        ["PermanentError", "invalid@invalid.de"],
        ["TemporaryError", "busy@busy.de"],
    ]
    assert REFUSED in done.stdout


def test_nothing_but_a_temporary_refusal_ends_with_75(sink: Sink) -> None:
    done = run(*send(sink.port, recipients=("valid@valid.de", "busy@busy.de")))
    assert done.returncode == 75


def test_json_is_the_reply_of_the_protocol(sink: Sink) -> None:
    done = run(*send(sink.port, "--json", recipients=("valid@valid.de", "invalid@invalid.de")))
    reply = json.loads(done.stdout)
    assert done.returncode == 69
    assert reply["status"] == "ok"
    assert [entry["code"] for entry in reply["deliveryStatus"]] == [250, 553]


def test_a_server_that_is_down_gives_one_line_and_75() -> None:
    (port,) = free_ports(1)
    done = run(*send(port))
    assert done.returncode == 75
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("ConnectionRefused: ")
    assert f"127.0.0.1:{port}" in line


def test_a_server_that_is_down_is_told_as_json_too() -> None:
    (port,) = free_ports(1)
    done = run(*send(port, "--json"))
    assert (done.returncode, done.stderr) == (75, "")
    assert json.loads(done.stdout)["error"] == "ConnectionRefused"


def test_an_extension_that_is_depended_on_and_missing_ends_with_69(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "--without", "PIPELINING")
    try:
        done = run(*send(sink.port, "--pipelining", "depend"))
    finally:
        sink.stop()
    assert done.returncode == 69
    assert done.stderr.startswith("ExtensionUnsupported: ")


def test_a_message_that_cannot_be_read_ends_with_66(tmp_path: Path) -> None:
    done = run(*send(9, str(tmp_path / "nothing.eml")))
    assert done.returncode == 66
    (line,) = done.stderr.splitlines()
    assert "nothing.eml" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sned"], "sned"),
        (["send", "--recipient", "a@b.de", "--recpient", "c@d.de"], "--recpient"),
        (["send"], "--recipient"),
        (["send", "--recipient", "no address"], "recipients[0]: expected an address"),
        (["send", "--recipient", "a@b.de", "--sender", "a@b.de\r\nRSET"], "sender: expected an address"),
        (["send", "--recipient", "a@b.de", "--port", "0"], "port: expected an integer from 1 to 65535"),
        (["send", "--recipient", "a@b.de", "--tls", "maybe"], "--tls"),
        (["send", "--recipient", "a@b.de", "--ca-file", "nothing.pem"], "nothing.pem"),
        (["send", "--recipient", "a@b.de", "--response-timeout", "0"], "expected seconds"),
        (["sink", "--port", "65536"], "65536"),
        (["sink", "--refuse", "invalid@invalid.de"], "ADDRESS=REPLY"),
        (["sink", "--refuse", "a@b.de=no"], "ADDRESS=REPLY"),
    ],
)
def test_a_command_line_that_is_wrong_names_what_is(arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_clear_line(sink: Sink) -> None:
    done = run("sink", "--port", str(sink.port))
    assert done.returncode == 71
    (line,) = done.stderr.splitlines()
    assert str(sink.port) in line


def test_a_sink_with_tls_tells_the_fingerprint_that_verifies_it(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "--tls", "starttls")
    try:
        (told,) = (
            line.split()[1] for line in sink.log.read_text().splitlines() if line.startswith("certificate")
        )
        verified = run(*send(sink.port, "--tls", "depend", "--tls-fingerprint", told))
        unverified = run(*send(sink.port, "--tls", "depend"))
    finally:
        sink.stop()
    assert verified.returncode == 0
    assert unverified.returncode == 69
    assert unverified.stderr.startswith("TLSFailed: ")


def test_ctrl_c_ends_the_sink_quietly_with_130(sink: Sink) -> None:
    assert sink.stop(by=signal.SIGINT) == 130
    assert "Traceback" not in sink.log.read_text()


def test_ctrl_c_while_sending_ends_quietly_with_130(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [*COMMAND, *send(silent.getsockname()[1])]
        sending = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        assert sending.stdin is not None
        sending.stdin.close()
        sending.stdin = None
        connection, _ = silent.accept()
        with connection:
            sending.send_signal(signal.SIGINT)
            out, err = sending.communicate(timeout=30)
    assert (sending.returncode, out, err) == (130, b"", b"")


def test_each_command_tells_its_options() -> None:
    for command in ("demo", "send", "sink"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert command in run("--help").stdout
