"""
Tests of the envelope: valid once built, or not built.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.smtp.attempts import attempt
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp import envelope as envelope_module
from twisted_smtpclient.smtp.dsn import DSN, Notify, Return
from twisted_smtpclient.smtp.envelope import Envelope, Recipient, path
from twisted_smtpclient.smtp.grammar import MAX_ADDRESS, MAX_DOMAIN

QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')

# What an address is made of, so that hypothesis finds some that pass.
PIECES = st.sampled_from(
    [
        "a",
        "Z9",
        "1",
        "_",
        ".",
        "-",
        "@",
        '"',
        "\\",
        " ",
        "<",
        ">",
        "[192.0.2.1]",
        "[IPv6:::1]",
        "\r\n",
        "\0",
        "xn--",
    ]
) | st.sampled_from("üß😀א\u3002\ud800\udfff\u200d\u00ad\uff1e\u0130")
MADE_UP = st.lists(PIECES, max_size=10).map("".join)
NEAR = st.builds("{}@{}".format, MADE_UP, MADE_UP) | st.builds("a@{}".format, MADE_UP | st.text(max_size=20))
TEXTS = NEAR | MADE_UP | st.text() | st.text(st.characters())  # the last has lone surrogates


def refused(address: str, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Envelope("a@b", [address], **more)
    return caught.value


def check_octets(address: str, octets: bytes, needs_smtputf8: bool) -> None:
    """What stands between ``<`` and ``>``, against the address as given."""
    assert not set(b"\r\n\0") & set(octets)
    assert not set(b"<> ") & set(QUOTED.sub(b"", octets, count=1))
    assert 3 <= len(octets) <= MAX_ADDRESS
    local_part, at, domain = address.rpartition("@")
    if address.isascii() or needs_smtputf8:
        assert octets == address.encode()
    else:
        # Only the domain may change its form, never the mailbox.
        assert octets.startswith((local_part + at).encode("ascii"))
        assert octets.isascii()
        assert not domain.isascii()
    assert needs_smtputf8 is not local_part.isascii()


@given(TEXTS)
@example("a@\ud800")
@example("a@xn--\u00fc")
@example("a@\u3002\u3002")
@example("a@\u00ad")
@example("ü@ü")
@example("a@b\u200dc")
@example("a@\u0660\u06f0")
@example(f"a@{'ü' * 63}")
@example(f"a@{'.'.join(['ü' * 20] * 10)}")
def test_whatever_is_given_passes_unchanged_or_is_refused(address: str) -> None:
    outcome = attempt(path, address, "here")
    if isinstance(outcome, InvalidRequest):
        assert outcome.field == "here"
        assert len(str(outcome)) < 2000
    else:
        check_octets(address, *outcome)


@given(st.none() | TEXTS, st.lists(TEXTS, max_size=3))
def test_whatever_is_given_is_an_envelope_or_refused(sender: str | None, recipients: list[str]) -> None:
    envelope = attempt(Envelope, sender, recipients)
    if isinstance(envelope, InvalidRequest):
        assert re.fullmatch(r"sender|recipients(\[\d\])?", str(envelope.field))
        return
    assert envelope.sender == sender
    assert [recipient.address for recipient in envelope.recipients] == recipients
    for recipient in envelope.recipients:
        assert recipient.command.startswith(b"RCPT TO:<")
        assert recipient.command.endswith(b">\r\n")
        assert recipient.command.count(b"\r") == recipient.command.count(b"\n") == 1


LOCAL_PARTS = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[A-Za-z0-9]{1,5}){0,3}", fullmatch=True)
DOMAINS = st.from_regex(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]{1,20}){0,3}", fullmatch=True
)


@given(st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS))
def test_an_address_is_sent_octet_for_octet(address: str) -> None:
    assert path(address, "sender") == (address.encode("ascii"), False)
    assert Recipient(address).command == b"RCPT TO:<" + address.encode("ascii") + b">\r\n"


@pytest.mark.parametrize("injected", ["\r\n", "\n", "\r", "\0", "\r\nRCPT TO:<evil@x>"])
@pytest.mark.parametrize(
    "form", ["a{}@b.example", '"a{}"@b.example', "a@b{}.example", "a@[x:{}]", "{}a@b", "a@b{}"]
)
def test_an_address_cannot_add_a_command(form: str, injected: str) -> None:
    assert refused(form.format(injected)).field == "recipients[0]"
    with pytest.raises(InvalidRequest, match=r"^sender: "):
        Envelope(form.format(injected), ["a@b"])


@pytest.mark.parametrize("injected", ["> NOTIFY=NEVER", ">", "<", "a@b> BODY=8BITMIME"])
def test_an_address_cannot_add_a_parameter(injected: str) -> None:
    refused(f"a{injected}@b")
    refused(f"a@b{injected}")
    refused(f"a@[x:{injected}]")


@pytest.mark.parametrize(
    "address",
    ["u@v@w", "a,b@c", '"r\r\nx"@y', "a\rb@c", "a@b (comment)", "john doe@b", "John <j@b>", "<a@b>", "a"],
)
def test_an_address_is_never_rewritten_to_another(address: str) -> None:
    # A peer sends to <r>, <ab@c>, <a> and <>, and says that it was accepted.
    refused(address)


def test_only_none_is_the_null_reverse_path() -> None:
    assert Envelope(None, ["a@b"]).reverse_path == b""
    for sender in ("", "<>", " "):
        with pytest.raises(InvalidRequest, match=r"^sender: expected an address"):
            Envelope(sender, ["a@b"])


def test_the_sender_is_sent_as_it_is() -> None:
    envelope = Envelope('"a b"@Example.ORG', ["c@d"])
    assert envelope.sender == '"a b"@Example.ORG'
    assert envelope.reverse_path == b'"a b"@Example.ORG'


def test_an_empty_list_of_recipients_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Envelope("a@b", [])
    assert (caught.value.field, caught.value.expected) == ("recipients", "expected at least one")


def test_recipients_keep_their_order_and_duplicates() -> None:
    addresses = ["b@x", "a@x", "b@x", "B@x"]
    assert [recipient.address for recipient in Envelope(None, addresses).recipients] == addresses


def test_recipients_may_come_from_any_iterable() -> None:
    assert len(Envelope(None, (f"{number}@x" for number in range(3))).recipients) == 3


@pytest.mark.parametrize("recipients", ["a@b", b"a@b"])
def test_one_string_is_no_list_of_recipients(recipients: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^recipients: expected a list of addresses, not one string"):
        Envelope(None, recipients)


@pytest.mark.parametrize("address", [b"a@b", b"a" * 100 + b"@b", None, 5, ["a@b"], ("a@b", None)])
def test_what_is_not_a_string_is_refused_by_name(address: Any) -> None:
    assert str(refused(address)) == "recipients[0]: expected a string"
    with pytest.raises(InvalidRequest, match=r"^address: expected a string"):
        Recipient(address)
    if address is not None:
        with pytest.raises(InvalidRequest, match=r"^sender: expected a string"):
            Envelope(address, ["a@b"])


def test_the_recipient_that_is_wrong_is_named_by_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Envelope(None, ["a@b", Recipient("c@d"), "nonsense", "worse"])
    assert caught.value.field == "recipients[2]"
    assert str(caught.value) == "recipients[2]: expected an address, local-part@domain"


@pytest.mark.parametrize("address", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain_as_a_recipient(address: str) -> None:
    recipient = Recipient(address)
    assert recipient.command == f"RCPT TO:<{address}>\r\n".encode()
    assert not recipient.needs_smtputf8
    with pytest.raises(InvalidRequest, match=r"^sender"):
        Envelope(address, ["a@b"])


@pytest.mark.parametrize("address", ["postmaster\n", "po\u017ftmaster", "postmasters"])
def test_nothing_but_postmaster_goes_without_a_domain(address: str) -> None:
    refused(address)


def test_a_domain_that_is_not_ascii_goes_in_its_a_label_form() -> None:
    assert path("a@bücher.example", "sender") == (b"a@xn--bcher-kva.example", False)
    assert path("a@BÜCHER.example", "sender") == (b"a@xn--bcher-kva.example", False)
    assert not Envelope("a@bücher.example", ["b@bücher.example"]).needs_smtputf8


def test_a_local_part_is_never_put_in_an_a_label_form() -> None:
    # That would be another mailbox, and the mail somebody else's.
    assert path("bücher@example.org", "sender") == ("bücher@example.org".encode(), True)


def test_an_address_that_needs_smtputf8_is_sent_as_it_is() -> None:
    assert path("ü@bücher.example", "sender") == ("ü@bücher.example".encode(), True)
    assert path('"ü x"@b', "sender") == ('"ü x"@b'.encode(), True)


@pytest.mark.parametrize(
    ("sender", "recipient", "needs"),
    [
        ("a@b", "c@d", False),
        ("ü@b", "c@d", True),
        ("a@b", "ü@d", True),
        (None, "a@b", False),
        (None, "ü@b", True),
    ],
)
def test_an_envelope_needs_smtputf8_where_an_address_does(
    sender: str | None, recipient: str, needs: bool
) -> None:
    assert Envelope(sender, ["x@y", recipient, "x@y"]).needs_smtputf8 is needs


@pytest.mark.parametrize("full_stop", ["\u3002", "\uff0e", "\uff61"])
def test_a_full_stop_that_only_an_a_label_form_knows_is_refused_where_there_is_none(full_stop: str) -> None:
    domain = f"bücher{full_stop}example"
    assert Envelope(f"a@{domain}", ["b@c.de"]).reverse_path == b"a@xn--bcher-kva.example"
    error = refused(f"ä@{domain}")
    assert error.field == "recipients[0]"
    assert "between labels" in error.expected


@pytest.mark.parametrize(
    "domain", ["\u00ad", "a\u3002\u3002b", "\u2260x", "x\u200d", "-ü", "\uff1e", "a_b.ü", "\u0130\u0307x."]
)
def test_a_domain_that_has_no_a_label_form_is_refused(domain: str) -> None:
    assert refused(f"a@{domain}").field == "recipients[0]"
    assert refused(f"ü@{domain}").field == "recipients[0]"


def domain_of(octets: int) -> str:
    return ".".join(["d" * 49] * 6)[:octets]


def test_an_address_may_be_as_long_as_a_command_lets_it() -> None:
    domain = domain_of(MAX_DOMAIN)
    address = "a" * (MAX_ADDRESS - MAX_DOMAIN - 1) + "@" + domain
    assert len(Recipient(address).command) == len("RCPT TO:<>\r\n") + MAX_ADDRESS
    assert refused("a" + address).expected.startswith("expected at most 498 octets")


def test_a_domain_that_is_too_long_is_refused() -> None:
    assert refused("a@" + domain_of(MAX_DOMAIN + 1)).expected.startswith(
        "expected at most 498 octets, 255 of them"
    )


def test_the_length_is_counted_in_octets() -> None:
    assert path("ü" * 248 + "@b", "sender")[1]
    assert refused("ü" * 249 + "@b").expected.startswith("expected at most 498 octets")
    # Each label and the address are short enough as characters.
    assert refused("ü@" + ".".join(["ü" * 40] * 4)).field == "recipients[0]"


@pytest.mark.parametrize("start", ["", '"', "a@", "a@[x:", "ü", "a@ü"])
@pytest.mark.parametrize("repeated", ["a", "a.", "ü", '\\"', "-", "a-", "1."])
def test_an_address_without_end_is_refused_by_its_length_alone(start: str, repeated: str) -> None:
    # No pattern, and no IDNA, ever sees more than the bound.
    assert refused(start + repeated * 1_000_000).expected.startswith("expected at most 498 octets")


@settings(deadline=1000)
@given(
    st.sampled_from(["", '"', "a@", "a@[", "ü@", "a@ü"]),
    st.lists(PIECES, min_size=1, max_size=3).map("".join),
    st.sampled_from(["", "@", "!", '"', ".", "@b", "\n"]),
)
def test_no_address_takes_long(start: str, repeated: str, end: str) -> None:
    room = MAX_ADDRESS - len(start) - len(end)
    address = start + repeated * (room // len(repeated)) + end
    outcome = attempt(path, address, "x")
    if isinstance(outcome, InvalidRequest):
        assert outcome.field == "x"
    else:
        check_octets(address, *outcome)


def test_parameters_stand_behind_the_path() -> None:
    recipient = Recipient("a@b", parameters={"RRVS": "2014-04-03T23:01:00Z", "X-1": None})
    assert recipient.command == b"RCPT TO:<a@b> RRVS=2014-04-03T23:01:00Z X-1\r\n"
    assert Recipient("postmaster", parameters={"X": "1"}).command == b"RCPT TO:<postmaster> X=1\r\n"
    envelope = Envelope(None, [recipient], parameters={"MT-PRIORITY": "3"})
    assert envelope.parameters == b" MT-PRIORITY=3"
    assert envelope.recipients == (recipient,)


def test_no_parameters_are_no_octets() -> None:
    assert Envelope(None, ["a@b"]).parameters == b""
    assert Envelope(None, ["a@b"], parameters={}, dsn=DSN(), requiretls=False).parameters == b""
    assert Recipient("a@b", parameters={}).command == b"RCPT TO:<a@b>\r\n"


def test_parameters_are_named_by_their_field() -> None:
    with pytest.raises(InvalidRequest, match=r"^mail_parameters\.BY: not an ESMTP value"):
        Envelope(None, ["a@b"], parameters={"BY": "a b"})
    with pytest.raises(InvalidRequest, match=r"^parameters\.BY: not an ESMTP value"):
        Recipient("a@b", parameters={"BY": "a b"})


def test_what_is_asked_for_with_a_recipient_stands_behind_its_path() -> None:
    recipient = Recipient(
        "a@b", notify=[Notify.SUCCESS, Notify.DELAY], orcpt="list+c@d", parameters={"X": "1"}
    )
    assert recipient.command == b"RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;list+2Bc@d X=1\r\n"
    assert Recipient("a@b", orcpt="ü@d").command == b"RCPT TO:<a@b> ORCPT=utf-8;\\x{FC}@d\r\n"
    assert Recipient("ü@b", notify=[Notify.NEVER]).command == "RCPT TO:<ü@b> NOTIFY=NEVER\r\n".encode()


def test_what_is_asked_for_with_mail_is_in_its_parameters() -> None:
    envelope = Envelope(
        "a@b",
        ["c@d"],
        dsn=DSN(ret=Return.HDRS, envid="a b"),
        requiretls=True,
        parameters={"HOLDFOR": "3600"},
    )
    assert envelope.parameters == b" RET=HDRS ENVID=a+20b REQUIRETLS HOLDFOR=3600"


@pytest.mark.parametrize(
    ("given_terms", "asks"),
    [
        ({}, None),
        ({"notify": [Notify.NEVER]}, {"DSN": "notify"}),
        ({"orcpt": "a@b"}, {"DSN": "orcpt"}),
        ({"notify": [Notify.DELAY], "orcpt": "a@b"}, {"DSN": "notify"}),
        ({"parameters": {"x": "1", "By": "2"}}, {"X": "parameters.x", "DELIVERBY": "parameters.By"}),
    ],
)
def test_a_recipient_tells_what_it_asks_for(given_terms: dict[str, Any], asks: dict[str, str] | None) -> None:
    assert Recipient("a@b", **given_terms).asks == asks
    whole = Recipient("ü@b", **given_terms).asks
    assert whole == {"SMTPUTF8": "address", **(asks or {})}


def test_an_envelope_tells_what_it_asks_for_and_where() -> None:
    assert Envelope("a@b", ["c@d", Recipient("e@f")]).asks is None
    assert Envelope("a@b", ["c@d"], dsn=DSN()).asks is None
    assert Envelope("ü@b", ["ü@d"]).asks == {"SMTPUTF8": "sender"}
    recipients: list[str | Recipient] = [
        "c@d",
        Recipient("ü@f", notify=[Notify.DELAY]),
        Recipient("e@f", notify=[Notify.DELAY]),
    ]
    assert Envelope("a@b", recipients).asks == {
        "SMTPUTF8": "recipients[1].address",
        "DSN": "recipients[1].notify",
    }
    everything = Envelope(
        "a@b",
        recipients,
        dsn=DSN(ret=Return.FULL),
        requiretls=True,
        parameters={"HOLDFOR": "1", "MT-PRIORITY": "3", "DSN": None},
    )
    assert everything.asks == {
        "SMTPUTF8": "recipients[1].address",
        "DSN": "dsn",
        "REQUIRETLS": "requiretls",
        "FUTURERELEASE": "mail_parameters.HOLDFOR",
        "MT-PRIORITY": "mail_parameters.MT-PRIORITY",
    }
    assert everything.needs_smtputf8


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"dsn": {"ret": "FULL"}}, "dsn"),
        ({"dsn": False}, "dsn"),
        ({"requiretls": 1}, "requiretls"),
        ({"requiretls": None}, "requiretls"),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Envelope("a@b", ["c@d"], **wrong)
    assert caught.value.field == field


WORDS = st.text() | MADE_UP | st.sampled_from(["rfc822;a@b", "utf-8;ü@b", "x400;a b", "a@b", "é"])


@given(
    TEXTS,
    st.lists(st.sampled_from(list(Notify)), max_size=4) | st.none(),
    WORDS | st.none(),
    st.dictionaries(WORDS | st.just("X"), WORDS | st.none(), max_size=2),
)
def test_nothing_that_is_asked_for_can_add_a_command_or_a_parameter(
    address: str, notify: list[Notify] | None, orcpt: str | None, more: dict[str, str | None]
) -> None:
    recipient = attempt(Recipient, address, notify=notify, orcpt=orcpt, parameters=more)
    if isinstance(recipient, InvalidRequest):
        assert str(recipient.field).partition(".")[0] in ("address", "notify", "orcpt", "parameters")
        return
    head, end, rest = recipient.command.partition(b"\r\n")
    assert (end, rest) == (b"\r\n", b"")
    assert not set(b"\r\n\0") & set(head)
    bare = Recipient(address).command[:-2]
    assert head.startswith(bare)
    words = head[len(bare) :].split(b" ")[1:]
    assert len(words) == (notify is not None) + (orcpt is not None) + len(more)
    assert all(word.isascii() and word for word in words)


def test_they_show_what_they_are() -> None:
    assert repr(Recipient("a@b")) == "<Recipient 'a@b'>"
    assert repr(Envelope("a@b", ["c@d", "e@f"])) == "<Envelope from 'a@b' to 2>"


def test_a_part_of_an_envelope_differs_in_its_recipients_alone() -> None:
    whole = Envelope(
        "é@x.de",
        ["a@x.de", Recipient("b@x.de", notify=[Notify.NEVER]), "c@x.de"],
        parameters={"BY": "120;R"},
    )
    part = whole.part([whole.recipients[2], whole.recipients[0]])
    assert [recipient.address for recipient in part.recipients] == ["c@x.de", "a@x.de"]
    assert part.sender == whole.sender
    assert part.reverse_path == whole.reverse_path
    assert part.parameters == whole.parameters == b" BY=120;R"
    assert part.needs_smtputf8 is True
    # Of those that go in another part, too: all of them or none.
    assert (
        part.asks
        == whole.asks
        == {
            "SMTPUTF8": "sender",
            "DSN": "recipients[1].notify",
            "DELIVERBY": "mail_parameters.BY",
        }
    )
    assert len(whole.recipients) == 3


def test_a_full_stop_that_is_not_ascii_s_does_not_end_a_domain() -> None:
    with pytest.raises(InvalidRequest):
        Envelope("a@b.de\u3002", ["a@b.de"])


def test_senders_that_were_seen_are_the_same_again_and_no_more_than_some_are_kept() -> None:
    for _ in range(2):
        for number in range(envelope_module._MAX_SENDERS + 10):
            assert Envelope(f"s{number}@b.de", ["a@b.de"]).reverse_path == b"s%d@b.de" % number
            assert 0 < len(envelope_module._senders) <= envelope_module._MAX_SENDERS
    for sender in ("b\u00fccher@b.de", "a@b\u00fccher.de"):
        first, second = Envelope(sender, ["a@b.de"]), Envelope(sender, ["a@b.de"])
        assert (first.reverse_path, first.needs_smtputf8) == (second.reverse_path, second.needs_smtputf8)
