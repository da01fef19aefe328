"""The sink as a server that keeps to the RFCs, driven by raw octets."""

from __future__ import annotations

import pytest

from tests.testing.driving import ENVELOPE, WAYS, Driven

each_way = pytest.mark.parametrize("way", WAYS)


def test_the_greeting_is_said_unasked() -> None:
    assert Driven().heard() == b"220 sink.invalid ESMTP\r\n"
    assert Driven(lmtp=True, name="mx.example").heard() == b"220 mx.example LMTP\r\n"
    assert Driven(esmtp=False).heard() == b"220 sink.invalid SMTP\r\n"


def test_ehlo_is_answered_with_all_that_is_offered() -> None:
    driven = Driven(size=1000, extensions=["LIMITS RCPTMAX=10"])
    driven.heard()
    assert driven.send(b"EHLO client.example\r\n") == (
        b"250-sink.invalid\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 LIMITS RCPTMAX=10\r\n"
    )
    assert driven.session.helo == "client.example"


def test_what_is_switched_off_is_not_offered() -> None:
    driven = Driven(
        pipelining=False,
        chunking=False,
        size=None,
        eightbitmime=False,
        smtputf8=False,
        dsn=False,
        enhanced_status_codes=False,
    )
    driven.heard()
    assert driven.send(b"EHLO client.example\r\n") == b"250 sink.invalid\r\n"
    assert driven.send(b"NOOP\r\n") == b"250 Ok\r\n"
    assert driven.send(b"BDAT 0 LAST\r\n") == b"502 Command not implemented\r\n"
    assert driven.session.violations == ["BDAT, which was not offered"]


def test_a_server_without_esmtp_knows_helo_only() -> None:
    driven = Driven(esmtp=False)
    driven.heard()
    assert driven.say(b"EHLO x") == [502]
    assert driven.say(b"HELO x") == [250]
    assert driven.say(b"MAIL FROM:<a@b.de>") == [250]


@pytest.mark.parametrize(("lmtp", "known"), [(True, b"LHLO"), (False, b"EHLO"), (False, b"HELO")])
def test_each_protocol_knows_its_own_hello(lmtp: bool, known: bytes) -> None:
    driven = Driven(lmtp=lmtp)
    driven.heard()
    for verb in (b"LHLO", b"EHLO", b"HELO"):
        expected = 250 if verb == known or (not lmtp and verb != b"LHLO") else 502
        assert driven.say(verb + b" x") == [expected]


@each_way
def test_a_mail_by_data_comes_in_as_it_was_meant(way: str) -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    assert driven.send_each(b"..\r\n.. \r\na\r\n...\r\n.\r\n", way) == b"250 2.0.0 Ok: queued as 1\r\n"
    mail = driven.mail
    assert mail.content == b".\r\n. \r\na\r\n..\r\n"
    assert (mail.sender, mail.addresses) == ("a@example.org", ["b@example.org"])
    assert (mail.via, mail.number) == ("DATA", 1)
    assert mail.reply == "250 2.0.0 Ok: queued as 1"
    assert mail.accepted
    assert mail.size == len(mail.content)
    assert mail.session is driven.session
    assert driven.session.mails == [mail]
    assert driven.session.violations == []


