"""
Tests of endpoints in place of a host: whatever connects, within one bound, and TLS that it brings along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer, error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.client.memory import Network, Outcome
from tests.client.sessions import MESSAGE, OUTLASTS_A_SINK, envelope
from twisted_smtpclient import (
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimeout,
    Content,
    DeliveryAgent,
    DeliveryError,
    DeliveryResult,
    HostNotFound,
    InternalError,
    InvalidRequest,
    NotAllowed,
    Protocol,
    ResponseTimeout,
    Server,
    Timeouts,
    TLSFailed,
    TLSMode,
    deliver,
)
from twisted_smtpclient.client.connect import Connector
from twisted_smtpclient.testing import Action, Fault, Sink, Stage, make_certificates

HOST = "mx.example"
GOOD = make_certificates(HOST)
UNTRUSTED = make_certificates(HOST)
EXPIRED = make_certificates(HOST, expired=True)
LOOPBACK = "127.0.0.1"


@implementer(IStreamClientEndpoint)
class Memory:
    """
    Connects to a server in memory.

    :param tls: makes the TLS that it brings along.
    :param over: whether that TLS's handshake is over before the connection is ours.
    :ivar connected: how often.
    """

    def __init__(self, network: Network, server: Any, tls: Any = None, *, over: bool = False) -> None:
        self.connected = 0
        self._network = network
        self._server = server
        self._tls = tls
        self._over = over

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.connected += 1
        factory: Any = protocolFactory
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls, True, factory, self._network)
        protocol = factory.buildProtocol(None)
        if self._over:
            # As of a wrapper that does not tell of handshakes.
            protocol._handshakeDone = True
        self._network.join(protocol, self._server.buildProtocol(None))
        return succeed(protocol)


@implementer(IStreamClientEndpoint)
class Stuck:
    """
    Connects when the test says so, or fails.

    :ivar factory: what it was given.
    :ivar cancelled: how often what it had returned was.
    """

    def __init__(self, outcome: Exception | None = None, *, deaf: bool = False) -> None:
        self.factory: Any = None
        self.cancelled = 0
        self.deaf = deaf
        self.outcome = outcome
        self.connecting: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, connecting: Deferred[Any]) -> None:
        self.cancelled += 1
        if self.deaf:
            connecting.callback(None)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.factory = protocolFactory
        return self.connecting if self.outcome is None else fail(self.outcome)


class Post:
    """An agent and a sink, which only an endpoint leads to."""

    def __init__(self, tls: Any = None, *, over: bool = False, **sink: Any) -> None:
        self.network = Network()
        self.sink = Sink(self.network, **sink)
        self.endpoint: Any = Memory(self.network, self.sink, tls, over=over)
        self.asked: list[str] = []
        self.agent = DeliveryAgent(self.network, trust_root=GOOD.trust_root(), resolver=self._resolve)

    def _resolve(self, host: str) -> Any:
        self.asked.append(host)
        return fail(HostNotFound(host))

    def deliver(self, **changes: Any) -> Deferred[DeliveryResult]:
        server = Server(**{"host": HOST, "endpoint": self.endpoint, "tls": TLSMode.NO, **changes})
        return self.agent.deliver(server, envelope(), Content(MESSAGE))

    def delivered(self, bound: float = 0.0, **changes: Any) -> Outcome[DeliveryResult]:
        return self.network.until(self.deliver(**changes), bound)

    def close(self) -> None:
        assert self.network.until(self.agent.close(), 10.0).value is None
        self.network.elapse(OUTLASTS_A_SINK)
        self.network.assert_nothing_is_left()
        assert self.sink.violations == []


# Connecting.


def test_an_endpoint_connects_in_place_of_host_and_port() -> None:
    here = Post()
    assert here.delivered().value.all_ok
    assert here.sink.mails[0].content == MESSAGE
    assert here.asked == []
    assert here.network.attempts == []
    here.close()


def test_lmtp_goes_by_an_endpoint_too() -> None:
    here = Post(lmtp=True)
    assert here.delivered(protocol=Protocol.LMTP).value.all_ok
    here.close()


def test_connections_by_one_endpoint_are_shared_and_by_two_are_not() -> None:
    here = Post()
    other = Memory(here.network, here.sink)
    for _ in range(3):
        assert here.delivered().value.all_ok
    assert here.delivered(endpoint=other).value.all_ok
    assert (here.endpoint.connected, other.connected) == (1, 1)
    here.close()


@pytest.mark.parametrize(
    ("raised", "becomes", "says"),
    [
        (error.ConnectionRefusedError(), ConnectionRefused, "Connection refused: mx.example:25"),
        (ConnectionRefusedError(), ConnectionRefused, "Connection refused: mx.example:25"),
        (error.TimeoutError(), ConnectionTimeout, "Connection timed out: mx.example:25: "),
        (error.TCPTimedOutError(), ConnectionTimeout, "Connection timed out: mx.example:25: "),
        (defer.TimeoutError("mine"), ConnectionTimeout, "Connection timed out: mx.example:25: mine"),
        (error.DNSLookupError("no"), HostNotFound, "Host not found: mx.example:25: "),
        (SSL.Error("handshake"), TLSFailed, "the TLS handshake failed: handshake"),
        (VerificationError([]), TLSFailed, "the TLS handshake failed: "),
        (error.NoRouteError(), ConnectionFailed, "Cannot connect to mx.example:25: "),
        (ValueError("SOCKS: 5"), ConnectionFailed, "Cannot connect to mx.example:25: SOCKS: 5"),
        (KeyError(), ConnectionFailed, "Cannot connect to mx.example:25: KeyError"),
        (defer.CancelledError(), ConnectionFailed, "Cannot connect to mx.example:25: CancelledError"),
        (NotAllowed("by the proxy"), NotAllowed, "by the proxy"),
    ],
)
@pytest.mark.parametrize("raises", [False, True])
def test_an_endpoint_that_fails_is_the_error_that_fits(
    raised: Exception, becomes: type[DeliveryError], says: str, raises: bool
) -> None:
    here = Post()
    here.endpoint = Stuck(raised)
    if raises:

        def connect(factory: object) -> None:
            raise raised

        here.endpoint.connect = connect
    outcome = here.delivered()
    assert type(outcome.error) is becomes
    assert str(outcome.error).startswith(says)
    assert outcome.error is raised or outcome.error.__cause__ is raised
    here.close()


def test_twisteds_resolver_does_not_tell_for_good_from_for_now() -> None:
    here = Post()
    here.endpoint = Stuck(error.DNSLookupError("no results"))
    outcome = here.delivered()
    assert isinstance(outcome.error, HostNotFound)
    assert outcome.error.temporary
    here.close()


def test_an_endpoint_that_never_connects_ends_within_the_bound() -> None:
    here = Post()
    here.endpoint = Stuck()
    outcome = here.delivered(20, connection_timeout=3)
    assert isinstance(outcome.error, ConnectionTimeout)
    assert str(outcome.error) == "Connection timed out: mx.example:25: not connected within 3 s"
    assert outcome.seconds == 3
    assert here.endpoint.cancelled == 1
    here.close()


def test_an_endpoint_that_connects_too_late_gets_no_protocol() -> None:
    here = Post()
    here.endpoint = Stuck(deaf=True)
    assert isinstance(here.delivered(20).error, ConnectionTimeout)
    assert here.endpoint.factory.buildProtocol(None) is None
    here.close()


def test_an_endpoint_that_fires_without_a_protocol_is_a_failure() -> None:
    here = Post()
    here.endpoint = Stuck()
    outcome = Outcome(here.deliver())
    here.endpoint.connecting.callback(object())
    assert isinstance(outcome.error, ConnectionFailed)
    assert str(outcome.error) == "Cannot connect to mx.example:25: the endpoint built no protocol"
    here.close()


def test_an_endpoint_that_fires_and_never_connects_its_protocol_is_a_failure() -> None:
    here = Post()
    here.endpoint = Stuck()
    here.endpoint.connect = lambda factory: succeed(factory.buildProtocol(None))
    outcome = here.delivered(connection_timeout=0.5)
    assert isinstance(outcome.error, ConnectionFailed)
    assert str(outcome.error) == "Cannot connect to mx.example:25: the endpoint did not connect its protocol"
    assert list(here.agent._opener.sessions) == []
    here.close()


def test_an_endpoint_that_asks_for_a_second_protocol_gets_none() -> None:
    here = Post()
    here.endpoint = Stuck()
    here.deliver().addErrback(lambda failure: None)
    assert here.endpoint.factory.buildProtocol(None) is not None
    assert here.endpoint.factory.buildProtocol(None) is None
    here.close()


@pytest.mark.parametrize("how", ["fails", "never connects", "connects all the same"])
def test_a_session_that_was_built_for_nothing_is_not_left_behind(how: str) -> None:
    here = Post()
    here.endpoint = Stuck(deaf=True)
    outcome = Outcome(here.deliver(connection_timeout=3))
    session = here.endpoint.factory.buildProtocol(None)
    if how == "fails":
        here.endpoint.connecting.errback(error.ConnectionRefusedError())
        assert isinstance(outcome.error, ConnectionRefused)
    else:
        here.network.elapse(3)
        assert isinstance(outcome.error, ConnectionTimeout)
    if how == "connects all the same":
        end = here.network.join(session, here.sink.buildProtocol(None))
        here.network.settle()
        assert not end.connected
    assert session.when_gone().called
    assert list(here.agent._opener.sessions) == []
    here.close()


def test_a_session_that_is_connected_before_its_endpoint_says_so_ends_with_it() -> None:
    here = Post()
    here.endpoint = Stuck()
    outcome = Outcome(here.deliver(connection_timeout=3))
    end = here.network.join(here.endpoint.factory.buildProtocol(None), here.sink.buildProtocol(None))
    here.network.settle()
    assert end.connected
    here.network.elapse(3)
    assert isinstance(outcome.error, ConnectionTimeout)
    assert not end.connected
    here.close()


@pytest.mark.parametrize("fault", [InvalidRequest("not so", "helo"), RuntimeError("mine")])
def test_a_session_that_cannot_be_built_is_no_fault_of_the_endpoints(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    here = Post()
    here.endpoint = Stuck()

    def build(*_: object) -> None:
        raise fault

    monkeypatch.setattr(here.agent._opener, "_build", build)
    outcome = Outcome(here.deliver())
    assert here.endpoint.factory.buildProtocol(None) is None
    if isinstance(fault, DeliveryError):
        assert outcome.error is fault
    else:
        assert isinstance(outcome.error, InternalError)
        assert len(logged_failures.flush(RuntimeError)) == 1
    here.close()


@pytest.mark.parametrize("deaf", [False, True])
def test_to_cancel_connecting_is_to_cancel_the_endpoint(deaf: bool) -> None:
    network, endpoint = Network(), Stuck(deaf=deaf)
    connecting = Connector(network).connect(Server(host=HOST, endpoint=endpoint), lambda: None)  # type: ignore[type-var]  # nothing is built
    outcome = Outcome(connecting)
    connecting.cancel()
    assert type(outcome.error) is Cancelled
    assert endpoint.cancelled == 1
    network.assert_nothing_is_left()


def test_a_closed_agent_waits_for_no_endpoint() -> None:
    here = Post()
    here.endpoint = Stuck()
    outcome = Outcome(here.deliver())
    here.close()
    assert isinstance(outcome.error, DeliveryError)
    assert here.endpoint.cancelled == 1


# STARTTLS.


def test_the_certificate_is_held_against_the_host_which_is_a_name() -> None:
    here = Post(starttls=GOOD.server_context())
    assert here.delivered(tls=TLSMode.DEPEND).value.all_ok
    wrong = here.delivered(tls=TLSMode.DEPEND, host="other.example").error
    assert str(wrong) == "the server's certificate does not verify: it is not for other.example"
    here.close()


def test_starttls_that_fails_goes_in_clear_by_the_same_endpoint_and_is_remembered_of_it_alone() -> None:
    here = Post(
        starttls=GOOD.server_context(), faults=[Fault(Stage.HANDSHAKE, Action.REPLY, b"454 no\r\n", nth=1)]
    )
    assert here.delivered(tls=TLSMode.TRY).value.all_ok
    assert here.endpoint.connected == 2
    assert not here.sink.mails[-1].session.tls
    other = Memory(here.network, here.sink)
    assert here.delivered(tls=TLSMode.TRY, endpoint=other).value.all_ok
    assert here.sink.mails[-1].session.tls
    here.close()


# TLS that the endpoint brings along.

OVER = pytest.mark.parametrize("over", [False, True])
VERIFIED = pytest.mark.parametrize("mode", [TLSMode.DEPEND, TLSMode.IMPLICIT])
#: Accepts whatever it is shown.
CAREFREE = CertificateOptions(verify=False)


@OVER
@pytest.mark.parametrize("mode", list(TLSMode))
def test_tls_of_the_endpoint_is_tls_and_none_is_started_in_it(mode: TLSMode, over: bool) -> None:
    here = Post(
        optionsForClientTLS(HOST, trustRoot=GOOD.trust_root()),
        over=over,
        implicit_tls=GOOD.server_context(),
        starttls=GOOD.server_context(),
    )
    assert here.delivered(tls=mode).value.all_ok
    assert here.network.ends[0].tls_begun == 0
    assert b"STARTTLS" not in here.sink.commands
    here.close()


@OVER
@VERIFIED
@pytest.mark.parametrize(
    ("certificates", "changes", "says"),
    [
        (UNTRUSTED, {}, "its authority is not trusted"),
        (make_certificates(HOST, self_signed=True), {}, "it is self-signed"),
        (GOOD, {"host": "other.example"}, "it is not for other.example"),
        (GOOD, {"tls_name": "192.0.2.9"}, "it is not for 192.0.2.9"),
        (GOOD, {"tls_fingerprint": "sha256:" + "0" * 64}, f"its fingerprint is {GOOD.fingerprint}"),
    ],
    ids=["untrusted", "self-signed", "name", "address", "fingerprint"],
)
def test_tls_of_the_endpoint_must_verify_by_these_terms_whatever_it_accepts(
    mode: TLSMode, over: bool, certificates: Any, changes: dict[str, Any], says: str
) -> None:
    here = Post(CAREFREE, over=over, implicit_tls=certificates.server_context())
    outcome = here.delivered(tls=mode, **changes)
    assert isinstance(outcome.error, TLSFailed)
    assert str(outcome.error) == f"the server's certificate does not verify: {says}"
    assert here.sink.commands == []
    here.close()


@OVER
@VERIFIED
def test_tls_of_the_endpoint_may_be_known_by_its_fingerprint(mode: TLSMode, over: bool) -> None:
    here = Post(CAREFREE, over=over, implicit_tls=UNTRUSTED.server_context())
    assert here.delivered(tls=mode, tls_fingerprint=UNTRUSTED.fingerprint).value.all_ok
    here.close()


def test_a_certificate_that_has_expired_does_not_verify_behind_an_endpoint_either() -> None:
    here = Post(CAREFREE, implicit_tls=EXPIRED.server_context())
    agent = DeliveryAgent(here.network, trust_root=EXPIRED.trust_root())
    server = Server(host=HOST, endpoint=here.endpoint, tls=TLSMode.IMPLICIT)
    outcome = here.network.until(agent.deliver(server, envelope(), Content(MESSAGE)))
    assert str(outcome.error) == "the server's certificate does not verify: it has expired"
    here.close()


@pytest.mark.parametrize("mode", [TLSMode.NO, TLSMode.TRY])
def test_tls_of_the_endpoint_need_not_verify_where_the_terms_do_not_ask_for_it(mode: TLSMode) -> None:
    here = Post(CAREFREE, implicit_tls=UNTRUSTED.server_context())
    assert here.delivered(tls=mode).value.all_ok
    here.close()


@pytest.mark.parametrize("mode", list(TLSMode))
@pytest.mark.parametrize(
    "certificates", [UNTRUSTED, make_certificates("other.example")], ids=["untrusted", "name"]
)
def test_a_certificate_that_the_endpoint_itself_refuses_is_a_failure_of_tls(
    mode: TLSMode, certificates: Any
) -> None:
    trusted = GOOD if certificates is UNTRUSTED else certificates
    here = Post(
        optionsForClientTLS(HOST, trustRoot=trusted.trust_root()), implicit_tls=certificates.server_context()
    )
    outcome = here.delivered(tls=mode)
    # In whose words depends on Twisted: some give us data of a certificate
    # that they are about to refuse, and then we judge it first.
    assert isinstance(outcome.error, TLSFailed)
    here.close()


def test_a_handshake_of_the_endpoints_that_never_completes_ends_within_the_greetings_bound() -> None:
    here = Post(
        CAREFREE, implicit_tls=GOOD.server_context(), faults=[Fault(Stage.HANDSHAKE, Action.STALL, nth=None)]
    )
    outcome = here.delivered(20, tls=TLSMode.IMPLICIT, timeouts=Timeouts.uniform(10))
    assert isinstance(outcome.error, ResponseTimeout)
    assert outcome.seconds == 10
    here.close()


def test_a_connection_lost_in_the_handshake_of_the_endpoint_is_a_lost_connection() -> None:
    here = Post(
        CAREFREE, implicit_tls=GOOD.server_context(), faults=[Fault(Stage.HANDSHAKE, Action.CLOSE, nth=None)]
    )
    assert isinstance(here.delivered(tls=TLSMode.IMPLICIT).error, ConnectionLost)
    here.close()


# Twisted's own.


class Loopback:
    """A sink on a real socket, and an agent."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.agent = DeliveryAgent(reactor, trust_root=GOOD.trust_root())
        self.sinks: list[Sink] = []

    async def sink(self, listen: str = f"tcp:0:interface={LOOPBACK}", **settings: Any) -> Sink:
        sink = Sink(self.reactor, **settings)
        await sink.listen(listen)
        self.sinks.append(sink)
        return sink

    async def deliver(self, endpoint: Any, **terms: Any) -> DeliveryResult:
        server = Server(**{"host": HOST, "endpoint": endpoint, **terms})
        return await self.agent.deliver(server, envelope(), Content(MESSAGE))

    async def close(self) -> None:
        await self.agent.close()
        for sink in self.sinks:
            await sink.stop()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    loopback = Loopback()
    yield loopback
    pytest_twisted.blockon(Deferred.fromCoroutine(loopback.close()))


