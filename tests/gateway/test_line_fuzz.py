"""
Whatever stands on lines, and however they are cut into reads: one reply each,
true to its ``id``, with an error that has a name; no error in the log, nothing
that hangs, nothing left.

Behind the lines is everything that they can reach, down to a server in memory.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from tests.client.memory import Network
from tests.gateway.fakes import BASE64, LEGACY_LINES, Client, line
from twisted_smtpclient import Access, DeliveryAgent
from twisted_smtpclient.client.access import Pattern
from twisted_smtpclient.errors import HostNotFound
from twisted_smtpclient.gateway import schema
from twisted_smtpclient.gateway.delivery import Deliveries
from twisted_smtpclient.gateway.jsonlines import JSONLinesFactory
from twisted_smtpclient.gateway.memory import Memory
from twisted_smtpclient.gateway.reply import WIRE_NAMES
from twisted_smtpclient.testing import Sink

#: Octets of a line, so that some are too long.
MAX_REQUEST = 2000
#: What may happen until all is over: some timers of each line, some idle times.
MANY_TURNS = 5000

NAMES = {*WIRE_NAMES.values()} - {"InternalError"}


class Everywhere(dict[str, tuple[Any, float]]):
    """One server at each address; at some nobody answers."""

    def __init__(self, server: Any) -> None:
        super().__init__({"192.0.2.9": (None, 0.0)})
        self._server = server

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, (self._server, 0.01))


def resolve(host: str) -> Deferred[Sequence[str]]:
    if host.endswith("example"):
        return succeed(["192.0.2.1", "2001:db8::1"])
    return fail(HostNotFound("no such name", temporary=len(host) % 2 == 0))


class Whole:
    """A daemon without sockets, from the line to the server."""

    def __init__(self) -> None:
        self.clock = Network()
        self.sink = Sink(
            self.clock,
            users={"anna": "secret"},
            require_login=False,
            extensions=["DELIVERBY 240", "MT-PRIORITY MIXER"],
        )
        self.clock.servers = Everywhere(self.sink)
        access = Access([Pattern.parse("*"), Pattern.parse("unix:*")], [Pattern.parse("10.0.0.0/8")])
        self.agent = DeliveryAgent(self.clock, helo="me.example", resolver=resolve, access=access)
        self.memory = Memory()
        self.deliveries = Deliveries(self.agent, self.clock, memory=self.memory)
        self.factory = JSONLinesFactory(self.deliveries, self.clock, max_request=MAX_REQUEST, max_in_flight=4)
        self.client = Client(self)  # type: ignore[arg-type]  # it asks for no more than a clock and a factory

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass, from one delayed call to the next."""
        for _ in range(MANY_TURNS):
            self.clock.settle()
            calls = self.clock.getDelayedCalls()
            if until() or not calls:
                break
            self.clock.advance(max(0.0, min(call.getTime() for call in calls) - self.clock.seconds()))
        assert until(), f"it hangs: {self.deliveries}, {self.agent}"

    def violations(self) -> list[str]:
        """What was not in order on a wire; TLS to a server in clear is no command."""
        sessions = [
            each for each in self.sink.sessions if not b"".join(each.commands[:1]).startswith(b"\x16")
        ]
        return [violation for session in sessions for violation in session.violations]

    def close(self) -> None:
        closed: list[None] = []
        self.deliveries.drain(0.0)
        self.agent.close().addCallback(closed.append)
        self.run(lambda: bool(closed) and not self.clock.open_connections)
        self.run(lambda: not self.clock.getDelayedCalls())
        assert self.memory.held == 0
        assert self.deliveries.under_way == 0


# Lines.

