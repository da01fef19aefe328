"""
Logging in to a real Postfix, which asks a real Dovecot.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
import pytest_twisted

from twisted_smtpclient.errors import ExtensionUnsupported, Refused
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.credentials import Credentials
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Server, TLSMode
from twisted_smtpclient.smtp.result import DeliveryResult

from .agent import ImpatientAgent
from .certificates import NAME
from .dovecot import MECHANISMS, PASSWORD
from .postfix import Postfix

CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"
USER: Final = "anna"

#: On which of Postfix's ports, with what of TLS: before STARTTLS and under it.
WAYS: Final = {
    "in clear": ("auth", TLSMode.NO),
    "on loopback": ("auth", TLSMode.TRY),
    "under STARTTLS": ("auth_starttls", TLSMode.DEPEND),
    "under STARTTLS that is tried": ("auth_starttls", TLSMode.TRY),
}

pytestmark = pytest.mark.usefixtures("dovecot")


def server(postfix: Postfix, way: str, credentials: Credentials, **more: Any) -> Server:
    service, tls = WAYS[way]
    return Server(host=postfix.host, port=postfix.ports[service], tls=tls, auth=credentials, **more)


def logged_in_by(postfix: Postfix, result: DeliveryResult) -> tuple[str, str]:
    """Who logged in, and how, by the log's line on the mail."""
    assert result.recipients[0].response is not None
    queue_id = postfix.queue_id(result.recipients[0].response)
    for line in postfix.log_until_now().splitlines():
        if f"{queue_id}: client=" in line:
            fields = dict(word.rstrip(",").split("=", 1) for word in line.split() if "=" in word)
            return fields["sasl_username"], fields["sasl_method"]
    raise AssertionError(f"no line on {queue_id}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest_twisted.ensureDeferred
async def test_the_right_password_logs_in(
    postfix: Postfix, agent: ImpatientAgent, mechanism: str, way: str
) -> None:
    credentials = Credentials(USER, PASSWORD, mechanisms=[mechanism])
    result = await agent.deliver(
        server(postfix, way, credentials), Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)
    )
    assert result.all_ok
    assert logged_in_by(postfix, result) == (USER, mechanism)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_refused_and_no_mail_is_sent(
    postfix: Postfix, agent: ImpatientAgent, mechanism: str, way: str
) -> None:
    sender = f"nobody-{mechanism.lower()}@bar.de"
    credentials = Credentials(USER, "not the password", mechanisms=[mechanism])
    with pytest.raises(Refused) as raised:
        await agent.deliver(
            server(postfix, way, credentials), Envelope(sender, ["foo@bar.de"]), Content(CONTENT)
        )
    error = raised.value
    assert (error.command, error.code, error.temporary) == ("AUTH", 535, False)
    assert not error.recipients
    assert sender not in postfix.log_until_now()


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_of_all_that_is_offered_the_strongest_is_taken(
    postfix: Postfix, agent: ImpatientAgent, way: str
) -> None:
    result = await agent.deliver(
        server(postfix, way, Credentials(USER, PASSWORD)),
        Envelope("foo@bar.de", ["foo@bar.de"]),
        Content(CONTENT),
    )
    assert logged_in_by(postfix, result) == (USER, "SCRAM-SHA-256")


@pytest_twisted.ensureDeferred
async def test_mails_share_the_connection_that_was_logged_in(postfix: Postfix, agent: ImpatientAgent) -> None:
    where = server(postfix, "under STARTTLS", Credentials(USER, PASSWORD), tls_name=NAME)
    mails = [
        agent.deliver(where, Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)) for _ in range(20)
    ]
    for mail in mails:
        assert logged_in_by(postfix, await mail) == (USER, "SCRAM-SHA-256")


@pytest_twisted.ensureDeferred
async def test_no_mail_goes_without_the_login_that_was_asked_for(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    # Postfix offers AUTH behind STARTTLS alone there.
    where = Server(
        host=postfix.host,
        port=postfix.ports["auth_starttls"],
        tls=TLSMode.NO,
        auth=Credentials(USER, PASSWORD),
    )
    with pytest.raises(ExtensionUnsupported, match=r"does not offer AUTH.*STARTTLS, and tls is NO"):
        await agent.deliver(where, Envelope("never-sent@bar.de", ["foo@bar.de"]), Content(CONTENT))
    with pytest.raises(ExtensionUnsupported, match=r"SCRAM-SHA-1 .*not one that these credentials go with"):
        await agent.deliver(
            server(postfix, "in clear", Credentials(USER, token="token")),
            Envelope("never-sent@bar.de", ["foo@bar.de"]),
            Content(CONTENT),
        )
    assert "never-sent@bar.de" not in postfix.log_until_now()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest_twisted.ensureDeferred
async def test_a_password_beyond_ascii_is_sent_as_the_rfcs_have_it(
    postfix: Postfix, agent: ImpatientAgent, mechanism: str
) -> None:
    """Wrong, but well-formed for each mechanism: 535, and not 501."""
    credentials = Credentials(USER, "Gr\u00fc\u00dfe", mechanisms=[mechanism])
    with pytest.raises(Refused) as raised:
        await agent.deliver(
            server(postfix, "in clear", credentials), Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)
        )
    assert raised.value.code == 535
