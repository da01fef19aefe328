from __future__ import annotations

import socket
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.application.service import IServiceMaker
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.plugin import getPlugins
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from twisted_smtpclient import DeliveryAgent, tap
from twisted_smtpclient.client.access import Access
from twisted_smtpclient.operations.collector import Collector
from twisted_smtpclient.operations.life import State
from twisted_smtpclient.operations.pages import Pages
from twisted_smtpclient.operations.signals import Signals
from twisted_smtpclient.operations.systemd import ServiceManager
from twisted_smtpclient.service import Daemon


def parsed(*arguments: str) -> tap.Options:
    options = tap.Options()
    UsageOptions.parseOptions(options, list(arguments))
    return options


def test_the_defaults_are_those_of_the_contract() -> None:
    options = parsed()
    (endpoint,) = options.endpoints
    assert isinstance(endpoint, TCP4ServerEndpoint)
    assert (endpoint._port, endpoint._interface) == (7025, "127.0.0.1")
    assert options["max-request"] == 64 * 1024 * 1024
    assert options["max-in-flight"] == 1000
    assert options["max-clients"] == 10_000
    assert options["max-memory"] == 512 * 1024 * 1024
    assert options["key-ttl"] == 600
    assert options["token-file"] is None
    assert repr(Access(options.allow, options.deny)) == "<Access: allow *; deny >"
    assert options["drain-timeout"] == 25
    assert options["ca-file"] is None
    assert options["connections-per-host"] == 10
    assert options["pipelining-depth"] == 10
    assert options["messages-per-connection"] == 1000
    assert options["idle-timeout"] == 30


def test_the_defaults_of_connections_are_the_agent_s_own() -> None:
    own = signature(DeliveryAgent).parameters
    options = parsed()
    for name in ("connections-per-host", "pipelining-depth", "messages-per-connection", "idle-timeout"):
        assert options[name] == own[name.replace("-", "_")].default


def test_it_can_be_told_to_listen_in_more_than_one_place() -> None:
    options = parsed("--listen", "tcp:0:interface=127.0.0.1", "--listen", "unix:/run/x:mode=660")
    assert [type(endpoint) for endpoint in options.endpoints] == [TCP4ServerEndpoint, UNIXServerEndpoint]


