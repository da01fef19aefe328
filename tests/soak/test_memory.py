"""
Memory stays under its bound, as the kernel counts it, whatever clients try.
"""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from tests.daemons import LOOPBACK, PATIENCE, Client, Running
from tests.integration.child import free_ports
from tests.soak.process import peak, resident
from tests.soak.siege import Siege, attacks

pytestmark = pytest.mark.slow

MIB: Final = 1024 * 1024
BOUND: Final = 64 * MIB

#: Octets of a line, so that one can be decoded twice in what the margin leaves.
LINE: Final = 4 * MIB

#: What may be there beside the bound: what all clients together are read from
#: in one turn of the reactor (an eighth of the bound), what is left in their
#: transports (another), the longest line while it is decoded, as a line and as
#: its message, 1,000 connections to servers at 10 KiB each, and a quarter of the
#: bound for what the allocator has lost between objects of all sizes.
MARGIN: Final = BOUND // 8 + BOUND // 8 + 2 * LINE + 1000 * 10 * 1024 + BOUND // 4


def held(metrics: int) -> int:
    """What the daemon itself counts."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{metrics}/metrics", timeout=PATIENCE) as page:
        found = re.search(rb"^smtpclient_memory_bytes (\S+)$", page.read(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_memory_stays_under_its_bound_whatever_clients_try(tmp_path: Path) -> None:
    port, metrics = free_ports(2)
    options = (
        f"--listen=tcp:{port}:interface={LOOPBACK}:backlog=1024",
        f"--metrics=tcp:{metrics}:interface={LOOPBACK}",
        f"--max-memory={BOUND}",
        f"--max-request={LINE}",
        # What is asked of it is NotAllowed, which is an outcome that is kept.
        "--deny-host=192.0.2.0/24",
        "--key-ttl=1",
    )
    seen: dict[str, int] = {}
    with socket.create_server((LOOPBACK, 0), backlog=1024) as silent, Running(tmp_path, *options) as daemon:
        pid = daemon.process.pid
        base = resident(pid)
        tried = attacks(silent.getsockname()[1])
        for name, (count, speech, reads) in tried.items():
            siege = Siege(port, lambda: None)
            siege.join(count, speech, reads=reads)
            siege.storm(quiet=0.1, most=0.5)
            siege.end()
            seen[name] = resident(pid) - base
        everything = Siege(port, lambda: None)
        for count, speech, reads in tried.values():
            everything.join(count, speech, reads=reads)
        everything.storm(quiet=0.5, most=4.0)
        seen["all at once"] = resident(pid) - base
        everything.end()
        most = peak(pid) - base
        assert most < BOUND + MARGIN, {name: f"{octets / MIB:.0f} MiB" for name, octets in seen.items()}
        # It was a siege: without a bound it would have been far more.
        assert most > BOUND // 2

        # Behind it all is as it was.
        # What clients had sent is read to its end, and some of it looked at twice for
        # what is wrong with it: half a minute, on a slow machine more.
        deadline = time.monotonic() + 4 * PATIENCE
        while held(metrics) > MIB and time.monotonic() < deadline:
            # Nothing tells when the last request has met its time-out.
            time.sleep(0.1)
        assert held(metrics) < MIB
        honest = Client(port)
        honest.say(cancel=1, id="x")
        assert honest.hear() == {"id": "x", "status": "ok", "cancelled": False}
        honest.close()
        log = daemon.log.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
