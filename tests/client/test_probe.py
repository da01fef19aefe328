"""
Tests of probes: what is told of a server, what they say to it, and what ends them.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import CertificateOptions

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, OUTLASTS_A_SINK, envelope, terms
from tests.client.test_endpoint import Memory
from twisted_smtpclient import (
    Cancelled,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimeout,
    Content,
    Credentials,
    DeliveryAgent,
    DeliveryCancelled,
    ExtensionUnsupported,
    HostNotFound,
    InternalError,
    InvalidRequest,
    Mode,
    Probe,
    Protocol,
    ProtocolError,
    Refused,
    ResponseTimeout,
    Server,
    ShuttingDown,
    Timeouts,
    TLSFailed,
    TLSMode,
    probe,
)
from twisted_smtpclient.client.probe import AT_A_TIME, Probes
from twisted_smtpclient.smtp.limits import Limits
from twisted_smtpclient.testing import Action, Fault, Sink, Stage, make_certificates

NAMES = ("mx.example", HOST, "2001:db8::1")
GOOD = make_certificates(*NAMES)
UNTRUSTED = make_certificates(*NAMES)
PATIENT = Timeouts.uniform(10)


class Lookout:
    """An agent that looks at a sink in memory."""

    def __init__(self, *, sink: Any = None, **settings: Any) -> None:
        self.network = Network()
        self.sink = Sink(self.network, **settings) if sink is None else sink
        self.network.serve(self.sink, HOST)
        self.agent = DeliveryAgent(self.network, trust_root=GOOD.trust_root())

    def look(self, **changes: Any) -> Deferred[Probe]:
        return self.agent.probe(terms(**changes))

    def seen(self, bound: float = 0.0, **changes: Any) -> Outcome[Probe]:
        return self.network.until(self.look(**changes), bound)

    def close(self) -> None:
        assert self.network.until(self.agent.close(), 10.0).value is None
        self.network.elapse(OUTLASTS_A_SINK)
        self.network.assert_nothing_is_left()
        assert self.agent._probes._lanes == {}
        assert self.sink.violations == []

    @property
    def verbs(self) -> list[bytes]:
        return [command.split()[0] for command in self.sink.commands]


def secure(certificates: Any = GOOD, **settings: Any) -> Lookout:
    return Lookout(starttls=certificates.server_context(), **settings)


# What is told.


def test_a_server_is_greeted_asked_and_left() -> None:
    here = Lookout(name="mx.example", extensions=["LIMITS RCPTMAX=100 MAILMAX=20", "AUTH PLAIN LOGIN"])
    probe = here.seen().value
    assert re.match(r"220 mx\.example ESMTP", probe.greeting)
    assert probe.extensions["SIZE"] == ("10485760",)
    assert probe.extensions["PIPELINING"] == ()
    assert probe.size_limit == 10_485_760
    assert probe.limits == Limits(20, 100, None)
    assert probe.mechanisms == ("PLAIN", "LOGIN")
    assert probe.tls is None
    assert not probe.authenticated
    here.network.settle()
    assert here.verbs == [b"EHLO", b"QUIT"]
    assert here.network.open_connections == 0
    here.close()


def test_a_probe_is_a_value_that_does_not_change() -> None:
    here = Lookout()
    first, second = here.seen().value, here.seen().value
    assert first == second
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        first.greeting = "220 other"  # type: ignore[misc]  # which is the point
    assert here.sink.session_count == 2
    here.close()


def test_a_server_that_knows_helo_alone_offers_nothing() -> None:
    here = Lookout(esmtp=False)
    probe = here.seen().value
    assert dict(probe.extensions) == {}
    assert (probe.mechanisms, probe.size_limit, probe.limits) == ((), None, Limits())
    here.network.settle()
    assert here.verbs == [b"EHLO", b"HELO", b"QUIT"]
    here.close()


def test_a_greeting_of_many_lines_is_told_whole() -> None:
    here = Lookout(
        faults=[Fault(Stage.GREETING, Action.REPLY, b"220-mx.example\r\n220-no spam\r\n220 hi\r\n")]
    )
    assert here.seen().value.greeting == "220-mx.example\n220-no spam\n220 hi"
    here.close()


def test_lmtp_is_asked_by_lhlo() -> None:
    here = Lookout(lmtp=True)
    assert "PIPELINING" in here.seen(protocol=Protocol.LMTP).value.extensions
    here.network.settle()
    assert here.verbs == [b"LHLO", b"QUIT"]
    here.close()


def test_extensions_are_those_of_the_last_ehlo() -> None:
    lie = b"250-mx\r\n250-STARTTLS\r\n250-ONLYINCLEAR\r\n250 AUTH PLAIN\r\n"
    here = secure(faults=[Fault(Stage.EHLO, Action.REPLY, lie)])
    probe = here.seen(tls=TLSMode.TRY).value
    assert "ONLYINCLEAR" not in probe.extensions
    assert "STARTTLS" not in probe.extensions
    assert probe.mechanisms == ()
    here.close()


# TLS.


@pytest.mark.parametrize("mode", [TLSMode.TRY, TLSMode.DEPEND, TLSMode.IMPLICIT])
def test_of_tls_all_is_told(mode: TLSMode) -> None:
    kind = "implicit_tls" if mode is TLSMode.IMPLICIT else "starttls"
    here = Lookout(**{kind: GOOD.server_context()})
    tls = here.seen(tls=mode, tls_name="mx.example").value.tls
    assert tls is not None
    assert tls.version == "TLSv1.3"
    assert tls.cipher.startswith("TLS_")
    assert (tls.verified, tls.complaint) == (True, None)
    assert tls.names == NAMES
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tls.expires)
    assert tls.fingerprint == GOOD.fingerprint
    here.close()


@pytest.mark.parametrize(
    ("certificates", "changes", "complaint"),
    [
        (UNTRUSTED, {}, "its authority is not trusted"),
        (make_certificates(HOST, self_signed=True), {}, "it is self-signed"),
        (GOOD, {"tls_name": "other.example"}, "it is not for other.example"),
        (GOOD, {"tls_fingerprint": UNTRUSTED.fingerprint}, f"its fingerprint is {GOOD.fingerprint}"),
    ],
    ids=["untrusted", "self-signed", "name", "fingerprint"],
)
def test_where_tls_is_tried_it_is_told_why_a_certificate_does_not_verify(
    certificates: Any, changes: dict[str, Any], complaint: str
) -> None:
    here = secure(certificates)
    tls = here.seen(tls=TLSMode.TRY, **changes).value.tls
    assert tls is not None
    assert (tls.verified, tls.complaint) == (False, complaint)
    assert tls.fingerprint == certificates.fingerprint
    here.close()


def test_the_fingerprint_that_is_told_is_the_one_to_ask_for() -> None:
    here = secure(UNTRUSTED)
    told = here.seen(tls=TLSMode.TRY).value.tls
    assert told is not None
    tls = here.seen(tls=TLSMode.DEPEND, tls_fingerprint=told.fingerprint).value.tls
    assert tls is not None
    assert tls.verified
    here.close()


def test_tls_that_is_tried_and_fails_leaves_a_probe_in_clear() -> None:
    here = secure(faults=[Fault(Stage.HANDSHAKE, Action.CLOSE)])
    probe = here.seen(tls=TLSMode.TRY).value
    assert probe.tls is None
    assert "STARTTLS" in probe.extensions
    assert len(here.network.ends) == 2
    here.close()


@pytest.mark.parametrize("mode", list(TLSMode))
def test_tls_that_an_endpoint_brings_along_is_told_of(mode: TLSMode) -> None:
    here = Lookout(implicit_tls=UNTRUSTED.server_context())
    endpoint = Memory(here.network, here.sink, CertificateOptions(verify=False))
    outcome = here.seen(tls=mode, endpoint=endpoint)
    if mode.verified:
        assert isinstance(outcome.error, TLSFailed)
    else:
        tls = outcome.value.tls
        assert tls is not None
        assert (tls.version, tls.verified, tls.complaint) == (
            "TLSv1.3",
            False,
            "its authority is not trusted",
        )
    here.close()


# Login.


def test_a_login_is_part_of_a_probe() -> None:
    here = secure(users={"anna": "geheim"})
    seen = here.seen(tls=TLSMode.DEPEND, auth=Credentials("anna", "geheim")).value
    assert seen.authenticated
    assert "SCRAM-SHA-256" in seen.mechanisms
    assert "geheim" not in repr(seen)
    here.network.settle()
    assert here.verbs[-1] == b"QUIT"
    here.close()


def test_a_login_that_is_refused_is_the_error() -> None:
    here = secure(users={"anna": "geheim"})
    error = here.seen(tls=TLSMode.DEPEND, auth=Credentials("anna", "falsch")).error
    assert isinstance(error, Refused)
    assert (error.command, error.code) == ("AUTH", 535)
    here.close()


@pytest.mark.parametrize("over", [False, True])
def test_a_password_is_shown_over_verified_tls_that_an_endpoint_brought_along(over: bool) -> None:
    def look(certificates: Any, mode: TLSMode) -> Any:
        here = Lookout(
            implicit_tls=certificates.server_context(), users={"anna": "geheim"}, mechanisms=["PLAIN"]
        )
        endpoint = Memory(here.network, here.sink, CertificateOptions(verify=False), over=over)
        outcome = here.seen(
            endpoint=endpoint, tls=mode, tls_name="mx.example", auth=Credentials("anna", "geheim")
        )
        here.network.elapse(6)
        here.close()
        return outcome

    assert look(GOOD, TLSMode.IMPLICIT).value.authenticated
    assert look(GOOD, TLSMode.TRY).value.authenticated
    assert isinstance(look(UNTRUSTED, TLSMode.TRY).error, ExtensionUnsupported)
    assert isinstance(look(UNTRUSTED, TLSMode.IMPLICIT).error, TLSFailed)


# What goes wrong.


@pytest.mark.parametrize(
    ("settings", "changes", "error", "says"),
    [
        (
            {"faults": [Fault(Stage.GREETING, Action.REPLY, b"554 no\r\n")]},
            {},
            Refused,
            "CONNECT refused: 554 no",
        ),
        (
            {"faults": [Fault(Stage.GREETING, Action.REPLY_AND_CLOSE, b"421 busy\r\n")]},
            {},
            Refused,
            "CONNECT refused: 421",
        ),
        ({"faults": [Fault(Stage.EHLO, Action.REPLY, b"550 no\r\n")]}, {}, Refused, "EHLO refused: 550 no"),
        (
            {"faults": [Fault(Stage.GREETING, Action.CLOSE)]},
            {},
            ConnectionLost,
            "connection lost, no greeting",
        ),
        ({"faults": [Fault(Stage.GREETING, Action.STALL)]}, {}, ResponseTimeout, "no greeting within 10 s"),
        ({"faults": [Fault(Stage.EHLO, Action.STALL)]}, {}, ResponseTimeout, "no reply to EHLO within 10 s"),
        ({"faults": [Fault(Stage.GREETING, Action.REPLY, b"hello\r\n")]}, {}, ProtocolError, ""),
        ({}, {"tls": TLSMode.DEPEND}, ExtensionUnsupported, "the server does not offer STARTTLS"),
        (
            {"pipelining": False},
            {"pipelining": Mode.DEPEND},
            ExtensionUnsupported,
            "the server does not offer PIPELINING",
        ),
        (
            {"starttls": UNTRUSTED.server_context()},
            {"tls": TLSMode.DEPEND},
            TLSFailed,
            "the server's certificate does not verify: its authority is not trusted",
        ),
        ({}, {"host": "192.0.2.99"}, ConnectionRefused, "Connection refused: 192.0.2.99:25"),
    ],
)
def test_what_would_keep_a_mail_from_being_sent_is_the_error(
    settings: dict[str, Any], changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    here = Lookout(**settings)
    outcome = here.seen(20, timeouts=PATIENT, **changes)
    assert type(outcome.error) is error
    assert str(outcome.error).startswith(says)
    here.network.elapse(6)
    assert here.network.open_connections == 0
    here.close()


def test_a_name_that_is_not_there_is_not_found() -> None:
    network = Network()

    def resolve(host: str) -> Any:
        raise HostNotFound(f"Host not found: {host}")

    agent = DeliveryAgent(network, resolver=resolve)
    assert isinstance(network.until(agent.probe(Server(host="mx.example"))).error, HostNotFound)


def test_a_server_that_is_silent_is_left_within_the_bound() -> None:
    here = Lookout()
    here.network.serve(None, HOST)
    outcome = here.seen(20, connection_timeout=3)
    assert isinstance(outcome.error, ConnectionTimeout)
    assert outcome.seconds == 3
    here.close()


def test_a_server_that_does_not_answer_quit_delays_no_result() -> None:
    here = Lookout(faults=[Fault(Stage.QUIT, Action.STALL)])
    assert here.seen().value.extensions
    here.network.elapse(5.5)
    assert here.network.open_connections == 0
    here.close()


def test_a_fault_of_ours_is_an_internal_error_and_not_the_last_probe(
    monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    here = Lookout()
    with monkeypatch.context() as patched:
        patched.setattr(here.agent._opener, "_build", lambda *_: 1 / 0)
        assert isinstance(here.seen().error, InternalError)
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    assert here.seen().value.extensions
    here.close()


def test_only_a_server_can_be_looked_at() -> None:
    here: Any = Lookout()
    with pytest.raises(TypeError, match=r"^probe\(\) takes a Server, not str$"):
        here.agent.probe("mx.example")


# Cancelling, closing.


@pytest.mark.parametrize("stage", ["connecting", Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.HANDSHAKE])
def test_a_cancelled_probe_ends_at_once_and_leaves_nothing_behind(stage: Any) -> None:
    faults = [] if stage == "connecting" else [Fault(stage, Action.STALL)]
    here = secure(faults=faults)
    if stage == "connecting":
        here.network.serve(None, HOST)
    result = here.look(tls=TLSMode.TRY)
    here.network.settle()
    outcome = Outcome(result)
    result.cancel()
    assert type(outcome.error) is DeliveryCancelled
    assert isinstance(outcome.error, CancelledError)
    assert isinstance(outcome.error, Cancelled)
    here.network.elapse(OUTLASTS_A_SINK)
    # Nor is it tried in clear now.
    assert here.network.open_connections == 0
    assert len(here.network.ends) == (0 if stage == "connecting" else 1)
    here.network.serve(here.sink, HOST)
    assert here.seen(tls=TLSMode.TRY).value.extensions
    here.close()


def test_a_probe_that_waits_its_turn_can_be_cancelled() -> None:
    here = Lookout()
    here.network.serve(None, HOST)
    results = [here.look(connection_timeout=5) for _ in range(AT_A_TIME + 2)]
    outcomes = [Outcome(result) for result in results]
    here.network.settle()
    results[AT_A_TIME].cancel()
    assert type(outcomes[AT_A_TIME].error) is DeliveryCancelled
    here.network.serve(here.sink, HOST)
    here.network.elapse(5)
    assert here.sink.session_count == 1
    assert outcomes[-1].value.extensions
    assert all(isinstance(outcome.error, ConnectionTimeout) for outcome in outcomes[:AT_A_TIME])
    here.close()


@pytest.mark.parametrize("stage", ["connecting", Stage.GREETING, Stage.HANDSHAKE])
def test_a_closed_agent_ends_its_probes(stage: Any) -> None:
    here = secure(faults=[] if stage == "connecting" else [Fault(stage, Action.STALL, nth=None)])
    if stage == "connecting":
        here.network.serve(None, HOST)
    outcomes = [Outcome(here.look(tls=TLSMode.TRY)) for _ in range(AT_A_TIME + 3)]
    here.network.settle()
    here.close()
    assert [type(outcome.error) for outcome in outcomes] == [ShuttingDown] * len(outcomes)
    assert len(here.network.attempts) == AT_A_TIME
    assert isinstance(here.seen().error, ShuttingDown)


def test_a_closed_agent_does_not_wait_for_the_reply_to_quit() -> None:
    here = Lookout(faults=[Fault(Stage.QUIT, Action.STALL)])
    assert here.seen().value.extensions
    here.close()


def test_a_session_that_is_ready_although_nobody_wants_it_is_finished() -> None:
    class Ready:
        """A session that is ready when it is given up."""

        def __init__(self) -> None:
            self.finished = 0
            self.gone: Deferred[None] = Deferred()

        def finish(self) -> None:
            self.finished += 1

        def when_gone(self) -> Deferred[None]:
            return self.gone

    ready: Any = Ready()
    probes = Probes(lambda server: Deferred(lambda opening: opening.callback(ready)))
    result = probes.start(terms())
    outcome = Outcome(result)
    result.cancel()
    assert type(outcome.error) is DeliveryCancelled
    assert ready.finished == 1
    ready.gone.callback(None)
    assert probes._lanes == {}


# Beside mails, and beside each other.


def test_probes_of_one_server_go_two_at_a_time_and_in_turn() -> None:
    here = Lookout(delay=1.0)
    outcomes = [Outcome(here.look()) for _ in range(7)]
    most = 0
    for _ in range(40):
        here.network.elapse(0.25, 0.25)
        most = max(most, here.network.open_connections)
        came = [outcome.came for outcome in outcomes]
        assert came == sorted(came, reverse=True)
    here.network.elapse(20)
    assert most == AT_A_TIME
    assert all(outcome.value.extensions for outcome in outcomes)
    here.close()


def test_probes_of_two_servers_do_not_wait_for_each_other() -> None:
    here = Lookout()
    other = "192.0.2.2"
    here.network.serve(None, other)
    for _ in range(AT_A_TIME + 1):
        here.look(host=other).addErrback(lambda failure: None)
    assert here.seen().value.extensions
    here.close()


def test_a_probe_does_not_wait_for_mails_nor_take_their_connection() -> None:
    here = Lookout(faults=[Fault(Stage.MAIL, Action.STALL)])
    here.agent.close()
    here.agent = DeliveryAgent(here.network, connections_per_host=1)
    mail = Outcome(here.agent.deliver(terms(), envelope(), Content(b"x")))
    here.network.settle()
    assert here.seen().value.extensions
    assert not mail.came
    assert here.network.open_connections == 1
    here.network.until(here.agent.close(), 5)
    here.network.elapse(OUTLASTS_A_SINK)


def test_thousands_that_fail_at_once_do_so_one_after_another() -> None:
    here = Lookout()
    server = terms(pipelining=Mode.DEPEND)
    here.network.serve(None, HOST)
    outcomes = [Outcome(here.agent.probe(server)) for _ in range(5000)]
    # From now on none of them needs to be tried.
    here.agent._opener._quirks.remember(server, "PIPELINING", "a test says so")
    here.network.elapse(11)
    assert [outcome.came for outcome in outcomes] == [1] * 5000
    assert isinstance(outcomes[-1].error, ExtensionUnsupported)
    here.close()


# The kernel's part.


@pytest_twisted.ensureDeferred
async def test_the_one_line_call_probes_and_leaves_nothing_open() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor, starttls=GOOD.server_context())
    await sink.listen("tcp:0:interface=127.0.0.1")
    try:
        seen = await probe(
            "127.0.0.1",
            port=sink.port,
            trust_root=GOOD.trust_root(),
            tls=TLSMode.DEPEND,
            tls_name="mx.example",
        )
    finally:
        await sink.stop()
    assert seen.tls is not None
    assert seen.tls.verified
    with pytest.raises(InvalidRequest, match=r"^port: "):
        probe("127.0.0.1", port=0)


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_and_a_source_address_are_what_a_probe_is_made_from(tmp_path: Any) -> None:
    from twisted.internet import reactor

    lmtp, smtp = Sink(reactor, lmtp=True), Sink(reactor)
    await lmtp.listen(f"unix:{tmp_path / 'lmtp'}")
    await smtp.listen("tcp:0:interface=127.0.0.1")
    try:
        seen = await probe(f"unix:{tmp_path / 'lmtp'}", protocol=Protocol.LMTP)
        assert "PIPELINING" in seen.extensions
        await probe("127.0.0.1", port=smtp.port, source_address="127.0.0.2")
        assert smtp.sessions[0].peer.startswith("127.0.0.2")
    finally:
        await lmtp.stop()
        await smtp.stop()
