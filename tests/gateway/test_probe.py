"""
Tests of probes that clients of the daemon ask for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.gateway.fakes import Daemon, fields, line
from twisted_smtpclient import errors
from twisted_smtpclient.gateway import schema
from twisted_smtpclient.gateway.codec import ProbeRequest, Rejection, Request, RequestDecoder
from twisted_smtpclient.gateway.reply import encode_probe
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.limits import Limits
from twisted_smtpclient.smtp.policy import Mode, Protocol, Server, TLSMode
from twisted_smtpclient.smtp.probe import Probe, TLSSession

SEEN = Probe(
    greeting="220-mx.example ESMTP\n220 no spam",
    extensions=Extensions({"SIZE": ("10240000",), "PIPELINING": (), "AUTH": ("PLAIN", "LOGIN")}),
    tls=TLSSession(
        version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        verified=False,
        complaint="it has expired",
        names=("mx.example",),
        fingerprint="sha256:00",
    ),
    authenticated=True,
    limits=Limits(),
)
#: The reply to it, word for word as the contract has it.
TOLD = {
    "status": "ok",
    "greeting": "220-mx.example ESMTP\n220 no spam",
    "extensions": {"SIZE": ["10240000"], "PIPELINING": [], "AUTH": ["PLAIN", "LOGIN"]},
    "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "verified": False},
    "authenticated": True,
}


def ask(**given: Any) -> bytes:
    """A line with a probe."""
    return json.dumps({"probe": True, "host": "mx.example", **given}).encode()


def decode(octets: bytes) -> Any:
    return RequestDecoder().decode(octets)


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


# The line.


def test_a_host_is_all_that_a_probe_needs() -> None:
    request = decode(b'{"probe": true, "host": "mx.example"}')
    assert isinstance(request, ProbeRequest)
    assert request.server == Server(host="mx.example")


def test_a_probe_takes_every_field_of_a_session() -> None:
    session = {
        "host": "mx.example",
        "port": 2525,
        "helo": "me.example",
        "pipelining": "NO",
        "chunking": "NO",
        "connection_timeout": 3,
        "protocol": "LMTP",
        "tls": "DEPEND",
        "tls_name": "other.example",
        "tls_fingerprint": "sha256:" + "0" * 64,
        "source_address": "192.0.2.7",
    }
    request = decode(ask(id="x", response_timeout=7, reuse=False, **session))
    assert isinstance(request, ProbeRequest)
    assert request.id == "x"
    server = request.server
    assert (server.port, server.helo, server.protocol) == (2525, "me.example", Protocol.LMTP)
    assert (server.pipelining, server.chunking, server.tls) == (Mode.NO, Mode.NO, TLSMode.DEPEND)
    assert (server.connection_timeout, server.timeouts.greeting) == (3, 7)
    assert (server.tls_name, server.source_address) == ("other.example", "192.0.2.7")


def test_a_probe_takes_a_login() -> None:
    request = decode(ask(auth={"username": "anna", "password": "geheim"}))
    assert isinstance(request, ProbeRequest)
    assert request.server.auth is not None
    assert "geheim" not in repr(request)


def test_existing_clients_spellings_are_a_probes_too() -> None:
    assert decode(ask(pipeling="NO", connection_timout=3)).server.pipelining is Mode.NO


def test_no_probe_is_a_request_like_others() -> None:
    assert isinstance(decode(line(probe=False)), Request)
    rejection = decode(ask(probe=False))
    assert str(rejection.error).startswith("recipients: is required")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sender", "a@b.de"),
        ("recipients", ["a@b.de"]),
        ("recipients", []),
        ("recpients", ["a@b.de"]),
        ("message", ""),
        ("dsn", {"ret": "FULL"}),
        ("requiretls", True),
        ("eightbitmime", "DEPEND"),
        ("binary", True),
        ("mail_parameters", {"BY": "120;R"}),
        ("key", "once"),
    ],
)
def test_what_only_a_mail_can_have_has_no_meaning_in_a_probe(field: str, value: object) -> None:
    rejection = decode(ask(id=7, **{field: value}))
    assert isinstance(rejection, Rejection)
    assert str(rejection.error) == f"{field}: has no meaning in a probe"
    assert rejection.id == 7


def test_a_whole_request_that_is_a_probe_as_well_sends_nothing() -> None:
    rejection = decode(line(id=7, probe=True))
    assert isinstance(rejection, Rejection)
    assert str(rejection.error) == "sender: has no meaning in a probe"


def test_values_that_ask_for_nothing_are_a_probes_too() -> None:
    nothing = {field: values[0] for field, values in schema.OF_A_MAIL.items() if values}
    assert isinstance(decode(ask(**nothing)), ProbeRequest)
    assert set(schema.OF_A_MAIL) < set(schema.types_of(schema.RequestFields))


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b'{"probe": true}', "host: is required; expected a string"),
        (b'{"probe": 1, "host": "mx"}', "probe: expected true or false"),
        (b'{"probe": null, "host": "mx"}', "probe: expected true or false"),
        (b'{"probe": "true", "host": "mx"}', "probe: expected true or false"),
        (b'{"prob": true, "host": "mx"}', "prob: unknown field; the nearest known name is probe"),
        (b'{"probe": true, "host": "mx", "prot": 25}', "prot: unknown field; the nearest known name is port"),
        (b'{"probe": true, "host": "mx", "port": "25"}', "port: expected an integer from 1 to 65535"),
        (b'{"probe": true, "host": "no host"}', "host: expected a name"),
        (b'{"probe": true, "host": "mx", "probe": true}', "probe: is given twice"),
        (b'{"probe": true, "probe": false, "host": "mx"}', "probe: is given twice"),
        (b'{"probe": true, "host": "mx", "pipeling": "NO", "pipelining": "NO"}', "pipeling: is another"),
        (b'{"probe": true, "host": "mx", "helo": "x\\r\\nRSET"}', "helo: expected"),
        (b'{"probe": true, "host": "mx", "endpoint": "tcp:mx:25"}', "endpoint: unknown field"),
    ],
)
def test_what_is_wrong_with_a_probe_is_told(octets: bytes, says: str) -> None:
    rejection = decode(octets)
    assert isinstance(rejection, Rejection)
    assert isinstance(rejection.error, errors.InvalidRequest)
    assert str(rejection.error).startswith(says)


def test_servers_that_are_named_again_are_the_same_object() -> None:
    decoder: Any = RequestDecoder()
    assert decoder.decode(ask()).server is decoder.decode(json.dumps(fields()).encode()).server


# The reply.


def test_the_reply_is_the_contracts() -> None:
    assert json.loads(encode_probe(3, SEEN)) == {"id": 3, **TOLD}


def test_a_probe_in_clear_tells_so() -> None:
    seen = Probe(greeting="220 mx", extensions=Extensions(), limits=Limits())
    assert json.loads(encode_probe("x", seen)) == {
        "id": "x",
        "status": "ok",
        "greeting": "220 mx",
        "extensions": {},
        "tls": None,
        "authenticated": False,
    }


def test_an_id_that_was_not_given_is_not_told() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask())
    daemon.agent.probes[0].deferred.callback(SEEN)
    assert client.reply() == TOLD


# Its way through the daemon.


def test_a_probe_is_handed_over_and_answered() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask(id=1, port=2525))
    (probe,) = daemon.agent.probes
    assert probe.server == Server(host="mx.example", port=2525)
    assert daemon.agent.deliveries == []
    assert client.replies() == []
    probe.deferred.callback(SEEN)
    assert client.reply() == {"id": 1, **TOLD}


def test_an_error_is_told_as_of_a_delivery() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask(id=1))
    daemon.agent.probes[0].deferred.errback(errors.Refused("CONNECT", 554, "554 no"))
    assert client.reply() == {
        "id": 1,
        "status": "error",
        "error": "Refused",
        "message": "Error while deliver messages: CONNECT refused: 554 no",
        "temporary": False,
        "command": "CONNECT",
        "code": 554,
        "response": "554 no",
    }


def test_probes_and_mails_without_an_id_are_answered_in_turn() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask(), line())
    daemon.agent.deliveries[0].succeed()
    assert client.replies() == []
    daemon.agent.probes[0].deferred.callback(SEEN)
    first, second = client.replies()
    assert first == TOLD
    assert "deliveryStatus" in second


def test_a_probe_counts_among_what_is_under_way() -> None:
    daemon = Daemon(max_in_flight=1)
    client = daemon.client()
    client.send(ask(id=1), ask(id=2))
    assert len(daemon.agent.probes) == 1
    assert not client.reading()
    daemon.agent.probes[0].deferred.callback(SEEN)
    assert client.reply()["id"] == 1
    assert len(daemon.agent.probes) == 2


def test_a_client_that_goes_away_leaves_its_probe_to_end() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask())
    client.go_away()
    daemon.agent.probes[0].deferred.callback(SEEN)
    assert "0 under way" in repr(daemon.deliveries)


def test_draining_waits_for_a_probe_and_cuts_it_off_at_its_end() -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask(id=1))
    drained: list[None] = []
    daemon.deliveries.drain(5).addCallback(drained.append)
    client.send(ask(id=2))
    assert client.reply()["error"] == "ShuttingDown"
    assert not drained
    daemon.clock.advance(5)
    reply = client.reply()
    assert (reply["id"], reply["error"]) == (1, "ShuttingDown")
    assert drained == [None]


@pytest.mark.parametrize("where", ["raised", "errback", "result"])
def test_a_fault_is_an_internal_error_with_a_traceback_in_the_log(where: str, logged_failures: Any) -> None:
    daemon = Daemon()
    client = daemon.client()
    if where == "raised":
        daemon.agent.fault = KeyError("secret")
    client.send(ask(id=1))
    if where != "raised":
        probe: Deferred[Any] = daemon.agent.probes[0].deferred
        probe.callback("no probe") if where == "result" else probe.errback(KeyError("secret"))
    reply = client.reply()
    assert (reply["id"], reply["error"]) == (1, "InternalError")
    assert "secret" not in json.dumps(reply)
    assert len(logged_failures.flush(KeyError, AttributeError)) == 1


def test_one_line_is_logged_for_each_probe(log: list[LogEvent]) -> None:
    daemon = Daemon()
    client = daemon.client()
    client.send(ask(id=1), ask(id=2, host="unix:/run/a\u00e4b"))
    daemon.clock.advance(1.25)
    daemon.agent.probes[0].deferred.callback(SEEN)
    daemon.agent.probes[1].deferred.errback(errors.ConnectionLost("closed\nhere"))
    client.replies()
    assert [formatEvent(event) for event in log] == [
        "mx.example:25 probed: Ok, 1.250 s",
        "'unix:/run/a\u00e4b' probed: ConnectionLost (closed\\nhere), 1.250 s",
    ]


def test_an_answer_that_cannot_be_given_ends_the_probe_all_the_same(logged_failures: Any) -> None:
    daemon = Daemon()

    def answer(octets: bytes) -> None:
        raise OSError("gone")

    daemon.deliveries.start(decode(ask()), answer)
    daemon.agent.probes[0].deferred.callback(SEEN)
    assert "0 under way" in repr(daemon.deliveries)
    assert len(logged_failures.flush(OSError)) == 1
