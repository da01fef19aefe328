"""
The content arrives octet for octet, through real servers.

What a server does to a content by itself (Postfix cuts a header line at a NUL
and puts an empty line before a content without a header; Exim makes the NUL a
question mark; both end a last line that has no end) is not for us to judge: a
client that does one thing after another sends the same, and has to get the
same.
"""

from __future__ import annotations

import random
from typing import Final

import pytest
import pytest_twisted

from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Server, TLSMode
from twisted_smtpclient.smtp.result import Status

from . import reference
from .agent import ImpatientAgent
from .exim import Exim
from .postfix import Postfix

HEADER: Final = b"Subject: nasty\r\n\r\n"


def _dots_at_multiples(of: int) -> bytes:
    """A dot at the start of a line, at each multiple of a block's size."""
    content = bytearray(HEADER)
    for multiple in range(of, 6 * of, of):
        content += b"x" * (multiple - len(content) - 2) + b"\r\n."
        assert content[multiple : multiple + 1] == b"."
    return bytes(content + b"\r\nlast\r\n")


def _lines(octets: int) -> bytes:
    line = b"." + b"0123456789" * 7 + b"\r\n"
    return line * (octets // len(line))


def _noise(octets: int) -> bytes:
    return random.Random(5321).randbytes(octets)


#: Those that a server keeps as they are: a header, and an end of the last line.
WHOLE: Final = {
    "dots": HEADER + b".\r\n..\r\n.\r\n...dots\r\n.\r\n",
    "dots in the first line": b".dot: 1\r\n\r\n.\r\n",
    "dots at 16384": _dots_at_multiples(16384),
    "dots at 65536": _dots_at_multiples(65536),
    "dots at 131072": _dots_at_multiples(131072),
    "an end of data that is none": HEADER + b"a\r\n.\nb\n.\r\nc\r.\r\nd\n.\n.\r.\r\r\n.\r\n",
    "bare CR": HEADER + b"a\rb\r\rc\r\r\n\rd\r",
    "bare LF": HEADER.replace(b"\r", b"") + b"a\nb\n\nc\r\n\nd\n",
    "NULs": HEADER + b"\0a\0\r\n\0\r\n.\0\r\n",
    "all octets": HEADER + bytes(range(256)) + b"\r\n",
    "control characters": HEADER + bytes(range(1, 32)) + b"\x7f\r\n",
    "lines at the limits": HEADER + b"".join(b"y" * n + b"\r\n" for n in (998, 999, 1000, 2047, 2048, 2049)),
    "a line of 200,000 octets": HEADER + b"z" * 200_000 + b"\r\n",
    "a header line of 5,000 octets": b"X-Long: " + b"h" * 5000 + b"\r\n\r\nbody\r\n",
    "commands": HEADER + b"RSET\r\nMAIL FROM:<evil@bar.de>\r\nRCPT TO:<evil@bar.de>\r\nDATA\r\nQUIT\r\n",
    "empty lines": HEADER + b"\r\n\r\n\r\n\r\n",
    "just over what goes with the envelope": HEADER + _lines(262_144 + 500),
    "one MB of noise": HEADER + _noise(1_000_000) + b"\r\n",
    "20 MB": HEADER + _lines(20_000_000),
}

#: Those that a server changes.
CHANGED: Final = {
    "nothing": b"",
    "one CRLF": b"\r\n",
    "one LF": b"\n",
    "one CR": b"\r",
    "one dot": b".",
    "a dot and CRLF": b".\r\n",
    "no header": b"just text\r\n",
    "no final line end": HEADER + b"last",
    "a dot without line end": HEADER + b"text\r\n.",
    "CR at the end": HEADER + b"text\r",
    "NULs in the header": b"Subject: a\0b\r\n\r\ntext\r\n",
    "20 MB of noise": HEADER + _noise(20_000_000),
}


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> Postfix | Exim:
    found: Postfix | Exim = request.getfixturevalue(request.param)
    return found


async def _through(agent: ImpatientAgent, server: Postfix | Exim, service: str, message: bytes) -> bytes:
    """What the server keeps of a message that the agent delivers."""
    result = await agent.deliver(
        Server(host=server.host, port=server.ports[service], tls=TLSMode.NO),
        Envelope("foo@bar.de", ["foo@bar.de"]),
        Content(message),
    )
    (entry,) = result.recipients
    assert entry.status is Status.OK
    assert entry.command == ("BDAT" if "chunking" in service else ".")
    assert entry.response is not None
    return server.drop.wait_for(server.queue_id(entry.response)).content


def _differ(one: bytes, other: bytes) -> str:
    """Where two contents part; a diff of 20 MB helps nobody."""
    at = next((n for n, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), None)
    at = min(len(one), len(other)) if at is None else at
    around = slice(max(0, at - 20), at + 20)
    return f"{len(one)} and {len(other)} octets part at {at}: {one[around]!r} and {other[around]!r}"


@pytest.mark.parametrize("service", ["pipelining_chunking", "pipelining"])
@pytest.mark.parametrize("name", WHOLE)
@pytest_twisted.ensureDeferred
async def test_content_arrives_octet_for_octet(
    agent: ImpatientAgent, server: Postfix | Exim, service: str, name: str
) -> None:
    expected = reference.canonical(WHOLE[name])
    kept = await _through(agent, server, service, WHOLE[name])
    assert kept == expected or not _differ(kept, expected)


@pytest.mark.parametrize("service", ["pipelining_chunking", "pipelining"])
@pytest.mark.parametrize("name", CHANGED)
@pytest_twisted.ensureDeferred
async def test_what_a_server_changes_it_changes_for_any_client(
    agent: ImpatientAgent, server: Postfix | Exim, service: str, name: str
) -> None:
    final = reference.deliver(
        server.host,
        server.ports[service],
        "foo@bar.de",
        ["foo@bar.de"],
        reference.canonical(CHANGED[name]),
        chunking="chunking" in service,
    )
    expected = server.drop.wait_for(server.queue_id(final)).content
    kept = await _through(agent, server, service, CHANGED[name])
    assert kept == expected or not _differ(kept, expected)
