"""
What mails ask of real servers: notices that really come, addresses in UTF-8,
and replies that differ from recipient to recipient.

BINARYMIME, REQUIRETLS, DELIVERBY, FUTURERELEASE and MT-PRIORITY are offered by
none of Debian's Postfix, Exim and Dovecot; with these they fail before MAIL,
which is tested here, and the rest in tests/client with the sink.
"""

from __future__ import annotations

import email
from email.message import Message
from typing import Any, Final

import pytest
import pytest_twisted

from twisted_smtpclient import (
    DSN,
    Content,
    DeliveryResult,
    Envelope,
    ExtensionUnsupported,
    MessageTooLarge,
    Mode,
    Notify,
    Protocol,
    Recipient,
    Return,
    Server,
    Status,
)

from .agent import ImpatientAgent
from .dovecot import Dovecot
from .drop import Kept
from .exim import Exim
from .postfix import SMALL_SIZE_LIMIT, Postfix

CONTENT: Final = b"Subject: test\r\n\r\nTest\r\n"
EIGHT_BIT: Final = "Subject: test\r\n\r\nÄhre\r\n".encode()
UTF8_HEADER: Final = "Subject: Ähre\r\n\r\nTest\r\n".encode()
WAYS: Final = ["pipelining_chunking", "pipelining", "chunking", "neither"]


def terms(server: Postfix | Exim, service: str = "pipelining_chunking") -> Server:
    return Server(host=server.host, port=server.ports[service])


def queue_id(server: Postfix | Exim, result: DeliveryResult) -> str:
    """The one id under which the mail was taken."""
    (response,) = {entry.response for entry in result.recipients if entry.status is Status.OK}
    assert response is not None
    return server.queue_id(response)


def reports(notice: Kept) -> list[Message]:
    """The fields on the message, then those on each recipient (RFC 3464 section 2.1)."""
    whole = email.message_from_bytes(notice.stored)
    assert whole.get_content_type() == "multipart/report"
    status: Any = whole.get_payload(1)
    fields: list[Message] = status.get_payload()
    return fields


def returned(notice: Kept) -> str:
    """The type of what came back of the message."""
    whole = email.message_from_bytes(notice.stored)
    part: Any = whole.get_payload(2)
    return str(part.get_content_type())


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> Postfix | Exim:
    found: Postfix | Exim = request.getfixturevalue(request.param)
    return found


# DSN.


@pytest.mark.parametrize("service", WAYS)
@pytest_twisted.ensureDeferred
async def test_a_notice_of_success_comes_and_names_what_was_asked(
    postfix: Postfix, agent: ImpatientAgent, service: str
) -> None:
    sender = f"success-{service}@bar.de"
    recipient = Recipient("rcpt1@bar2.de", notify=[Notify.SUCCESS], orcpt="list+first=x@bar3.de")
    result = await agent.deliver(
        terms(postfix, service),
        Envelope(sender, [recipient, Recipient("rcpt2@bar2.de", notify=[Notify.FAILURE])],
                 dsn=DSN(envid="mail 1+1=2")),
        Content(CONTENT),
    )  # fmt: skip
    assert postfix.drop.wait_for(queue_id(postfix, result)).content == CONTENT
    message, *recipients = reports(postfix.drop.wait_for_notice(sender))
    assert message["Original-Envelope-Id"] == "mail 1+1=2"
    # Of the one who asked, and not of the other.
    (report,) = recipients
    assert report["Original-Recipient"] == "rfc822;list+first=x@bar3.de"
    assert report["Final-Recipient"].replace(" ", "") == "rfc822;rcpt1@bar2.de"
    assert report["Action"] in ("relayed", "delivered")


@pytest.mark.parametrize(
    ("ret", "kind"), [(Return.FULL, "message/rfc822"), (Return.HDRS, "text/rfc822-headers")]
)
@pytest_twisted.ensureDeferred
async def test_a_notice_of_failure_returns_what_was_asked_for(
    postfix: Postfix, agent: ImpatientAgent, ret: Return, kind: str
) -> None:
    sender = f"failure-{ret.value.lower()}@bar.de"
    recipients = [
        Recipient("one@undeliverable.example", notify=[Notify.FAILURE, Notify.DELAY], orcpt="first@bar.de"),
        Recipient("two@undeliverable.example", notify=[Notify.NEVER], orcpt="second@bar.de"),
    ]
    result = await agent.deliver(
        terms(postfix), Envelope(sender, recipients, dsn=DSN(ret=ret, envid=ret.value)), Content(CONTENT)
    )
    assert result.all_ok
    notice = postfix.drop.wait_for_notice(sender)
    message, *failed = reports(notice)
    assert message["Original-Envelope-Id"] == ret.value
    assert [entry["Original-Recipient"] for entry in failed] == ["rfc822;first@bar.de"]
    assert [(entry["Action"], entry["Status"]) for entry in failed] == [("failed", "5.3.0")]
    assert returned(notice) == kind


