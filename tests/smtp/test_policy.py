"""
Tests of where a mail goes and on what terms.
"""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.smtp.credentials import Credentials
from twisted_smtpclient.smtp.policy import MAX_SECONDS, Mode, Protocol, Server, Timeouts, TLSMode

DIGEST = "sha256:" + "ab" * 32

#: A value other than the default for each field of a Server.
OTHER: dict[str, Any] = {
    "host": "other.example",
    "port": 2525,
    "helo": "me.example",
    "protocol": Protocol.LMTP,
    "pipelining": Mode.NO,
    "chunking": Mode.DEPEND,
    "tls": TLSMode.DEPEND,
    "tls_name": "name.example",
    "tls_fingerprint": DIGEST,
    "auth": Credentials("anna", "hunter2"),
    "source_address": "192.0.2.7",
    "connection_timeout": 3.0,
    "timeouts": Timeouts.uniform(7),
}


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Server(**{"host": "mx.example", **fields})
    return caught.value


# host


@pytest.mark.parametrize(
    ("given_host", "host"),
    [
        ("localhost", "localhost"),
        ("mx.example.org", "mx.example.org"),
        ("mx.example.org.", "mx.example.org."),
        ("my_host", "my_host"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("unix:/run/smtp.sock", "unix:/run/smtp.sock"),
        ("unix:/" + "x" * 106, "unix:/" + "x" * 106),
        ("unix:/run/caf\udce9", "unix:/run/caf\udce9"),
    ],
)
def test_a_host_is_a_name_an_address_or_a_path(given_host: str, host: str) -> None:
    assert Server(host=given_host).host == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "a b",
        "a..b",
        "-a",
        "a-",
        "mx.example\n",
        "mx\r\n.example",
        "mx\0",
        "[mx.example]",
        "[192.0.2.1]",
        "[::1",
        "::1]",
        "[[::1]]",
        "1::2::3",
        "fe80::1%",
        "fe80::1%a b",
        "fe80::1%\r\nX",
        "fe80::1%a%b",
        "host:25",
        "user@host",
        "\ud800",
        "\u00ad",
        "ü" * 63,
        "a." * 128,
        "a" * 64,
        "a" * 10_000_000,
        "a." * 5_000_000,
        "1" * 10_000_000,
        "[" + ":" * 10_000_000 + "]",
        "unix:",
        "unix:run/smtp.sock",
        "unix:/a\0b",
        "unix:/a\nb",
        "unix:/" + "x" * 107,
        "unix:/" + "ü" * 54,
        "unix:/\ud800",
        "Unix:/run/smtp.sock",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    error = refused(host=host)
    assert error.field == "host"
    assert len(str(error)) < 1000


@given(st.text() | st.text(st.characters()))
def test_whatever_the_host_it_is_fit_for_a_log_or_refused(host: str) -> None:
    outcome: Server | InvalidRequest
    try:
        outcome = Server(host=host)
    except InvalidRequest as error:
        outcome = error
    if isinstance(outcome, InvalidRequest):
        assert outcome.field == "host"
    else:
        assert re.fullmatch(r"[!-~]+", outcome.host)


# what goes into EHLO, and into the check of the certificate


@pytest.mark.parametrize("helo", ["localhost", "me.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", None])
def test_a_helo_is_sent_as_it_is(helo: str | None) -> None:
    assert Server(host="mx", helo=helo).helo == helo


@pytest.mark.parametrize(
    "helo",
    [
        "",
        "me\r\nNOOP injected",
        "me\n",
        "me\0",
        "a b",
        "[::1]",
        "[x:>]",
        "bücher.example",
        "\ud800",
        "a." * 127 + "aa",
        "a." * 5_000_000,
    ],
)
def test_a_helo_cannot_add_a_command(helo: str) -> None:
    assert refused(helo=helo).field == "helo"


@pytest.mark.parametrize(
    ("tls_name", "expected"),
    [
        ("mx.example", "mx.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[::1]", "::1"),
        ("0::1", "::1"),
        ("bücher.example", "xn--bcher-kva.example"),
        (None, None),
    ],
)
def test_a_tls_name_is_a_name_or_an_address(tls_name: str | None, expected: str | None) -> None:
    assert Server(host="mx", tls_name=tls_name).tls_name == expected


@pytest.mark.parametrize("tls_name", ["", "*.example", "a b", "a\n", "\u00ad", "]]::1[[", "[a]", "a" * 256])
def test_what_is_no_tls_name_is_refused(tls_name: str) -> None:
    assert refused(tls_name=tls_name).field == "tls_name"


def test_a_fingerprint_is_compared_in_lower_case() -> None:
    assert Server(host="mx", tls_fingerprint="sha256:" + "AB" * 32).tls_fingerprint == DIGEST


@pytest.mark.parametrize(
    "fingerprint",
    ["", "ab" * 32, "sha1:" + "ab" * 20, DIGEST + "0", DIGEST[:-1], DIGEST + "\n", "SHA256:" + "ab" * 32],
)
def test_what_is_no_fingerprint_is_refused(fingerprint: str) -> None:
    assert refused(tls_fingerprint=fingerprint).field == "tls_fingerprint"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.1", "192.0.2.1"), ("::0001", "::1"), ("[::1]", "::1"), ("fe80::1%2", "fe80::1%2")],
)
def test_a_source_address_is_an_ip_address(address: str, expected: str) -> None:
    assert Server(host="mx", source_address=address).source_address == expected


