"""
What a sender is told, and what it measures of a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

__all__ = ["HELO", "HOST", "SENDER", "Job", "Meter", "addresses", "fail", "message"]

HOST: Final = "127.0.0.1"
HELO: Final = "client.example"
SENDER: Final = "sender@example.org"

#: 78 octets, CRLF included: what RFC 5322 section 2.1.1 asks for at the most.
_LINE: Final = b"The quick brown fox jumps over the lazy dog, and so it does again and again.\r\n"
_BLOCK: Final = _LINE * 1000

#: What smtp-source puts in front of its lines.
_HEADER: Final = (
    b"From: <sender@example.org>\r\n"
    b"To: <recipient0@example.net>\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\r\n"
    b"Message-Id: <1234.0001.0002@client.example>\r\n"
    b"\r\n"
)


@dataclass(frozen=True)
class Job:
    """
    One run of a sender.

    :ivar warm: whether one small mail goes ahead that is not measured, so that
        what is done once in a process is not either.
    :ivar daemon: port of the daemon, and ``pid`` its process, for who needs one.
    :ivar servers: how many different servers the mails are for.
    """

    port: int
    messages: int
    connections: int
    depth: int
    size: int
    recipients: int
    warm: bool = False
    daemon: int = 0
    pid: int = 0
    servers: int = 1

    @classmethod
    def from_command_line(cls) -> Job:
        """The one that this process was started for."""
        return cls(**json.loads(sys.argv[1]))

    @property
    def argument(self) -> str:
        """For the sender's command line."""
        return json.dumps(asdict(self))

    def to_daemon(self, port: int, pid: int) -> Job:
        """The same, by way of a daemon."""
        return replace(self, daemon=port, pid=pid)


def message(size: int) -> bytes:
    """
    A message whose body has so many octets, 78 at the least.

    The first line is longer by what does not fill one.
    """
    # Joined of pieces that are used again and again, so that making it takes no
    # more memory than it has itself.
    blocks, rest = divmod(size, len(_BLOCK))
    lines, rest = divmod(rest, len(_LINE))
    return b"".join([_HEADER, b"x" * rest, *[_BLOCK] * blocks, *[_LINE] * lines])


def addresses(count: int) -> list[str]:
    """So many recipients, each another."""
    return [f"recipient{number}@example.net" for number in range(count)]


def fail(reason: object) -> None:
    """End the process without a result."""
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(1)


class Meter:
    """
    Time, CPU and memory of a process between two moments.

    :param pid: of which process; 0 for this one.
    """

    def __init__(self, pid: int = 0) -> None:
        self._process = Path("/proc", str(pid or "self"))
        self._own = not pid
        self._began = self._cpu = 0.0
        self._idle = 0

    def start(self) -> None:
        """From now on."""
        # Resets the peak; not all kernels let us, and then the peak of before counts.
        with contextlib.suppress(OSError):
            (self._process / "clear_refs").write_text("5")
        self._idle = self._status("VmRSS")
        self._cpu = self._cpu_so_far()
        self._began = time.perf_counter()

    def stop(self, **more: object) -> None:
        """Up to now: write the result on standard output."""
        seconds = time.perf_counter() - self._began
        cpu = self._cpu_so_far() - self._cpu
        peak = self._status("VmHWM") - self._idle
        sys.stdout.write(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, **more}) + "\n")
        sys.stdout.flush()

    def _cpu_so_far(self) -> float:
        """Seconds, of user and system."""
        if self._own:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            return usage.ru_utime + usage.ru_stime
        try:
            # In nanoseconds, where stat counts in hundredths of a second.
            return (
                sum(
                    int((task / "schedstat").read_text().split()[0])
                    for task in (self._process / "task").iterdir()
                )
                / 1e9
            )
        except OSError:
            # Behind the name, which may have anything in it but ")" at its end.
            fields = (self._process / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> int:
        """Octets of memory; 0 where the system has no /proc."""
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