@each_way
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"a\r\n",
        b"\r\n\r\n",
        b"x\r\n.y\r\n",
        b"\r\n.\nMAIL FROM:<evil@x>\r\n",
        b"a\n.\nb\r\n",
        b"a\r.\r\r\n",
    ],
)
def test_only_crlf_dot_crlf_ends_data(content: bytes, way: str) -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    assert driven.send_each(stuffed + b".\r\n", way).startswith(b"250 ")
    assert driven.mail.content == content
    assert driven.send(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize(
    ("content", "bare"),
    [
        (b"a\r\nb\r\n", False),
        (b"a\nb\r\n", True),
        (b"a\rb\r\n", True),
        (b"a\r\r\n", True),
        (b"\n\r\r\n", True),
        (b"\n\r\n", True),
    ],
)
@each_way
def test_bare_line_ends_are_recorded_for_data_and_bdat(content: bytes, bare: bool, way: str) -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send_each(content + b".\r\n", way)
    driven.send_each(ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content, way)
    assert [mail.bare_line_ends for mail in driven.sink.mails] == [bare, bare]
    assert driven.session.violations == ["a bare CR or bare LF in the content"] * 2 * bare


def test_a_dot_that_was_not_doubled_is_a_violation() -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send(b".hidden\r\n.\r\n")
    assert driven.mail.content == b"hidden\r\n"
    assert driven.session.violations == ["a line of the content begins with a dot that was not doubled"]


@pytest.mark.parametrize("size", [65530, 65536, 200_000])
@pytest.mark.parametrize("read", [1000, 65536, 65535])
@pytest.mark.parametrize("line", [b"." * 77 + b"\r\n", b"x" * 70_000 + b"\r\n", b".\r\n", b"\r\n"])
def test_long_content_is_the_same_in_any_reads(size: int, read: int, line: bytes) -> None:
    driven = Driven().begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    content = line * (size // len(line) + 1)
    octets = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\nNOOP\r\n"
    for at in range(0, len(octets), read):
        driven.send(octets[at : at + read])
    assert driven.mail.content == content
    assert driven.session.commands[-1] == b"NOOP"
    assert not driven.mail.bare_line_ends
    assert driven.session.violations == []


@each_way
def test_a_mail_by_bdat_comes_in_as_it_is(way: str) -> None:
    driven = Driven().begin()
    octets = ENVELOPE + b"BDAT 4\r\n\r\n.\rBDAT 0\r\nBDAT 6 LAST\r\n\n..\r\nx"
    heard = driven.send_each(octets, way)
    assert [line[:3] for line in heard.splitlines()] == [b"250"] * 5
    assert driven.mail.content == b"\r\n.\r\n..\r\nx"
    assert driven.mail.chunks == [4, 0, 6]
    assert driven.mail.via == "BDAT"
    assert driven.session.commands[3:] == [b"BDAT 4", b"BDAT 0", b"BDAT 6 LAST"]
    assert driven.session.violations == []


@each_way
def test_an_empty_last_chunk_ends_the_mail(way: str) -> None:
    driven = Driven().begin()
    driven.send_each(ENVELOPE + b"BDAT 3\r\nabcBDAT 0 LAST\r\nQUIT\r\n", way)
    assert driven.mail.content == b"abc"
    assert driven.transport.disconnecting


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        ([b"MAIL FROM:<a@b.de>"], [503]),
        ([b"EHLO x", b"RCPT TO:<a@b.de>"], [250, 503]),
        ([b"EHLO x", b"DATA"], [250, 503]),
        ([b"EHLO x", b"MAIL FROM:<>", b"DATA"], [250, 250, 503]),
        ([b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<invalid@invalid.de>", b"DATA"], [250, 250, 553, 554]),
        ([b"EHLO x", b"MAIL FROM:<>", b"MAIL FROM:<>"], [250, 250, 503]),
        ([b"EHLO x", b"MAIL FROM:<>", b"RSET", b"MAIL FROM:<>"], [250, 250, 250, 250]),
        ([b"EHLO x", b"MAIL FROM:<>", b"EHLO x", b"MAIL FROM:<>"], [250, 250, 250, 250]),
        ([b"EHLO x", b"RSET now"], [250, 501]),
        ([b"EHLO"], [501]),
        ([b"EHLO x", b"DATA now"], [250, 501]),
        ([b"VRFY a", b"NOOP", b"NOOP x", b"RSET", b"EXPN a", b"HELP"], [252, 250, 250, 250, 502, 502]),
        ([b"", b" ", b"XYZZY"], [502, 502, 502]),
        ([b"ehlo x", b"mail from:<a@b.de>", b"rcpt to:<c@d.de>", b"data"], [250, 250, 250, 354]),
        ([b"EHLO x", b"MAIL a@b.de"], [250, 501]),
        ([b"EHLO x", b"MAIL FROM:a@b.de"], [250, 501]),
        ([b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<>"], [250, 250, 501]),
        ([b"EHLO x", b"MAIL FROM:<>", b"RCPT a@b.de"], [250, 250, 501]),
        ([b"EHLO x", b"BDAT"], [250, 501]),
        ([b"EHLO x", b"BDAT x"], [250, 501]),
        ([b"EHLO x", b"BDAT 0 FIRST"], [250, 501]),
        ([b"EHLO x", b"BDAT 0 LAST"], [250, 503]),
        ([b"EHLO x", b"STARTTLS"], [250, 502]),
        ([b"QUIT"], [221]),
    ],
)
def test_commands_and_their_order(commands: list[bytes], codes: list[int]) -> None:
    driven = Driven()
    driven.heard()
    assert [code for command in commands for code in driven.say(command)] == codes
    assert driven.session.commands == commands


def test_refused_recipients_are_told_by_address_and_kept_apart() -> None:
    refuse = {"no@x.de": "550-5.1.1 No\n550 5.1.1 such user", "later@x.de": "450 4.2.0 Later"}
    driven = Driven(refuse=refuse).begin()
    names = (b"no@x.de", b"yes@x.de", b"later@x.de", b"yes@x.de", b"NO@x.de")
    driven.say(b"MAIL FROM:<a@b.de>")
    assert [driven.say(b"RCPT TO:<%b>" % name) for name in names] == [[550], [250], [450], [250], [250]]
    driven.say(b"DATA")
    assert driven.say(b".") == [250]
    assert driven.mail.addresses == ["yes@x.de", "yes@x.de", "NO@x.de"]
    assert driven.mail.refused == [("no@x.de", {}), ("later@x.de", {})]


def test_a_refusal_may_depend_on_more_than_the_address() -> None:
    answers = iter(["450 4.2.0 Later", None])
    driven = Driven(refuse=lambda address: next(answers)).begin()
    driven.say(b"MAIL FROM:<a@b.de>")
    assert driven.say(b"RCPT TO:<c@d.de>", b"RCPT TO:<c@d.de>") == [450, 250]


def test_a_refused_sender_begins_no_mail() -> None:
    driven = Driven(refuse_sender={"evil@b.de": "550 5.7.1 Not you"}).begin()
    assert driven.say(b"MAIL FROM:<evil@b.de>", b"RCPT TO:<c@d.de>") == [550, 503]
    assert driven.say(b"MAIL FROM:<a@b.de>") == [250]


def test_recipients_over_the_limit_are_deferred() -> None:
    driven = Driven(max_recipients=1).begin()
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<a@b.de>", b"RCPT TO:<c@d.de>") == [250, 250, 452]


@pytest.mark.parametrize(
    ("final_reply", "expected"),
    [
        (None, "250 2.0.0 Ok: queued as 1"),
        ("452 4.3.1 Full", "452 4.3.1 Full"),
        (lambda mail: f"554 5.7.1 {mail.content.decode().strip()}", "554 5.7.1 spam"),
        (lambda mail: None, "250 2.0.0 Ok: queued as 1"),
    ],
)
def test_the_final_reply_may_be_given(final_reply: object, expected: str) -> None:
    driven = Driven(final_reply=final_reply).begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    assert driven.send(b"spam\r\n.\r\n") == expected.encode() + b"\r\n"
    assert driven.mail.replies == [expected]
    assert driven.mail.accepted is expected.startswith("250")
    # Whatever it was, the mail is over (RFC 5321 4.1.1.4).
    assert driven.say(b"MAIL FROM:<>") == [250]


@pytest.mark.parametrize("by", [b"DATA\r\n", b"BDAT 3 LAST\r\n"])
def test_lmtp_gives_each_accepted_recipient_a_final_reply(by: bytes) -> None:
    driven = Driven(lmtp=True, final_replies={"c@d.de": "452 4.2.2 Full"}, refuse={"no@d.de": "550 No"})
    driven.begin(b"LHLO x")
    driven.say(b"MAIL FROM:<>", *(b"RCPT TO:<%b@d.de>" % name for name in (b"b", b"no", b"c", b"b")))
    heard = driven.send(by) if by.startswith(b"DATA") else driven.send(by + b"x\r\n")
    if by.startswith(b"DATA"):
        assert heard.startswith(b"354 ")
        heard = driven.send(b"x\r\n.\r\n")
    queued = "250 2.0.0 Ok: queued as 1"
    assert heard.decode().split("\r\n")[:-1] == [queued, "452 4.2.2 Full", queued]
    assert driven.mail.replies == [queued, "452 4.2.2 Full", queued]
    assert driven.mail.accepted


def test_lmtp_without_recipients_refuses_data_and_says_nothing_to_the_last_chunk() -> None:
    driven = Driven(lmtp=True).begin(b"LHLO x")
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<invalid@invalid.de>") == [250, 553]
    assert driven.say(b"DATA") == [503]
    assert driven.send(b"BDAT 1\r\nx") == b"503 5.5.1 RCPT first\r\n"
    assert driven.send(b"BDAT 1 LAST\r\nx") == b""
    assert driven.sink.mails == []
    # Nothing was owed, so nobody waited: EHLO, the envelope, DATA, BDAT.
    assert driven.session.flights == 4


@each_way
def test_chunks_without_recipients_are_swallowed(way: str) -> None:
    driven = Driven().begin()
    assert driven.say(b"MAIL FROM:<>", b"RCPT TO:<invalid@invalid.de>") == [250, 553]
    heard = driven.send_each(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\n", way)
    assert [line[:3] for line in heard.splitlines()] == [b"554", b"554", b"250"]
    assert driven.session.commands[-1] == b"NOOP"
    assert driven.sink.mails == []
    # As Exim does: a mail that failed at BDAT is open until RSET.
    assert driven.say(b"MAIL FROM:<>", b"RSET", b"MAIL FROM:<>") == [503, 250, 250]


def test_bdat_after_the_last_chunk_and_data_after_bdat_are_out_of_order() -> None:
    driven = Driven().begin()
    assert driven.send(ENVELOPE + b"BDAT 1\r\nx").endswith(b"250 2.0.0 Ok, chunk received\r\n")
    assert driven.say(b"DATA", b"RCPT TO:<c@d.de>") == [503, 503]
    driven.send(b"BDAT 1 LAST\r\nx")
    assert driven.send(b"BDAT 6 LAST\r\nQUIT\r\n").startswith(b"503 ")


def test_a_declared_size_over_the_limit_is_refused() -> None:
    driven = Driven(size=100).begin()
    assert driven.say(b"MAIL FROM:<> SIZE=101", b"MAIL FROM:<> SIZE=100") == [552, 250]


@pytest.mark.parametrize("size", [0, None])
def test_there_may_be_no_limit(size: int | None) -> None:
    driven = Driven(size=size).begin()
    driven.send(ENVELOPE + b"BDAT 3000000 LAST\r\n")
    assert driven.send(b"x" * 3_000_000).startswith(b"250 ")


@pytest.mark.parametrize("lmtp", [False, True])
def test_content_over_the_limit_is_read_to_its_end_and_refused(lmtp: bool) -> None:
    driven = Driven(size=10, lmtp=lmtp).begin(b"LHLO x" if lmtp else b"EHLO x")
    driven.send(ENVELOPE + b"DATA\r\n")
    assert driven.send(b"123456789\r\n.\r\n") == b"552 5.3.4 Message size exceeds the limit\r\n"
    assert driven.mail.content == b""
    assert driven.mail.size == 11
    assert not driven.mail.accepted
    heard = driven.send(ENVELOPE + b"BDAT 10\r\n1234567890BDAT 1\r\n1BDAT 1 LAST\r\n2")
    assert [line[:3] for line in heard.splitlines()] == [b"250", b"250", b"250", b"552", b"552"]
    assert len(driven.sink.mails) == 1


def test_starttls_is_offered_and_answered_where_there_is_a_certificate() -> None:
    driven = Driven(starttls=object())
    driven.heard()
    assert b"STARTTLS" in driven.send(b"EHLO x\r\n")
    assert driven.say(b"STARTTLS now") == [501]


def test_parameters_are_recorded() -> None:
    driven = Driven(extensions=["DELIVERBY", "MT-PRIORITY"]).begin()
    mail = b"MAIL FROM:<a@b.de> size=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=q+2B1 BY=120;R MT-PRIORITY=3"
    rcpt = b"RCPT TO:<c@d.de> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d.de"
    assert driven.say(mail, rcpt, b"DATA") == [250, 250, 354]
    driven.say(b".")
    assert driven.mail.sender_parameters == {
        "SIZE": "10",
        "BODY": "8BITMIME",
        "SMTPUTF8": None,
        "RET": "HDRS",
        "ENVID": "q+2B1",
        "BY": "120;R",
        "MT-PRIORITY": "3",
    }
    assert driven.mail.recipients == [("c@d.de", {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;c@d.de"})]
    assert driven.session.violations == []


def test_binarymime_goes_by_bdat_only() -> None:
    driven = Driven(binarymime=True).begin()
    assert driven.say(b"MAIL FROM:<> BODY=BINARYMIME", b"RCPT TO:<c@d.de>", b"DATA") == [250, 250, 503]
    assert driven.send(b"BDAT 3 LAST\r\n\n\xff\r").startswith(b"250 ")
    assert driven.mail.content == b"\n\xff\r"
    assert driven.session.violations == ["DATA after BODY=BINARYMIME, which goes by BDAT only"]


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        (b'"a>b"@c.de', '"a>b"@c.de'),
        (b'"a\\"> b"@c.de', '"a\\"> b"@c.de'),
        (b"@x.de,@y.de:a@b.de", "@x.de,@y.de:a@b.de"),
        (b"postmaster", "postmaster"),
        (b"a@[IPv6:::1]", "a@[IPv6:::1]"),
    ],
)
def test_addresses_are_recorded_as_they_stand(address: bytes, recorded: str) -> None:
    driven = Driven().begin()
    driven.say(b"MAIL FROM:<%b>" % address, b"RCPT TO:<%b>" % address, b"DATA")
    driven.say(b".")
    assert driven.mail.sender == recorded
    assert driven.mail.addresses == [recorded]


def test_a_command_line_that_is_too_long_is_swallowed() -> None:
    driven = Driven(max_line=50).begin()
    for _ in range(10):
        assert driven.send(b"NOOP" + b"x" * 16) == b""
    assert driven.send(b"\r\nNOOP\r\n") == b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"
    assert b"over 50 octets" in driven.session.violations[0].encode()
    assert driven.say(b"NOOP " + b"x" * 43) == [250]
    assert driven.say(b"NOOP " + b"x" * 44) == [500]


def test_content_need_not_be_kept() -> None:
    driven = Driven(keep_content=False).begin()
    driven.send(ENVELOPE + b"DATA\r\n")
    driven.send(b"a\n\r\n.\r\n")
    assert (driven.mail.content, driven.mail.size, driven.mail.bare_line_ends) == (b"", 4, True)


def test_a_transcript_is_kept_where_asked_for() -> None:
    driven = Driven(keep_transcript=True)
    driven.say(b"HELO x")
    assert driven.session.transcript == [
        ("S", b"220 sink.invalid ESMTP"),
        ("C", b"HELO x"),
        ("S", b"250 sink.invalid"),
    ]
    assert Driven().session.transcript == []
