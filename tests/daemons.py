"""
The daemon as a process of its own, seen as a service manager sees it: what it
says on the notification socket, what it is sent as signals, the sockets that
it is handed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"

#: Seconds for what a test waits for that is about to fail.
PATIENCE: Final = 30.0

ROOT: Final = Path(__file__).resolve().parents[1]

MESSAGE: Final = "U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="


class Manager:
    """The service manager's end of ``sd_notify``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self) -> dict[str, str]:
        """What is said next."""
        told = self._socket.recv(4096).decode()
        return dict(each.split("=", 1) for each in told.split("\n"))

    def heard(self) -> list[dict[str, str]]:
        """What was said and not read yet."""
        self._socket.setblocking(False)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(self.next())
        self._socket.settimeout(PATIENCE)
        return told

    def close(self) -> None:
        self._socket.close()


class Running:
    """
    ``twistd -n smtpclient`` that has said that it is ready.

    :param folder: for its log and its sockets.
    :param inherited: sockets that it is handed as by socket activation.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        inherited: Sequence[socket.socket] = (),
        environment: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.manager = Manager(address or str(folder / "notify"))
        self.log = folder / "log"
        # What systemd does between fork and exec: descriptors from 3 on.
        moves = " ".join(f"{3 + place}<&{each.fileno()}" for place, each in enumerate(inherited))
        script = f"exec {moves}; export LISTEN_PID=$$; " if inherited else ""
        command = [
            str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "smtpclient", *options,
        ]  # fmt: skip
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f'{script}exec "$@"', "bash", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "NOTIFY_SOCKET": self.manager.address,
                    "LISTEN_FDS": str(len(inherited)),
                    "LISTEN_FDNAMES": ":".join(["clients"] * len(inherited)),
                    **(environment or {}),
                },
                pass_fds=[each.fileno() for each in inherited],
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        try:
            ready = self.manager.next()
        except TimeoutError:
            self.kill()
            raise RuntimeError(f"it was not ready in time:\n{self.log.read_text()}") from None
        assert ready["READY"] == "1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def signal(self, which: signal.Signals) -> None:
        os.kill(self.process.pid, which)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it, if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.manager.close()

    def events(self) -> list[dict[str, Any]]:
        """What it has logged, as JSON."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]]


class Client:
    """A connection to the daemon."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")

    def say(self, **fields: Any) -> None:
        self._socket.sendall(json.dumps(fields).encode() + b"\n")

    def flood(self, **fields: Any) -> None:
        """Say the same until the daemon has not read for a while."""
        line = json.dumps(fields).encode() + b"\n"
        self._socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                self._socket.sendall(line * 1000)
        self._socket.settimeout(PATIENCE)

    def hear(self) -> dict[str, Any]:
        """The next reply."""
        line = self._file.readline()
        assert line, "the daemon closed the connection"
        reply: dict[str, Any] = json.loads(line)
        return reply

    def closed(self) -> bool:
        """Whether there is nothing more to hear."""
        return self._file.readline() == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def request(port: int, **fields: Any) -> dict[str, Any]:
    """A request to the server on a port of ours, in clear."""
    given = {"host": LOOPBACK, "port": port, "tls": "NO", "sender": "a@b.de", "recipients": ["c@d.de"]}
    return {**given, "message": MESSAGE, **fields}


class Server:
    """An SMTP server that answers when the test says so, one line at a time."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(PATIENCE)
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._file: Any = None

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE)
        self._file = self._connection.makefile("rb")

    def say(self, line: str) -> None:
        assert self._connection is not None
        self._connection.sendall(line.encode() + b"\r\n")

    def hear(self) -> str:
        line: bytes = self._file.readline()
        return line.decode().rstrip()

    def take_all_but_the_verdict(self) -> None:
        """A mail, up to the end of its content."""
        self.accept()
        self.say("220 slow")
        assert self.hear().startswith("EHLO ")
        self.say("250 slow")
        for verb in ("MAIL", "RCPT"):
            assert self.hear().startswith(verb)
            self.say("250 ok")
        assert self.hear() == "DATA"
        self.say("354 go on")
        while self.hear() != ".":
            """The content."""

    def close(self) -> None:
        if self._connection is not None:
            self._file.close()
            self._connection.close()
        self._listener.close()


@contextlib.contextmanager
def slow_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