@pytest_twisted.ensureDeferred
async def test_an_original_recipient_in_utf_8_is_understood(postfix: Postfix, agent: ImpatientAgent) -> None:
    sender = "utf-8-orcpt@bar.de"
    recipient = Recipient("rcpt1@bar2.de", notify=[Notify.SUCCESS], orcpt="jürgen+1@bücher.example")
    result = await agent.deliver(terms(postfix), Envelope(sender, [recipient]), Content(CONTENT))
    assert result.all_ok
    notice = postfix.drop.wait_for_notice(sender)
    assert "utf-8;jürgen+1@bücher.example".encode() in notice.stored.replace(b"utf-8; ", b"utf-8;")


@pytest_twisted.ensureDeferred
async def test_exim_sends_a_notice_of_success_too(exim: Exim, agent: ImpatientAgent) -> None:
    sender = "success@bar.de"
    # Nothing that xtext would change: Exim's notices tell it as it came.
    recipient = Recipient("rcpt1@bar2.de", notify=[Notify.SUCCESS], orcpt="list@bar3.de")
    result = await agent.deliver(
        terms(exim), Envelope(sender, [recipient], dsn=DSN(envid="QQ314159")), Content(CONTENT)
    )
    assert result.all_ok
    message, report = reports(exim.drop.wait_for_notice(sender))
    assert message["Original-Envelope-ID"] == "QQ314159"
    assert report["Original-Recipient"].replace(" ", "") == "rfc822;list@bar3.de"


# SMTPUTF8 and 8BITMIME.


@pytest.mark.parametrize("service", WAYS)
@pytest_twisted.ensureDeferred
async def test_a_mail_between_addresses_in_utf_8_is_delivered(
    server: Postfix | Exim, agent: ImpatientAgent, service: str
) -> None:
    result = await agent.deliver(
        terms(server, service),
        Envelope("jürgen@bar.de", ["用户@bar2.de", "rcpt1@bar2.de"]),
        Content(UTF8_HEADER),
    )
    assert result.all_ok
    kept = server.drop.wait_for(queue_id(server, result))
    assert (kept.sender, kept.recipients) == ("jürgen@bar.de", sorted(["用户@bar2.de", "rcpt1@bar2.de"]))
    assert kept.content == UTF8_HEADER
    # RFC 6531 4.3 has a name for what it was received by.
    assert b" with utf8" in kept.stored.lower()


