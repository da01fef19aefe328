"""
The sessions that the pages show, recorded while the client talks to the sink.

``python -m tests.house.sessions`` writes them to ``docs/sessions/``; with the
name of a folder, to that one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_smtpclient import (
    DSN,
    Content,
    Credentials,
    DeliveryAgent,
    Envelope,
    Notify,
    Recipient,
    Refused,
    Return,
    Server,
)
from twisted_smtpclient.client.protocol import PipeliningESMTPClient
from twisted_smtpclient.smtp.policy import Mode, Protocol, TLSMode
from twisted_smtpclient.testing import Fault, Sink, make_certificates

ROOT = Path(__file__).resolve().parents[2]

#: One for all: the name in it is what the client is told to expect.
CERTIFICATES = make_certificates("mx.example")

CONTENT = Content(b"Subject: test\r\n\r\nTest\r\n")

#: The one that has no mail.
PROBE = "probe"

_USERS: dict[str, Any] = {"users": {"anna": "secret"}}

#: What differs from session to session: of the sink, of the server's terms,
#: and the recipients.
SESSIONS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "pipelining-chunking": ({}, {}, ["one@bar.de", "two@bar.de"]),
    "pipelining": ({"chunking": False}, {}, ["one@bar.de", "two@bar.de"]),
    "one-at-a-time": ({}, {"pipelining": Mode.NO, "chunking": Mode.NO}, ["one@bar.de", "two@bar.de"]),
    "one-refused": ({}, {}, ["one@bar.de", "invalid@invalid.de"]),
    "all-refused": (
        {"chunking": False, "faults": [Fault("DATA", "REPLY", b"354 Go ahead\r\n")]},
        {},
        ["invalid@invalid.de"],
    ),
    "lmtp": ({"lmtp": True}, {"protocol": Protocol.LMTP}, ["one@bar.de", "two@bar.de"]),
    "starttls": (
        {"starttls": CERTIFICATES.server_context()},
        {"tls": TLSMode.DEPEND, "tls_name": "mx.example"},
        ["one@bar.de"],
    ),
    "starttls-refused": (
        {
            "starttls": CERTIFICATES.server_context(),
            "faults": [Fault("STARTTLS", "REPLY", b"454 4.7.0 TLS not available\r\n")],
        },
        {},
        ["one@bar.de"],
    ),
    "implicit": (
        {"implicit_tls": CERTIFICATES.server_context()},
        {"tls": TLSMode.IMPLICIT, "tls_name": "mx.example"},
        ["one@bar.de"],
    ),
    "dsn": ({}, {}, []),
    "smtputf8": ({}, {}, []),
    "a-label": ({"smtputf8": False}, {}, []),
    "binary": ({"binarymime": True}, {}, []),
    "requiretls": (
        {"starttls": CERTIFICATES.server_context(), "requiretls": True},
        {"tls": TLSMode.DEPEND, "tls_name": "mx.example"},
        [],
    ),
    "parameters": ({"extensions": ["DELIVERBY 240", "MT-PRIORITY MIXER"]}, {}, []),
    PROBE: (
        {"starttls": CERTIFICATES.server_context(), "extensions": ["LIMITS RCPTMAX=100"]},
        {"tls": TLSMode.DEPEND, "tls_name": "mx.example"},
        [],
    ),
    "login-plain": (
        {
            "starttls": CERTIFICATES.server_context(),
            **_USERS,
            "mechanisms": ["PLAIN"],
            "mechanisms_in_clear": [],
        },
        {"tls": TLSMode.DEPEND, "tls_name": "mx.example", "auth": Credentials("anna", "secret")},
        ["one@bar.de"],
    ),
    "login-login": (
        {**_USERS, "mechanisms": ["LOGIN"]},
        {"auth": Credentials("anna", "secret")},
        ["one@bar.de"],
    ),
    "login-token": (
        {"tokens": {"anna": "ya29.token"}, "mechanisms": ["XOAUTH2"]},
        {"auth": Credentials("anna", token="ya29.stale")},
        ["one@bar.de"],
    ),
    "clear": ({"starttls": CERTIFICATES.server_context()}, {"tls": TLSMode.NO}, ["one@bar.de"]),
}

#: The mails of those that are about more than plain SMTP.
MAILS: dict[str, tuple[Envelope, Content]] = {
    "dsn": (
        Envelope(
            "foo@bar.de",
            [
                Recipient("one@bar.de", notify=[Notify.SUCCESS, Notify.FAILURE], orcpt="list+x@bar.de"),
                Recipient("two@bar.de", notify=[Notify.NEVER]),
            ],
            dsn=DSN(ret=Return.HDRS, envid="QQ 314159"),
        ),
        CONTENT,
    ),
    "smtputf8": (
        Envelope("jürgen@bücher.example", ["用户@bar.de"]),
        Content("Subject: Ähre\r\n\r\nÄhre\r\n".encode()),
    ),
    "a-label": (Envelope("foo@bar.de", ["foo@bücher.example"]), CONTENT),
    "binary": (Envelope("foo@bar.de", ["one@bar.de"]), Content(b"Subject: test\r\n\r\n.\r\n", binary=True)),
    "requiretls": (Envelope("foo@bar.de", ["one@bar.de"], requiretls=True), CONTENT),
    "parameters": (
        Envelope("foo@bar.de", ["one@bar.de"], parameters={"BY": "120;R", "MT-PRIORITY": "3"}),
        CONTENT,
    ),
}

#: Seconds for a session to end.
PATIENCE = 10.0


class Tape:
    """What crossed one connection, inside of TLS."""

    def __init__(self) -> None:
        self._spoken: list[tuple[str, bytes]] = []

    def hear(self, speaker: str, octets: bytes) -> None:
        if self._spoken and self._spoken[-1][0] == speaker:
            octets = self._spoken.pop()[1] + octets
        self._spoken.append((speaker, octets))

    def __str__(self) -> str:
        """The session in lines; an empty one wherever the client waits for the server."""
        blocks: list[str] = []
        for speaker, octets in self._spoken:
            lines = octets.decode().removesuffix("\r\n").split("\r\n")
            said = "\n".join(f"{speaker} {line}".rstrip() for line in lines)
            if speaker == "S:" or not blocks:
                blocks.append(said)
            else:
                blocks[-1] += f"\n{said}"
        return "\n\n".join(blocks) + "\n"


@contextmanager
def recording(tape: Tape) -> Iterator[None]:
    """Listen in where the client meets its transport."""
    client: Any = PipeliningESMTPClient
    make_connection, data_received = client.makeConnection, client.dataReceived
    handshake_completed = client.handshakeCompleted

    def make(self: PipeliningESMTPClient, transport: Any) -> None:
        write = transport.write

        def writing(octets: bytes) -> None:
            tape.hear("C:", octets)
            write(octets)

        transport.write = writing
        make_connection(self, transport)

    def received(self: PipeliningESMTPClient, data: bytes) -> None:
        tape.hear("S:", data)
        data_received(self, data)

    def completed(self: PipeliningESMTPClient) -> None:
        tape.hear("--", b"TLS handshake")
        handshake_completed(self)

    with (
        mock.patch.object(client, "makeConnection", make),
        mock.patch.object(client, "dataReceived", received),
        mock.patch.object(client, "handshakeCompleted", completed),
    ):
        yield


async def record(reactor: Any, name: str) -> str:
    """One session, anew."""
    settings, terms, recipients = SESSIONS[name]
    sink = Sink(reactor, name="mx.example", **settings)
    await sink.listen()
    agent = DeliveryAgent(reactor, helo="client.example", trust_root=CERTIFICATES.trust_root())
    tape = Tape()
    try:
        with recording(tape):
            server = Server(host="127.0.0.1", port=sink.port, **terms)
            if name == PROBE:
                await agent.probe(server)
            else:
                envelope, content = MAILS.get(name) or (Envelope("foo@bar.de", recipients), CONTENT)
                with suppress(Refused):
                    await agent.deliver(server, envelope, content, reuse=False)
            bound = reactor.seconds() + PATIENCE
            while sink.open_sessions:
                # Until the last word, which nobody waits for, has been said.
                assert reactor.seconds() < bound, f"{name}: the connection stays open"
                await _turn(reactor)
    finally:
        await agent.close()
        await sink.stop()
    assert sink.violations == []
    return str(tape)


def _turn(reactor: Any) -> Deferred[None]:
    turn: Deferred[None] = Deferred()
    reactor.callLater(0, turn.callback, None)
    return turn


async def _write(reactor: Any, folder: Path) -> None:
    for name in SESSIONS:
        (folder / f"{name}.txt").write_text(await record(reactor, name), encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "sessions"
    react(lambda reactor: Deferred.fromCoroutine(_write(reactor, target)))
