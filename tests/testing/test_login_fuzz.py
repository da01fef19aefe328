"""Whatever a client says while it logs in, the sink answers each line once and stays a server."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.testing.logging_in import CLIENTS, encoded, greeted
from twisted_smtpclient.testing.accounts import MECHANISMS

#: Pieces of messages that are right, in places that are not.
_PIECES = [
    b"n,,", b"y,,", b"p=tls-unique,,", b"p=,,", b"n=anna", b"n==2C", b",r=abc", b",r=", b"a=anna", b"c=biws",
    b",p=AAAA", b",p=%", b"m=1", b",", b"=", b"\0", b"\1", b"anna", b"auth=Bearer x", b"user=anna", b"\xff",
    b"\xc3\xa4", b"e=x", b"",
]  # fmt: skip
messages = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=5), max_size=6).map(b"".join)
lines = messages.map(encoded) | st.sampled_from([b"", b"=", b"*"]) | st.binary(max_size=20)


@given(
    st.sampled_from([*CLIENTS, "SCRAM-SHA-256-PLUS", "EXTERNAL", "FOO"]),
    st.none() | lines,
    st.lists(lines, max_size=4),
)
@example("SCRAM-SHA-256", encoded(b"n,,n=anna,r=abc"), [encoded(b"c=biws,r=abc,p=AAAA")])
@example("SCRAM-SHA-256", encoded(b"n,,n=anna,r=abc"), [encoded(b"c=%,r=abc,p=%")])
@example("SCRAM-SHA-1", encoded("n,,n=\u0378,r=abc".encode()), [])
def test_each_line_has_one_reply(name: str, initial: bytes | None, responses: list[bytes]) -> None:
    driven = greeted()
    command = b"AUTH %b" % name.encode() + (b"" if initial is None else b" " + initial)
    for line in (command, *responses, b"*"):
        (code,) = driven.say(line.replace(b"\n", b"").replace(b"\r", b""))
        assert code in (235, 334, 500, 501, 504, 535, 538)
        if code != 334:
            break
    assert driven.say(b"NOOP") == [250]
    # Nobody comes in by chance.
    assert driven.session.login is None


def test_each_mechanism_is_run_somewhere_here() -> None:
    assert set(CLIENTS) | {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "EXTERNAL"} == set(MECHANISMS)