@pytest_twisted.ensureDeferred
async def test_a_header_in_utf_8_is_told_of_and_refuses_no_mail(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    for service, protocol in (("pipelining_chunking", b" with UTF8SMTP id "), ("bare", b" with ESMTP id ")):
        result = await agent.deliver(
            terms(postfix, service), Envelope("foo@bar.de", ["foo@bar.de"]), Content(UTF8_HEADER)
        )
        kept = postfix.drop.wait_for(queue_id(postfix, result))
        assert protocol in kept.stored
        assert kept.content == UTF8_HEADER


@pytest_twisted.ensureDeferred
async def test_a_domain_has_an_ascii_form_that_every_server_takes(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    result = await agent.deliver(
        terms(postfix, "bare"), Envelope("foo@bücher.example", ["foo@bücher.example"]), Content(CONTENT)
    )
    assert [entry.recipient for entry in result.recipients] == ["foo@bücher.example"]
    kept = postfix.drop.wait_for(queue_id(postfix, result))
    assert (kept.sender, kept.recipients) == ("foo@xn--bcher-kva.example", ["foo@xn--bcher-kva.example"])


@pytest_twisted.ensureDeferred
async def test_octets_over_127_arrive_where_they_are_told_of_and_where_not(
    postfix: Postfix, exim: Exim, agent: ImpatientAgent
) -> None:
    for server, service in ((postfix, "pipelining_chunking"), (postfix, "bare"), (exim, "pipelining")):
        mode = Mode.TRY if service == "bare" else Mode.DEPEND
        result = await agent.deliver(
            terms(server, service),
            Envelope("foo@bar.de", ["foo@bar.de"]),
            Content(EIGHT_BIT, eightbitmime=mode),
        )
        assert server.drop.wait_for(queue_id(server, result)).content == EIGHT_BIT


@pytest_twisted.ensureDeferred
async def test_size_is_declared_where_it_is_offered_and_nowhere_else(
    postfix: Postfix, agent: ImpatientAgent
) -> None:
    envelope = Envelope("foo@bar.de", ["a@discard.example"])
    exact = Content(b"Subject: test\r\n\r\n".ljust(SMALL_SIZE_LIMIT, b"x"))
    # Postfix counts the fields of its own too, and says so behind the content.
    result = await agent.deliver(terms(postfix, "small"), envelope, exact)
    assert [entry.code for entry in result.recipients] == [552]
    with pytest.raises(MessageTooLarge):
        await agent.deliver(terms(postfix, "small"), envelope, Content(exact.message + b"x"))
    assert (await agent.deliver(terms(postfix, "bare"), envelope, Content(CONTENT))).all_ok


# What is not offered.


def lacking(recipient: str | Recipient = "foo@bar.de", **terms: Any) -> Envelope:
    """From a sender that no other test has, to be looked for in the log."""
    return Envelope("lacking@bar.de", [recipient], **terms)


@pytest.mark.parametrize(
    ("envelope", "content", "keyword"),
    [
        (lacking(dsn=DSN(ret=Return.HDRS)), Content(CONTENT), "DSN"),
        (lacking(Recipient("foo@bar.de", notify=[Notify.NEVER])), Content(CONTENT), "DSN"),
        (lacking("用户@bar.de"), Content(CONTENT), "SMTPUTF8"),
        (lacking(), Content(EIGHT_BIT, eightbitmime=Mode.DEPEND), "8BITMIME"),
        (lacking(), Content(CONTENT, binary=True), "BINARYMIME"),
        (lacking(requiretls=True), Content(CONTENT), "REQUIRETLS"),
        (lacking(parameters={"BY": "9;R"}), Content(CONTENT), "DELIVERBY"),
    ],
)
@pytest.mark.parametrize("service", ["bare", "helo_only"])
@pytest_twisted.ensureDeferred
async def test_what_a_server_does_not_offer_is_told_before_mail(
    postfix: Postfix, agent: ImpatientAgent, service: str, envelope: Envelope, content: Content, keyword: str
) -> None:
    with pytest.raises(ExtensionUnsupported, match=keyword) as raised:
        await agent.deliver(terms(postfix, service), envelope, content)
    assert not raised.value.recipients
    assert "lacking@bar.de" not in postfix.log_until_now()


# LMTP.


def lmtp(dovecot: Dovecot, by: str, **terms: Any) -> Server:
    if by == "unix":
        return Server(host=f"unix:{dovecot.socket}", protocol=Protocol.LMTP, **terms)
    return Server(host=dovecot.host, port=dovecot.port, protocol=Protocol.LMTP, **terms)


@pytest.mark.parametrize("by", ["tcp", "unix"])
@pytest.mark.parametrize("pipelining", [Mode.TRY, Mode.NO])
@pytest.mark.parametrize("chunking", [Mode.TRY, Mode.NO])
@pytest_twisted.ensureDeferred
async def test_each_mailbox_has_a_final_reply_of_its_own(
    dovecot: Dovecot, agent: ImpatientAgent, by: str, pipelining: Mode, chunking: Mode
) -> None:
    content = f"Subject: {by} {pipelining.value} {chunking.value}\r\n\r\n.\r\nÄhre\r\n".encode()
    server = lmtp(dovecot, by, pipelining=pipelining, chunking=chunking)
    recipients = ["anna@bar.de", "missing@bar.de", "full@bar.de", "bert@bar.de", "full@bar.de"]
    result = await agent.deliver(server, Envelope("foo@bar.de", recipients), Content(content))
    assert [entry.recipient for entry in result.recipients] == recipients
    end = "BDAT" if chunking is Mode.TRY else "."
    assert [(entry.code, entry.command) for entry in result.recipients] == [
        (250, end),
        (550, "RCPT"),
        (552, end),
        (250, end),
        (552, end),
    ]
    assert [str(entry.enhanced) for entry in result.recipients] == [
        "2.0.0",
        "5.1.1",
        "5.2.2",
        "2.0.0",
        "5.2.2",
    ]
    for user in ("anna", "bert"):
        assert dovecot.mailbox(user).count(content) == 1
    assert dovecot.mailbox("full") == []


@pytest.mark.parametrize("by", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_a_mail_with_no_mailbox_at_all_leaves_the_connection_to_the_next(
    dovecot: Dovecot, agent: ImpatientAgent, by: str
) -> None:
    server = lmtp(dovecot, by)
    content = f"Subject: next by {by}\r\n\r\n".encode()
    nobody = agent.deliver(server, Envelope("foo@bar.de", ["a@bar.de", "b@bar.de"]), Content(CONTENT))
    somebody = agent.deliver(server, Envelope("foo@bar.de", ["anna@bar.de"]), Content(content))
    assert [(entry.code, entry.command) for entry in (await nobody).recipients] == [(550, "RCPT")] * 2
    assert (await somebody).all_ok
    assert content in dovecot.mailbox("anna")
