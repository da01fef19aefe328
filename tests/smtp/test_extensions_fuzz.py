"""
Any octets in answer to EHLO: a parsed value or ProtocolError, and never another exception.

Down from the octets on the wire, through the reply, the extensions and their
parameters, to what the client says next because of them.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from twisted_smtpclient.errors import DeliveryError, ExtensionUnsupported, ProtocolError
from twisted_smtpclient.smtp.credentials import Credentials
from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.grammar import ESMTP_KEYWORD
from twisted_smtpclient.smtp.handshake import Action, Handshake
from twisted_smtpclient.smtp.limits import Limits
from twisted_smtpclient.smtp.login import Channel, LogIn
from twisted_smtpclient.smtp.policy import Protocol, Server, TLSMode
from twisted_smtpclient.smtp.reply import MAX_LINE, MAX_LINES, Reply, ReplyParser
from twisted_smtpclient.smtp.scram import Binding

#: What a word is made of to get past the first look: digits that only Unicode
#: calls so, control characters, what splits, what escapes.
_NASTY = "0123456789=+-_.,;:/*\\ \t\x00\x0b\x1c\x7f\x85\u0661\u00b2\u2028\ud7ffß"
_KEYWORDS = ["AUTH", "auth=", "AUTH=PLAIN", "SIZE", "LIMITS", "STARTTLS", "PIPELINING", "CHUNKING", "X-Y", ""]
_MECHANISMS = ["PLAIN", "login", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "CRAM-MD5", "X" * 21, "EXTERNAL"]
_LIMITS = ["RCPTMAX=", "MAILMAX=", "rcptdomainmax=", "RCPTMAX==", "RCPTMAX"]

words = (
    st.sampled_from(_KEYWORDS + _MECHANISMS)
    | st.builds("{}{}".format, st.sampled_from(_LIMITS), st.integers(-1, 10**25))
    | st.integers(-1, 10**25).map(str)
    | st.text(_NASTY + string.ascii_letters, max_size=12)
)
texts = st.lists(words, max_size=6).map(lambda parts: " ".join(parts).encode("utf-8", "surrogatepass"))
lines = texts | st.binary(max_size=40) | st.integers(0, MAX_LINE + 2).map(lambda size: b"X" * size)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """An EHLO reply that is well-formed for the most part."""
    said = draw(st.lists(lines, max_size=8))
    hyphens = [b"250-" + line for line in [b"mx.example", *said]]
    if draw(st.booleans()):
        hyphens[-1] = hyphens[-1].replace(b"-", b" ", 1)
    return draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])).join(hyphens) + b"\r\n"


octets = replies() | st.binary(max_size=200) | st.builds(bytes.__add__, replies(), st.binary(max_size=20))


def parsed(pieces: Iterable[bytes]) -> tuple[list[Reply], str | None]:
    """The replies, and what was wrong behind them."""
    parser = ReplyParser()
    found = [reply for piece in pieces for reply in parser.feed(piece)]
    assert parser.error is None or isinstance(parser.error, ProtocolError)
    return found, None if parser.error is None else str(parser.error)


def extensions_in(said: bytes) -> list[Extensions]:
    return [Extensions.parse(reply) for reply in parsed([said])[0]]


@given(octets)
def test_octets_are_replies_or_a_protocol_error_however_they_are_split(said: bytes) -> None:
    whole = parsed([said])
    assert parsed(said[at : at + 1] for at in range(len(said))) == whole
    for reply in whole[0]:
        assert 200 <= reply.code <= 559
        assert len(reply.lines) <= MAX_LINES


@given(octets)
@example(b"250-x\r\n250 SIZE \xd9\xa1\r\n")
@example(b"250-x\r\n250 SIZE " + b"9" * 4000 + b"\r\n")
@example(b"250-x\r\n250 LIMITS RCPTMAX=" + b"9" * 4000 + b" RCPTMAX=\xc2\xb2 rcptmax=7\r\n")
def test_a_reply_is_extensions_whose_every_value_is_of_its_grammar(said: bytes) -> None:
    for extensions in extensions_in(said):
        for keyword, parameters in extensions.items():
            assert ESMTP_KEYWORD.fullmatch(keyword)
            assert keyword == keyword.upper()
            assert all(word.isascii() and word and not word.split()[1:] for word in parameters)
        assert extensions.size_limit is None or 0 < extensions.size_limit < 10**20
        limits = Limits.of(extensions)
        assert all(limit is None or 0 < limit < 10**6 for limit in limits)
        most = limits.recipients_of(Envelope(None, ["a@b", "c@d", "e@b"]))
        assert most is None or 0 < most < 3


def begun(protocol: Protocol, tls: TLSMode) -> Handshake:
    """A handshake whose EHLO or LHLO was written."""
    handshake = Handshake(Server(host="mx.example", tls=tls, protocol=protocol), "me.example")
    handshake.receive(Reply(220, (b"220 mx.example",)))
    return handshake


# Drawn, and not parametrized: pytest-twisted wraps a test of hypothesis's once for each parameter.
@given(octets, st.sampled_from(Protocol), st.sampled_from([TLSMode.NO, TLSMode.TRY, TLSMode.DEPEND]))
def test_what_is_said_next_is_one_line_or_an_error_of_ours(
    said: bytes, protocol: Protocol, tls: TLSMode
) -> None:
    for reply in parsed([said])[0]:
        with suppress(DeliveryError):
            answer = begun(protocol, tls).receive(reply)
            assert answer in (b"STARTTLS\r\n", b"HELO me.example\r\n", Action.READY)


SECURED = Channel(secure=True, verified=True, bindings=(Binding("tls-server-end-point", b"x" * 32),))
CREDENTIALS = [Credentials("anna", "secret"), Credentials("anna", token="t" * 2000), Credentials.external()]


def first_word(credentials: Credentials, channel: Channel, extensions: Extensions) -> bytes | str:
    """The AUTH command, or why there is none."""
    try:
        return LogIn(Server(host="mx.example"), credentials, lambda: channel).begin(extensions)
    except ExtensionUnsupported as error:
        return str(error)


@given(octets, st.sampled_from([Channel(), SECURED]), st.sampled_from(CREDENTIALS))
@example(b"250-x\r\n250 AUTH " + b"A " * 2000 + b"\r\n", SECURED, CREDENTIALS[0])
@example(b"250-x\r\n250 AUTH plain\x00 \x1b[31m PLAIN\xff\r\n", SECURED, CREDENTIALS[0])
@example(b"250-x\r\n250-AUTH x\r\n250 auth=oauthbearer\r\n", SECURED, CREDENTIALS[1])
def test_a_login_begins_with_one_line_or_nothing_fits(
    said: bytes, channel: Channel, credentials: Credentials
) -> None:
    for extensions in extensions_in(said):
        word = first_word(credentials, channel, extensions)
        if isinstance(word, str):
            assert word.isprintable()
            assert len(word) < 4096
            continue
        assert len(word) <= 512
        assert word.endswith(b"\r\n")
        assert not set(word[:-2]) & set(b"\r\n\0")
        command, name = word[:-2].decode("ascii").split(" ")[:2]
        assert command == "AUTH"
        assert name in credentials.usable
        assert name in {offered.upper() for offered in extensions["AUTH"]}
