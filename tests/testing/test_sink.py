"""The sink as a whole, over real sockets where the kernel matters."""

from __future__ import annotations

import smtplib
import ssl
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.conftest import LoggedFailures
from tests.testing.driving import ENVELOPE, Driven
from twisted_smtpclient import Content, DeliveryAgent, Envelope, Protocol, Server
from twisted_smtpclient.testing import Closed, Fault, Mail, Session, Sink, make_certificates

reactor: Any = installed
CERTIFICATES = make_certificates()


class Raw(TwistedProtocol):
    """A client that says what it is told, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Deferred[None] = Deferred()
        self.reason = Failure(ConnectionDone())
        self._waiting: tuple[bytes, Deferred[None]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self._waiting is not None and self._waiting[0] in self.heard:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.lost.callback(None)

    async def until(self, octets: bytes) -> None:
        if octets not in self.heard:
            waiting: Deferred[None] = Deferred()
            self._waiting = (octets, waiting)
            await waiting.addTimeout(10, reactor)

    async def ended(self) -> Failure:
        await self.lost.addTimeout(10, reactor)
        return self.reason

    def write(self, octets: bytes) -> None:
        assert self.transport is not None
        self.transport.write(octets)


async def connect(sink: Sink) -> Raw:
    raw: Raw = await connectProtocol(HostnameEndpoint(reactor, b"127.0.0.1", sink.port), Raw())
    return raw


def send_with_smtplib(client: smtplib.SMTP, *, tls: bool = False) -> dict[str, tuple[int, bytes]]:
    context = ssl.create_default_context(cadata=CERTIFICATES.authority_pem.decode())
    with client:
        if tls:
            client.starttls(context=context)
        return client.sendmail("a@b.de", ["c@d.de", "invalid@invalid.de"], b"Subject: x\r\n\r\n.hi\r\n..\r\n")


@pytest_twisted.ensureDeferred
async def test_smtplib_delivers_to_it() -> None:
    sink = Sink(reactor)
    await sink.listen()
    client = await deferToThread(lambda: smtplib.SMTP("127.0.0.1", sink.port, timeout=10))
    refused = await deferToThread(lambda: send_with_smtplib(client))
    mail = await sink.mail()
    assert mail.content == b"Subject: x\r\n\r\n.hi\r\n..\r\n"
    assert mail.addresses == ["c@d.de"]
    assert mail.sender_parameters == {"SIZE": str(mail.size)}
    assert refused["invalid@invalid.de"][0] == 553
    assert sink.violations == []
    assert sink.flights == 6
    await sink.stop()
    assert sink.sessions[0].closed is Closed.QUIT


@pytest_twisted.ensureDeferred
async def test_smtplib_delivers_by_lmtp() -> None:
    sink = Sink(reactor, lmtp=True)
    await sink.listen()
    refused = await deferToThread(lambda: send_with_smtplib(smtplib.LMTP("127.0.0.1", sink.port)))
    assert list(refused) == ["invalid@invalid.de"]
    assert len(sink.mails) == 1
    assert sink.violations == []
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_starttls_begins_a_session_anew() -> None:
    sink = Sink(reactor, starttls=CERTIFICATES.server_context())
    await sink.listen()
    await deferToThread(lambda: send_with_smtplib(smtplib.SMTP("127.0.0.1", sink.port, timeout=10), tls=True))
    (session,) = sink.sessions
    assert session.tls
    assert [command.split()[0].upper() for command in session.commands[:3]] == [b"EHLO", b"STARTTLS", b"EHLO"]
    assert sink.violations == []
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_tls_from_the_first_octet() -> None:
    sink = Sink(reactor, implicit_tls=CERTIFICATES.server_context(), starttls=CERTIFICATES.server_context())
    await sink.listen()
    context = ssl.create_default_context(cadata=CERTIFICATES.authority_pem.decode())

    def send() -> None:
        client = smtplib.SMTP_SSL("127.0.0.1", sink.port, timeout=10, context=context)
        send_with_smtplib(client)
        assert not client.has_extn("STARTTLS")

    await deferToThread(send)
    assert sink.sessions[0].tls
    assert len(sink.mails) == 1
    await sink.stop()


@pytest.mark.parametrize("tls", ["starttls", "implicit_tls"])
@pytest_twisted.ensureDeferred
async def test_a_handshake_may_be_answered_in_clear(tls: str) -> None:
    settings: dict[str, Any] = {tls: CERTIFICATES.server_context()}
    sink = Sink(reactor, faults=[Fault("HANDSHAKE", "REPLY_AND_CLOSE", b"no TLS today\r\n")], **settings)
    await sink.listen()
    raw = await connect(sink)
    if tls == "starttls":
        raw.write(b"EHLO x\r\n")
        await raw.until(b"STARTTLS\r\n")
        raw.write(b"STARTTLS\r\n")
        await raw.until(b"220 2.0.0")
    raw.write(b"\x16\x03\x01")
    await raw.until(b"no TLS today\r\n")
    assert (await raw.ended()).check(ConnectionDone)
    assert not sink.sessions[0].tls
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_fails_is_told() -> None:
    sink = Sink(reactor, implicit_tls=CERTIFICATES.server_context())
    await sink.listen()
    raw = await connect(sink)
    raw.write(b"EHLO x\r\n")
    await raw.ended()
    await sink.stop()
    assert sink.sessions[0].closed is Closed.LOST
    assert not sink.sessions[0].tls


@pytest_twisted.ensureDeferred
async def test_close_is_a_fin_behind_the_replies_even_with_octets_unread() -> None:
    sink = Sink(reactor, faults=[Fault("CONTENT", "REPLY_AND_CLOSE", b"421 Bye\r\n", after_octets=10)])
    await sink.listen()
    raw = await connect(sink)
    raw.write(b"EHLO x\r\n")
    await raw.until(b"CHUNKING\r\n")
    raw.write(ENVELOPE + b"BDAT 3000000 LAST\r\n" + b"x" * 3_000_000)
    assert (await raw.ended()).check(ConnectionDone)
    assert raw.heard.endswith(b"421 Bye\r\n")
    await sink.stop()
    assert sink.sessions[0].closed is Closed.SINK
    assert sink.mails == []


@pytest_twisted.ensureDeferred
async def test_reset_is_an_rst() -> None:
    sink = Sink(reactor, faults=[Fault("EHLO", "RESET")])
    await sink.listen()
    raw = await connect(sink)
    raw.write(b"EHLO x\r\n")
    assert (await raw.ended()).check(ConnectionLost)
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_flood_waits_for_its_reader() -> None:
    sink = Sink(reactor, faults=[Fault("EHLO", "FLOOD")])
    await sink.listen()
    raw = await connect(sink)
    raw.write(b"EHLO x\r\n")
    await raw.until(b"250-CHUNKING\r\n250-sink.invalid\r\n")
    transport: Any = raw.transport
    transport.abortConnection()
    await raw.ended()
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_without_quit_is_told() -> None:
    gone: Deferred[Session] = Deferred()
    sink = Sink(reactor, on_session=gone.callback)
    await sink.listen()
    raw = await connect(sink)
    await raw.until(b"220 ")
    assert [session.number for session in sink.open_sessions] == [1]
    transport: Any = raw.transport
    transport.loseConnection()
    session = await gone
    assert session.closed is Closed.CLIENT
    assert session.peer.startswith("127.0.0.1:")
    assert sink.open_sessions == []
    await sink.stop()


@pytest_twisted.ensureDeferred
async def test_stop_leaves_nothing_behind() -> None:
    before = set(reactor.getDelayedCalls())
    readers = set(reactor.getReaders())
    sink = Sink(
        reactor,
        delay=0.01,
        faults=[
            Fault("EHLO", "TRICKLE", nth=1, interval=100),
            Fault("EHLO", "DEAF", nth=2),
            Fault("EHLO", "STALL", nth=3),
            Fault("EHLO", "FLOOD", nth=4),
            Fault("EHLO", "CLOSE", nth=5, after=100),
        ],
    )
    await sink.listen()
    await sink.listen("tcp:0:interface=127.0.0.1")
    clients = [await connect(sink) for _ in range(5)]
    for raw in clients:
        await raw.until(b"220 ")
        raw.write(b"EHLO x\r\n")
    await clients[3].until(b"250-CHUNKING\r\n")
    # Twice at once is as good as once.
    twice = [Deferred.fromCoroutine(sink.stop()), Deferred.fromCoroutine(sink.stop())]
    for stopped in twice:
        await stopped
    assert sink.open_sessions == []
    for raw in clients:
        await raw.ended()
    assert {session.closed for session in sink.sessions} == {Closed.SINK}
    assert set(reactor.getDelayedCalls()) <= before
    assert set(reactor.getReaders()) <= readers


@pytest_twisted.ensureDeferred
async def test_it_listens_on_unix_sockets_too(tmp_path: Any) -> None:
    sink = Sink(reactor)
    path = tmp_path / "sink"
    port = await sink.listen(f"unix:{path}")
    assert path.exists()
    assert port.getHost() == sink.address

    def send() -> None:
        client = smtplib.LMTP(str(path))
        assert client.docmd("NOOP")[0] == 250
        client.quit()

    await deferToThread(send)
    await sink.stop()
    assert sink.sessions[0].closed is Closed.QUIT


@pytest_twisted.ensureDeferred
async def test_lmtp_over_a_unix_socket_answers_for_each_recipient(tmp_path: Any) -> None:
    full = "452 4.2.2 Over quota"
    sink = Sink(reactor, lmtp=True, final_replies={"full@b.de": full})
    await sink.listen(UNIXServerEndpoint(reactor, str(tmp_path / "lmtp")))
    agent = DeliveryAgent(reactor)
    server = Server(host=f"unix:{tmp_path / 'lmtp'}", protocol=Protocol.LMTP)
    recipients = ["a@b.de", "full@b.de", "invalid@invalid.de", "a@b.de"]
    result = await agent.deliver(server, Envelope("me@b.de", recipients), Content(b"Subject: x\r\n\r\n"))
    assert [verdict.code for verdict in result.recipients] == [250, 452, 553, 250]
    assert sink.mails[0].replies == ["250 2.0.0 Ok: queued as 1", full, "250 2.0.0 Ok: queued as 1"]
    assert sink.violations == []
    await agent.close()
    await sink.stop()


def test_mails_may_be_waited_for_one_by_one_or_together() -> None:
    driven = Driven().begin()
    first, second, both = driven.sink.mail(), driven.sink.mail(), driven.sink.wait_for(2)
    heard_by_then: list[bytes] = []

    def look(mail: Mail) -> Mail:
        heard_by_then.append(driven.heard())
        return mail

    first.addCallback(look)
    fired: list[Any] = []
    both.addCallback(fired.append)
    driven.protocol.dataReceived(ENVELOPE + b"BDAT 1 LAST\r\n1")
    assert heard_by_then[0].endswith(b"queued as 1\r\n")
    assert fired == []
    driven.send(ENVELOPE + b"BDAT 1 LAST\r\n2")
    assert fired == [driven.sink.mails]
    contents: list[bytes] = []
    for waiting in (first, second):
        waiting.addCallback(lambda mail: contents.append(mail.content))
    assert contents == [b"1", b"2"]
    driven.sink.wait_for(2).addCallback(fired.append)
    assert len(fired) == 2
    assert driven.clock.getDelayedCalls() == []


def test_waiting_has_an_end() -> None:
    driven = Driven()
    failures: list[Failure] = []
    driven.sink.wait_for(1, timeout=5).addErrback(failures.append)
    driven.clock.advance(5)
    assert failures[0].check(defer.TimeoutError)
    assert driven.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_stop_cancels_what_waits() -> None:
    driven = Driven()
    failures: list[Failure] = []
    driven.sink.mail().addErrback(failures.append)
    await driven.sink.stop()
    assert failures[0].check(CancelledError)
    assert driven.transport.disconnected
    assert driven.clock.getDelayedCalls() == []


def test_all_that_is_kept_may_be_asked_of_the_sink() -> None:
    sink = Driven().begin().sink
    Driven(sink).say(b"RSET", b"NOOP", b"NOOP")
    assert sink.commands == [b"EHLO client.example", b"RSET", b"NOOP", b"NOOP"]
    assert len(sink.violations) == 2
    assert sink.flights == 2
    assert [session.number for session in sink.sessions] == [1, 2]


def test_nothing_need_be_kept() -> None:
    mails: list[Mail] = []
    sessions: list[Session] = []
    sink = Sink(Clock(), keep_records=False, on_mail=mails.append, on_session=sessions.append)
    protocol = sink.buildProtocol(None)
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    protocol.dataReceived(b"EHLO x\r\n")
    for _ in range(3):
        protocol.dataReceived(ENVELOPE + b"BDAT 1 LAST\r\nx")
    protocol.connectionLost(Failure(ConnectionDone()))
    assert (sink.mails, sink.sessions) == ([], [])
    assert [mail.number for mail in mails] == [1, 2, 3]
    assert (sink.mail_count, sink.session_count) == (3, 1)
    assert (sessions[0].mails, sessions[0].commands) == ([], [])
    assert sessions[0].flights == 4


def test_what_a_hook_raises_is_logged_and_the_mail_is_taken(logged_failures: LoggedFailures) -> None:
    def fail(record: object) -> None:
        raise LookupError(record)

    driven = Driven(on_mail=fail, on_session=fail).begin()
    assert driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx").endswith(b"queued as 1\r\n")
    driven.protocol.connectionLost(Failure(ConnectionDone()))
    assert len(logged_failures.flush(LookupError)) == 2
    assert len(driven.sink.mails) == 1
