"""
The agent against a real Postfix: who gets which verdict, and what was said.
"""

from __future__ import annotations

from typing import Final

import pytest
import pytest_twisted

from twisted_smtpclient.errors import ConnectionRefused, ExtensionUnsupported, MessageTooLarge, Refused
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.policy import Mode, Server
from twisted_smtpclient.smtp.result import DeliveryResult, Status

from .agent import HELO, ImpatientAgent
from .child import free_ports
from .postfix import RECIPIENT_LIMIT, SMALL_SIZE_LIMIT, Postfix
from .smtp_sink import SmtpSink

CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"
COMBINATIONS: Final = ["pipelining_chunking", "pipelining", "chunking", "neither"]


def server(
    postfix: Postfix, service: str, *, pipelining: Mode = Mode.TRY, chunking: Mode = Mode.TRY
) -> Server:
    return Server(host=postfix.host, port=postfix.ports[service], pipelining=pipelining, chunking=chunking)


def verdicts(result: DeliveryResult) -> list[tuple[Status, int | None, str | None]]:
    return [(entry.status, entry.code, entry.command) for entry in result.recipients]


def queue_id(postfix: Postfix, result: DeliveryResult) -> str:
    """The one id under which the mail was taken."""
    (response,) = {entry.response for entry in result.recipients if entry.status is Status.OK}
    assert response is not None
    return postfix.queue_id(response)


