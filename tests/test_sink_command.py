"""``python -m twisted_smtpclient sink`` with logins, extensions and UNIX sockets, as a process."""

from __future__ import annotations

import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_command_line import COMMAND, ENVIRONMENT, Sink, run


@contextmanager
def sink(folder: Path, *arguments: str) -> Iterator[Sink]:
    running = Sink(folder, *arguments)
    try:
        yield running
    finally:
        running.stop()


def test_a_user_logs_in_and_is_named_beside_the_mail(tmp_path: Path) -> None:
    with sink(tmp_path, "--user", "anna:pass:word", "--mechanisms", "cram-md5,PLAIN") as running:
        with smtplib.SMTP("127.0.0.1", running.port, timeout=10) as client:
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["CRAM-MD5", "PLAIN"]
            assert client.mail("a@b.de")[0] == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("anna", "pass")
            client.login("anna", "pass:word")
            client.sendmail("a@b.de", ["c@d.de"], b"Subject: x\r\n\r\n")
        assert "from <a@b.de> to <c@d.de>, anna by CRAM-MD5\n" in running.log.read_text()
        assert "pass:word" not in running.log.read_text()


def test_login_may_wait_for_tls(tmp_path: Path) -> None:
    arguments = ["--token", "anna:t", "--tls", "starttls", "--login-over-tls", "--offer", "requiretls"]
    with (
        sink(tmp_path, *arguments, "--offer", "MT-PRIORITY MIXER") as running,
        smtplib.SMTP("127.0.0.1", running.port, timeout=10) as client,
    ):
        client.ehlo()
        assert not client.has_extn("AUTH")
        assert not client.has_extn("REQUIRETLS")
        assert client.has_extn("MT-PRIORITY")
        client.starttls()
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["OAUTHBEARER", "XOAUTH2"]
        assert client.has_extn("REQUIRETLS")


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "sink:1"
    command = [*COMMAND, "sink", "--unix", str(path), "--lmtp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == f"LMTP on {path}\n".encode()
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                assert connection.recv(100).startswith(b"220 sink.invalid LMTP")
        finally:
            running.terminate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--user", "anna"], "expected NAME:PASSWORD"),
        (["--user", ":secret"], "neither part may be empty"),
        (["--mechanisms", "PLIAN", "--user", "a:b"], "'PLIAN' is none of"),
        (["--mechanisms", "PLAIN"], "--mechanisms goes with --user or --token"),
        (["--login-over-tls", "--user", "a:b"], "--login-over-tls goes with --tls"),
    ],
)
def test_a_command_line_that_is_wrong_names_what_is(arguments: list[str], told: str) -> None:
    done = run("sink", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
