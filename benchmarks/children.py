"""
Processes that a measurement needs: the sink, the daemon, the sender.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.package import Package, sources
from benchmarks.senders.job import HOST

__all__ = ["Daemon", "Failed", "Programs", "Sink", "measured_from_outside", "run_sender"]

#: Seconds for a child to start and to end.
PATIENCE: Final = 30.0

#: Seconds for one run; far more than the slowest takes.
LONGEST_RUN: Final = 600.0

#: Where tests/integration/servers.sh unpacks Postfix, unless SMTP_SERVERS says otherwise.
SERVERS: Final = "/var/cache/twisted_smtpclient/servers"


class Failed(Exception):
    """A child did not do what it was started for."""


class Programs:
    """
    What there is on this machine.

    :param folder: for what is made here.
    :param package: what is measured; None for the sources of this checkout.
    :ivar sink: the sink's command.
    :ivar sink_is_fast: whether it is the one in C.
    :ivar smtp_source: path of Postfix's generator, or None.
    """

    def __init__(self, folder: Path, package: Package | None = None) -> None:
        self.folder = folder
        self.package = package or sources()
        compiled = _compile_sink(folder)
        self.sink_is_fast = compiled is not None
        self.sink = [str(compiled)] if compiled else [sys.executable, "-m", "benchmarks.python_sink"]
        unpacked = Path(os.environ.get("SMTP_SERVERS") or SERVERS, "bin")
        self.smtp_source = shutil.which("smtp-source", path=f"{unpacked}{os.pathsep}{os.environ['PATH']}")


def _compile_sink(folder: Path) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / "sink"
    source = Path(__file__).with_name("sink.c")
    done = subprocess.run(  # noqa: S603  # the compiler of this machine, our source
        [compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False
    )
    return program if done.returncode == 0 else None


#: Not the script: it need not be where this interpreter is.
_TWISTD: Final = (
    sys.executable,
    "-c",
    "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()",
    "--nodaemon",
    "--pidfile=",
)


def _start(command: Sequence[object], programs: Programs, **streams: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(  # noqa: S603  # each command is one of this package
        list(map(str, command)), cwd=programs.folder, env=programs.package.environment, **streams
    )


class Sink:
    """
    A server that takes mail and counts it, while it is used as a context.

    :ivar port: where it listens.
    :ivar counts: what it counted, when it has ended.
    """

    port: int
    counts: dict[str, int]

    def __init__(self, programs: Programs, *, pipelining: bool, chunking: bool, delay: float) -> None:
        self._command = [*programs.sink, *([] if pipelining else ["-p"]), *([] if chunking else ["-c"])]
        if delay:
            self._command += ["-d", str(round(delay * 1000))]
        self._programs = programs
        self.counts = {}

    def __enter__(self) -> Sink:
        self._child = _start(
            self._command, self._programs, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        word, _, port = self._child.stdout.readline().partition(" ")  # type: ignore[union-attr]  # a pipe
        if word != "port":
            raise Failed("the sink did not start")
        self.port = int(port)
        return self

    def __exit__(self, *exception: object) -> None:
        # The end of its standard input is the end of it, so it outlives nobody.
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = self._child.communicate(timeout=PATIENCE)
            if output:
                self.counts = json.loads(output)
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Daemon:
    """
    ``twistd -n smtpclient`` while it is used as a context.

    :ivar port: where it listens.
    """

    def __init__(self, programs: Programs, *, connections: int, depth: int) -> None:
        self._programs = programs
        self._options = [
            f"--connections-per-host={connections}",
            f"--pipelining-depth={depth}",
            # As smtp-source -d: to the end.
            "--messages-per-connection=999999999",
        ]

    def __enter__(self) -> Daemon:
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        endpoint = f"tcp:{self.port}:interface={HOST}"
        log = self._programs.folder / f"daemon-{self.port}.log"
        with log.open("wb") as output:
            # Its log goes to a file, as it would elsewhere.
            self._child = _start(
                [*_TWISTD, "smtpclient", "--listen", endpoint, *self._options],
                self._programs,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        while not _answers(self.port):
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failed(f"the daemon did not start: {_last_line(log.read_text(errors='replace'))}")
            # Nothing tells when another process begins to listen.
            time.sleep(0.02)
        return self

    @property
    def pid(self) -> int:
        return self._child.pid

    def __exit__(self, *exception: object) -> None:
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _last_line(text: str) -> str:
    """Of a traceback, what went wrong; at a length that a table bears."""
    return text.strip().rpartition("\n")[2][:200]


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=PATIENCE):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _output_of(command: Sequence[object], programs: Programs) -> Iterator[subprocess.Popen[str]]:
    child = _start(
        command, programs, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def run_sender(module: str, argument: str, programs: Programs) -> dict[str, float]:
    """
    Run one of :mod:`benchmarks.senders` to its end: what it measured.

    :raises Failed: with what it said, if it did not send all.
    """
    command = [sys.executable, "-m", f"benchmarks.senders.{module}", argument]
    with _output_of(command, programs) as child:
        try:
            output, errors = child.communicate(timeout=LONGEST_RUN)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done in {LONGEST_RUN:.0f} s") from None
    if child.returncode or not output:
        raise Failed(_last_line(errors) or f"exit status {child.returncode}")
    result: dict[str, float] = json.loads(output)
    return result


def measured_from_outside(command: Sequence[object], programs: Programs) -> dict[str, float]:
    """
    Run a foreign program to its end: its time and CPU, its start included.

    :raises Failed: if it did not end well.
    """
    log = programs.folder / "outside.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        child = _start(command, programs, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed(_last_line(log.read_text(errors="replace")))
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": 0}