@pytest.mark.parametrize(
    "address", ["", "mx.example", "192.0.2.1]", "[192.0.2.1]", "192.0.2.256", "::1%\n", "1" * 10_000_000]
)
def test_what_is_no_source_address_is_refused(address: str) -> None:
    assert refused(source_address=address).field == "source_address"


def test_a_source_address_is_of_the_host_s_family() -> None:
    assert refused(host="192.0.2.1", source_address="::1").expected == "is of another family than the host"
    assert refused(host="::1", source_address="192.0.2.1").field == "source_address"
    assert Server(host="192.0.2.1", source_address="192.0.2.2").source_address == "192.0.2.2"
    assert refused(host="unix:/x", source_address="192.0.2.2").expected == "has no meaning with a UNIX socket"


# port and TLS mode, which depend on each other


@pytest.mark.parametrize(
    ("fields", "port", "tls"),
    [
        ({}, 25, TLSMode.TRY),
        ({"protocol": Protocol.LMTP}, 24, TLSMode.TRY),
        ({"port": 2525}, 2525, TLSMode.TRY),
        ({"port": 465}, 465, TLSMode.IMPLICIT),
        ({"port": 465, "tls": TLSMode.NO}, 465, TLSMode.NO),
        ({"tls": TLSMode.IMPLICIT}, 465, TLSMode.IMPLICIT),
        ({"tls": TLSMode.IMPLICIT, "protocol": Protocol.LMTP}, 465, TLSMode.IMPLICIT),
        ({"tls": TLSMode.IMPLICIT, "port": 2465}, 2465, TLSMode.IMPLICIT),
        ({"tls": TLSMode.DEPEND}, 25, TLSMode.DEPEND),
    ],
)
def test_port_and_tls_mode_have_the_defaults_of_the_contract(
    fields: dict[str, Any], port: int, tls: TLSMode
) -> None:
    server = Server(host="mx", **fields)
    assert (server.port, server.tls) == (port, tls)


@pytest.mark.parametrize("port", [0, -1, 65536, 25.0, True, "25", math.nan])
def test_what_is_no_port_is_refused(port: Any) -> None:
    assert str(refused(port=port)) == "port: expected an integer from 1 to 65535"


def test_the_ends_of_the_range_are_ports() -> None:
    assert Server(host="mx", port=1).port == 1
    assert Server(host="mx", port=65535).port == 65535


def test_a_change_of_a_server_fills_its_defaults_in_anew() -> None:
    assert attrs.evolve(Server(host="mx"), tls=TLSMode.IMPLICIT).port == 465
    assert attrs.evolve(Server(host="mx"), port=465).tls is TLSMode.IMPLICIT
    assert attrs.evolve(Server(host="mx", port=25), tls=TLSMode.IMPLICIT).port == 25


def test_only_a_certificate_that_verifies_will_do_where_tls_is_depended_on() -> None:
    assert [mode for mode in TLSMode if mode.verified] == [TLSMode.DEPEND, TLSMode.IMPLICIT]


@pytest.mark.parametrize("tls", [TLSMode.DEPEND, TLSMode.IMPLICIT])
def test_verified_tls_on_a_unix_socket_needs_something_to_verify(tls: TLSMode) -> None:
    assert refused(host="unix:/x", tls=tls).field == "tls_name"
    assert Server(host="unix:/x", tls=tls, tls_name="mx").tls_name == "mx"
    assert Server(host="unix:/x", tls=tls, tls_fingerprint=DIGEST).tls_fingerprint == DIGEST
    assert Server(host="unix:/x").unix_path == "/x"


def test_a_tcp_server_has_no_unix_path() -> None:
    assert Server(host="mx").unix_path is None


# values of another type