GOOD = [
    line(id=1, tls="NO"),
    line(),
    line(
        id="x", host="[2001:db8::1]", port=2525, helo="[192.0.2.7]", pipelining="NO", chunking="NO", tls="NO"
    ),
    line(id=2, protocol="LMTP", recipients=["a@b.de", "c@d.de", "a@b.de"], sender=None),
    line(id=3, tls="IMPLICIT", tls_name="mx.example", response_timeout=3, connection_timeout=0.5),
    line(id=4, host="192.0.2.9", deadline=20, trace=True, transcript=True, reuse=False),
    line(id=5, host="127.0.0.1", tls="NO", auth={"username": "anna", "password": "secret"}),
    line(id=6, host="127.0.0.1", auth={"username": "anna", "token": "t", "mechanisms": ["PLAIN", "XOAUTH2"]}),
    line(
        id=7, dsn={"ret": "HDRS", "envid": "e+1"}, recipients=[{"address": "a@b.de", "notify": ["FAILURE"]}]
    ),
    line(
        id=8,
        recipients=[{"address": "a@b.de", "orcpt": "rfc822;x@y.de", "parameters": {"X": None}}, "c@d.de"],
    ),
    line(id=9, mail_parameters={"BY": "120;R", "MT-PRIORITY": "3"}, key="k", requiretls=False),
    line(id=9, key="k", recipients=["invalid@invalid.de", "ok@valid.de"]),
    line(id=10, binary=True, eightbitmime="DEPEND", message=base64.b64encode(b"\xff\n.\r\n\0").decode()),
    line(id=11, sender="ä@ü.example", recipients=["ß@b.de"]),
    line(id=12, host="unix:/run/lmtp", source_address="192.0.2.7"),
    line(id=13, host="10.1.2.3"),
    line(id=14, host="nowhere.invalid"),
    line(id=15, requiretls=True),
    json.dumps({"probe": True, "host": "mx.example", "id": "p", "trace": True, "transcript": True}).encode(),
    json.dumps({"cancel": 4, "id": "c"}).encode(),
    json.dumps({"cancel": "x"}).encode(),
    json.dumps({"token": "secret"}).encode(),
    *LEGACY_LINES,
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        ["TRY", "DEPEND", "NO", "LMTP", BASE64, "a@b.de", "192.0.2.1", "unix:/x", "x" * 300, "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["address", "notify", "username", "ret", "X"]), inner, max_size=3)
    ),
    max_leaves=5,
)
#: Any JSON, with the names that are known, and with others.
objects = st.dictionaries(st.sampled_from([*schema.EXPECTED, "x", ""]), values, max_size=6)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good request with other values in some fields."""
    fields = {**json.loads(draw(st.sampled_from(GOOD))), **draw(objects)}
    # Lone surrogates can be written as escapes alone.
    return json.dumps(fields, ensure_ascii=True).encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good request with octets put in, left out, and doubled."""
    octets = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(octets)))
        end = draw(st.integers(begin, min(len(octets), begin + 40)))
        put = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\\", b'"', b"{", b"}", b"\\u0000", octets[begin:end] * 2])
        )
        octets = octets[:begin] + put + octets[end:]
    return octets


lines = (
    st.sampled_from(GOOD)
    | mutated()
    | changed()
    | objects.map(lambda given: json.dumps(given).encode())
    | st.binary(max_size=60)
    | st.integers(MAX_REQUEST - 2, MAX_REQUEST + 2).map(lambda size: b'{"id": 1, ' + b" " * (size - 10))
)


def expected_id(octets: bytes) -> Any:
    """
    The id that the reply to a line is to bear: absent where it has none.

    ``...`` where it is none of this test's business.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = Counter(name for name, _ in pairs)
        repeated.extend(name for name, times in names.items() if times > 1)
        return dict(pairs)

    if len(octets.removesuffix(b"\r")) > MAX_REQUEST:
        return ...
    try:
        given = json.loads(octets.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return "absent"
    if not isinstance(given, dict) or "id" not in given:
        return "absent"
    value = given["id"]
    if "id" in repeated or isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        return ... if "id" in repeated else "absent"
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return "absent"
    return (value,)


def cut(octets: bytes, sizes: Sequence[int]) -> Sequence[bytes]:
    pieces, turn = [], 0
    while octets:
        size = sizes[turn % len(sizes)]
        pieces.append(octets[:size])
        octets, turn = octets[size:], turn + 1
    return pieces


@settings(max_examples=400)
@given(
    st.lists(lines, min_size=1, max_size=8).map(b"\n".join),
    st.lists(st.integers(1, 600), min_size=1, max_size=5) | st.just([1]),
    st.booleans(),
    st.integers(0, 3),
)
@example(b"\n".join(GOOD), [1], True, 0)
@example(b"\n".join(GOOD * 3), [100_000], False, 0)
def test_each_line_has_one_reply_whatever_it_is(
    octets: bytes, sizes: list[int], ended: bool, pauses: int
) -> None:
    whole = Whole()
    client = whole.client
    if ended:
        octets += b"\n"
    expected = [each for each in octets.split(b"\n") if each not in (b"", b"\r")]
    for number, piece in enumerate(cut(octets, sizes)):
        client.send_octets(piece)
        if pauses and number % pauses == 0:
            whole.clock.advance(0.01)
            whole.clock.settle()
    client.half_close()
    whole.run(client.closed)
    replies = client.replies()
    assert len(replies) == len(expected), (expected, replies)
    for reply in replies:
        assert reply["status"] in ("ok", "error")
        if reply["status"] == "error":
            assert reply["error"] in NAMES
            assert reply["message"].startswith("Error while deliver messages: ")
    wanted = [expected_id(each) for each in expected]
    if ... not in wanted:
        told = Counter(repr((reply["id"],) if "id" in reply else "absent") for reply in replies)
        assert told == Counter(map(repr, wanted)), (expected, replies)
    client.go_away()
    whole.close()
    assert whole.violations() == []


@given(st.lists(lines, min_size=1, max_size=6).map(b"\n".join), st.integers(1, 600), st.integers(0, 12))
def test_a_client_that_goes_away_at_any_moment_leaves_nothing(octets: bytes, size: int, reads: int) -> None:
    assume(octets.strip(b"\r\n"))
    whole = Whole()
    for piece in cut(octets + b"\n", [size])[:reads]:
        whole.client.send_octets(piece)
        whole.clock.advance(0)
    whole.client.go_away()
    whole.run(lambda: not whole.deliveries.under_way)
    whole.close()
    assert whole.client.transport.value().count(b"\n") <= octets.count(b"\n") + 1
