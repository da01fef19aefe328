"""
Probes of real servers, and mail to them by endpoints.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from twisted_smtpclient.errors import (
    ConnectionRefused,
    ExtensionUnsupported,
    Refused,
    TLSFailed,
)
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.credentials import Credentials
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Protocol, Server, TLSMode
from twisted_smtpclient.smtp.probe import Probe, TLSSession

from .agent import PATIENCE, ImpatientAgent
from .certificates import NAME, Certificates
from .child import free_ports
from .daemon import Daemon
from .dovecot import MECHANISMS, PASSWORD, Dovecot
from .exim import Exim
from .postfix import SMALL_SIZE_LIMIT, Postfix

CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"


async def look(agent: ImpatientAgent, host: str, port: int | None = None, **terms: Any) -> Probe:
    seen: Probe = await agent.probe(Server(host=host, port=port, **terms)).addTimeout(PATIENCE, reactor)
    return seen


def tls_of(seen: Probe) -> TLSSession:
    assert seen.tls is not None
    return seen.tls


# Postfix


@pytest_twisted.ensureDeferred
async def test_postfix_is_told_as_it_is(postfix: Postfix, agent: ImpatientAgent) -> None:
    seen = await look(agent, postfix.host, postfix.ports["small"])
    assert seen.greeting == "220 mx.tests.example ESMTP Postfix"
    assert seen.size_limit == SMALL_SIZE_LIMIT
    assert {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"} <= set(seen.extensions)
    assert (seen.tls, seen.authenticated, seen.mechanisms) == (None, False, ())


@pytest.mark.parametrize(
    ("service", "tls", "complaint"),
    [
        ("starttls", TLSMode.TRY, None),
        ("starttls", TLSMode.DEPEND, None),
        ("implicit", TLSMode.IMPLICIT, None),
        ("starttls_untrusted", TLSMode.TRY, "its authority is not trusted"),
        ("starttls_other_name", TLSMode.TRY, "it is not for 127.0.0.1"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_postfix_s_tls_is_told_and_why_it_does_not_verify(
    postfix: Postfix,
    agent: ImpatientAgent,
    certificates: Certificates,
    service: str,
    tls: TLSMode,
    complaint: str | None,
) -> None:
    told = tls_of(await look(agent, postfix.host, postfix.ports[service], tls=tls))
    shown = {
        "starttls_untrusted": certificates.untrusted,
        "starttls_other_name": certificates.other_name,
    }.get(service, certificates.good)
    assert told.version == "TLSv1.3"
    assert (told.verified, told.complaint) == (complaint is None, complaint)
    assert told.fingerprint == shown.fingerprint
    assert (NAME in told.names) is (service != "starttls_other_name")


@pytest_twisted.ensureDeferred
async def test_a_broken_starttls_leaves_a_probe_in_clear(postfix: Postfix, agent: ImpatientAgent) -> None:
    seen = await look(agent, postfix.host, postfix.ports["starttls_broken"])
    assert seen.tls is None
    assert "STARTTLS" in seen.extensions


@pytest.mark.parametrize(
    ("service", "tls", "error"),
    [
        ("closed", TLSMode.TRY, Refused),
        ("neither", TLSMode.DEPEND, ExtensionUnsupported),
        ("starttls_untrusted", TLSMode.DEPEND, TLSFailed),
        ("neither", TLSMode.IMPLICIT, TLSFailed),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_would_stop_a_mail_is_the_error(
    postfix: Postfix, agent: ImpatientAgent, service: str, tls: TLSMode, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await look(agent, postfix.host, postfix.ports[service], tls=tls)


@pytest_twisted.ensureDeferred
async def test_a_probe_of_postfix_says_ehlo_and_quit_and_no_more(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    before = len(postfix.log_until_now())
    await look(agent, postfix.host, postfix.ports["pipelining"])
    # Whose reply to QUIT is not waited for otherwise.
    await agent.close()
    assert "ehlo=1 quit=1 commands=2" in postfix.log_until_now()[before:]


@pytest.mark.parametrize(("service", "tls"), [("auth", TLSMode.NO), ("auth_starttls", TLSMode.DEPEND)])
@pytest_twisted.ensureDeferred
async def test_a_login_to_postfix_is_part_of_a_probe(
    postfix: Postfix, dovecot: Dovecot, agent: ImpatientAgent, service: str, tls: TLSMode
) -> None:
    port = postfix.ports[service]
    seen = await look(agent, postfix.host, port, tls=tls, auth=Credentials("anna", PASSWORD))
    assert seen.authenticated
    assert set(seen.mechanisms) == set(MECHANISMS)
    with pytest.raises(Refused, match=r"^AUTH refused: 535"):
        await look(agent, postfix.host, port, tls=tls, auth=Credentials("anna", "falsch"))


# Exim, Dovecot


@pytest_twisted.ensureDeferred
async def test_exim_is_told_as_it_is(exim: Exim, agent: ImpatientAgent, certificates: Certificates) -> None:
    seen = await look(agent, exim.host, exim.ports["pipelining_chunking"], tls=TLSMode.DEPEND)
    assert seen.greeting.startswith("220 exim.tests.example ESMTP Exim")
    assert {"PIPELINING", "CHUNKING", "SIZE"} <= set(seen.extensions)
    assert tls_of(seen).verified
    assert tls_of(seen).fingerprint == certificates.good.fingerprint


@pytest.mark.parametrize("unix", [False, True])
@pytest_twisted.ensureDeferred
async def test_dovecot_s_lmtp_is_told_as_it_is(dovecot: Dovecot, agent: ImpatientAgent, unix: bool) -> None:
    place = (f"unix:{dovecot.socket}", None) if unix else (dovecot.host, dovecot.port)
    seen = await look(agent, *place, protocol=Protocol.LMTP)
    assert seen.greeting.startswith("220 dovecot.tests.example")
    assert {"PIPELINING", "8BITMIME"} <= set(seen.extensions)


@pytest_twisted.ensureDeferred
async def test_a_probe_is_made_from_the_source_address(postfix: Postfix, agent: ImpatientAgent) -> None:
    before = len(postfix.log_until_now())
    await look(agent, postfix.host, postfix.ports["pipelining"], source_address="127.0.0.9")
    assert "[127.0.0.9]" in postfix.log_until_now()[before:]


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_refused(agent: ImpatientAgent) -> None:
    with pytest.raises(ConnectionRefused):
        await look(agent, "127.0.0.1", free_ports(1)[0])


# By endpoints


@pytest.mark.parametrize(("service", "tls"), [("starttls", TLSMode.DEPEND), ("implicit", TLSMode.IMPLICIT)])
@pytest_twisted.ensureDeferred
async def test_postfix_is_reached_by_an_endpoint_under_its_own_name(
    postfix: Postfix, agent: ImpatientAgent, certificates: Certificates, service: str, tls: TLSMode
) -> None:
    endpoint: Any = TCP4ClientEndpoint(reactor, postfix.host, postfix.ports[service])
    if tls is TLSMode.IMPLICIT:
        authority = Certificate.loadPEM(certificates.trusted.read_bytes())
        context = optionsForClientTLS(NAME, trustRoot=trustRootFromCertificates([authority]))
        endpoint = wrapClientTLS(context, endpoint)
    server = Server(host=NAME, endpoint=endpoint, tls=tls)
    result = await agent.deliver(server, Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT))
    assert result.all_ok
    told = tls_of(await agent.probe(server).addTimeout(PATIENCE, reactor))
    assert told.verified


# By the daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), "--ca-file", str(certificates.trusted))
    try:
        daemon.wait_until_it_answers()
        yield daemon
    finally:
        status = daemon.stop()
    assert status in (0, -signal.SIGTERM), daemon.log
    assert "Traceback" not in daemon.log


def test_the_daemon_answers_probes_among_mails(postfix: Postfix, dovecot: Dovecot, daemon: Daemon) -> None:
    port = postfix.ports["auth_starttls"]
    session = {"host": postfix.host, "port": port}
    login = {"username": "anna", "password": PASSWORD}
    first, mail, second, third = daemon.ask(
        {"probe": True, **session},
        {
            "host": postfix.host,
            "port": postfix.ports["starttls"],
            "sender": "foo@bar.de",
            "recipients": ["foo@bar.de"],
            "message": "U3ViamVjdDogdGVzdA0KDQpUZXN0DQo=",
        },
        {"probe": True, **session, "tls": "DEPEND", "auth": login},
        {"probe": True, **session, "tls": "DEPEND", "auth": {**login, "password": "falsch"}},
    )
    assert set(first) == {"status", "greeting", "extensions", "tls", "authenticated"}
    assert first["greeting"] == "220 mx.tests.example ESMTP Postfix"
    assert set(first["tls"]) == {"version", "cipher", "verified"}
    assert first["tls"]["verified"] is True
    assert first["authenticated"] is False
    assert mail["deliveryStatus"][0]["status"] == "Ok"
    assert second["authenticated"] is True
    assert (third["error"], third["command"], third["code"]) == ("Refused", "AUTH", 535)
    assert f"{postfix.host}:{port} probed: Ok" in daemon.log
    assert PASSWORD not in daemon.log
