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
        (["--max-memory", "1"], "max-memory"),
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
        )
    )
    assert isinstance(service, Daemon)
    assert service.drain_timeout == 3
    assert service.clients.max_request == 1024
    assert service.clients.max_in_flight == 7
    assert service.deliveries.deliverer is service.agent
    agent: Any = service.agent
    assert agent.helo == "mx.example.com"


def test_the_options_of_connections_reach_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(tap, "DeliveryAgent", lambda reactor, **options: given.update(options))
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


def test_twistd_and_twist_find_the_plugin() -> None:
    (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "smtpclient"]
    assert maker.options is tap.Options
    assert maker.makeService is tap.makeService


@pytest.mark.parametrize("endpoint", ["tcp:70255", "tcp:port=65536:interface=127.0.0.1", "tcp6:99999"])
def test_a_port_that_is_none_is_a_usage_error_and_no_traceback_later(endpoint: str) -> None:
    with pytest.raises(UsageError, match="at most 65535"):
        parsed("--listen", endpoint)
