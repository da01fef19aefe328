"""
The clients of ``docs/examples``, as they stand there, against the daemon, over
a line that breaks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from twisted_smtpclient.testing import Fault, Sink

from .child import LOOPBACK, free_ports
from .daemon import Daemon
from .relay import Relay

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "docs" / "examples"

#: By what each is run.
INTERPRETERS: Final = {"client.py": sys.executable, "client.js": "node", "client.sh": "sh"}

#: What each needs besides, which not every machine has.
NEEDS: Final = {"client.js": "node", "client.sh": "nc.openbsd"}

WINDOW: Final = 100

TOKEN: Final = "0123456789abcdef"

#: Seconds for a run that is about to fail.
PATIENCE: Final = 60.0


@pytest.fixture(params=sorted(INTERPRETERS))
def example(request: pytest.FixtureRequest) -> str:
    """One of them; without what it needs, a skip, which in CI is a failure."""
    name: str = request.param
    if name in NEEDS and shutil.which(NEEDS[name]) is None:
        pytest.skip(f"{name} needs {NEEDS[name]}")
    return name


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "token").write_text(f"{TOKEN}\n")
    daemon = Daemon(folder, "--token-file", str(folder / "token"))
    try:
        daemon.wait_until_it_answers()
        yield daemon
    finally:
        status = daemon.stop()
    assert status in (0, -signal.SIGTERM), daemon.log
    assert "Traceback" not in daemon.log


@asynccontextmanager
async def sink(**settings: Any) -> AsyncIterator[Sink]:
    sink = Sink(reactor, **settings)
    await sink.listen()
    try:
        yield sink
    finally:
        await sink.stop()
    assert sink.violations == []


@asynccontextmanager
async def relay(daemon: Daemon, *cuts: int) -> AsyncIterator[tuple[Relay, int]]:
    relay = Relay(reactor, daemon.port, list(cuts))
    port = await relay.listen()
    try:
        yield relay, port
    finally:
        await relay.stop()


class Run:
    """One run of an example, and what came of it."""

    def __init__(
        self, folder: Path, name: str, daemon: int, server: int, recipients: Sequence[str], **options: Any
    ) -> None:
        message = folder / "message.eml"
        message.write_bytes(options.get("message", b"Subject: test\n\nTest\n"))
        token = folder / "shown"
        token.write_text(options.get("token", TOKEN) + "\n")
        self._command = [
            INTERPRETERS[name], str(EXAMPLES / name), LOOPBACK, str(server), "foo@bar.de", str(message),
        ]  # fmt: skip
        self._recipients = recipients
        self._environment = {**os.environ, "DAEMON": f"{LOOPBACK}:{daemon}", "TOKEN_FILE": str(token)}
        self.status: int | None = None
        self.complaint = ""
        #: recipient and verdict of each line, in the order in which they were told
        self.verdicts: list[tuple[str, str]] = []

    async def to_its_end(self) -> Run:
        done = await deferToThread(self._run)
        self.status, self.complaint = done.returncode, done.stderr
        for line in done.stdout.splitlines():
            recipient, verdict, text = line.split("\t")
            assert isinstance(json.loads(text), str)
            self.verdicts.append((recipient, verdict))
        return self

    def _run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command,
            input="".join(f"{recipient}\n" for recipient in self._recipients),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


def recipients_of(sink: Sink) -> Counter[str]:
    """How often each was sent a mail."""
    return Counter(address for mail in sink.mails for address in mail.addresses)


@pytest_twisted.ensureDeferred
async def test_each_recipient_has_its_verdict_and_each_mail_is_sent_once_although_the_line_breaks(
    example: str, daemon: Daemon, tmp_path: Path
) -> None:
    # One of them twice: they are two mails.
    recipients = [f"rcpt{number}@bar.de" for number in range(300)] + ["invalid@invalid.de", "rcpt7@bar.de"]
    # Each mail takes a while, so that there are mails under way at each cut.
    async with sink(delay=0.02) as server, relay(daemon, 30, 0, 45) as (line, port):
        run = await Run(tmp_path, example, port, server.port, recipients).to_its_end()
        assert (run.status, run.complaint) == (0, "")
        verdicts = dict.fromkeys(recipients, "Ok") | {"invalid@invalid.de": "PermanentError"}
        assert Counter(run.verdicts) == Counter((each, verdicts[each]) for each in recipients)
        assert recipients_of(server) == Counter(each for each in recipients if verdicts[each] == "Ok")
        assert {mail.content for mail in server.mails} == {b"Subject: test\r\n\r\nTest\r\n"}
    assert [passed.replies for passed in line.connections[:3]] == [30, 0, 45]
    asked = Counter(key for passed in line.connections for key in passed.requests)
    assert len(asked) == len(recipients)
    # Behind each cut what had no reply was asked for again, by the key that it had.
    assert sum(asked.values()) - len(asked) >= 3 * (WINDOW - 45)


@pytest_twisted.ensureDeferred
async def test_no_more_mails_are_under_way_than_the_window(
    example: str, daemon: Daemon, tmp_path: Path
) -> None:
    recipients = [f"rcpt{number}@bar.de" for number in range(250)]
    async with sink(delay=0.02) as server, relay(daemon) as (line, port):
        run = await Run(tmp_path, example, port, server.port, recipients).to_its_end()
        assert run.verdicts.count((recipients[-1], "Ok")) == 1
        assert recipients_of(server) == Counter(recipients)
    assert max(passed.most for passed in line.connections) == WINDOW


@pytest_twisted.ensureDeferred
async def test_messages_that_no_buffer_holds_are_written_while_replies_are_read(
    example: str, daemon: Daemon, tmp_path: Path
) -> None:
    message = b"Subject: large\n\n" + b"0123456789abcdef" * 25_000 + b"\n"
    recipients = [f"rcpt{number}@bar.de" for number in range(120)]
    async with sink(keep_content=False) as server, relay(daemon, 10) as (_, port):
        run = await Run(tmp_path, example, port, server.port, recipients, message=message).to_its_end()
        assert (run.status, run.complaint) == (0, "")
        assert Counter(run.verdicts) == Counter((each, "Ok") for each in recipients)
        assert recipients_of(server) == Counter(recipients)


@pytest_twisted.ensureDeferred
async def test_what_has_no_verdict_says_whether_it_may_be_sent_again(
    example: str, daemon: Daemon, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    run = await Run(tmp_path, example, daemon.port, nobody, ["a@bar.de"]).to_its_end()
    assert run.verdicts == [("a@bar.de", "ConnectionRefused (temporary)")]
    run = await Run(tmp_path, example, daemon.port, nobody, ["no address"]).to_its_end()
    assert run.verdicts == [("no address", "InvalidRequest")]
    async with sink(chunking=False, faults=[Fault(".", "CLOSE")]) as server:
        run = await Run(tmp_path, example, daemon.port, server.port, ["b@bar.de"]).to_its_end()
    assert run.verdicts == [("b@bar.de", "ConnectionLost (in doubt)")]


@pytest_twisted.ensureDeferred
async def test_a_reply_is_one_line_whatever_the_server_puts_into_it(
    example: str, daemon: Daemon, tmp_path: Path
) -> None:
    reply = '550-5.7.1 "no", says\t\\ the server\n550 5.7.1 {"id":"2 ","status":"ok"}'
    recipients = ["a@bar.de", "b@bar.de"]
    async with sink(refuse={"a@bar.de": reply}) as server:
        run = await Run(tmp_path, example, daemon.port, server.port, recipients).to_its_end()
    assert Counter(run.verdicts) == Counter([("a@bar.de", "PermanentError"), ("b@bar.de", "Ok")])


@pytest_twisted.ensureDeferred
async def test_a_token_that_is_not_the_daemon_s_ends_it(example: str, daemon: Daemon, tmp_path: Path) -> None:
    async with sink() as server:
        run = await Run(tmp_path, example, daemon.port, server.port, ["a@bar.de"], token="guess").to_its_end()
        assert server.sessions == []
    assert (run.status, run.verdicts) == (1, [])
    assert "as the first line, with a token that is known here" in run.complaint


@pytest_twisted.ensureDeferred
async def test_an_empty_list_is_nothing_to_do(example: str, daemon: Daemon, tmp_path: Path) -> None:
    run = await Run(tmp_path, example, daemon.port, 25, []).to_its_end()
    assert (run.status, run.verdicts, run.complaint) == (0, [], "")
