"""The parameters of MAIL and RCPT: which are taken, and which are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.driving import Driven

EXTENSIONS = ["DELIVERBY 240", "FUTURERELEASE 86400 2030-01-01T00:00:00Z", "MT-PRIORITY MIXER", "X-NEW"]


def driven(**settings: Any) -> Driven:
    return Driven(**{"extensions": EXTENSIONS, "binarymime": True, **settings}).begin()


@pytest.mark.parametrize(
    "parameters",
    [
        "SIZE=0",
        "SIZE=12345 BODY=8BITMIME",
        "BODY=7bit",
        "BODY=BINARYMIME",
        "SMTPUTF8",
        "RET=FULL ENVID=QQ314159",
        "RET=hdrs",
        "ENVID=" + "x" * 100,
        "BY=120;R",
        "BY=-120;N",
        "BY=0;NT",
        "BY=+1;RT",
        "HOLDFOR=3600",
        "HOLDUNTIL=2029-05-03T00:00:00Z",
        "HOLDUNTIL=2029-05-03T00:00:00.5+02:00",
        "MT-PRIORITY=-9",
        "MT-PRIORITY=0",
        "X-NEW",
        "X-NEW=whatever",
    ],
)
def test_parameters_of_mail(parameters: str) -> None:
    session = driven()
    assert session.say(f"MAIL FROM:<a@b.de> {parameters}".encode()) == [250]
    assert session.session.violations == []


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("ENVID=" + "x" * 101, 501),
        ("ENVID=", 501),
        ("ENVID=a=b", 501),
        ("ENVID=a+2b", 501),
        ("RET", 501),
        ("AUTH=<>", 555),
        ("BY=0;R", 501),
        ("BY=-1;R", 501),
        ("BY=0120;RX", 501),
        ("BY=1234567890;R", 501),
        ("BY=120", 501),
        ("HOLDFOR=0", 501),
        ("HOLDFOR=1234567890", 501),
        ("HOLDUNTIL=tomorrow", 501),
        ("HOLDFOR=1 HOLDUNTIL=2029-05-03T00:00:00Z", 501),
        ("MT-PRIORITY=10", 501),
        ("MT-PRIORITY=-0", 501),
        ("MT-PRIORITY", 501),
        ("REQUIRETLS", 555),
        ("X-OLD=1", 555),
        ("X-NEW=what=ever", 501),
        ("ORCPT=rfc822;a@b.de", 555),
    ],
)
def test_parameters_that_mail_may_not_have(parameters: str, code: int) -> None:
    session = driven()
    assert session.say(f"MAIL FROM:<a@b.de> {parameters}".encode()) == [code]
    assert len(session.session.violations) == 1


def test_auth_names_who_submitted_the_mail() -> None:
    session = Driven(users={"a": "b"}, require_login=False).begin()
    for value, code in (("<>", 250), ("e+3Dmc2@example.com", 250), ("e=mc2", 501)):
        assert session.say(f"MAIL FROM:<a@b.de> AUTH={value}".encode(), b"RSET") == [code, 250]
    assert len(session.session.violations) == 1


def test_requiretls_without_tls_though_it_seemed_to_be_offered() -> None:
    session = driven(extensions=["REQUIRETLS"])
    assert session.say(b"MAIL FROM:<> REQUIRETLS") == [555]
    assert session.session.violations == ["REQUIRETLS without TLS"]


def test_binarymime_without_chunking() -> None:
    session = driven(chunking=False)
    assert session.say(b"MAIL FROM:<> BODY=BINARYMIME") == [555]
    assert session.session.violations == ["BODY=BINARYMIME, though CHUNKING is not offered"]


@pytest.mark.parametrize("case", ["BINARYMIME", "binarymime"])
def test_binary_content_comes_octet_for_octet(case: str) -> None:
    octets = bytes(range(256)) * 10 + b"\r\n.\r\n\n\r"
    session = driven()
    session.say(f"MAIL FROM:<> BODY={case}".encode(), b"RCPT TO:<a@b.de>")
    session.send(b"BDAT 1000\r\n" + octets[:1000])
    session.send(b"BDAT %d LAST\r\n" % len(octets[1000:]) + octets[1000:])
    assert session.mail.content == octets
    assert session.mail.chunks == [1000, len(octets) - 1000]
    assert session.session.violations == []


@pytest.mark.parametrize(
    ("parameters", "orcpt"),
    [
        ("ORCPT=rfc822;c@d.de", "rfc822;c@d.de"),
        ("ORCPT=rfc822;a+2Bb+3Dc@d.de", "rfc822;a+b=c@d.de"),
        ("ORCPT=x400;/s=+20/", None),
        ("ORCPT=x400;/s+3D+20/", "x400;/s= /"),
        ("ORCPT=utf-8;\\x{E4}+2B@d.de", None),
        ("ORCPT=UTF-8;\\x{E4}\\x{2B}@d.de", "UTF-8;ä+@d.de"),
        ("ORCPT=rfc822;" + "x" * 493, "rfc822;" + "x" * 493),
        ("ORCPT=rfc822;" + "x" * 494, None),
        ("ORCPT=rfc822;a+2b@d.de", None),
        ("ORCPT=utf-8;\\x{e4}@d.de", None),
        ("ORCPT=utf-8;\\x{D83D}@d.de", None),
        ("ORCPT=utf-8;\\x{110000}@d.de", None),
        ("ORCPT=utf-8;\\x{10FFFF}\\x{1F600}\\x{D7FF}@d.de", "utf-8;\U0010ffff😀\ud7ff@d.de"),
        ("ORCPT=rfc822;", None),
        ("ORCPT=;x", None),
        ("ORCPT=c@d.de", None),
        ("ORCPT", None),
    ],
)
def test_orcpt(parameters: str, orcpt: str | None) -> None:
    session = driven()
    session.say(b"MAIL FROM:<>")
    right = orcpt is not None
    assert session.say(f"RCPT TO:<c@d.de> {parameters}".encode()) == [250 if right else 501]
    assert len(session.session.violations) == (not right)
    if right:
        session.send(b"BDAT 0 LAST\r\n")
        (recipient,) = session.mail.recipients
        assert recipient.orcpt == orcpt


def test_orcpt_as_it_is_spelled_needs_smtputf8() -> None:
    session = driven()
    line = "RCPT TO:<c@d.de> ORCPT=utf-8;ä@d.de".encode()
    assert session.say(b"MAIL FROM:<> SMTPUTF8", line, b"RSET") == [250, 250, 250]
    assert session.session.violations == []
    session.say(b"MAIL FROM:<>", line)
    assert len(session.session.violations) == 1
    session.say(b"RSET", b"MAIL FROM:<> SMTPUTF8")
    assert session.say("RCPT TO:<c@d.de> ORCPT=rfc822;ä@d.de".encode()) == [501]


def test_what_was_said_is_kept_as_sent_and_as_meant() -> None:
    session = driven()
    session.send(
        b"MAIL FROM:<a@b.de> RET=HDRS ENVID=a+2Bb+20c BY=120;R\r\nRCPT TO:<c@d.de> NOTIFY=NEVER\r\n"
        b"RCPT TO:<e@f.de>\r\nBDAT 0 LAST\r\n"
    )
    mail = session.mail
    assert mail.sender_parameters == {"RET": "HDRS", "ENVID": "a+2Bb+20c", "BY": "120;R"}
    assert mail.envid == "a+b c"
    assert mail.recipients == [("c@d.de", {"NOTIFY": "NEVER"}), ("e@f.de", {})]
    assert [recipient.orcpt for recipient in mail.recipients] == [None, None]


# LIMITS (RFC 9422).


def test_more_recipients_than_the_limit() -> None:
    session = driven(extensions=["LIMITS RCPTMAX=2 MAILMAX=9"])
    assert session.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>", b"RCPT TO:<invalid@invalid.de>") == [
        250,
        250,
        553,
    ]
    assert session.session.violations == []
    assert session.say(b"RCPT TO:<c@b.de>") == [250]
    assert session.session.violations == ["more than LIMITS RCPTMAX=2 in one transaction"]
    assert session.say(b"RSET", b"MAIL FROM:<>", b"RCPT TO:<a@b.de>") == [250] * 3
    assert len(session.session.violations) == 1


def test_more_domains_than_the_limit() -> None:
    session = driven(extensions=["LIMITS RCPTDOMAINMAX=1"])
    session.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>", b"RCPT TO:<c@B.de>")
    assert session.session.violations == []
    session.say(b"RCPT TO:<a@c.de>")
    assert session.session.violations == ["more than LIMITS RCPTDOMAINMAX=1 in one transaction"]


def test_more_mails_than_the_limit() -> None:
    session = driven(extensions=["LIMITS MAILMAX=2 RCPTMAX=x"])
    for _ in range(2):
        session.send(b"MAIL FROM:<>\r\nRCPT TO:<a@b.de>\r\nBDAT 0 LAST\r\n")
    assert session.session.violations == []
    session.say(b"MAIL FROM:<>")
    assert session.session.violations == ["more than LIMITS MAILMAX=2 in one session"]