@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_recipients_are_accepted_refused_and_deferred(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    recipients = [
        "invalid@invalid.de",
        "rcpt1@bar2.de",
        "deferred@bar2.de",
        "rcpt2@bar3.de",
        "refused@bar2.de",
        "rcpt1@bar2.de",
    ]
    result = await agent.deliver(
        server(postfix, service), Envelope("foo@bar.de", recipients), Content(CONTENT)
    )
    assert [entry.recipient for entry in result.recipients] == recipients
    taken = (Status.OK, 250, "BDAT" if "chunking" in service else ".")
    assert verdicts(result) == [
        (Status.PERMANENT_ERROR, 553, "RCPT"),
        taken,
        (Status.TEMPORARY_ERROR, 450, "RCPT"),
        taken,
        (Status.PERMANENT_ERROR, 550, "RCPT"),
        taken,
    ]
    assert [str(entry.enhanced) for entry in result.recipients] == [
        "5.7.1", "2.0.0", "4.2.0", "2.0.0", "5.1.1", "2.0.0",
    ]  # fmt: skip
    kept = postfix.drop.wait_for(queue_id(postfix, result))
    # Postfix delivers once to an address that it was given twice.
    assert (kept.sender, kept.recipients) == ("foo@bar.de", ["rcpt1@bar2.de", "rcpt2@bar3.de"])
    assert kept.content == CONTENT


@pytest.mark.parametrize("pipelining", [Mode.TRY, Mode.NO])
@pytest.mark.parametrize("chunking", [Mode.TRY, Mode.NO])
@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_a_mail_gets_through_by_try_and_by_no(
    postfix: Postfix, agent: ImpatientAgent, service: str, pipelining: Mode, chunking: Mode
) -> None:
    result = await agent.deliver(
        server(postfix, service, pipelining=pipelining, chunking=chunking),
        Envelope("foo@bar.de", ["foo@bar.de"]),
        Content(CONTENT),
    )
    bdat = "chunking" in service and chunking is Mode.TRY
    assert verdicts(result) == [(Status.OK, 250, "BDAT" if bdat else ".")]
    assert postfix.drop.wait_for(queue_id(postfix, result)).content == CONTENT


@pytest.mark.parametrize("extension", ["pipelining", "chunking"])
@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_depend_fails_where_the_extension_is_not_offered(
    postfix: Postfix, agent: ImpatientAgent, service: str, extension: str
) -> None:
    modes = {"pipelining": Mode.TRY, "chunking": Mode.TRY, extension: Mode.DEPEND}
    # A sender that no other test has, to be looked for in the log.
    sender = f"depend-{extension}-{service}@bar.de"
    delivery = agent.deliver(
        server(postfix, service, **modes), Envelope(sender, ["refused@bar2.de"]), Content(CONTENT)
    )
    if extension in service.split("_"):
        assert verdicts(await delivery) == [(Status.PERMANENT_ERROR, 550, "RCPT")]
        assert sender in postfix.log_until_now()
    else:
        with pytest.raises(ExtensionUnsupported, match=extension.upper()) as raised:
            await delivery
        assert not raised.value.temporary
        assert not raised.value.recipients
        assert sender not in postfix.log_until_now()


@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_a_mail_with_all_recipients_refused_is_not_sent(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    marker = f"all-refused-{service}"
    content = f"Message-Id: <{marker}@bar.de>\r\n\r\nTest\r\n".encode()
    result = await agent.deliver(
        server(postfix, service),
        Envelope(f"{marker}@bar.de", ["refused1@bar2.de", "deferred@bar2.de", "refused2@bar2.de"]),
        Content(content),
    )
    assert verdicts(result) == [
        (Status.PERMANENT_ERROR, 550, "RCPT"),
        (Status.TEMPORARY_ERROR, 450, "RCPT"),
        (Status.PERMANENT_ERROR, 550, "RCPT"),
    ]
    log = postfix.log_until_now()
    assert f"from=<{marker}@bar.de> to=<refused2@bar2.de>" in log
    assert f"message-id=<{marker}@bar.de>" not in log


@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_a_thousand_recipients_each_have_their_own_verdict(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    kinds = [("rcpt", 250), ("refused", 550), ("rcpt", 250), ("deferred", 450), ("invalid", 250)]
    expected = [(f"{name}{number}@bar2.de", code) for number, (name, code) in enumerate(kinds * 200)]
    result = await agent.deliver(
        server(postfix, service),
        Envelope("foo@bar.de", [address for address, _ in expected]),
        Content(CONTENT),
    )
    assert [(entry.recipient, entry.code) for entry in result.recipients] == expected
    for entry in result.recipients:
        if entry.status is not Status.OK:
            # Postfix repeats the address that it speaks of.
            assert f"<{entry.recipient}>" in (entry.response or "")
    kept = postfix.drop.wait_for(queue_id(postfix, result))
    assert kept.recipients == sorted(address for address, code in expected if code == 250)


@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_data_refused_is_the_verdict_on_all_that_were_accepted(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    result = await agent.deliver(
        server(postfix, service),
        Envelope("nodata@bar.de", ["foo@bar.de", "refused@bar2.de", "foo2@bar.de"]),
        Content(CONTENT),
    )
    command = "BDAT" if "chunking" in service else "DATA"
    assert verdicts(result) == [
        (Status.PERMANENT_ERROR, 550, command),
        (Status.PERMANENT_ERROR, 550, "RCPT"),
        (Status.PERMANENT_ERROR, 550, command),
    ]
    assert "no such user" in (result.recipients[1].response or "")
    assert "no data from you" in (result.recipients[2].response or "")


@pytest.mark.parametrize("service", COMBINATIONS)
@pytest_twisted.ensureDeferred
async def test_content_refused_at_its_end_is_the_verdict(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    result = await agent.deliver(
        server(postfix, service),
        Envelope("foo@bar.de", ["foo@bar.de", "foo2@bar.de"]),
        Content(b"X-Verdict: refuse\r\n\r\nTest\r\n"),
    )
    command = "BDAT" if "chunking" in service else "."
    assert verdicts(result) == [(Status.PERMANENT_ERROR, 550, command)] * 2


@pytest_twisted.ensureDeferred
async def test_mail_refused_is_the_verdict_on_every_recipient(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    result = await agent.deliver(
        server(postfix, "sender_first"),
        Envelope("refused@bar.de", ["foo@bar.de", "foo2@bar.de"]),
        Content(CONTENT),
    )
    assert verdicts(result) == [(Status.PERMANENT_ERROR, 550, "MAIL")] * 2


@pytest_twisted.ensureDeferred
async def test_recipients_over_the_servers_limit_go_in_a_further_transaction(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    recipients = [f"rcpt{number}@bar2.de" for number in range(RECIPIENT_LIMIT + 3)]
    result = await agent.deliver(
        server(postfix, "few_recipients"), Envelope("foo@bar.de", recipients), Content(CONTENT)
    )
    assert [(entry.recipient, entry.code) for entry in result.recipients] == [
        (recipient, 250) for recipient in recipients
    ]
    ids = [postfix.queue_id(entry.response or "") for entry in result.recipients]
    first, second = ids[0], ids[-1]
    assert ids == [first] * RECIPIENT_LIMIT + [second] * 3
    assert postfix.drop.wait_for(first).recipients == recipients[:RECIPIENT_LIMIT]
    assert postfix.drop.wait_for(second).recipients == recipients[RECIPIENT_LIMIT:]


@pytest_twisted.ensureDeferred
async def test_a_message_over_the_announced_size_is_never_offered(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    sender = "too-large@bar.de"
    with pytest.raises(MessageTooLarge):
        await agent.deliver(
            server(postfix, "small"),
            Envelope(sender, ["foo@bar.de"]),
            Content(b"Subject: test\r\n\r\n" + b"x\r\n" * (SMALL_SIZE_LIMIT // 3)),
        )
    assert sender not in postfix.log_until_now()


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_know_ehlo_is_greeted_with_helo(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    # This port refuses a recipient whose command came before the reply to MAIL.
    result = await agent.deliver(
        server(postfix, "helo_only"), Envelope("foo@bar.de", ["foo@bar.de", "foo2@bar.de"]), Content(CONTENT)
    )
    assert verdicts(result) == [(Status.OK, 250, ".")] * 2
    stored = postfix.drop.wait_for(queue_id(postfix, result)).stored
    assert stored.startswith(f"Received: from {HELO} ".encode())
    assert b" with SMTP id " in stored


@pytest_twisted.ensureDeferred
async def test_a_greeting_that_refuses_says_nothing_about_the_mail(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    with pytest.raises(Refused) as raised:
        await agent.deliver(
            server(postfix, "closed"), Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)
        )
    error = raised.value
    assert (error.command, error.code, error.temporary) == ("CONNECT", 554, False)
    assert not error.recipients


@pytest_twisted.ensureDeferred
async def test_where_bdat_turns_out_to_be_unknown_the_mail_goes_by_data(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    result = await agent.deliver(
        server(postfix, "broken_chunking"), Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)
    )
    assert verdicts(result) == [(Status.OK, 250, ".")]
    assert postfix.drop.wait_for(queue_id(postfix, result)).content == CONTENT


@pytest_twisted.ensureDeferred
async def test_nobody_listening_is_a_refused_connection(agent: ImpatientAgent) -> None:
    (port,) = free_ports(1)
    with pytest.raises(ConnectionRefused) as raised:
        await agent.deliver(
            Server(host="127.0.0.1", port=port), Envelope("foo@bar.de", ["foo@bar.de"]), Content(CONTENT)
        )
    assert raised.value.temporary
    assert not raised.value.in_doubt


@pytest.mark.parametrize(
    "recipient", ['"two words"@bar2.de', "tag+more=x@bar2.de", "a.b-c_d'e@bar2.de", "Upper@BAR2.de"]
)
@pytest_twisted.ensureDeferred
async def test_an_address_arrives_as_it_was_given(
    postfix: Postfix, agent: ImpatientAgent, recipient: str
) -> None:
    result = await agent.deliver(
        server(postfix, "pipelining_chunking"), Envelope("foo@bar.de", [recipient]), Content(CONTENT)
    )
    assert [entry.recipient for entry in result.recipients] == [recipient]
    kept = postfix.drop.wait_for(queue_id(postfix, result))
    assert kept.recipients == [recipient.replace('"', "")]


@pytest_twisted.ensureDeferred
async def test_smtp_sink_takes_a_hundred_mails(smtp_sink: SmtpSink, agent: ImpatientAgent) -> None:
    terms = Server(host=smtp_sink.host, port=smtp_sink.port)
    deliveries = [
        agent.deliver(terms, Envelope("foo@bar.de", [f"rcpt{number}@bar2.de"]), Content(CONTENT))
        for number in range(100)
    ]
    results = [await delivery for delivery in deliveries]
    assert all(result.all_ok for result in results)
