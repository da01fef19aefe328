"""
Many clients connected at once, each with many requests, some of them hostile:

    python -m tests.soak.crowd --clients 10000 --requests 100

All honest ones are to be answered Ok, the server to have as many mails, memory
to stay under its bound, and no descriptor to be left.  It tells how long that
took and what it took up; it ends with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.children import Programs, Sink
from tests.daemons import LOOPBACK, ROOT, Client, Running
from tests.integration.child import free_ports
from tests.soak.process import connections, descriptors, most_descriptors, peak, processor, resident

MIB: Final = 1024 * 1024

#: Octets of resident memory beside what is held: as in test_memory, an eighth
#: each for what is read and written in one turn, a quarter for the allocator.
MARGIN: Final = 0.5

#: Seconds for a crowd to connect, and to be served.
PATIENCE: Final = 900.0


@dataclass
class Outcome:
    """
    What came of it.

    :ivar wrong: what did not hold.
    :ivar connected: seconds until all were connected, for them; ``accepted``:
        and for the daemon.
    :ivar seconds: from the first request to the last reply.
    :ivar peak: octets of resident memory that the daemon took beside what it
        had when it began.
    """

    clients: int
    requests: int
    wrong: list[str]
    connected: float
    accepted: float
    seconds: float
    idle: int
    peak: int
    base: int
    processor: float

    def __str__(self) -> str:
        rate = self.clients * self.requests / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.clients} clients connected in {self.connected:.1f} s, "
            f"and were accepted in {self.accepted:.1f} s; "
            f"{self.requests} requests each took {self.seconds:.1f} s, {rate:.0f} a second, "
            f"and the daemon {self.processor:.1f} s of its processor",
            f"the daemon had {self.base / MIB:.0f} MiB, with all connected {self.idle / MIB:.0f} MiB more, "
            f"at its peak {self.peak / MIB:.0f} MiB more",
            *self.wrong,
        ]
        return "\n".join(lines)


class _Crowd:
    """A process with some of the clients."""

    def __init__(
        self, port: int, server: int, silent: int, clients: int, requests: int, hostile: int
    ) -> None:
        arguments = [port, server, silent, clients, requests, hostile]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.crowd_clients", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """What it was told to do it has done, or it never will."""
        try:
            # The end of its standard input is its end.
            self._process.communicate(timeout=30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class _Served:
    """
    A daemon, a server, and a crowd that has come, been served and gone.

    :ivar wrong: what did not hold.
    """

    def __init__(self, daemon: Running, port: int, crowds: list[_Crowd], clients: int) -> None:
        self.wrong: list[str] = []
        self.pid = daemon.process.pid
        self.base, self._own = resident(self.pid), _own_descriptors(self.pid, port)
        self._crowds = crowds
        self._clients = clients

    def connect(self, began: float) -> None:
        """Until all are."""
        said = [crowd.hear() for crowd in self._crowds]
        self.wrong += [f"they could not connect: {each}" for each in said if each != "connected"]
        self.connected = time.monotonic() - began
        while self._left() < self._clients and time.monotonic() - began < PATIENCE:
            # The kernel has accepted them; the daemon does so one by one.
            time.sleep(0.01)
        self.accepted = time.monotonic() - began
        self.idle = resident(self.pid) - self.base

    def serve(self) -> int:
        """Until all have their replies; how many are Ok."""
        began, busy = time.monotonic(), processor(self.pid)
        for crowd in self._crowds:
            crowd.go()
        told = [json.loads(crowd.hear() or "{}") for crowd in self._crowds]
        self.seconds, self.busy = time.monotonic() - began, processor(self.pid) - busy
        self.peak = peak(self.pid) - self.base
        for each in told:
            self.wrong += each.get("wrong", ["a process with clients has ended"])
        return sum(each.get("ok", 0) for each in told)

    def look_behind(self) -> None:
        """What is left of them."""
        until = time.monotonic() + 20.0
        while self._left() > 0 and time.monotonic() < until:
            time.sleep(0.1)
        if self._left() > 0:
            self.wrong.append(f"{self._left()} descriptors are left: {connections(self.pid)[:10]}")

    def _left(self) -> int:
        return descriptors(self.pid) - self._own


def run(
    folder: Path, *, clients: int, requests: int, hostile: int, max_memory: int, processes: int = 2
) -> Outcome:
    """
    All of it.

    :param hostile: how many of the clients are.
    """
    most_descriptors(clients + 2000)
    (port,) = free_ports(1)
    options = (
        f"--listen=tcp:{port}:interface={LOOPBACK}",
        f"--max-clients={clients}",
        f"--max-memory={max_memory}",
        "--idle-timeout=1",
        "--drain-timeout=1",
    )
    share, part = clients // processes, hostile // processes
    with (
        socket.create_server((LOOPBACK, 0), backlog=16) as silent,
        Sink(Programs(folder), pipelining=True, chunking=True, delay=0.0) as sink,
        Running(folder / "daemon", *options) as daemon,
    ):
        crowds: list[_Crowd] = []
        served = _Served(daemon, port, crowds, share * processes)
        try:
            began = time.monotonic()
            silent_port = silent.getsockname()[1]
            crowds += [_Crowd(port, sink.port, silent_port, share, requests, part) for _ in range(processes)]
            served.connect(began)
            ok = served.serve()
        finally:
            for crowd in crowds:
                crowd.end()
        served.look_behind()
        log = daemon.log.read_text(errors="replace")
    wrong = served.wrong
    if ok != (share - part) * processes * requests:
        wrong.append(f"{ok} requests are Ok, of {(share - part) * processes * requests}")
    if sink.counts["messages"] != ok:
        wrong.append(f"the server has {sink.counts['messages']} mails, {ok} are Ok")
    if served.peak > max_memory * (1 + MARGIN):
        wrong.append(f"at most {max_memory * (1 + MARGIN) / MIB:.0f} MiB more were expected")
    if "Traceback" in log:
        wrong.append(log[log.index("Traceback") :][:2000])
    return Outcome(
        clients, requests, wrong, served.connected, served.accepted, served.seconds,
        served.idle, served.peak, served.base, served.busy,
    )  # fmt: skip


def _own_descriptors(pid: int, port: int) -> int:
    """How many it has open while nobody is there; who is answered, by then it has all of them, has one."""
    first = Client(port)
    first.say(cancel=1)
    first.hear()
    own = descriptors(pid) - 1
    first.close()
    return own


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.crowd", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--hostile", type=float, default=0.01, help="their share; 0.01 without it")
    parser.add_argument("--max-memory", type=int, default=512, help="MiB; 512 without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(
            Path(folder),
            clients=arguments.clients,
            requests=arguments.requests,
            hostile=round(arguments.clients * arguments.hostile),
            max_memory=arguments.max_memory * MIB,
        )
    sys.stdout.write(f"{outcome}\n")
    if outcome.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
