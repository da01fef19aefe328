"""
The project from anything else: one client of the JSON daemon, with many
requests under way.

CPU and memory are the daemon's own.  This client must not be what is waited
for: its lines are made beforehand, and it reads no more of the replies than
it must to know that all went well.
"""

from __future__ import annotations

import base64
import json
import select
import socket
from collections.abc import Iterator

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, fail, message

#: Requests under way; what the daemon takes from one client by default.
IN_FLIGHT = 1000

#: Octets of requests under way: fewer of large ones.
MAX_OCTETS = 64 * 1024 * 1024


class Client:
    """
    One connection to the daemon.

    It reads while it writes: the daemon reads from nobody who does not take
    his replies.
    """

    def __init__(self, job: Job) -> None:
        self.connection = socket.create_connection((HOST, job.daemon))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.setblocking(False)
        self.poll = select.poll()
        self.rest = b""

    def send(self, job: Job) -> None:
        """Send the requests, and wait for the reply to each."""
        lines = Lines(job)
        sent = answered = 0
        while answered < job.messages:
            due = min(job.messages, answered + lines.window) - sent
            pieces = lines.take(sent, due)
            sent += due
            for piece in pieces:
                while piece:
                    piece = piece[self._write(piece) :]
                    if piece:
                        answered += self._read(job.recipients, select.POLLIN | select.POLLOUT)
            if answered < job.messages:
                answered += self._read(job.recipients, select.POLLIN)

    def _write(self, octets: memoryview) -> int:
        try:
            return self.connection.send(octets)
        except BlockingIOError:
            return 0

    def _read(self, recipients: int, events: int) -> int:
        """Wait for some replies, or until there is room to write: how many there are."""
        self.poll.register(self.connection, events)
        self.poll.poll()
        try:
            got = self.connection.recv(1 << 20)
        except BlockingIOError:
            return 0
        if not got:
            fail("the daemon has closed the connection")
        head, line_end, tail = got.rpartition(b"\n")
        if not line_end:
            self.rest += got
            return 0
        replies, self.rest = self.rest + head + line_end, tail
        count = replies.count(b"\n")
        if replies.count(b'"Ok"') != count * recipients:
            fail(f"not all accepted: {replies[:1000]!r}")
        return count


class Lines:
    """
    Requests of one length, one behind the other.

    Each has an ``id``, so that it is answered as soon as it is done; an ``id``
    comes again when the window has passed.

    :ivar window: requests under way.
    """

    def __init__(self, job: Job) -> None:
        encoded = base64.b64encode(message(job.size)).decode("ascii")
        # Of one number of digits, so that one line is as long as another.
        first = 100_000
        line = _request(job, first, encoded)
        self.window = max(1, min(job.messages, IN_FLIGHT, MAX_OCTETS // len(line)))
        self._length = len(line)
        more = (_request(job, first + number, encoded) for number in range(1, self.window))
        self._octets = memoryview(b"".join([line, *more]))

    def take(self, first: int, count: int) -> Iterator[memoryview]:
        """So many lines from that one on."""
        while count:
            at = first % self.window
            piece = min(count, self.window - at)
            yield self._octets[at * self._length : (at + piece) * self._length]
            first += piece
            count -= piece


def _request(job: Job, number: int, encoded: str) -> bytes:
    request = {
        "id": number,
        "host": HOST,
        "port": job.port,
        "helo": HELO,
        "sender": SENDER,
        "recipients": addresses(job.recipients),
        "message": encoded,
    }
    return json.dumps(request, separators=(",", ":")).encode("ascii") + b"\n"


def main() -> None:
    """Send, and tell what it took the daemon."""
    job = Job.from_command_line()
    client = Client(job)
    if job.warm:
        client.send(Job(job.port, 1, 1, 1, 1024, 1))
    meter = Meter(job.pid)
    meter.start()
    client.send(job)
    meter.stop()


if __name__ == "__main__":
    main()
