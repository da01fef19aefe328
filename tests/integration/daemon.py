"""
The daemon under test, as a process of its own, and a client of it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .child import LOOPBACK, Child, free_ports

#: Seconds for a reply, of a test that is about to fail.
PATIENCE: Final = 20.0

_ROOT: Final = Path(__file__).resolve().parents[2]


class Daemon:
    """
    ``twistd -n smtpclient``, listening on loopback.

    :ivar port: where it listens.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        (self.port,) = free_ports(1)
        self._child = Child(
            [
                str(Path(sys.executable).with_name("twistd")),
                "--nodaemon",
                "--pidfile=",
                "smtpclient",
                "--listen",
                f"tcp:{self.port}:interface={LOOPBACK}",
                *options,
            ],
            folder / "daemon.log",
            # The plugin is the one of this checkout, whatever is installed.
            environment={**os.environ, "PYTHONPATH": str(_ROOT)},
            directory=folder,
        )

    def wait_until_it_answers(self) -> None:
        """Return once it takes connections."""
        self._child.wait_until_it_answers([self.port], greeting=False)

    def stop(self) -> int:
        """Stop it by SIGTERM; its exit status."""
        return self._child.stop()

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._child.log.read_text(errors="replace")

    def ask(self, *requests: Mapping[str, object] | bytes) -> list[dict[str, Any]]:
        """
        Send requests on one connection, all at once, as ``nc -N`` does; the
        replies to them.

        :param requests: a line each: as it is, without LF, or to be made.
        """
        lines = [
            request if isinstance(request, bytes) else json.dumps(request).encode() for request in requests
        ]
        with socket.create_connection((LOOPBACK, self.port), timeout=PATIENCE) as connection:
            connection.sendall(b"".join(line + b"\n" for line in lines))
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as replies:
                return [json.loads(line) for line in replies]


def verdicts(reply: Mapping[str, Any]) -> Sequence[tuple[str, str, int]]:
    """Recipient, status and code of each entry of a reply."""
    return [(entry["recipient"], entry["status"], entry["code"]) for entry in reply["deliveryStatus"]]
