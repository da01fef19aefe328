"""
Child processes: started, waited for until they answer, stopped by their pid.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"

#: Seconds that a server may take to start, and to stop when told to.
PATIENCE: Final = 20.0


def free_ports(count: int) -> list[int]:
    """Distinct ports on loopback on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


class Child:
    """
    A process that we have started, and nobody else's.

    :ivar log: the file that has its standard output and error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            # A session of its own: an interrupt of the tests from the
            # terminal is for us to pass on, and Postfix's master would end
            # its whole process group.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until_it_answers(self, ports: Sequence[int], *, greeting: bool = True) -> None:
        """
        Return once each port takes connections (and greets).

        :raises RuntimeError: if it does not within :data:`PATIENCE` seconds,
            or if the process ends; with its output.
        """
        deadline = time.monotonic() + PATIENCE
        for port in ports:
            while not _answers(port, deadline, greeting):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no answer on port {port}:\n{self.log.read_text(errors='replace')}")
                # Nothing tells when another process begins to listen.
                time.sleep(0.01)

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit status.  Killed if it does not listen."""
        if self._process.poll() is None:
            os.kill(self._process.pid, by)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
            raise


def _answers(port: int, deadline: float, greeting: bool) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as connection:
            if not greeting:
                return True
            readable, _, _ = select.select([connection], [], [], max(0.0, deadline - time.monotonic()))
            return bool(readable and connection.recv(1))
    except OSError:
        return False