@pytest.mark.parametrize(
    ("text", "octets"),
    [("1", 1), ("1048576", 1 << 20), ("64KiB", 1 << 16), ("2 mib", 1 << 21), ("1GiB", 1 << 30)],
)
def test_sizes_are_octets_or_have_a_unit(text: str, octets: int) -> None:
    assert parsed("--max-request", text)["max-request"] == octets


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "7025"], "expected an endpoint such as tcp:7025:interface=127.0.0.1, got '7025'"),
        (["--listen", "tcp:x"], "got 'tcp:x'"),
        (["--listen", "tcp"], "got 'tcp'"),
        (["--listen", "tcp:1:nonsense=2"], "nonsense"),
        (["--listen", "ssl:443:privateKey=/does/not/exist.pem"], "No such file"),
        (["--listen", ""], "expected an endpoint"),
        (["--helo", "a b"], "expected a domain name or an address literal"),
        (["--helo", "a.example\r\nMAIL"], "expected a domain name or an address literal"),
        (["--helo", ""], "expected a domain name or an address literal"),
        (["--max-request", "0"], "expected octets such as"),
        (["--max-request", "-1"], "expected octets such as"),
        (["--max-request", "64MB"], "expected octets such as"),
        (["--max-in-flight", "0"], "expected an integer over 0"),
        (["--max-in-flight", "x"], "expected an integer over 0"),
        (["--max-clients", "0"], "--max-clients: expected an integer over 0, got '0'"),
        (["--allow-host", ""], "--allow-host: expected a name, an address, a network such as 10.0.0.0/8"),
        (["--allow-host", "10.0.0.1/8"], "--allow-host: expected an address or a network such as"),
        (["--allow-host", "10.*"], "--allow-host: expected an address or a network"),
        (["--allow-host", "mx.example:smtp"], "got 'mx.example:smtp'"),
        (["--deny-host", "unix:lmtp"], "--deny-host: expected unix: and an absolute path"),
        (["--token-file", "/does/not/exist"], "--token-file: expected a file of tokens, one a line"),
        (["--listen", "mtls:443:privateKey=/does/not/exist.pem:clientCA=/x"], "No such file"),
        (["--listen", "mtls:99999:privateKey=x:clientCA=x"], "got 'mtls:99999"),
        (["--connections-per-host", "0"], "--connections-per-host: expected an integer over 0, got '0'"),
        (["--connections-per-host", "-3"], "expected an integer over 0"),
        (["--connections-per-host", "1.5"], "expected an integer over 0"),
        (["--pipelining-depth", "0"], "--pipelining-depth: expected an integer over 0, got '0'"),
        (["--pipelining-depth", "\u0661"], "expected an integer over 0"),
        (["--messages-per-connection", "0"], "--messages-per-connection: expected an integer over 0"),
        (["--messages-per-connection", "many"], "expected an integer over 0, got 'many'"),
        (["--idle-timeout", "-1"], "--idle-timeout: expected seconds from 0 to 86400, got '-1'"),
        (["--idle-timeout", "86401"], "expected seconds from 0 to 86400"),
        (["--idle-timeout", "inf"], "expected seconds"),
        (["--drain-timeout", "-1"], "--drain-timeout: expected seconds"),
        (["--drain-timeout", "nan"], "expected seconds"),
        (["--drain-timeout", "soon"], "expected seconds"),
        (["--ca-file", "/does/not/exist.pem"], "expected a file of PEM certificates, got"),
        (["--metrics", "9100"], "--metrics: expected an endpoint such as tcp:7025:interface=127.0.0.1"),
        (["--metrics", "tcp:65536"], "a port is at most 65535"),
        (["--max-memory", "1"], "--max-memory: expected at least 1048576 octets, got '1'"),
        (["--max-memory", "much"], "--max-memory: expected octets"),
        (["--key-ttl", "-1"], "--key-ttl: expected seconds"),
        (["surplus"], ""),
    ],
)
def test_a_value_that_will_not_do_is_a_usage_error_that_says_what_would(
    arguments: list[str], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*arguments)
    assert told in str(caught.value)


def test_a_ca_file_may_hold_many_certificates(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"".join(trustme.CA().cert_pem.bytes() for _ in range(2)))
    assert parsed("--ca-file", str(path))["ca-file"] is not None


