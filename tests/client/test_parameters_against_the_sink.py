"""
What a mail asks for, and the sink's own reading of it: two codes that know nothing of each other.

Whatever the client takes as valid arrives as it was meant, and breaks no rule.
"""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, terms
from twisted_smtpclient import DSN, Content, Envelope, InvalidRequest, Notify, Protocol, Recipient, Return
from twisted_smtpclient.testing import Mail

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60)
LETTERS = st.text("aZ9äß😀 \\+={};,\"'%\x7f\u0661", min_size=1, max_size=30)
ADDRESSES = st.builds(
    "{}@{}".format, LETTERS, st.sampled_from(["example.org", "bücher.example", "[192.0.2.1]"])
)
ORCPTS = ADDRESSES | PRINTABLE.map("x400;{}".format) | ADDRESSES.map("utf-8;{}".format) | PRINTABLE


def arrived(envelope: Envelope, content: bytes = MESSAGE, *, lmtp: bool = False) -> Mail:
    here = Post(lmtp=lmtp, extensions=["MT-PRIORITY MIXER", "X-ANY"])
    server = terms(protocol=Protocol.LMTP if lmtp else Protocol.SMTP)
    outcome = Outcome(here.agent.deliver(server, envelope, Content(content)))
    here.network.settle()
    assert outcome.value.all_ok
    assert here.sink.violations == []
    here.close()
    (mail,) = here.sink.mails
    return mail


@given(PRINTABLE, st.sampled_from([None, *Return]), st.booleans())
@example("+=+3D \\x{41}", Return.FULL, False)
@example("x" * 100, Return.HDRS, True)
def test_envid_and_ret(envid: str, ret: Return | None, lmtp: bool) -> None:
    try:
        dsn = DSN(envid=envid, ret=ret)
    except InvalidRequest:
        # Too long once it is encoded.
        assert sum(1 if re.match("[!-*,-<>-~]", character) else 3 for character in envid) > 100
        return
    mail = arrived(Envelope("a@b.example", ["c@d.example"], dsn=dsn), lmtp=lmtp)
    assert mail.envid == envid
    assert mail.sender_parameters.get("RET") == (None if ret is None else ret.value)


@given(ORCPTS, st.sets(st.sampled_from(Notify), min_size=1))
@example("a+b=c@example.org", {Notify.NEVER})
@example("ü+\\@bücher.example", {Notify.DELAY, Notify.SUCCESS, Notify.FAILURE})
@example("x400;/a=+20 b/", {Notify.DELAY})
def test_orcpt_and_notify(orcpt: str, notify: set[Notify]) -> None:
    try:
        recipient = Recipient("c@d.example", orcpt=orcpt, notify=notify)
    except InvalidRequest:
        # Which of them are refused is not this test's.
        return
    mail = arrived(Envelope("a@b.example", [recipient, "e@f.example"]))
    first, second = mail.recipients
    told = first.orcpt
    assert told is not None
    typed = re.match("[A-Za-z0-9][A-Za-z0-9-]*;", orcpt)
    assert told == (orcpt if typed else f"{'rfc822' if orcpt.isascii() else 'utf-8'};{orcpt}")
    said = first.parameters["NOTIFY"]
    assert said is not None
    assert sorted(said.split(",")) == sorted(word.value for word in notify)
    assert second.parameters == {}


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


@given(VALUES, st.none() | VALUES)
def test_further_parameters(of_mail: str, of_recipient: str | None) -> None:
    try:
        recipient = Recipient("c@d.example", parameters={"x-any": of_recipient})
        envelope = Envelope("a@b.example", [recipient], parameters={"MT-PRIORITY": "-3", "X-Any": of_mail})
    except InvalidRequest:
        assert not re.fullmatch("[!-<>-~]+", of_mail) or not re.fullmatch("[!-<>-~]+", of_recipient or "x")
        return
    mail = arrived(envelope)
    size = mail.sender_parameters.pop("SIZE")
    assert size == str(mail.size)
    assert mail.sender_parameters == {"MT-PRIORITY": "-3", "X-ANY": of_mail}
    assert mail.recipients == [("c@d.example", {"X-ANY": of_recipient})]