@pytest.mark.parametrize("kind", [TCP4ClientEndpoint, HostnameEndpoint])
@pytest_twisted.ensureDeferred
async def test_twisteds_tcp_endpoints_deliver(loopback: Loopback, kind: Any) -> None:
    sink = await loopback.sink(starttls=GOOD.server_context())
    endpoint = kind(loopback.reactor, LOOPBACK, sink.port)
    assert (await loopback.deliver(endpoint, tls=TLSMode.DEPEND)).all_ok
    assert sink.mails[0].session.tls


@pytest.mark.parametrize("kind", [TCP4ClientEndpoint, HostnameEndpoint])
@pytest_twisted.ensureDeferred
async def test_twisteds_tls_wrapper_delivers_and_is_verified_once_more(loopback: Loopback, kind: Any) -> None:
    sink = await loopback.sink(implicit_tls=GOOD.server_context())
    context = optionsForClientTLS(HOST, trustRoot=GOOD.trust_root())
    endpoint = wrapClientTLS(context, kind(loopback.reactor, LOOPBACK, sink.port))
    assert (await loopback.deliver(endpoint, tls=TLSMode.IMPLICIT)).all_ok
    untrusted = await loopback.sink(implicit_tls=UNTRUSTED.server_context())
    carefree = wrapClientTLS(CAREFREE, kind(loopback.reactor, LOOPBACK, untrusted.port))
    with pytest.raises(TLSFailed, match=r"its authority is not trusted$"):
        await loopback.deliver(carefree, tls=TLSMode.IMPLICIT)
    refused = wrapClientTLS(context, kind(loopback.reactor, LOOPBACK, untrusted.port))
    with pytest.raises(TLSFailed, match=r"^the TLS handshake failed: "):
        await loopback.deliver(refused, tls=TLSMode.IMPLICIT)


