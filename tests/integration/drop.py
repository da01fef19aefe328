"""
What a server has delivered, octet for octet.

The servers hand each mail to a small script, as they would to any delivery
agent.  It puts the octets and the envelope into a folder and then writes one
line into a pipe that we read: so nobody has to look every now and then.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

#: Seconds from a server's acceptance to the mail in the folder.
PATIENCE: Final = 10.0

#: Arguments: folder, the server's id of the mail, sender, recipients.
_SCRIPT: Final = """\
#!/bin/sh
set -eu
folder="$1" name="$2.$$" id="$2"
shift 2
cat >"$folder/$name.content"
printf '%s\\0' "$@" >"$folder/$name.envelope"
echo "$id $name" >"$folder/arrivals"
"""

_RECEIVED: Final = re.compile(rb"Received: [^\n]*\n(?:[ \t][^\n]*\n)*")


class Kept(NamedTuple):
    """
    One delivery of one mail.

    :ivar queue_id: what the server called it.
    :ivar sender: the reverse-path, empty for the null reverse-path.
    :ivar recipients: the forward-paths that this delivery was for, sorted:
        servers keep no order.
    :ivar stored: all octets, the server's own header fields included.
    """

    queue_id: str
    sender: str
    recipients: list[str]
    stored: bytes

    @property
    def content(self) -> bytes:
        """The octets without the one Received field that the server put before them."""
        field = _RECEIVED.match(self.stored)
        assert field is not None, self.stored[:200]
        return self.stored[field.end() :]


class Drop:
    """A folder in which a server's deliveries arrive."""

    def __init__(self, folder: Path, uid: int, gid: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self._arrivals = folder / "arrivals"
        os.mkfifo(self._arrivals, 0o600)
        os.chown(folder, uid, gid)
        os.chown(self._arrivals, uid, gid)
        # Read and write: so that the script never waits for a reader, and we
        # see no end of file between two of them.
        self._pipe = os.open(self._arrivals, os.O_RDWR | os.O_NONBLOCK)
        self._partial = b""
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        self.script = folder.parent / f"{folder.name}.sh"
        self.script.write_text(_SCRIPT)
        self.script.chmod(0o755)

    def __enter__(self) -> Drop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pipe)

    def _read(self, seconds: float) -> bool:
        """Take note of what has arrived; whether anything has."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return False
        *lines, self._partial = (self._partial + os.read(self._pipe, 65536)).split(b"\n")
        for line in lines:
            queue_id, name = line.decode("ascii").split(" ")
            self._names[queue_id].append(name)
        return True

    def _load(self, queue_id: str) -> list[Kept]:
        kept = []
        for name in self._names[queue_id]:
            envelope = (self.folder / f"{name}.envelope").read_bytes().decode("utf-8")
            sender, *recipients, _ = envelope.split("\0")
            kept.append(
                Kept(queue_id, sender, sorted(recipients), (self.folder / f"{name}.content").read_bytes())
            )
        return kept

    def wait_for(self, queue_id: str) -> Kept:
        """
        The mail that the server has accepted under this id.

        :raises AssertionError: if it does not arrive within
            :data:`PATIENCE` seconds, or arrives more than once.
        """
        deadline = time.monotonic() + PATIENCE
        while queue_id not in self._names:
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"{queue_id} has not been delivered within {PATIENCE} s")
        (kept,) = self._load(queue_id)
        return kept

    def wait_for_notice(self, address: str) -> Kept:
        """
        The first mail from the null reverse-path to this address.

        :raises AssertionError: if none arrives within :data:`PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        seen: set[str] = set()
        while True:
            for queue_id in self._names.keys() - seen:
                seen.add(queue_id)
                for kept in self._load(queue_id):
                    if not kept.sender.strip("<>") and kept.recipients == [address]:
                        return kept
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"no notice has come to {address} within {PATIENCE} s")

    def wait_for_all(self, queue_ids: set[str]) -> dict[str, list[Kept]]:
        """
        All that has arrived, once each of these ids has at least once.

        What nobody waits for is part of it.
        """
        for queue_id in queue_ids:
            deadline = time.monotonic() + PATIENCE
            while queue_id not in self._names:
                if not self._read(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"{queue_id} has not been delivered within {PATIENCE} s")
        while self._read(0):
            pass
        return {queue_id: self._load(queue_id) for queue_id in list(self._names)}
