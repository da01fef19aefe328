"""
STARTTLS and TLS from the first octet, against a real Postfix.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
import pytest_twisted

from twisted_smtpclient.errors import ExtensionUnsupported, TLSFailed
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Server, TLSMode
from twisted_smtpclient.smtp.result import DeliveryResult, Status

from .agent import ImpatientAgent
from .certificates import NAME, Certificates
from .postfix import Postfix

CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"
ENVELOPE: Final = Envelope("foo@bar.de", ["foo@bar.de", "refused@bar2.de"])


def port(postfix: Postfix, service: str, tls: TLSMode, host: str = "127.0.0.1", **more: Any) -> Server:
    return Server(host=host, port=postfix.ports[service], tls=tls, **more)


def was_encrypted(postfix: Postfix, result: DeliveryResult) -> bool:
    """Whether the mail that the first recipient got had come by TLS; all else is checked."""
    taken, refused = result.recipients
    assert (taken.status, refused.status) == (Status.OK, Status.PERMANENT_ERROR)
    assert taken.response is not None
    kept = postfix.drop.wait_for(postfix.queue_id(taken.response))
    assert kept.content == CONTENT
    return b"(using TLSv1" in kept.stored


@pytest.mark.parametrize(
    ("service", "encrypted"),
    [
        ("starttls", True),
        ("starttls_pipelining", True),
        ("starttls_required", True),
        ("starttls_untrusted", True),
        ("starttls_other_name", True),
        ("starttls_broken", False),
        ("pipelining_chunking", False),
        ("neither", False),
        ("helo_only", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_try_encrypts_where_it_can_and_always_delivers(
    postfix: Postfix, agent: ImpatientAgent, service: str, encrypted: bool
) -> None:
    result = await agent.deliver(port(postfix, service, TLSMode.TRY), ENVELOPE, Content(CONTENT))
    assert was_encrypted(postfix, result) is encrypted


@pytest_twisted.ensureDeferred
async def test_no_stays_in_clear_where_starttls_is_offered(postfix: Postfix, agent: ImpatientAgent) -> None:
    result = await agent.deliver(port(postfix, "starttls", TLSMode.NO), ENVELOPE, Content(CONTENT))
    assert not was_encrypted(postfix, result)


@pytest_twisted.ensureDeferred
async def test_no_where_the_server_insists_is_its_verdict_on_mail(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    result = await agent.deliver(port(postfix, "starttls_required", TLSMode.NO), ENVELOPE, Content(CONTENT))
    assert [(entry.code, entry.command) for entry in result.recipients] == [(530, "MAIL")] * 2


@pytest.mark.parametrize(
    ("service", "tls"),
    [
        ("starttls", TLSMode.DEPEND),
        ("starttls_pipelining", TLSMode.DEPEND),
        ("starttls_required", TLSMode.DEPEND),
        ("implicit", TLSMode.IMPLICIT),
    ],
)
@pytest.mark.parametrize("names", [{}, {"host": "localhost"}, {"tls_name": NAME}])
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_verifies_is_accepted(
    postfix: Postfix, agent: ImpatientAgent, service: str, tls: TLSMode, names: dict[str, str]
) -> None:
    result = await agent.deliver(port(postfix, service, tls, **names), ENVELOPE, Content(CONTENT))
    assert was_encrypted(postfix, result)


@pytest.mark.parametrize(
    ("service", "tls", "names"),
    [
        ("starttls_untrusted", TLSMode.DEPEND, {}),
        ("starttls_untrusted", TLSMode.DEPEND, {"tls_name": NAME}),
        ("implicit_untrusted", TLSMode.IMPLICIT, {}),
        ("starttls_other_name", TLSMode.DEPEND, {}),
        ("starttls_other_name", TLSMode.DEPEND, {"host": "localhost"}),
        ("starttls", TLSMode.DEPEND, {"tls_name": "elsewhere.example"}),
        ("implicit", TLSMode.IMPLICIT, {"tls_name": "elsewhere.example"}),
        ("starttls", TLSMode.DEPEND, {"tls_fingerprint": "sha256:" + "0" * 64}),
        ("starttls_broken", TLSMode.DEPEND, {}),
        # No TLS at all on this port: a greeting in clear.
        ("pipelining_chunking", TLSMode.IMPLICIT, {}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_handshake_that_fails_or_does_not_verify_sends_nothing(
    postfix: Postfix, agent: ImpatientAgent, service: str, tls: TLSMode, names: dict[str, str]
) -> None:
    sender = "never-sent@bar.de"
    with pytest.raises(TLSFailed) as raised:
        await agent.deliver(
            port(postfix, service, tls, **names), Envelope(sender, ["foo@bar.de"]), Content(CONTENT)
        )
    assert not raised.value.recipients
    assert not raised.value.temporary
    assert sender not in postfix.log_until_now()


@pytest.mark.parametrize(
    ("service", "tls"),
    [("starttls_untrusted", TLSMode.DEPEND), ("implicit_untrusted", TLSMode.IMPLICIT)],
)
@pytest_twisted.ensureDeferred
async def test_a_fingerprint_stands_for_chain_and_name(
    postfix: Postfix, agent: ImpatientAgent, certificates: Certificates, service: str, tls: TLSMode
) -> None:
    fingerprint = certificates.untrusted.fingerprint
    result = await agent.deliver(
        port(postfix, service, tls, tls_name="any.example", tls_fingerprint=fingerprint),
        ENVELOPE,
        Content(CONTENT),
    )
    assert was_encrypted(postfix, result)


@pytest.mark.parametrize("service", ["pipelining_chunking", "helo_only"])
@pytest_twisted.ensureDeferred
async def test_depend_fails_where_starttls_is_not_offered(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    with pytest.raises(ExtensionUnsupported, match="STARTTLS") as raised:
        await agent.deliver(port(postfix, service, TLSMode.DEPEND), ENVELOPE, Content(CONTENT))
    assert not raised.value.recipients
