"""
What was published as a hole of other clients, tried on this one.

Those that take a server to try are among the tests of what they are about;
``docs/security.rst`` names the test of each.
"""

from __future__ import annotations

import re

import pytest

from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp.content import Content
from twisted_smtpclient.smtp.envelope import Envelope, Recipient, path
from twisted_smtpclient.smtp.parameters import parameters
from twisted_smtpclient.smtp.policy import Server

INJECTED = {
    "CVE-2015-9096": "a@b.example>\r\nRCPT TO:<evil@evil.example",
    "CVE-2025-59419": "a@b.example\r\nDATA\r\n",
    "CVE-2026-30227": '"a\r\nRCPT TO:<evil@evil.example>\r\n"@b.example',
    "CVE-2026-53533": "a\x0b@b.example",
    "aiosmtplib 5.1.3": "a@b.example> AUTH=<evil@evil.example",
}

AMBIGUOUS = {
    "CVE-2026-125755, folded": "a@b.example\r\n .evil.example",
    "CVE-2026-125755, blank": "a@b.example .evil.example",
    "CVE-2026-125755, comment": "a@b.example(x).evil.example",
    "CVE-2026-100699": '"a"@b.example(x)evil.example',
}


@pytest.mark.parametrize("address", INJECTED.values(), ids=INJECTED)
def test_an_address_adds_no_command_and_no_parameter(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^sender: "):
        Envelope(address, ["a@b.example"])
    with pytest.raises(InvalidRequest, match=r"^recipients\[0\]: "):
        Envelope("a@b.example", [address])


@pytest.mark.parametrize("address", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_address_that_can_be_read_in_two_ways_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^recipients\[0\]: "):
        Envelope("a@b.example", [address])


def test_a_quoted_at_sign_leads_to_no_other_domain() -> None:
    # CVE-2025-13033: it went to gmail.com.
    command = Recipient('"someone@gmail.com x"@b.example').command
    assert command == b'RCPT TO:<"someone@gmail.com x"@b.example>\r\n'


@pytest.mark.parametrize("character", ["\u760d", "\u760a", "\u010d", "\u010a", "\uff0d\uff0a"])
def test_no_character_becomes_a_line_end_on_its_way(character: str) -> None:
    # CVE-2025-7962: characters were cut down to their lower octet.
    octets, needs_smtputf8 = path(f"a{character}RSET@b.example", "sender")
    assert needs_smtputf8
    assert octets == f"a{character}RSET@b.example".encode()
    assert not set(octets) & set(b"\r\n")


@pytest.mark.parametrize(
    ("domain", "a_label"),
    [
        ("b\u00adcher.example", b"bcher.example"),
        ("ｂcher.example", b"bcher.example"),
        ("BÜCHER\uff0eexample", b"xn--bcher-kva.example"),
        ("bu\u0308cher.example", b"xn--bcher-kva.example"),
    ],
)
def test_a_domain_is_the_one_that_everybody_else_takes_it_for(domain: str, a_label: bytes) -> None:
    # CVE-2026-92598: without UTS 46's mapping it was another, which can be registered.
    assert path(f"a@{domain}", "sender") == (b"a@" + a_label, False)


@pytest.mark.parametrize(
    "nested", ["(" * 100_000, "(" * 50_000 + ")" * 50_000, "(a)" * 50_000, '"' * 100_000]
)
def test_an_address_that_costs_a_parser_its_stack_or_an_hour_costs_nothing(nested: str) -> None:
    # CVE-2025-14874, CVE-2026-90776.
    with pytest.raises(InvalidRequest):
        Envelope("a@b.example", [f"{nested}a@b.example"])
    with pytest.raises(InvalidRequest):
        Envelope("a@b.example", [f"a@b.example{nested}"])


@pytest.mark.parametrize("keyword", ["SIZE", "X-ANY"])
def test_a_parameter_adds_no_command(keyword: str) -> None:
    # CVE-2026-82854.
    with pytest.raises(InvalidRequest):
        parameters({keyword: "1\r\nRCPT TO:<evil@evil.example>"})


@pytest.mark.parametrize(
    "helo", ["me.example\r\nMAIL FROM:<evil@evil.example>", "me.example XCLIENT ADDR=192.0.2.1"]
)
def test_a_name_adds_no_command_and_no_parameter(helo: str) -> None:
    # CVE-2026-82853, aiosmtplib 5.1.3.
    with pytest.raises(InvalidRequest, match=r"^helo: "):
        Server(host="mx.example", helo=helo)


@pytest.mark.parametrize(
    "message",
    [
        b"a\r\n\r\n.\r\nMAIL FROM:<evil@evil.example>\r\n",  # CVE-2021-38189
        b"a\n.\nMAIL FROM:<evil@evil.example>\n",  # RUSTSEC-2026-0561
        b"a\r.\rMAIL FROM:<evil@evil.example>\r",
        b"a\n.\r\nMAIL FROM:<evil@evil.example>\r\n",  # CVE-2023-51764, -51765, -51766
        b"a\r\n.\nMAIL FROM:<evil@evil.example>\r\n",
        b"a\r\n.\rMAIL FROM:<evil@evil.example>\r\n",
        b".\r\nMAIL FROM:<evil@evil.example>\r\n",
    ],
)
def test_a_message_has_one_end_however_lax_the_server(message: bytes) -> None:
    lines = re.split(rb"\r\n|\r|\n", Content(message).for_data())
    assert lines.count(b".") == 1
    assert lines[-2:] == [b".", b""]
    assert b"".join(Content(message).data_blocks()) == Content(message).for_data()
