"""
Postfix's ``smtp-sink``, which takes everything and keeps nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .child import LOOPBACK, Child, free_ports
from .tree import Tree

#: It will not run as root.
USER: Final = "nobody"


class SmtpSink:
    """
    A running ``smtp-sink``.

    :param options: further ones, such as ``-L`` for LMTP or ``-r rcpt``.
    :ivar host: where it listens.
    :ivar port: where it listens.
    """

    host: Final = LOOPBACK

    def __init__(self, tree: Tree, folder: Path, *options: str) -> None:
        (self.port,) = free_ports(1)
        self._child = Child(
            [tree.program("sbin/smtp-sink"), "-u", USER, *options, f"{self.host}:{self.port}", "100"],
            folder / "smtp-sink.log",
            environment=tree.environment(),
        )

    def wait_until_it_answers(self) -> None:
        """Return once it greets."""
        self._child.wait_until_it_answers([self.port])

    def stop(self) -> None:
        """Stop it."""
        self._child.stop()
