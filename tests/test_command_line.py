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
from twisted_smtpclient.cli.probe import place_of

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


ASKS = ["--notify", "success,delay", "--ret", "hdrs", "--envid", "QQ 1"]


@pytest.mark.parametrize(
    ("without", "arguments", "keyword"),
    [
        ("DSN", ASKS, "DSN"),
        ("CHUNKING", ["--binary"], "BINARYMIME"),
        ("8BITMIME", ["--eightbitmime", "depend"], "8BITMIME"),
        ("SIZE", ["--mail-parameter", "X-Y"], "X-Y"),
        ("SIZE", ["--mail-parameter", "BY=120;R"], "DELIVERBY"),
        ("SIZE", ["--requiretls", "--tls", "try"], "REQUIRETLS"),
        ("SIZE", ["--requiretls"], "STARTTLS, and tls is DEPEND"),
    ],
)
def test_what_a_mail_asks_for_and_a_server_does_not_offer_ends_with_69(
    without: str, arguments: list[str], keyword: str, tmp_path: Path
) -> None:
    sink = Sink(tmp_path, "--without", without)
    try:
        done = run(*send(sink.port, *arguments), message="Subject: ü\n".encode())
        assert run(*send(sink.port)).returncode == 0
    finally:
        sink.stop()
    assert done.returncode == 69
    assert done.stderr.startswith("ExtensionUnsupported: ")
    assert keyword in done.stderr


def test_what_a_mail_asks_for_goes_where_it_is_offered(sink: Sink) -> None:
    done = run(*send(sink.port, *ASKS, "--eightbitmime", "depend"), message="Subject: ü\n".encode())
    assert (done.returncode, done.stderr) == (0, "")


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
        (["send", "--recipient", "a@b.de", "--mechanisms", "PLAIN"], "--mechanisms goes with --user"),
        (["send", "--recipient", "a@b.de", "--notify", "always"], "expected NEVER, SUCCESS, FAILURE, DELAY"),
        (["send", "--recipient", "a@b.de", "--notify", "never,delay"], "notify: expected NEVER alone"),
        (["send", "--recipient", "a@b.de", "--envid", "ü"], "envid: expected 1 to 100"),
        (["send", "--recipient", "a@b.de", "--mail-parameter", "SIZE=1"], "mail_parameters.SIZE: is not"),
        (["send", "--recipient", "a@b.de", *["--mail-parameter", "X=1"] * 2], "X is given twice"),
        (["probe"], "HOST[:PORT]"),
        (["probe", "mx.example:0"], "port: expected an integer from 1 to 65535"),
        (["probe", "mx.example:"], "host: expected a name"),
        (["probe", "mx.example", "--tls", "maybe"], "--tls"),
        (["probe", "mx.example", "--recipient", "a@b.de"], "--recipient"),
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


def probe(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("probe", f"127.0.0.1:{port}", *arguments, message=b"")


def test_a_probe_tells_what_a_server_is_and_sends_nothing(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "--tls", "starttls", "--offer", "LIMITS RCPTMAX=100")
    try:
        done = probe(sink.port)
        (told,) = (
            line.split()[1] for line in sink.log.read_text().splitlines() if line.startswith("certificate")
        )
        verified = probe(sink.port, "--tls", "depend", "--tls-fingerprint", told)
    finally:
        sink.stop()
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.strip() for line in done.stdout.splitlines()]
    assert rows[0] == f"127.0.0.1:{sink.port}"
    assert rows[1].startswith("greeting     220 sink.invalid ESMTP")
    assert rows[2].startswith("TLS          TLSv1.3, TLS_")
    assert rows[3] == "certificate  not verified: its authority is not trusted"
    assert "for localhost, 127.0.0.1, ::1" in rows
    assert told in rows
    assert "login        not offered" in rows
    assert "100 recipients a transaction" in rows
    assert "CHUNKING" in rows
    assert "LIMITS RCPTMAX=100" in rows
    assert "from <" not in sink.log.read_text()
    assert verified.returncode == 0
    assert "  certificate  verified\n" in verified.stdout


def test_a_probe_as_json_is_the_reply_of_the_protocol(sink: Sink) -> None:
    done = probe(sink.port, "--json")
    reply = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(reply) == {"status", "greeting", "extensions", "tls", "authenticated"}
    assert reply["extensions"]["SIZE"] == ["10485760"]
    (port,) = free_ports(1)
    down = probe(port, "--json")
    assert (down.returncode, down.stderr) == (75, "")
    assert json.loads(down.stdout)["error"] == "ConnectionRefused"


