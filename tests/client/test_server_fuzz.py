"""
Whatever octets a server says, and whenever: each mail and each probe has one
outcome, the server's verdict or an error that has a name; no error in the log,
nothing that hangs, no delayed call left.

``test_ends`` has servers that say words of SMTP to a session at random.  Here
stands the whole agent before servers that know SMTP, and then lie: their octets
are changed, doubled, dropped, torn apart and held back on their way, in clear
and inside TLS, in the handshake, in AUTH, in replies to DATA, BDAT and LMTP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, MESSAGE, SENDER, terms
from twisted_smtpclient import (
    Content,
    Credentials,
    DeliveryAgent,
    DeliveryError,
    Envelope,
    InternalError,
    Mode,
    Probe,
    Server,
    Status,
    Timeouts,
    TLSMode,
)
from twisted_smtpclient import Protocol as Speaks
from twisted_smtpclient.testing import Sink, make_certificates

CERTIFICATES = make_certificates(HOST)
CONTEXT = CERTIFICATES.server_context()
LARGE = b"x" * 78 + b"\r\n"

#: Seconds for a reply; QUIT has its own.
BOUND = 20.0
#: What may happen until all is over.
MANY_TURNS = 3000

ACCOUNT = Credentials("anna", "secret")

#: How the client goes about it.
WAYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"chunking": Mode.NO}, {}),
    ({}, {"chunking": False, "pipelining": False}),
    ({}, {"esmtp": False}),
    ({"protocol": Speaks.LMTP}, {"lmtp": True}),
    ({"protocol": Speaks.LMTP, "chunking": Mode.NO}, {"lmtp": True}),
    ({"tls": TLSMode.TRY}, {"starttls": CONTEXT}),
    ({"tls": TLSMode.DEPEND}, {"starttls": CONTEXT}),
    ({"tls": TLSMode.IMPLICIT}, {"implicit_tls": CONTEXT}),
    ({"auth": ACCOUNT, "tls": TLSMode.DEPEND}, {"starttls": CONTEXT, "users": {"anna": "secret"}}),
    *(
        ({"auth": ACCOUNT}, {"users": {"anna": "secret"}, "mechanisms": [name]})
        for name in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-1")
    ),
]


class Mangled(ProtocolWrapper):
    """A server whose octets come to harm on their way out."""

    factory: Mangling

    def write(self, data: bytes) -> None:
        for harmed in self.factory.harm(data):
            ProtocolWrapper.write(self, harmed)


class Mangling(WrappingFactory):
    """
    Servers whose words come to harm, one of them after another.

    :param harms: what becomes of the first write, the second, and so on; those
        behind it are left as they are.
    """

    protocol = Mangled

    def __init__(self, network: Network, sink: Sink, harms: Sequence[Harm]) -> None:
        WrappingFactory.__init__(self, sink)  # type: ignore[arg-type]  # it builds protocols, and no more is asked of it
        self._network = network
        self._harms = list(harms)

    def doStart(self) -> None:
        """A sink is no factory that could be told."""

    def harm(self, data: bytes) -> Sequence[bytes]:
        return self._harms.pop(0)(data) if self._harms else [data]


class Harm:
    """What becomes of one write."""

    def __init__(self, kind: str, at: float, octets: bytes) -> None:
        self._kind = kind
        self._at = at
        self._octets = octets

    def __repr__(self) -> str:
        return f"Harm({self._kind!r}, {self._at!r}, {self._octets!r})"

    def __call__(self, data: bytes) -> Sequence[bytes]:
        at = int(self._at * len(data))
        head, tail = data[:at], data[at:]
        return {
            "none": [data],
            "drop": [],
            "cut": [head],
            "put": [head + self._octets + tail],
            "replace": [head + self._octets + tail[len(self._octets) :]],
            "instead": [self._octets],
            "double": [data, data],
            "behind": [data, self._octets],
            "before": [self._octets, data],
            "tear": [data[i : i + 1] for i in range(len(data))],
            "digit": [bytes([48 + (self._octets or b"4")[0] % 10]) + data[1:]],
            "open": [data.replace(b" ", b"-", 1)],
        }[self._kind]


words = st.binary(max_size=6) | st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"-",
        b" ",
        b"250 ok\r\n",
        b"250-ok\r\n",
        b"354 go on\r\n",
        b"550 no\r\n",
        b"421 bye\r\n",
        b"450 later\r\n",
        b"500 what\r\n",
        b"502 what\r\n",
        b"503 bad\r\n",
        b"334 \r\n",
        b"334 AAAA\r\n",
        b"235 in\r\n",
        b"535 out\r\n",
        b"220 again\r\n",
        b"250-SIZE 1\r\n",
        b"250 STARTTLS\r\n",
        b"x" * 5000,
        b"\x16\x03\x01",
        b"199 a\r\n",
        b"600 a\r\n",
        b"250\r\n",
        b"2500 x\r\n",
        b"250-a\r\n251 b\r\n",
        b"421-x\r\n",
    ]
)
KINDS = [
    "none",
    "none",
    "drop",
    "cut",
    "put",
    "replace",
    "instead",
    "double",
    "behind",
    "before",
    "tear",
    "digit",
    "open",
]
harms = st.lists(st.builds(Harm, st.sampled_from(KINDS), st.floats(0, 1), words), max_size=14)


class Babble(Protocol):
    """A server that answers each read with whatever is next; then it is silent, or gone."""

    def __init__(self, says: Sequence[bytes], closes: bool) -> None:
        self._says = list(says)
        self._closes = closes

    def connectionMade(self) -> None:
        self._say()

    def dataReceived(self, data: bytes) -> None:
        self._say()

    def _say(self) -> None:
        assert self.transport is not None
        if self._says:
            self.transport.write(self._says.pop(0))
        elif self._closes:
            self.transport.loseConnection()


class Babbling:
    def __init__(self, says: Sequence[bytes], closes: bool) -> None:
        self._says = says
        self._closes = closes

    def buildProtocol(self, _: object) -> Babble:
        return Babble(self._says, self._closes)


class Attempt:
    """An agent with some mails and a probe for one server."""

    def __init__(self, network: Network, server: Server, mails: int, message: bytes) -> None:
        self.network = network
        self.agent = DeliveryAgent(network, connections_per_host=2, trust_root=CERTIFICATES.trust_root())
        self.mails = [
            Outcome(
                self.agent.deliver(
                    server, Envelope(SENDER, [f"a{number}@b.de", f"c{number}@b.de"]), Content(message)
                )
            )
            for number in range(mails)
        ]
        self.probe: Outcome[Probe] = Outcome(self.agent.probe(server))

    def run(self) -> None:
        """Let time pass, from one delayed call to the next, until all has come."""
        outcomes: list[Outcome[Any]] = [*self.mails, self.probe]
        self._until(lambda: all(outcome.came for outcome in outcomes))
        for outcome in outcomes:
            assert outcome.came == 1
            if not outcome:
                assert isinstance(outcome.error, DeliveryError)
                assert not isinstance(outcome.error, InternalError)
        closed: list[None] = []
        self.agent.close().addCallback(closed.append)
        self._until(lambda: bool(closed) and not self.network.open_connections and not self._calls)

    @property
    def _calls(self) -> Sequence[IDelayedCall]:
        return self.network.getDelayedCalls()

    def _until(self, done: Any) -> None:
        for _ in range(MANY_TURNS):
            self.network.settle()
            if done() or not self._calls:
                break
            self.network.advance(
                max(0.0, min(call.getTime() for call in self._calls) - self.network.seconds())
            )
        assert done(), f"it hangs: {self.agent}, {self.network.open_connections} connections, {self._calls}"

    def accepted(self) -> set[str]:
        told = [entry for outcome in self.mails if outcome for entry in outcome.value.recipients]
        told += [
            entry
            for outcome in self.mails
            if not outcome and isinstance(outcome.error, DeliveryError)
            for entry in outcome.error.recipients
        ]
        return {entry.recipient for entry in told if entry.status is Status.OK}


def server_of(changes: dict[str, Any]) -> Server:
    return terms(**{"timeouts": Timeouts.uniform(BOUND), **changes})


@settings(max_examples=300)
@given(
    st.integers(0, len(WAYS) - 1), harms, st.integers(1, 4), st.sampled_from([1, 1, 5000]), st.integers(0, 40)
)
@example(0, [Harm("none", 0, b"")], 4, 1, 0)
@example(9, [Harm("none", 0, b""), Harm("behind", 0, b"250 STARTTLS\r\n")], 1, 1, 0)
def test_a_server_whose_octets_come_to_harm(
    way: int, harms: list[Harm], mails: int, lines: int, split: int
) -> None:
    changes, offers = WAYS[way]
    network = Network()
    sink = Sink(network, split=split or None, **offers)
    network.serve(Mangling(network, sink, harms))
    attempt = Attempt(network, server_of(changes), mails, MESSAGE if lines == 1 else LARGE * lines)
    attempt.run()
    if all(repr(harm).startswith(("Harm('none'", "Harm('tear'")) for harm in harms):
        # What comes in pieces is as it was.
        assert len(attempt.accepted()) == 2 * mails
        assert attempt.probe.value.greeting.startswith("220 ")
    # An Ok may be a lie that was put in, but not one for a mail that was not sent.
    contents = len(sink.mails) + sum(bool(session.unfinished) for session in sink.sessions)
    assert len(attempt.accepted()) <= 2 * contents + 2 * len(harms)


@settings(max_examples=300)
@given(
    st.integers(0, len(WAYS) - 1),
    st.lists(st.lists(words, min_size=1, max_size=3).map(b"".join), max_size=12),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([1, 5000]),
)
@example(
    4,
    [b"220 a\r\n", b"250-a\r\n250 PIPELINING\r\n", b"250 a\r\n" * 3 + b"354 a\r\n", b"250 a\r\n" * 9],
    False,
    2,
    1,
)
@example(10, [b"220 a\r\n", b"250-a\r\n250 AUTH PLAIN\r\n", b"334 \r\n", b"334 \r\n"], True, 1, 1)
def test_a_server_that_says_anything_in_answer_to_anything(
    way: int, says: list[bytes], closes: bool, mails: int, lines: int
) -> None:
    network = Network()
    network.serve(Babbling(says, closes))
    Attempt(network, server_of(WAYS[way][0]), mails, MESSAGE if lines == 1 else LARGE * lines).run()
