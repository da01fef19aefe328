"""
Tests of which servers may be connected to: rules, and what they are held against.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol

from tests.client.memory import Network, Outcome
from tests.client.sessions import envelope
from twisted_smtpclient import Content, DeliveryAgent, HostNotFound, NotAllowed, Server, TLSMode
from twisted_smtpclient.client.access import Access, Pattern
from twisted_smtpclient.client.connect import Connector
from twisted_smtpclient.testing import Sink

PUBLIC, OTHER_PUBLIC, PRIVATE, SIX = "192.0.2.1", "192.0.2.2", "10.1.2.3", "2001:db8::1"


class Trial:
    """
    One connecting in memory, to whatever is listening.

    :ivar tried: the addresses that were handed to the reactor.
    """

    def __init__(self, access: Access | None, host: str, *found: str, **terms: Any) -> None:
        self.network = Network()
        self.asked: list[str] = []
        self.found: Sequence[str] | Exception = found
        self._access = access
        self.server = Server(host=host, tls=TLSMode.NO, **terms)

    def _resolve(self, host: str) -> Deferred[Sequence[str]]:
        self.asked.append(host)
        return fail(self.found) if isinstance(self.found, Exception) else succeed(self.found)

    def run(self) -> Outcome[Protocol]:
        connector = Connector(self.network, self._resolve, self._access)
        return self.network.until(connector.connect(self.server, Protocol), 20, 0.125)

    @property
    def tried(self) -> list[str]:
        addresses: list[Any] = [each.address for each in self.network.attempts]
        return [
            os.fsdecode(each.name or b"") if isinstance(each, UNIXAddress) else each.host
            for each in addresses
        ]


def tried(access: Access | None, host: str, *found: str, **terms: Any) -> list[str]:
    """The addresses that a connecting has tried; all are refused, but none is not allowed."""
    trial = Trial(access, host, *found, **terms)
    outcome = trial.run()
    assert not isinstance(outcome.error, NotAllowed), outcome.error
    return trial.tried


def is_allowed(access: Access, host: str, *found: str, **terms: Any) -> bool:
    """Whether anything is tried; what is not allowed must end at once and say so."""
    trial = Trial(access, host, *found, **terms)
    outcome = trial.run()
    if isinstance(outcome.error, NotAllowed):
        assert trial.tried == []
        assert outcome.seconds == 0
        assert not outcome.error.temporary
        assert trial.network.getDelayedCalls() == []
        return False
    assert trial.tried
    return True


# Names.


@pytest.mark.parametrize(
    ("rule", "host", "allowed"),
    [
        ("mx.example", "mx.example", True),
        ("mx.example", "MX.Example.", True),
        ("MX.EXAMPLE.", "mx.example", True),
        ("mx.example", "mx.example.evil.test", False),
        ("mx.example", "evil-mx.example", False),
        ("*.example", "mx.example", True),
        ("*.example", "a.b.example", True),
        ("*.example", "example", False),
        ("*.example", "mx.example.evil.test", False),
        ("*.example", "mxexample", False),
        ("mx*.example", "mx17.example", True),
        ("mx*.example", "mx.example", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "a.b.b.c", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("*", "mx.example", True),
        ("**", "mx.example", True),
        ("*.*", "mx.example", True),
        ("*.*", "localhost", False),
        ("bücher.example", "bücher.example", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("*.bücher.example", "mx.BÜCHER.example", True),
    ],
)
def test_a_name_is_held_against_the_name_that_was_asked_for(rule: str, host: str, allowed: bool) -> None:
    assert is_allowed(Access([rule]), host, PUBLIC) is allowed
    assert is_allowed(Access(deny=[rule]), host, PUBLIC) is not allowed


def test_a_rule_with_a_port_is_for_that_port_alone() -> None:
    access = Access(["mx.example:25", "192.0.2.0/24:26", "[2001:db8::/32]:27"])
    assert is_allowed(access, "mx.example", PUBLIC, port=25)
    assert is_allowed(access, PUBLIC, port=26)
    assert is_allowed(access, SIX, port=27)
    assert not is_allowed(access, "mx.example", "198.51.100.1", port=26)
    assert not is_allowed(access, "mx.example", PUBLIC, port=465)
    assert not is_allowed(access, PUBLIC, port=25)
    assert not is_allowed(access, SIX, port=25)


def test_a_denied_port_is_denied_everywhere() -> None:
    access = Access(deny=["*:11211"])
    assert is_allowed(access, "mx.example", PUBLIC)
    assert is_allowed(access, PUBLIC)
    assert not is_allowed(access, "mx.example", PUBLIC, port=11211)
    assert not is_allowed(access, PUBLIC, port=11211)
    assert not is_allowed(access, SIX, port=11211)


def test_a_name_with_stars_never_fits_an_address() -> None:
    access = Access(["*.*", "x*1"])
    assert not is_allowed(access, PUBLIC)
    assert not is_allowed(access, SIX)
    # It does as a name, whatever the resolver takes it for.
    assert is_allowed(access, "x1", PUBLIC)


def test_a_long_name_of_a_stranger_is_held_against_many_stars_in_no_time() -> None:
    access = Access(["*a" * 60 + "b"])
    assert not is_allowed(access, ".".join(["a" * 63] * 3), PUBLIC)


# Addresses.


def test_without_rules_every_tcp_server_is_allowed_and_no_unix_socket() -> None:
    access = Access()
    assert tried(access, "mx.example", PUBLIC, SIX, PRIVATE) == [PUBLIC, SIX, PRIVATE]
    assert tried(access, "127.0.0.1") == ["127.0.0.1"]
    assert tried(access, "::1") == ["::1"]
    assert not is_allowed(access, "unix:/run/lmtp")


def test_an_agent_of_the_api_without_access_may_go_everywhere() -> None:
    assert tried(None, "unix:/run/lmtp") == ["/run/lmtp"]


def test_a_name_that_resolves_to_a_forbidden_address_is_not_allowed() -> None:
    assert not is_allowed(Access(deny=["10.0.0.0/8"]), "harmless.example", PRIVATE)
    assert not is_allowed(Access(["192.0.2.0/24"]), "harmless.example", PRIVATE)


def test_a_name_that_is_allowed_may_not_resolve_to_a_denied_address() -> None:
    access = Access(["harmless.example"], ["10.0.0.0/8"])
    assert is_allowed(access, "harmless.example", PUBLIC)
    assert not is_allowed(access, "harmless.example", PRIVATE)


def test_a_server_is_allowed_by_its_name_or_by_its_address() -> None:
    access = Access(["mx.example", "192.0.2.0/24"])
    assert is_allowed(access, "mx.example", "198.51.100.1")
    assert is_allowed(access, "other.example", PUBLIC)
    assert not is_allowed(access, "other.example", "198.51.100.1")


def test_of_several_addresses_only_those_that_are_allowed_are_tried() -> None:
    denied = Access(deny=["10.0.0.0/8", SIX])
    assert tried(denied, "mx.example", PRIVATE, SIX, PUBLIC, OTHER_PUBLIC) == [PUBLIC, OTHER_PUBLIC]
    allowed = Access([OTHER_PUBLIC])
    assert tried(allowed, "mx.example", PRIVATE, SIX, PUBLIC, OTHER_PUBLIC) == [OTHER_PUBLIC]


def test_forbidden_addresses_take_no_place_among_those_that_are_tried() -> None:
    many = [f"10.0.0.{number}" for number in range(1, 40)]
    assert tried(Access(deny=["10.0.0.0/8"]), "mx.example", *many, PUBLIC) == [PUBLIC]


def test_each_look_up_is_held_against_the_rules_anew() -> None:
    """DNS rebinding: what was allowed a moment ago is not asked."""
    trial = Trial(Access(deny=["127.0.0.0/8"]), "rebind.test", PUBLIC)
    trial.run()
    trial.found = ["127.0.0.1"]
    assert isinstance(trial.run().error, NotAllowed)
    assert trial.tried == [PUBLIC]


def test_a_name_is_looked_up_once_for_the_rules_and_the_connection() -> None:
    trial = Trial(Access(deny=["127.0.0.0/8"]), "rebind.test", PUBLIC)
    trial.run()
    assert trial.asked == ["rebind.test"]


def test_a_name_that_no_rule_can_let_pass_is_not_looked_up() -> None:
    for access in (
        Access(["mx.example"]),
        Access(deny=["*.internal"]),
        Access(["192.0.2.0/24:26"]),
        Access(["10.0.0.0/8"], ["*"]),
    ):
        trial = Trial(access, "secret.internal", PUBLIC)
        assert isinstance(trial.run().error, NotAllowed)
        assert trial.asked == []


def test_a_name_without_an_address_is_not_found_rather_than_not_allowed() -> None:
    trial = Trial(Access(["192.0.2.0/24"]), "mx.example")
    assert isinstance(trial.run().error, HostNotFound)
    trial.found = HostNotFound("Host not found: mx.example: no such name")
    assert trial.run().error is trial.found


def test_what_a_resolver_gives_that_is_no_address_is_not_taken_for_allowed() -> None:
    trial = Trial(Access(deny=["127.0.0.0/8"]), "mx.example", "127.1")
    assert isinstance(trial.run().error, HostNotFound)
    assert trial.tried == []


def test_the_error_tells_what_was_asked_for_and_no_address_that_was_found() -> None:
    error = Trial(Access(deny=["10.0.0.0/8"]), "mx.example", PRIVATE).run().error
    assert str(error) == "Not allowed: mx.example:25: its address is not allowed"
    assert isinstance(error, PermissionError)
    error = Trial(Access(deny=["mx.example"]), "mx.example", PRIVATE).run().error
    assert str(error) == "Not allowed: mx.example:25: a rule denies it"
    error = Trial(Access(["my.example"]), "mx.example", PRIVATE).run().error
    assert str(error) == "Not allowed: mx.example:25: no rule allows it"


def test_a_source_address_goes_with_the_addresses_that_are_left() -> None:
    access = Access(deny=[PUBLIC])
    assert tried(access, "mx.example", PUBLIC, SIX, OTHER_PUBLIC, source_address="192.0.2.9") == [
        OTHER_PUBLIC
    ]


@pytest.mark.parametrize(
    ("rule", "host"),
    [
        # IPv4 in the clothes of IPv6.
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("10.0.0.0/8", "::ffff:a01:203"),
        ("10.1.2.3", "0:0:0:0:0:ffff:0a01:0203"),
        ("::ffff:10.0.0.0/104", "10.1.2.3"),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3"),
        ("[::ffff:10.1.2.3]:25", "10.1.2.3"),
        ("::/0", "::ffff:10.1.2.3"),
        ("10.0.0.0/8", "::10.1.2.3"),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3"),
        ("10.0.0.0/8", "64:ff9b:1::10.1.2.3"),
        ("10.0.0.0/8", "2002:a01:203::1"),
        ("10.0.0.0/8", "2001:0:c000:201:0:0:f5fe:fdfc"),
        # At which the kernel connects to this machine.
        ("127.0.0.0/8", "0.0.0.0"),
        ("127.0.0.0/8", "::ffff:0.0.0.0"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("127.0.0.0/8", "::"),
        ("127.0.0.0/8", "64:ff9b::"),
        ("::1", "::"),
        ("::1", "0:0:0:0:0:0:0:1"),
        # A zone says which link, not who.
        ("fe80::/10", "fe80::1%eth0"),
        ("fe80::1", "fe80::1%2"),
        ("*", "127.0.0.1"),
        ("*", "fe80::1%eth0"),
        # As IDNA has it.
        ("127.0.0.0/8", "１２７.0.0.1"),
        ("127.0.0.0/8", "127。0。0。1"),
    ],
)
def test_a_denied_address_is_denied_however_it_is_written(rule: str, host: str) -> None:
    assert not is_allowed(Access(deny=[rule]), host)
    if "%" not in host and not host.startswith("１") and "。" not in host:
        assert not is_allowed(Access(deny=[rule]), "mx.example", host)
    assert is_allowed(Access(deny=[rule]), "203.0.113.7") is (rule != "*")


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("localtest.example", "127.0.0.1"),
    ],
)
def test_what_only_the_resolver_takes_for_an_address_is_judged_by_what_it_comes_to(
    host: str, found: str
) -> None:
    assert not is_allowed(Access(deny=["127.0.0.0/8"]), host, found)
    assert not is_allowed(Access(["192.0.2.0/24"]), host, found)


@pytest.mark.parametrize("host", ["64:ff9b::10.1.2.3", "2002:a01:203::1", "::10.1.2.3"])
def test_what_carries_an_allowed_address_is_not_allowed_for_that(host: str) -> None:
    assert not is_allowed(Access(["10.0.0.0/8"]), host)
    assert is_allowed(Access(["10.0.0.0/8"]), "::ffff:10.1.2.3")


def test_this_machine_is_allowed_as_what_it_is() -> None:
    assert is_allowed(Access(["127.0.0.1"]), "0.0.0.0")
    assert is_allowed(Access(["::1"]), "::")
    assert not is_allowed(Access(["0.0.0.0"]), "0.0.0.0")


# UNIX sockets.


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        ("unix:/run/lmtp", "/run/lmtp", True),
        ("unix:/run/lmtp:24", "/run/lmtp", True),
        ("unix:/run/lmtp", "/run/lmtp2", False),
        ("unix:/run/lmtp", "/run/LMTP", False),
        ("unix:/run/*", "/run/dovecot/lmtp", True),
        ("unix:/run/*/lmtp", "/run/dovecot/lmtp", True),
        ("unix:*", "/run/dovecot/lmtp", True),
        ("unix:/run/*", "/run/../etc/socket", False),
        ("unix:/run/*", "/run/./socket", False),
        ("unix:/run/*", "/run//socket", False),
        ("unix:*", "//run/socket", False),
        ("*", "/run/lmtp", False),
        ("*:25", "/run/lmtp", False),
        ("0.0.0.0/0", "/run/lmtp", False),
    ],
)
def test_a_unix_socket_is_allowed_by_name_alone(rule: str, path: str, allowed: bool) -> None:
    assert is_allowed(Access([rule]), f"unix:{path}") is allowed


def test_a_rule_for_unix_sockets_allows_no_tcp() -> None:
    assert not is_allowed(Access(["unix:*"]), "mx.example", PUBLIC)
    assert not is_allowed(Access(["unix:*"]), PUBLIC)


def test_a_denied_unix_socket_is_denied_whatever_port_is_named_with_it() -> None:
    access = Access(["unix:*"], ["unix:/run/docker.sock:24"])
    assert not is_allowed(access, "unix:/run/docker.sock", port=25)
    assert is_allowed(access, "unix:/run/lmtp")


def test_a_symbolic_link_to_a_denied_unix_socket_is_denied(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "run")
    access = Access(["unix:*"], [f"unix:{os.path.realpath(tmp_path)}/run/docker.sock"])
    assert not is_allowed(access, f"unix:{tmp_path}/var/docker.sock")


def test_a_symbolic_link_is_followed_once_for_the_rules_and_the_connection(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = f"{os.path.realpath(tmp_path)}/real/lmtp"
    for rule in (f"unix:{tmp_path}/link/lmtp", f"unix:{real}"):
        assert tried(Access([rule]), f"unix:{tmp_path}/link/lmtp") == [real]


# Endpoints of the application's.


class Endpoint:
    def __init__(self) -> None:
        self.asked = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        self.asked += 1
        return fail(OSError("no"))


@pytest.mark.parametrize(
    ("access", "host", "asked"),
    [
        (Access(), "mx.example", 1),
        (Access(["mx.example"]), "mx.example", 1),
        (Access(["192.0.2.0/24"]), "mx.example", 0),
        (Access(["192.0.2.0/24"]), PUBLIC, 1),
        (Access(deny=["mx.example"]), "mx.example", 0),
        (Access(deny=["192.0.2.0/24"]), PUBLIC, 0),
    ],
)
def test_of_an_endpoint_the_name_alone_decides(access: Access, host: str, asked: int) -> None:
    endpoint = Endpoint()
    Trial(access, host, endpoint=endpoint).run()
    assert endpoint.asked == asked


# Rules.


@pytest.mark.parametrize(
    "rule",
    [
        "",
        " ",
        "mx example",
        "mx.example\n",
        "mx..example",
        ".example",
        "mx.example:0",
        "mx.example:65536",
        "mx.example:smtp",
        "mx.example:",
        ":25",
        "*:*",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/-1",
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "127.1",
        "2130706433",
        "10.*",
        "10.0.0.*",
        "*.0.0.1",
        "2001:db8::/32:25",
        "2001:db8::g",
        "2001:db8::1/32",
        "[2001:db8::1",
        "[2001:db8::1]:0",
        "[2001:db8::1]x",
        "[2001:db8::/32]/32",
        "[10.0.0.1]:25",
        "[mx.example]",
        "[]",
        "fe80::1%eth0",
        "[fe80::1%eth0]:25",
        "mx.example/24",
        "bü*.example",
        "-\u0300.example",
        "x" * 256,
        "unix:",
        "unix:run/lmtp",
        "unix:/run/\0",
        "http://mx.example",
        "me@mx.example",
    ],
)
def test_a_rule_that_will_not_do_is_an_error_that_says_what_would(rule: str) -> None:
    with pytest.raises(ValueError, match="expected ") as caught:
        Pattern.parse(rule)
    assert repr(rule) in str(caught.value)
    with pytest.raises(ValueError, match="expected "):
        Access(deny=[rule])


def test_an_address_with_a_prefix_is_told_the_network_that_it_is_in() -> None:
    with pytest.raises(ValueError, match=r"got '10\.1\.2\.3/8'; the network is 10\.0\.0\.0/8"):
        Pattern.parse("10.1.2.3/8")


@pytest.mark.parametrize(
    "rule",
    ["::1", "[::1]", "[::1]:25", "2001:db8::/32", "[2001:db8::/32]:25", "[2001:db8::]/32:25", "192.0.2.1:25"],
)
def test_addresses_and_networks_are_rules_on_addresses(rule: str) -> None:
    assert Pattern.parse(rule).on_addresses
    assert str(Pattern.parse(rule)) == rule


@given(st.text() | st.text("0123456789abcdef.*:[]/%unix-", max_size=24))
@example("*")
@example("unix:*")
@example("[::/0]:1")
def test_a_rule_is_one_or_a_value_error_and_can_be_held_against_anything(rule: str) -> None:
    try:
        access = Access([rule], [])
    except ValueError:
        return
    for host in ("mx.example", PUBLIC, SIX, "unix:/run/lmtp"):
        server = Server(host=host)
        try:
            access.check(server)
            if server.unix_path is None:
                access.admitted(server, [PUBLIC, SIX])
        except NotAllowed:
            pass


names = st.from_regex(r"[a-z0-9_]{1,3}\.[a-z0-9_]{0,2}[a-z]", fullmatch=True)


@given(names, st.data())
def test_a_star_stands_for_any_part_of_a_name(name: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(name)))
    end = data.draw(st.integers(begin, len(name)))
    try:
        access = Access([name[:begin] + "*" + name[end:]])
    except ValueError:
        return
    assert access.check(Server(host=name)) is None


@given(st.ip_addresses(), st.integers(0, 32))
def test_what_a_network_allows_another_access_denies_by_it(address: Any, prefix: int) -> None:
    network = str(ipaddress.ip_network((address, prefix), strict=False))
    allowed, denied = Access([network]), Access(deny=[network])
    server = Server(host=str(address))
    with pytest.raises(NotAllowed):
        denied.check(server)
    if not (address.is_unspecified or getattr(address, "ipv4_mapped", None)):
        assert allowed.check(server) is None


def test_its_repr_tells_the_rules() -> None:
    assert repr(Access(["*.example:25"], ["10.0.0.0/8"])) == "<Access: allow *.example:25; deny 10.0.0.0/8>"


# Through the agent.


@pytest.fixture
def agent() -> Iterator[DeliveryAgent]:
    from twisted.internet import reactor

    agent = DeliveryAgent(reactor, access=Access(deny=["127.0.0.0/8"]))
    yield agent
    pytest_twisted.blockon(agent.close())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0.0.0.0"])
@pytest.mark.parametrize("reuse", [True, False])
async def test_nothing_reaches_a_forbidden_server(agent: DeliveryAgent, host: str, reuse: bool) -> None:
    """With the system's own look-up, and a server that really listens."""
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen()
    try:
        server = Server(host=host, port=sink.port, tls=TLSMode.NO)
        # Where the system knows no such spelling of an address, it says so; ::1 is not the sink's.
        with pytest.raises((NotAllowed, HostNotFound, ConnectionRefusedError)) as caught:
            await agent.deliver(server, envelope("a@example.net"), Content(b""), reuse=reuse)
        if host in ("127.0.0.1", "0.0.0.0", "127.1"):
            assert isinstance(caught.value, NotAllowed)
        with pytest.raises((NotAllowed, HostNotFound, ConnectionRefusedError)):
            await agent.probe(server)
        assert not sink.sessions
    finally:
        await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_is_not_to_be_had_by_a_name_that_is_forbidden() -> None:
    from twisted.internet import reactor

    sink = Sink(reactor)
    await sink.listen()
    agent = DeliveryAgent(
        reactor,
        resolver=lambda host: succeed(["127.0.0.1"]),
        access=Access(deny=["forbidden.example"]),
    )
    try:
        for host in ("allowed.example", "forbidden.example", "Forbidden.Example."):
            server = Server(host=host, port=sink.port, tls=TLSMode.NO)
            sending = agent.deliver(server, envelope("a@example.net"), Content(b""))
            if host.startswith("allowed"):
                await sending
            else:
                with pytest.raises(NotAllowed):
                    await sending
        assert len(sink.sessions) == 1
    finally:
        await agent.close()
        await sink.stop()


@pytest_twisted.ensureDeferred
async def test_a_forbidden_unix_socket_is_not_connected_to(tmp_path: Path) -> None:
    from twisted.internet import reactor

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        agent = DeliveryAgent(reactor, access=Access())
        with pytest.raises(NotAllowed):
            await agent.deliver(Server(host=f"unix:{path}"), envelope("a@example.net"), Content(b""))
        with pytest.raises(BlockingIOError):
            listening.accept()
        await agent.close()