def test_a_probe_that_fails_says_what_to_try(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    down = probe(port)
    sink = Sink(tmp_path, "--tls", "starttls")
    try:
        untrusted = probe(sink.port, "--tls", "depend")
        clear = probe(sink.port, "--tls", "implicit")
        lmtp = probe(sink.port, "--lmtp")
    finally:
        sink.stop()
    for done, status, named, advice in (
        (down, 75, "ConnectionRefused: ", "right port"),
        (untrusted, 69, "TLSFailed: ", "--tls-fingerprint"),
        (clear, 69, "TLSFailed: ", "--tls depend"),
    ):
        first, second = done.stderr.splitlines()
        assert done.returncode == status
        assert first.startswith(named)
        assert advice in second
        assert done.stdout == ""
    assert lmtp.returncode == 69
    assert lmtp.stderr.startswith("Refused: LHLO refused: ")


@pytest.mark.parametrize("command", ["probe", "send"])
def test_a_login_has_its_password_from_the_environment(command: str, tmp_path: Path) -> None:
    sink = Sink(tmp_path, "--user", "anna:geheim", "--token", "anna:ya29")

    def log_in(secrets: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        words = ["probe", f"127.0.0.1:{sink.port}"] if command == "probe" else send(sink.port)
        return subprocess.run(
            [*COMMAND, *words, "--user", "anna", *arguments],
            input=MESSAGE.decode(),
            capture_output=True,
            text=True,
            env={**ENVIRONMENT, **secrets},
            timeout=60,
            check=False,
            # Without a terminal to ask on.
            start_new_session=True,
        )

    try:
        right = log_in({"SMTP_PASSWORD": "geheim"}, "--mechanisms", "cram-md5,plain")
        token = log_in({"SMTP_TOKEN": "ya29"})
        wrong = log_in({"SMTP_PASSWORD": "falsch"})
        none = log_in({})
        both = log_in({"SMTP_PASSWORD": "geheim", "SMTP_TOKEN": "ya29"})
    finally:
        sink.stop()
    assert (right.returncode, right.stderr) == (0, "")
    assert (token.returncode, token.stderr) == (0, "")
    if command == "probe":
        assert "  login        as anna\n" in right.stdout
    assert wrong.returncode == 69
    assert wrong.stderr.startswith("Refused: AUTH refused: 535")
    assert none.returncode == 2
    assert "--user needs the password in SMTP_PASSWORD" in none.stderr
    assert both.returncode == 2
    assert "both set" in both.stderr
    shown = "".join(done.stdout + done.stderr for done in (right, token, wrong, both))
    assert not [secret for secret in ("geheim", "falsch", "ya29") if secret in shown]


def test_a_password_is_asked_for_on_the_terminal_alone(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "--user", "anna:geheim")
    leader, terminal = os.openpty()
    words = [*COMMAND, "probe", f"127.0.0.1:{sink.port}", "--user", "anna"]
    try:
        asking = subprocess.Popen(
            # A session of its own, whose terminal is this one.
            ["setsid", "--ctty", *words],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        os.close(terminal)
        asked = b""
        while not asked.endswith(b": "):
            asked += os.read(leader, 1024)
        os.write(leader, b"geheim\n")
        out, err = asking.communicate(timeout=60)
    finally:
        os.close(leader)
        sink.stop()
    assert asked.decode() == f"Password of anna at 127.0.0.1:{sink.port}: "
    assert (asking.returncode, err) == (0, b"")
    assert b"  login        as anna\n" in out
    assert b"geheim" not in out


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("mx.example", ("mx.example", None)),
        ("mx.example:587", ("mx.example", 587)),
        ("192.0.2.1:25", ("192.0.2.1", 25)),
        ("::1", ("::1", None)),
        ("[::1]", ("[::1]", None)),
        ("[2001:db8::1]:2525", ("[2001:db8::1]", 2525)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
        ("unix:/run/lmtp", ("unix:/run/lmtp", None)),
        ("unix:/run/lmtp:24", ("unix:/run/lmtp:24", None)),
        ("mx.example:", ("mx.example:", None)),
    ],
)
def test_a_place_is_a_host_and_perhaps_a_port(text: str, place: tuple[str, int | None]) -> None:
    assert place_of(text) == place


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
    for command in ("demo", "send", "probe", "sink"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert command in run("--help").stdout