@pytest_twisted.ensureDeferred
async def test_a_unix_endpoint_delivers_to_a_server_by_its_name(loopback: Loopback, tmp_path: Any) -> None:
    sink = await loopback.sink(f"unix:{tmp_path / 'lmtp'}", lmtp=True)
    endpoint = UNIXClientEndpoint(loopback.reactor, str(tmp_path / "lmtp"))
    assert (await loopback.deliver(endpoint, protocol=Protocol.LMTP)).all_ok
    assert sink.mail_count == 1


@pytest_twisted.ensureDeferred
async def test_an_endpoint_to_where_nobody_listens_is_refused(loopback: Loopback) -> None:
    sink = await loopback.sink()
    port = sink.port
    await sink.stop()
    with pytest.raises(ConnectionRefused, match=r"^Connection refused: mx\.example:25$"):
        await loopback.deliver(TCP4ClientEndpoint(loopback.reactor, LOOPBACK, port))


@pytest_twisted.ensureDeferred
async def test_the_one_line_call_takes_an_endpoint(loopback: Loopback) -> None:
    sink = await loopback.sink()
    endpoint = TCP4ClientEndpoint(loopback.reactor, LOOPBACK, sink.port)
    assert (await deliver(HOST, None, ["a@b.de"], MESSAGE, endpoint=endpoint)).all_ok
