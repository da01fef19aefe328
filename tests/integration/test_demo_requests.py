"""
The request lines of the README, by TCP through the daemon to a real Postfix.
"""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest

from .certificates import NAME, Certificates
from .child import free_ports
from .daemon import Daemon, verdicts
from .postfix import Postfix

#: As clients of the system before this one send them; its misspellings too.
DEMO: Final = [
    b'{"host":"%b","port":%d,"helo":"localhost","pipelining":"TRY","connection_timout":5,'
    b'"sender":"foo@bar.de","recpients":["rcpt1@bar2.de","rcpt2@bar2.de"],'
    b'"message":"U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="}',
    b'{"host":"%b","port":%d,"helo":"localhost","pipeling":"TRY","connection_timeout":5,'
    b'"sender":"foo@bar.de","recipients":["foo@bar.de","foo2@bar.de"],'
    b'"message":"U3ViamVjdDogdGVzdA0KDQpUZXN0DQo="}',
]
CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"
COMBINATIONS: Final = ["pipelining_chunking", "pipelining", "chunking", "neither"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), "--ca-file", str(certificates.trusted))
    try:
        daemon.wait_until_it_answers()
        yield daemon
    finally:
        status = daemon.stop()
    # In the end twistd dies of the signal that stopped it.
    assert status in (0, -signal.SIGTERM), daemon.log
    assert "Traceback" not in daemon.log


def request(postfix: Postfix, service: str, **fields: object) -> dict[str, Any]:
    """A request to one of Postfix's ports."""
    return {
        "host": postfix.host,
        "port": postfix.ports[service],
        "helo": "localhost",
        "sender": "foo@bar.de",
        "recipients": ["foo@bar.de"],
        "message": base64.b64encode(CONTENT).decode(),
        **fields,
    }


@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost"])
@pytest.mark.parametrize("service", COMBINATIONS)
def test_the_demo_requests_are_delivered(postfix: Postfix, daemon: Daemon, service: str, host: bytes) -> None:
    replies = daemon.ask(*[line % (host, postfix.ports[service]) for line in DEMO])
    assert [reply["status"] for reply in replies] == ["ok", "ok"]
    recipients = [["rcpt1@bar2.de", "rcpt2@bar2.de"], ["foo@bar.de", "foo2@bar.de"]]
    for reply, expected in zip(replies, recipients, strict=True):
        assert verdicts(reply) == [(recipient, "Ok", 250) for recipient in expected]
        (response,) = {entry["response"] for entry in reply["deliveryStatus"]}
        # "250 2.0.0 Ok: queued as …", by BDAT "250 2.0.0 Ok: 23 bytes queued as …"
        assert response.startswith("250 2.0.0 Ok: ")
        kept = postfix.drop.wait_for(postfix.queue_id(response))
        assert (kept.sender, kept.recipients, kept.content) == ("foo@bar.de", sorted(expected), CONTENT)


@pytest.mark.parametrize("service", COMBINATIONS)
def test_each_recipient_has_the_reply_that_the_server_gave_it(
    postfix: Postfix, daemon: Daemon, service: str
) -> None:
    recipients = ["valid@valid.de", "invalid@invalid.de", "deferred@bar2.de", "valid@valid.de"]
    (reply,) = daemon.ask(request(postfix, service, recipients=recipients))
    assert verdicts(reply) == [
        ("valid@valid.de", "Ok", 250),
        ("invalid@invalid.de", "PermanentError", 553),
        ("deferred@bar2.de", "TemporaryError", 450),
        ("valid@valid.de", "Ok", 250),
    ]
    taken, refused, deferred, again = reply["deliveryStatus"]
    content_command = "BDAT" if "chunking" in service else "."
    assert (taken["command"], taken["enhanced"]) == (content_command, "2.0.0")
    assert again == taken
    assert (refused["command"], refused["enhanced"]) == ("RCPT", "5.7.1")
    assert "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)" in refused["response"]
    assert (deferred["command"], deferred["enhanced"]) == ("RCPT", "4.2.0")
    postfix.drop.wait_for(postfix.queue_id(taken["response"]))


def test_requests_with_an_id_are_told_apart(postfix: Postfix, daemon: Daemon) -> None:
    requests = [
        request(postfix, "pipelining_chunking", id=number, recipients=[f"rcpt{number}@bar2.de"])
        for number in range(20)
    ]
    replies = daemon.ask(*requests)
    assert sorted((reply["id"], *verdicts(reply)) for reply in replies) == [
        (number, (f"rcpt{number}@bar2.de", "Ok", 250)) for number in range(20)
    ]


def test_a_port_where_nobody_listens_is_told_in_the_words_of_old(daemon: Daemon) -> None:
    (port,) = free_ports(1)
    (reply,) = daemon.ask(DEMO[1] % (b"localhost", port))
    assert (reply["status"], reply["error"], reply["temporary"]) == ("error", "ConnectionRefused", True)
    assert reply["message"].startswith("Error while deliver messages: ")
    assert f"localhost:{port}" in reply["message"]


def test_a_server_that_refuses_in_its_greeting_is_named(postfix: Postfix, daemon: Daemon) -> None:
    (reply,) = daemon.ask(request(postfix, "closed"))
    assert (reply["error"], reply["command"], reply["code"]) == ("Refused", "CONNECT", 554)
    assert reply["temporary"] is False
    assert "deliveryStatus" not in reply


@pytest.mark.parametrize(
    ("service", "fields"),
    [("starttls", {"tls": "DEPEND"}), ("implicit", {"tls": "IMPLICIT"})],
)
@pytest.mark.parametrize("names", [{"host": "localhost"}, {"tls_name": NAME}])
def test_tls_is_verified_with_the_authority_that_the_daemon_was_given(
    postfix: Postfix, daemon: Daemon, service: str, fields: dict[str, str], names: dict[str, str]
) -> None:
    (reply,) = daemon.ask(request(postfix, service, **fields, **names))
    assert verdicts(reply) == [("foo@bar.de", "Ok", 250)]
    kept = postfix.drop.wait_for(postfix.queue_id(reply["deliveryStatus"][0]["response"]))
    assert b"(using TLSv1" in kept.stored
    assert kept.content == CONTENT


@pytest.mark.parametrize("service", ["starttls_untrusted", "starttls_other_name"])
def test_a_certificate_that_does_not_verify_is_a_tls_failure(
    postfix: Postfix, daemon: Daemon, service: str
) -> None:
    (reply,) = daemon.ask(request(postfix, service, tls="DEPEND"))
    assert (reply["error"], reply["temporary"]) == ("TLSFailed", False)
    assert "deliveryStatus" not in reply


def test_twenty_megabytes_come_through(postfix: Postfix, daemon: Daemon) -> None:
    content = b"Subject: large\r\n\r\n" + b"".join(b".%07d %s\r\n" % (n, b"x" * 60) for n in range(290_000))
    assert len(content) > 20_000_000
    (reply,) = daemon.ask(request(postfix, "pipelining_chunking", message=base64.b64encode(content).decode()))
    kept = postfix.drop.wait_for(postfix.queue_id(reply["deliveryStatus"][0]["response"]))
    assert kept.content == content