@pytest.mark.parametrize("field", ["host", "helo", "tls_name", "tls_fingerprint", "source_address"])
@pytest.mark.parametrize("value", [b"mx", 5, ["mx"]])
def test_what_is_not_a_string_is_refused(field: str, value: Any) -> None:
    assert str(refused(**{field: value})) == f"{field}: expected a string"


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("protocol", "Protocol"),
        ("pipelining", "Mode"),
        ("chunking", "Mode"),
        ("tls", "TLSMode"),
        ("timeouts", "Timeouts"),
    ],
)
@pytest.mark.parametrize("value", ["NO", "LMTP", 5.0, object()])
def test_a_mode_that_is_only_a_string_is_refused_rather_than_overlooked(
    field: str, kind: str, value: Any
) -> None:
    # "NO" is not Mode.NO: a server that may not be pipelined to would be.
    assert str(refused(**{field: value})) == f"{field}: expected a {kind}"


# seconds


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, MAX_SECONDS + 1, True, "5", None])
def test_seconds_are_positive_and_have_a_bound(seconds: Any) -> None:
    assert refused(connection_timeout=seconds).field == "connection_timeout"
    with pytest.raises(
        InvalidRequest, match=r"^response_timeout: expected seconds, over 0 and at most 86400"
    ):
        Timeouts.uniform(seconds)
    for field in attrs.fields(Timeouts):
        with pytest.raises(InvalidRequest, match=rf"^{field.name}: expected seconds"):
            Timeouts(**{field.name: seconds})


def test_the_timeouts_are_at_least_the_minima_of_the_rfc() -> None:
    # RFC 5321 4.5.3.2.1 to .6; the rest as the contract has them.
    assert attrs.asdict(Timeouts()) == {
        "greeting": 300,
        "mail": 300,
        "rcpt": 300,
        "data_initiation": 120,
        "data_block": 180,
        "data_termination": 600,
        "bdat_last": 600,
        "other": 300,
        "quit": 5,
    }


def test_a_uniform_timeout_is_that_of_each_reply_but_quit_s() -> None:
    assert set(attrs.astuple(Timeouts.uniform(30))[:-1]) == {30}
    assert Timeouts.uniform(30).quit == 5
    assert set(attrs.astuple(Timeouts.uniform(0.5))) == {0.5}
    assert Timeouts.uniform(MAX_SECONDS).mail == MAX_SECONDS


# as the key of a pool


def test_equal_servers_are_one_key() -> None:
    for fields in ({}, OTHER):
        one, other = (Server(**{"host": "mx", **fields}) for _ in range(2))
        assert one == other
        assert hash(one) == hash(other)
        assert {one: 1}[other] == 1


@pytest.mark.parametrize("field", OTHER)
def test_servers_that_differ_in_one_field_are_two_keys(field: str) -> None:
    assert Server(host="mx") != Server(**{"host": "mx", field: OTHER[field]})


def test_every_field_counts_in_the_key() -> None:
    assert {field.name for field in attrs.fields(Server) if field.eq} == {*OTHER, "endpoint"}


# auth

ANNA = Credentials("anna", "hunter2")


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"host": "mx.example"}, TLSMode.DEPEND),
        ({"host": "192.0.2.1"}, TLSMode.DEPEND),
        ({"host": "128.0.0.1"}, TLSMode.DEPEND),
        ({"host": "::2"}, TLSMode.DEPEND),
        ({"host": "localhost.example"}, TLSMode.DEPEND),
        ({"host": "mx.example", "port": 465}, TLSMode.IMPLICIT),
        ({"host": "127.0.0.1", "port": 465}, TLSMode.IMPLICIT),
        ({"host": "127.0.0.1"}, TLSMode.TRY),
        ({"host": "127.8.9.1"}, TLSMode.TRY),
        ({"host": "[::1]"}, TLSMode.TRY),
        ({"host": "::ffff:127.0.0.1"}, TLSMode.TRY),
        ({"host": "localhost"}, TLSMode.TRY),
        ({"host": "LocalHost."}, TLSMode.TRY),
        ({"host": "unix:/run/smtp"}, TLSMode.TRY),
        ({"host": "mx.example", "tls": TLSMode.TRY}, TLSMode.TRY),
        ({"host": "mx.example", "tls": TLSMode.NO}, TLSMode.NO),
    ],
)
def test_with_credentials_tls_must_verify_but_on_this_machine(fields: dict[str, Any], mode: TLSMode) -> None:
    assert Server(auth=ANNA, **fields).tls is mode


def test_what_an_endpoint_leads_to_is_never_taken_for_this_machine() -> None:
    server = Server(host="localhost", auth=ANNA, endpoint=Endpoint())
    assert not server.is_local
    assert server.tls is TLSMode.DEPEND


