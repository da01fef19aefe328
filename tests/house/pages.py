"""
The README and the pages of ``docs/`` as programs: their code blocks, run in
their order.

* ``python``: a program of its own; with a function ``test_…`` in it, pytest's.
* ``console``: lines with ``$`` are commands, ``>`` continues one, the rest is
  what it prints.  A command that ends in ``&`` runs until the page ends.
* ``json``: a request is sent to the daemon; what has a ``status`` is the reply
  that it must get.
* ``text`` of class ``printed``: what the block before it printed.
* other ``text``: figures, not run.

``...`` stands for anything.  Ports are taken for others that are free, and a
sink behind 1025 and a daemon behind 7025 are there where a page uses them and
has started none itself.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.child import LOOPBACK, Child, free_ports

ROOT = Path(__file__).resolve().parents[2]

SINK, DAEMON = "1025", "7025"

_DIRECTIVE = re.compile(r"^( *)\.\. code-block:: *(\w*)$")
_CHECKER = doctest.OutputChecker()
_LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

#: Seconds that a command of a page may take.
PATIENCE = 60.0

#: For machines without netcat: what the pages use of it.
_NETCAT = """\
#!{python}
import shutil, socket, sys
connection = socket.create_connection((sys.argv[-2], int(sys.argv[-1])))
connection.sendall(sys.stdin.buffer.read())
connection.shutdown(socket.SHUT_WR)
shutil.copyfileobj(connection.makefile("rb"), sys.stdout.buffer)
"""


class Block(NamedTuple):
    """A code block, and where it stands."""

    language: str
    text: str
    line: int
    printed: bool


def pages() -> list[Path]:
    return [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            continue
        indent = len(directive[1])
        body = []
        for inner in lines[number:]:
            if inner.strip() and len(inner) - len(inner.lstrip()) <= indent:
                break
            body.append(inner)
        options = []
        while body and body[0].strip().startswith(":"):
            options.append(body.pop(0).strip())
        text = textwrap.dedent("\n".join(body)).strip("\n") + "\n"
        yield Block(directive[2], text, number, ":class: printed" in options)


class Page:
    """A page while it is run: its folder, its ports, its processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip((SINK, DAEMON), map(str, free_ports(2)), strict=True))
        self._children: list[Child] = []
        self._listening: set[str] = set()
        self._printed = ""
        # For the examples, by the path that they have in a checkout.
        (folder / "docs").symlink_to(ROOT / "docs")
        programs = folder / "programs"
        programs.mkdir()
        if shutil.which("nc") is None:
            netcat = programs / "nc"
            netcat.write_text(_NETCAT.format(python=sys.executable))
            netcat.chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        # The plugin of the checkout, however the package was installed.
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        # A page's tests are run as its reader runs them, not with our options.
        self._environment.pop("PYTEST_ADDOPTS", None)

    def close(self) -> None:
        for child in reversed(self._children):
            child.stop()

    def run(self, block: Block) -> None:
        """Run one block; AssertionError where it does not do what the page says."""
        if block.printed:
            self._compare(block.text, self._printed)
        elif block.language != "text":
            getattr(self, f"_run_{block.language}")(self._with_ports(block.text))

    def _with_ports(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def _compare(self, wanted: str, got: str) -> None:
        wanted = self._with_ports(wanted)
        assert _CHECKER.check_output(wanted, got, _LENIENT), f"wanted:\n{wanted}\ngot:\n{got}"

    # Servers

    def _start(self, command: str, port: str) -> None:
        log = self._folder / f"{port}.log"
        child = Child(
            ["bash", "-c", f"exec {command}"], log, environment=self._environment, directory=self._folder
        )
        self._children.append(child)
        child.wait_until_it_answers([int(self._ports[port])], greeting=port == SINK)
        self._listening.add(port)

    def _start_what_is_named(self, text: str) -> None:
        if self._ports[SINK] in text and SINK not in self._listening:
            self._start(f"python -m twisted_smtpclient sink --port {self._ports[SINK]}", SINK)
        if self._ports[DAEMON] in text and DAEMON not in self._listening:
            self._start_daemon()

    def _start_daemon(self, command: str = "twistd -n smtpclient") -> None:
        endpoint = f"tcp:{self._ports[DAEMON]}:interface={LOOPBACK}"
        self._start(f"{command} --listen {endpoint}", DAEMON)

    # Languages

    def _run_python(self, text: str) -> None:
        self._start_what_is_named(text)
        is_test = re.search(r"^(async )?def test_", text, re.MULTILINE)
        file = self._folder / ("test_block.py" if is_test else "block.py")
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, *(["-m", "pytest", "-q"] if is_test else []), file.name]
        self._printed = self._output(command)

    def _run_console(self, text: str) -> None:
        for command, printed in _commands(text):
            if command.endswith("&"):
                self._start_in_background(command.rstrip("& "))
                continue
            self._start_what_is_named(command)
            self._compare(printed, self._output(["bash", "-c", command], check=False))

    def _start_in_background(self, command: str) -> None:
        if command.startswith("twistd"):
            self._start_daemon(command)
        else:
            self._start(command, SINK)

    def _run_json(self, text: str) -> None:
        self._start_what_is_named(self._ports[SINK] + self._ports[DAEMON])
        requests: list[dict[str, Any]] = []
        replies: list[dict[str, Any]] = []
        for value in _json_values(text):
            (replies if "status" in value else requests).append(value)
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        with socket.create_connection((LOOPBACK, int(self._ports[DAEMON])), PATIENCE) as connection:
            connection.sendall(lines.encode())
            connection.shutdown(socket.SHUT_WR)
            got = [json.loads(line) for line in connection.makefile("rb")]
        for wanted, reply in zip(replies, got, strict=True):
            assert _matches(wanted, reply), f"wanted:\n{wanted}\ngot:\n{reply}"

    def _output(self, command: list[str], *, check: bool = True) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        command = [lines.pop(0)]
        while lines and re.match(r">( |$)", lines[0]):
            command.append(lines.pop(0)[2:])
        yield "\n".join(command), "\n".join(lines) + "\n" if lines else ""


def _json_values(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def _matches(wanted: Any, got: Any) -> bool:
    """Equal, with ``...`` in strings for anything, last in a list for any number."""
    if wanted == "...":
        return True
    if isinstance(wanted, list) and isinstance(got, list) and wanted[-1:] == ["..."]:
        wanted, got = wanted[:-1], got[: len(wanted) - 1]
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(_matches(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(_matches, wanted, got))
    if isinstance(wanted, str) and isinstance(got, str):
        return _CHECKER.check_output(wanted, got, doctest.ELLIPSIS)
    return bool(wanted == got)
