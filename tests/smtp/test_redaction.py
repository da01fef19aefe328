"""
Tests of secrets that a server repeats.
"""

from __future__ import annotations

import gc
import sys
import weakref
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.script import reply
from twisted_smtpclient import ProtocolError, Reply
from twisted_smtpclient.smtp.credentials import Secret
from twisted_smtpclient.smtp.redaction import Redaction

HUNTER = Redaction([Secret("hunter2")])


def hidden(text: str, *secrets: str) -> str:
    return Redaction(Secret(secret) for secret in secrets or ("hunter2",)).hide(text.encode()).decode()


def cleaned(said: Reply, *secrets: str) -> list[bytes]:
    """The lines of a reply that is told."""
    (told,) = Redaction(Secret(secret) for secret in secrets).clean([said])
    assert told.code == said.code
    return list(told.lines)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such command: hunter2", "no such command: ***"),
        ("hunter2hunter2, hunter2!", "***, ***!"),
        ("xhunter2x", "x***x"),
        ("nothing of it", "nothing of it"),
        ("", ""),
        (b64encode(b"hunter2").decode(), "***"),
        (f"what is {b64encode(b'hunter2').decode()}?", "what is ***?"),
        (f"what is {b64encode(chr(0).encode() + b'anna' + bytes(1) + b'hunter2').decode()}?", "what is ***?"),
    ],
)
def test_stars_stand_in_its_place(said: str, shown: str) -> None:
    assert hidden(said) == shown


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_it_is_found_in_whatever_base64_it_is_within(before: bytes, behind: bytes) -> None:
    encoded = b64encode(before + b"hunter2" + behind).decode()
    assert hidden(f"535 {encoded} {encoded}") == "535 *** ***"


@given(st.text(st.characters(exclude_categories=["C"]), min_size=4, max_size=30), st.text(max_size=30))
def test_whatever_it_is_none_of_it_is_left(secret: str, around: str) -> None:
    shown = hidden(f"{around}{secret}{around}".encode("utf-8", "replace").decode(), secret)
    assert secret not in shown.replace("***", "\n") or secret in "***"


def test_a_short_one_is_hidden_where_it_stands_alone() -> None:
    """Within words its gaps would tell it."""
    assert hidden("a queue as a cat ate", "a") == "*** queue as *** cat ate"
    assert hidden("pw, pwd, (pw)", "pw") == "***, pwd, (***)"


def test_characters_beyond_ascii_and_of_regular_expressions_are_as_good() -> None:
    assert hidden("say Gr\u00fc\u00dfe.*[a", "Gr\u00fc\u00dfe.*[a") == "say ***"


def test_what_is_not_utf_8_stays_as_it_is() -> None:
    assert HUNTER.hide(b"\xffhunter2") == b"\xff***"


# Parts.

PASSWORD = "correct-horse-77"
SAID = b64encode(b"\0anna\0" + PASSWORD.encode()).decode()
TOKEN = "ya29." + "".join(chr(ord("a") + n * n * 7 % 26) + str(n) for n in range(400))


@pytest.mark.parametrize("cut", range(1, 9))
def test_one_that_was_cut_is_hidden_at_either_end(cut: int) -> None:
    assert hidden(f"no {PASSWORD[:-cut]}, no", PASSWORD) == "no ***, no"
    assert hidden(f"no {PASSWORD[cut:]}, no", PASSWORD) == "no ***, no"
    assert hidden(f"500 what is AUTH PLAIN {SAID[:-cut]}", PASSWORD) == "500 what is AUTH PLAIN ***"
    assert hidden(f"500 what is {SAID[cut:]}", PASSWORD) == "500 what is ***"


