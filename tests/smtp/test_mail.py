"""
Tests of MAIL: what a mail needs, and what becomes of it where it is not offered.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.smtp.script import TEXT, Script, verdicts
from twisted_smtpclient.errors import ExtensionUnsupported, MessageTooLarge
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.dsn import DSN, Notify, Return
from twisted_smtpclient.smtp.envelope import Envelope, Recipient
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.mail import mail_command
from twisted_smtpclient.smtp.policy import Mode
from twisted_smtpclient.smtp.transaction import Transaction

BODY_8BIT = "Subject: x\r\n\r\nü\r\n".encode()
HEADER_8BIT = "Subject: ü\r\n\r\nx\r\n".encode()
HEADER_LATIN1 = "Subject: ü\r\n\r\nx\r\n".encode("latin-1")
EVERYTHING = "8BITMIME SMTPUTF8 DSN REQUIRETLS BINARYMIME DELIVERBY FUTURERELEASE MT-PRIORITY"


def command(content: Content | bytes, offers: str, envelope: Envelope | None = None) -> str:
    """What stands behind the path."""
    if isinstance(content, bytes):
        content = Content(content)
    extensions = Extensions(dict.fromkeys(offers.split(), ()))
    octets = mail_command(envelope or Envelope("a@b", ["c@d"]), content, extensions)
    assert octets.endswith(b"\r\n")
    return octets.decode().removeprefix("MAIL FROM:<").partition(">")[2].strip()


def asking(**terms: Any) -> Envelope:
    recipient = Recipient("c@d", **{key: terms.pop(key) for key in ("notify", "orcpt") if key in terms})
    return Envelope("a@b", ["x@y", recipient], **terms)


@pytest.mark.parametrize(
    ("message", "offers", "wanted"),
    [
        (TEXT, EVERYTHING, ""),
        (TEXT, "SIZE", "SIZE=7"),
        (b"a\n", "SIZE", "SIZE=3"),
        (BODY_8BIT, "", ""),
        (BODY_8BIT, "8BITMIME", "BODY=8BITMIME"),
        (BODY_8BIT, "8BITMIME SMTPUTF8", "BODY=8BITMIME"),
        (HEADER_8BIT, "", ""),
        (HEADER_8BIT, "8BITMIME", "BODY=8BITMIME"),
        (HEADER_8BIT, "8BITMIME SMTPUTF8", "BODY=8BITMIME SMTPUTF8"),
        (HEADER_8BIT, "SMTPUTF8", "SMTPUTF8"),
        (HEADER_LATIN1, "8BITMIME SMTPUTF8", "BODY=8BITMIME"),
    ],
)
def test_what_a_message_needs_is_asked_for_where_it_is_offered(
    message: bytes, offers: str, wanted: str
) -> None:
    assert command(message, offers) == wanted


def test_depend_on_8bitmime_concerns_a_message_that_needs_it_and_no_other() -> None:
    with pytest.raises(ExtensionUnsupported, match="8BITMIME") as caught:
        command(Content(BODY_8BIT, eightbitmime=Mode.DEPEND), "SIZE SMTPUTF8")
    assert not caught.value.temporary
    assert command(Content(BODY_8BIT, eightbitmime=Mode.DEPEND), "8BITMIME") == "BODY=8BITMIME"
    assert command(Content(TEXT, eightbitmime=Mode.DEPEND), "") == ""


def test_an_address_without_ascii_form_needs_smtputf8() -> None:
    for envelope in (Envelope("ü@b", ["c@d"]), Envelope("a@b", ["c@d", "ü@d"])):
        with pytest.raises(ExtensionUnsupported, match="SMTPUTF8"):
            command(TEXT, "8BITMIME", envelope)
        assert command(TEXT, "SMTPUTF8", envelope) == "SMTPUTF8"
        assert command(HEADER_8BIT, "SMTPUTF8 8BITMIME", envelope) == "BODY=8BITMIME SMTPUTF8"
    assert command(TEXT, "", Envelope("a@bücher.de", ["c@bücher.de"])) == ""


@pytest.mark.parametrize(
    ("terms", "extension", "wanted"),
    [
        ({"dsn": DSN(ret=Return.FULL)}, "DSN", "RET=FULL"),
        ({"dsn": DSN(envid="a b")}, "DSN", "ENVID=a+20b"),
        ({"notify": [Notify.NEVER]}, "DSN", ""),
        ({"orcpt": "e@f"}, "DSN", ""),
        ({"requiretls": True}, "REQUIRETLS", "REQUIRETLS"),
        ({"parameters": {"BY": "120;R"}}, "DELIVERBY", "BY=120;R"),
        ({"parameters": {"holdfor": "60"}}, "FUTURERELEASE", "holdfor=60"),
        ({"parameters": {"HOLDUNTIL": "x"}}, "FUTURERELEASE", "HOLDUNTIL=x"),
        ({"parameters": {"mt-Priority": "3"}}, "MT-PRIORITY", "mt-Priority=3"),
    ],
)
def test_what_is_asked_for_goes_where_it_is_offered_and_fails_where_not(
    terms: dict[str, Any], extension: str, wanted: str
) -> None:
    assert command(TEXT, EVERYTHING, asking(**terms)) == wanted
    without = " ".join(word for word in EVERYTHING.split() if word != extension)
    for offers in ("", without):
        with pytest.raises(ExtensionUnsupported, match=rf"\b{extension}\b") as caught:
            command(TEXT, offers, asking(**terms))
        assert not caught.value.temporary


def test_an_error_names_the_field_that_asks() -> None:
    with pytest.raises(ExtensionUnsupported, match=r"DSN, which recipients\[1\]\.notify asks for"):
        command(TEXT, "", asking(notify=[Notify.NEVER]))
    with pytest.raises(ExtensionUnsupported, match=r"which mail_parameters\.X-Y asks for"):
        command(TEXT, "", asking(parameters={"X-Y": None}))
    with pytest.raises(ExtensionUnsupported, match="under TLS with a certificate that verifies"):
        command(TEXT, "", asking(requiretls=True))


def test_all_of_it_at_once() -> None:
    envelope = Envelope(
        "ü@b",
        [Recipient("c@d", notify=[Notify.NEVER])],
        dsn=DSN(ret=Return.HDRS, envid="1"),
        requiretls=True,
        parameters={"BY": "1;N"},
    )
    assert (
        command(HEADER_8BIT, f"SIZE {EVERYTHING}", envelope)
        == "SIZE=18 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=1 REQUIRETLS BY=1;N"
    )


# Binary contents.

BINARY = b"\nbare\rends\r\n\n.\n..\0\xff.\r"


def test_a_binary_content_has_its_size_and_body() -> None:
    assert command(Content(BINARY, binary=True), "SIZE BINARYMIME 8BITMIME") == (
        f"SIZE={len(BINARY)} BODY=BINARYMIME"
    )
    assert command(Content(TEXT, binary=True), "BINARYMIME") == "BODY=BINARYMIME"
    assert command(Content(HEADER_8BIT, binary=True), "BINARYMIME SMTPUTF8") == "BODY=BINARYMIME SMTPUTF8"


def test_a_binary_content_goes_as_binarymime_or_not_at_all() -> None:
    with pytest.raises(ExtensionUnsupported, match="BINARYMIME"):
        command(Content(TEXT, binary=True), "8BITMIME CHUNKING")


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", ["PIPELINING CHUNKING BINARYMIME", "CHUNKING BINARYMIME"])
@pytest.mark.parametrize("message", [BINARY, b"", b".\n" * 200_000 + b"\r"])
def test_a_binary_content_crosses_the_wire_octet_for_octet(lmtp: bool, offers: str, message: bytes) -> None:
    script = Script(offers, lmtp=lmtp)
    mail = Transaction(Envelope("a@b", ["c@d"]), Content(message, binary=True), lmtp=lmtp)
    script.pipeline.submit(mail)
    written = script.flight() + b"".join(script.exchange(250, 250))
    assert written == b"MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<c@d>\r\nBDAT %d LAST\r\n%b" % (
        len(message),
        message,
    )
    script.say(250)
    assert verdicts(mail) == [(250, "BDAT")]


@pytest.mark.parametrize("offers", ["BINARYMIME", "PIPELINING BINARYMIME", "CHUNKING", ""])
def test_a_binary_content_needs_both_binarymime_and_chunking(offers: str) -> None:
    script = Script(offers)
    with pytest.raises(ExtensionUnsupported, match="BINARYMIME"):
        script.pipeline.submit(Transaction(Envelope("a@b", ["c@d"]), Content(b"", binary=True)))
    assert script.flight() == b""


# Beside other mails.


@pytest.mark.parametrize("offers", ["PIPELINING CHUNKING", "PIPELINING", "CHUNKING", ""])
def test_a_mail_that_asks_for_too_much_fails_alone_and_nothing_of_it_is_written(offers: str) -> None:
    script = Script(offers)
    first = script.mail()
    for envelope, content in (
        (asking(notify=[Notify.NEVER]), Content(TEXT)),
        (asking(requiretls=True), Content(TEXT)),
        (asking(parameters={"X": None}), Content(TEXT)),
        (asking(), Content(TEXT, binary=True)),
        (asking(), Content(BODY_8BIT, eightbitmime=Mode.DEPEND)),
    ):
        with pytest.raises(ExtensionUnsupported):
            script.pipeline.submit(Transaction(envelope, content))
    second = script.mail()
    written = script.flight()
    replies = (250, 250, 250) if "CHUNKING" in offers else (250, 250, 354, 250)
    written += b"".join(script.exchange(*replies))
    written += b"".join(script.exchange(*(((250,) if "PIPELINING" in offers else ()) + replies)))
    assert b"a@b" not in written
    assert written.count(b"MAIL FROM:") == 2
    assert verdicts(first)[0][0] == verdicts(second)[0][0] == 250


def test_a_message_of_just_the_limits_size_goes() -> None:
    script = Script(f"SIZE={len(TEXT)}")
    script.pipeline.submit(Transaction(asking(), Content(TEXT)))
    assert b"".join(script.writes()) == b"MAIL FROM:<a@b> SIZE=%d\r\n" % len(TEXT)
    with pytest.raises(MessageTooLarge, match=f"{len(TEXT) + 1} octets, the server takes {len(TEXT)}$"):
        script.pipeline.submit(Transaction(asking(), Content(TEXT + b"x")))


def test_a_size_over_the_limit_is_told_before_what_else_is_lacking() -> None:
    script = Script("SIZE=6")
    mail = Transaction(asking(requiretls=True), Content(TEXT))
    with pytest.raises(MessageTooLarge):
        script.pipeline.submit(mail)
    assert mail.outcome is None