@pytest.mark.parametrize("octets", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_without_certificates_is_a_usage_error(octets: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(octets)
    with pytest.raises(UsageError, match="PEM certificates"):
        parsed("--ca-file", str(path))


@pytest.mark.parametrize(
    ("name", "helo"),
    [("mx.example.com", "mx.example.com"), ("localhost", None), ("mx.ex ample", None), ("mx.é", None)],
)
def test_helo_is_the_host_s_full_name_where_it_has_a_dot(
    name: str, helo: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    assert parsed()["helo"] == helo
    assert parsed("--helo", "[192.0.2.1]")["helo"] == "[192.0.2.1]"


def test_the_options_reach_the_daemon() -> None:
    service: Any = tap.makeService(
        parsed(
            "--listen=tcp:0:interface=127.0.0.1",
            "--helo=mx.example.com",
            "--max-request=1KiB",
            "--max-in-flight=7",
            "--drain-timeout=3",
            "--max-memory=64MiB",
            "--key-ttl=60",
        )
    )
    assert isinstance(service, Daemon)
    assert service.deliveries.memory.limit == 64 * 1024 * 1024
    assert service.deliveries.keys._ttl == 60
    assert service.drain_timeout == 3
    assert service.clients.max_request == 1024
    assert service.clients.max_in_flight == 7
    assert service.deliveries.deliverer is service.agent
    agent: Any = service.agent
    assert agent.helo == "mx.example.com"


class Told:
    """In the place of an agent: what it was made with."""

    def __init__(self, given: dict[str, Any], options: dict[str, Any]) -> None:
        given.update(options)

    def begin(self) -> None:
        raise AssertionError("there is nothing to be delivered")


def test_the_options_of_connections_reach_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(tap, "DeliveryAgent", lambda reactor, **options: Told(given, options))
    tap.makeService(
        parsed(
            "--listen=tcp:0:interface=127.0.0.1",
            "--connections-per-host=3",
            "--pipelining-depth=50",
            "--messages-per-connection=1",
            "--idle-timeout=0.5",
        )
    )
    assert given["connections_per_host"] == 3
    assert given["pipelining_depth"] == 50
    assert given["messages_per_connection"] == 1
    assert given["idle_timeout"] == 0.5


def test_the_rules_of_access_reach_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(tap, "DeliveryAgent", lambda reactor, **options: Told(given, options))
    tap.makeService(
        parsed(
            "--listen=tcp:0:interface=127.0.0.1",
            "--allow-host=*.example:25",
            "--allow-host",
            "unix:/run/lmtp",
            "--deny-host=10.0.0.0/8",
            "--deny-host=[2001:db8::/32]:25",
        )
    )
    assert repr(given["access"]) == (
        "<Access: allow *.example:25 unix:/run/lmtp; deny 10.0.0.0/8 [2001:db8::/32]:25>"
    )


def test_a_bound_on_clients_and_the_tokens_reach_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("secret\n")
    service: Any = tap.makeService(
        parsed("--listen=tcp:0:interface=127.0.0.1", "--max-clients=7", f"--token-file={path}")
    )
    assert service.clients.limit.most == 7
    assert service.clients.tokens.accept("secret")


def test_an_empty_token_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match=r"--token-file: .*: it has none"):
        parsed("--token-file", str(path))


def parts(*arguments: str) -> dict[type, Any]:
    """What the daemon that is asked for is the parent of."""
    service: Any = tap.makeService(parsed("--listen=tcp:0:interface=127.0.0.1", *arguments))
    return {type(part): part for part in service}


def test_metrics_are_nowhere_unless_told() -> None:
    assert parsed().metrics is None
    assert set(parts()) == {Collector, Signals, ServiceManager}
    assert set(parts("--metrics=tcp:0:interface=127.0.0.1")) == {Collector, Signals, ServiceManager, Pages}


def test_deliveries_are_counted_and_sampled_where_there_are_metrics() -> None:
    with_pages: Any = tap.makeService(
        parsed("--listen=tcp:0:interface=127.0.0.1", "--metrics=tcp:0:interface=127.0.0.1")
    )
    without: Any = tap.makeService(parsed("--listen=tcp:0:interface=127.0.0.1"))
    assert with_pages.deliveries.wants_sample
    assert len(with_pages.deliveries.journal.listeners) == 2
    assert not without.deliveries.wants_sample
    assert not without.deliveries.journal.listeners


def test_files_are_read_again_where_they_were_given(tmp_path: Path) -> None:
    roots, token = tmp_path / "ca.pem", tmp_path / "token"
    roots.write_bytes(trustme.CA().cert_pem.bytes())
    token.write_text("first\n")
    daemon: Any = tap.makeService(
        parsed("--listen=tcp:0:interface=127.0.0.1", f"--ca-file={roots}", f"--token-file={token}")
    )
    token.write_text("second\n")
    roots.write_bytes(trustme.CA().cert_pem.bytes())
    trusted: list[Any] = []
    daemon.agent.trust = trusted.append
    daemon.life.enter(State.READY)
    daemon.life.reload()
    assert daemon.clients.tokens.accept("second")
    assert not daemon.clients.tokens.accept("first")
    assert len(trusted) == 1


def test_twistd_and_twist_find_the_plugin() -> None:
    (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "smtpclient"]
    assert maker.options is tap.Options
    assert maker.makeService is tap.makeService


@pytest.mark.parametrize("endpoint", ["tcp:70255", "tcp:port=65536:interface=127.0.0.1", "tcp6:99999"])
def test_a_port_that_is_none_is_a_usage_error_and_no_traceback_later(endpoint: str) -> None:
    with pytest.raises(UsageError, match="at most 65535"):
        parsed("--listen", endpoint)