@given(st.data())
def test_of_base64_eight_characters_that_are_all_the_secrets_are_enough(data: st.DataObject) -> None:
    before = data.draw(st.binary(max_size=5))
    encoded = b64encode(before + TOKEN.encode()).decode()
    first = data.draw(st.integers(-(-len(before) * 8 // 6), len(encoded) - 12))
    assert hidden(f"<{encoded[first : first + 8]}>", TOKEN) == "<***>"


@given(st.data())
def test_as_it_stands_eight_characters_are_enough_and_seven_are_not(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(TOKEN) - 8))
    assert hidden(f"<{TOKEN[first : first + 8]}>", TOKEN) == "<***>"
    assert hidden(f"<{TOKEN[first : first + 7]}>", TOKEN) == f"<{TOKEN[first : first + 7]}>"


@pytest.mark.parametrize("secret", ["pass5", "pass-6", "pass--7", "pass---8"])
def test_of_a_short_one_all_but_one_is_hidden(secret: str) -> None:
    assert hidden(f"<{secret[:-1]}>, <{secret[1:]}>", secret) == "<***>, <***>"
    assert hidden(f"<{secret[:-2]}>", secret) == f"<{secret[:-2]}>"
    encoded = b64encode(secret[:-1].encode()).decode()
    assert hidden(f"<{encoded}>", secret) == "<***>"


def test_of_four_characters_all_must_be_there() -> None:
    assert hidden("pass passw pas", "pass") == "*** ***w pas"
    assert hidden(b64encode(b"xpassx").decode(), "pass") == "***"


@pytest.mark.parametrize("secret", ["pw1", "a"])
def test_a_short_one_is_hidden_in_base64_where_it_stands_alone_or_with_what_was_said(secret: str) -> None:
    encoded = b64encode(secret.encode()).decode()
    assert hidden(f"what is {encoded}? xyz{encoded}", secret) == f"what is ***? xyz{encoded}"
    redaction = Redaction([Secret(secret)])
    redaction.add_response(b"\0anna\0" + secret.encode())
    said = b64encode(b"\0anna\0" + secret.encode())
    assert redaction.hide(b"what is " + said) == b"what is ***"


@pytest.mark.parametrize("pieces", [2, 4, 150])
def test_one_over_several_lines_is_hidden_in_each(pieces: int) -> None:
    for said in (TOKEN, b64encode(b"user=anna\1" + TOKEN.encode()).decode()):
        size = -(-len(said) // pieces)
        parts = [said[n : n + size].encode() for n in range(0, len(said), size)]
        lines = [b"500-5.5.1 " + part for part in parts[:-1]] + [b"500 5.5.1 " + parts[-1]]
        told = cleaned(Reply(500, tuple(lines)), TOKEN)
        assert told == [b"500-5.5.1 ***"] * (len(parts) - 1) + [b"500 5.5.1 ***"]


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("a/b/c/d/e/f", rb"{\"bad\":\"a\/b\/c\/d\/e\/f\"}"),
        (r"a\b\c\d\e\f", rb'{"bad":"a\\b\\c\\d\\e\\f"}'),
        ('a"b"c"d"e"f', rb'{"bad":"a\"b\"c\"d\"e\"f"}'),
        ("gr\u00fc\u00dfe\u20ac", rb'{"bad":"gr\u00fc\u00dfe\u20ac"}'),
        ("gr\u00fc\u00dfe\u20ac", rb'{"bad":"gr\u00FC\u00DFe\u20AC"}'),
        ("\U0001f600/\U0001f601", rb'{"bad":"\ud83d\ude00\/\ud83d\ude01"}'),
        ("gr\u00fc\u00dfe", '{"bad":"gr\u00fc\u00dfe"}'.encode("latin-1")),
        ("gr\u00fc\u00dfe", b64encode("gr\u00fc\u00dfe".encode("latin-1"))),
        ("Correct-Horse", b'{"bad":"CORRECT-HORSE"}'),
        ("a?>b?>c?>", b64encode(b"a?>b?>c?>", b"-_")),
    ],
)
def test_it_is_known_however_it_is_spelt(secret: str, said: bytes) -> None:
    told = Redaction([Secret(secret)]).hide(b"<%b>" % said)
    assert told in (b"<***>", b'<{"bad":"***"}>', rb"<{\"bad\":\"***\"}>")


def test_a_response_is_hidden_whole_and_the_name_in_it_is_none() -> None:
    redaction = Redaction([Secret(PASSWORD)])
    response = b"anna@example.org b913a602c7eda7a495b4e6e7334d3890"
    redaction.add_response(response)
    assert redaction.hide(b"no anna@example.org here") == b"no anna@example.org here"
    assert redaction.hide(b"<%b>, <%b>" % (response, b64encode(response))) == b"<***>, <***>"
    assert redaction.hide(b"<%b>" % b64encode(b"x" + response + b"x")) == b"<***>"


@pytest.mark.parametrize("text", ["Ok: queued as 4fXyZ12345abcd", "5.7.8 Error: authentication failed", ""])
def test_what_servers_say_day_by_day_stays(text: str) -> None:
    said = reply(535, text)
    for secret in (PASSWORD, TOKEN):
        redaction = Redaction([Secret(secret)])
        assert redaction.clean([said])[0] is said
        assert redaction.clean([said])[0] is said


def test_a_line_that_was_no_secret_is_one_once_it_was_said() -> None:
    redaction = Redaction([Secret(PASSWORD)])
    said = reply(250, "digest4711")
    assert redaction.clean([said]) == [said]
    redaction.add_response(b"digest4711")
    assert redaction.clean([said]) == [reply(250, "***")]


@pytest.mark.parametrize("secret", ["2", "0", "250"])
def test_a_code_is_no_secret(secret: str) -> None:
    (told,) = Redaction([Secret(secret)]).clean([reply(250, f"2.0.0 you said {secret}")])
    assert told == reply(250, "2.0.0 you said ***")
    assert str(told.enhanced) == "2.0.0"
    # One that contradicts the reply is no code.
    assert cleaned(reply(550, "2.0.0 no"), "2") == [b"550 ***.0.0 no"]


@pytest.mark.parametrize("line", [b"x" * 250, b"AGFubmEA" * 31, TOKEN[:7].encode() + b" ", b"ya29.a0" * 35])
def test_the_longest_reply_takes_no_longer_than_its_length(line: bytes) -> None:
    redaction = Redaction([Secret("ya29." * 1600)])
    long = Reply(250, (*[b"250-" + line] * 255, b"250 " + line))
    short = Reply(250, (b"250-" + line, b"250 " + line))

    def steps(said: Reply) -> int:
        count = 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            redaction.clean([said])
        finally:
            sys.setprofile(None)
        return count

    assert steps(long) <= 256 * steps(short)


def test_the_sessions_of_one_account_share_what_is_known_of_it_and_then_it_is_gone() -> None:
    first, second = (Redaction([Secret("one" + "-account")]) for _ in range(2))
    (mine,), (other,) = first._secrets.values(), second._secrets.values()
    assert mine is other
    gone = weakref.ref(mine)
    del first, second, mine, other
    gc.collect()
    assert gone() is None


def test_a_reply_keeps_its_code_and_its_lines() -> None:
    replies = [Reply(535, (b"535-5.7.8 hunter2", b"535 of 535")), reply(250, "fine")]
    cleaned = HUNTER.clean(replies)
    assert cleaned[0] == Reply(535, (b"535-5.7.8 ***", b"535 of 535"))
    assert cleaned[1] is replies[1]
    # Not even where the code is the secret.
    assert Redaction([Secret("535 ")]).clean([reply(535, "text")]) == [reply(535, "text")]


@pytest.mark.parametrize(
    "quoted", ["hunt", "unter", "nter2", b64encode(b"xhunter2").decode(), "HUNT", "\\x15", "h\\\\u"]
)
def test_octets_that_an_error_quotes_are_left_out_for_they_may_be_cut(quoted: str) -> None:
    blunt = HUNTER.blunt(ProtocolError(f"not a reply: '{quoted}'"))
    assert type(blunt) is ProtocolError
    assert str(blunt) == "not a reply"


def test_those_of_another_kind_of_server_are_told() -> None:
    for said in (
        "SSH-2.0-OpenSSH_9.2p1",
        "HTTP/1.1 400 Bad Request",
        "+OK POP3 ready",
        "hun" * 26 + "\u2026",
    ):
        error = ProtocolError(f"not a reply: '{said}'")
        assert HUNTER.blunt(error) is error
    said_something = Redaction([Secret("hunter2")])
    said_something.add_response(b"anna b913a602c7eda7a495b4e6e7334d3890")
    assert str(said_something.blunt(ProtocolError("not a reply: 'hm'"))) == "not a reply"


def test_it_shows_nothing_itself() -> None:
    assert repr(HUNTER) == "<Redaction>"