@pytest.mark.parametrize("value", ["anna", {"username": "anna", "password": "hunter2"}, ("anna", "hunter2")])
def test_credentials_are_credentials(value: Any) -> None:
    error = refused(auth=value)
    assert str(error) == "auth: expected a Credentials"


def test_a_server_shows_no_secret() -> None:
    assert "auth=<Credentials 'anna'>" in repr(Server(host="mx", auth=ANNA))
    assert "hunter2" not in repr(Server(host="mx", auth=ANNA))


# by an endpoint


class Endpoint:
    """All that is looked at of one; equal to all others, and no key of a dict."""

    __hash__ = None  # type: ignore[assignment]  # as of what defines __eq__ alone

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "Endpoint(password='geheim')"

    def connect(self, factory: object) -> None:
        """It does not."""


def test_servers_by_one_endpoint_are_one_key_and_by_two_are_two() -> None:
    one, other = Endpoint(), Endpoint()
    assert Server(host="mx", endpoint=one) == Server(host="mx", endpoint=one)
    assert hash(Server(host="mx", endpoint=one)) == hash(Server(host="mx", endpoint=one))
    assert Server(host="mx", endpoint=one) != Server(host="mx", endpoint=other)
    assert Server(host="mx", endpoint=one) != Server(host="mx")
    assert Server(host="mx", endpoint=one) != Server(host="other", endpoint=one)


def test_an_endpoint_leaves_the_host_a_name() -> None:
    server = Server(host="mx.example", endpoint=Endpoint(), tls=TLSMode.IMPLICIT)
    assert str(server) == "mx.example:465"


def test_a_server_by_an_endpoint_is_never_local_whatever_it_is_called() -> None:
    login = Credentials("anna", "geheim")
    assert Server(host="localhost", auth=login).is_local
    server = Server(host="localhost", auth=login, endpoint=Endpoint())
    assert not server.is_local
    assert server.tls is TLSMode.DEPEND


def test_what_an_endpoint_knows_is_not_shown() -> None:
    shown = repr(Server(host="mx", endpoint=Endpoint()))
    assert "endpoint=<Endpoint>" in shown
    assert "geheim" not in shown
    assert "endpoint=None" in repr(Server(host="mx"))


@pytest.mark.parametrize("endpoint", ["tcp:mx:25", 25, object(), False])
def test_what_does_not_connect_is_no_endpoint(endpoint: Any) -> None:
    assert str(refused(endpoint=endpoint)) == "endpoint: expected an IStreamClientEndpoint"


def test_an_endpoint_connects_by_itself() -> None:
    error = refused(host="unix:/run/lmtp", endpoint=Endpoint())
    assert str(error) == "endpoint: connects by itself; host is to be the server's name"
    error = refused(source_address="192.0.2.7", endpoint=Endpoint())
    assert str(error) == "source_address: has no meaning with an endpoint"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({}, {"port": 25, "tls": TLSMode.TRY}),
        ({"port": 465}, {"tls": TLSMode.IMPLICIT}),
        ({"protocol": Protocol.LMTP}, {"protocol": Protocol.LMTP, "port": 24}),
        ({"host": "[::1]"}, {"host": "0:0::1"}),
        ({"timeouts": Timeouts()}, {"connection_timeout": 10}),
    ],
)
def test_a_default_that_is_spelt_out_makes_no_other_key(short: dict[str, Any], long: dict[str, Any]) -> None:
    # Else each would have its own connections, and twice as many be open.
    one, other = (Server(**{"host": "mx", **fields}) for fields in (short, long))
    assert one == other
    assert hash(one) == hash(other)


def test_a_server_cannot_be_changed() -> None:
    server = Server(host="mx")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        server.port = 26  # type: ignore[misc]  # what is refused
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        server.timeouts.mail = 1  # type: ignore[misc]  # what is refused


def test_a_copy_is_the_same_key() -> None:
    server = Server(**OTHER)
    assert hash(server) == hash(copy.copy(server)) == hash(pickle.loads(pickle.dumps(server)))
    assert server == copy.deepcopy(server) == pickle.loads(pickle.dumps(server))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"host": "localhost", "port": 1025}, "localhost:1025"),
        ({"host": "192.0.2.1"}, "192.0.2.1:25"),
        ({"host": "::1", "port": 465}, "[::1]:465"),
        ({"host": "unix:/run/smtp.sock"}, "unix:/run/smtp.sock"),
    ],
)
def test_a_server_is_shown_as_one_would_write_it(fields: dict[str, Any], text: str) -> None:
    assert str(Server(**fields)) == text
