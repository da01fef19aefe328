from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from tests.gateway.fakes import BASE64, LEGACY_LINES, MESSAGE, fields, line
from tests.interpreted import interpreted
from twisted_smtpclient.errors import InvalidRequest, RequestTooLarge
from twisted_smtpclient.gateway import codec, schema
from twisted_smtpclient.gateway.codec import (
    AnyRequest,
    CancelRequest,
    ProbeRequest,
    Rejection,
    Request,
    RequestDecoder,
)
from twisted_smtpclient.smtp.policy import Mode, Protocol, Server, Timeouts, TLSMode


def decode(octets: bytes) -> AnyRequest | Rejection:
    return RequestDecoder().decode(octets)


def accepted(octets: bytes) -> Request:
    request = decode(octets)
    assert isinstance(request, Request), request
    return request


def refused(octets: bytes) -> Rejection:
    rejection = decode(octets)
    assert isinstance(rejection, Rejection), rejection
    assert isinstance(rejection.error, InvalidRequest)
    return rejection


def refused_field(octets: bytes) -> str | None:
    error = refused(octets).error
    assert isinstance(error, InvalidRequest)
    return error.field


# Good requests


def test_a_request_with_all_defaults() -> None:
    request = accepted(line(sender=...))
    assert request.id is UNSET
    assert request.server == Server(host="mx.example")
    assert request.envelope.sender is None
    assert [recipient.address for recipient in request.envelope.recipients] == ["valid@valid.de"]
    assert request.content.message == MESSAGE


def test_each_session_field_reaches_the_server() -> None:
    request = accepted(
        line(
            host="192.0.2.1",
            port=2525,
            helo="client.example",
            pipelining="DEPEND",
            chunking="NO",
            connection_timeout=2.5,
            response_timeout=7,
            protocol="LMTP",
            tls="DEPEND",
            tls_name="mx.example",
            tls_fingerprint="sha256:" + "ab" * 32,
            source_address="192.0.2.9",
        )
    )
    assert request.server == Server(
        host="192.0.2.1",
        port=2525,
        helo="client.example",
        pipelining=Mode.DEPEND,
        chunking=Mode.NO,
        connection_timeout=2.5,
        timeouts=Timeouts.uniform(7),
        protocol=Protocol.LMTP,
        tls=TLSMode.DEPEND,
        tls_name="mx.example",
        tls_fingerprint="sha256:" + "ab" * 32,
        source_address="192.0.2.9",
    )


@pytest.mark.parametrize(("octets", "port"), [(LEGACY_LINES[0], 25), (LEGACY_LINES[1], 1025)])
def test_requests_of_the_system_before_this_one_work_as_they_stand(octets: bytes, port: int) -> None:
    request = accepted(octets)
    assert request.server.port == port
    assert request.server.pipelining is Mode.TRY
    assert request.server.connection_timeout == 5
    assert len(request.envelope.recipients) == 2
    assert request.content.message == MESSAGE


def test_legacy_spellings_carry_their_values() -> None:
    request = accepted(line(pipeling="NO", connection_timout=3, recpients=["a@b.de"], recipients=...))
    assert request.server.pipelining is Mode.NO
    assert request.server.connection_timeout == 3
    assert request.envelope.recipients[0].address == "a@b.de"


@pytest.mark.parametrize(
    ("spelling", "field", "value"),
    [
        ("pipeling", "pipelining", "TRY"),
        ("connection_timout", "connection_timeout", 5),
        ("recpients", "recipients", ["a@b.de"]),
    ],
)
def test_a_legacy_spelling_beside_the_field_itself_is_refused(
    spelling: str, field: str, value: object
) -> None:
    error = refused(line(**{spelling: value, field: value})).error
    assert str(error).startswith(f"{spelling}: ")
    assert field in str(error).removeprefix(spelling)


def test_recipients_keep_their_order_and_duplicates_as_strings_or_objects() -> None:
    recipients = ["b@b.de", {"address": "a@b.de"}, "b@b.de", "a@b.de"]
    request = accepted(line(recipients=recipients))
    assert [recipient.address for recipient in request.envelope.recipients] == [
        "b@b.de",
        "a@b.de",
        "b@b.de",
        "a@b.de",
    ]


@pytest.mark.parametrize(
    "id_", [0, -1, 7, 2**63, 2**64, -(10**40), 10**4000, "", "a", "é\u2028", '"\\', None, "x" * 10000]
)
def test_an_id_is_kept_exactly(id_: object) -> None:
    assert accepted(line(id=id_)).id == id_
    rejection = refused(line(id=id_, host="a b"))
    assert rejection.id == id_


def test_whether_a_connection_may_be_shared_is_true_unless_told() -> None:
    assert accepted(line()).reuse is True
    assert accepted(line(reuse=True)).reuse is True
    assert accepted(line(reuse=False)).reuse is False


def test_nor_is_it_lost_in_an_uncommon_request() -> None:
    uncommon = {"requiretls": False, "recipients": [{"address": "a@b.de"}]}
    assert accepted(line(**uncommon)).reuse is True
    assert accepted(line(reuse=False, **uncommon)).reuse is False


def test_the_message_may_stand_anywhere_and_be_empty() -> None:
    for message in ("", BASE64):
        for separators in ((",", ":"), (", ", ": "), (" , ", "  :  ")):
            for names in (["message", "host", "recipients"], ["host", "recipients", "message"]):
                given = fields(message=message)
                octets = json.dumps({name: given[name] for name in names}, separators=separators).encode()
                assert accepted(octets).content.message == base64.b64decode(message)
                twice = octets[:-1] + b',"host":"mx.example"}'
                assert str(refused(twice).error) == "host: is given twice"
                twice = b'{"host":"mx.example",' + octets[1:]
                assert str(refused(twice).error) == "host: is given twice"


def test_escapes_in_strings_are_understood() -> None:
    octets = line(recipients=['"a\\"b\\\\c"@b.de']).replace(b"/", b"\\/").replace(b"foo", b"\\u0066oo")
    request = accepted(octets)
    assert request.envelope.recipients[0].address == '"a\\"b\\\\c"@b.de'
    assert request.envelope.sender == "foo@bar.de"


def test_white_space_around_and_between_is_json_s_own() -> None:
    accepted(b" \t" + json.dumps(fields(), indent=1).replace("\n", " ").encode() + b" \r")


def test_a_server_that_is_named_again_is_the_same_object() -> None:
    decoder = RequestDecoder()
    first, second = decoder.decode(line(port=26)), decoder.decode(line(port=26, id=1))
    other = decoder.decode(line(port=27))
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert isinstance(other, Request)
    assert first.server is second.server
    assert first.server != other.server


@interpreted
def test_no_more_servers_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_SERVERS", 3)
    decoder = RequestDecoder()
    for port in range(1, 20):
        assert isinstance(decoder.decode(line(port=port)), Request)
    assert len(decoder._servers) == len(decoder._common_servers) == 3


@interpreted
def test_a_server_with_overlong_fields_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_KEY", 20)
    decoder = RequestDecoder()
    decoder.decode(line(host="a" * 20))
    assert len(decoder._servers) == 1
    last = decoder._last_key
    decoder.decode(line(host="a" * 21))
    assert len(decoder._servers) == len(decoder._common_servers) == 1
    assert decoder._last_key is last


def test_what_most_lines_have_is_decoded_by_that_alone() -> None:
    decoder = RequestDecoder()
    refusing: Any = None
    decoder._decode = refusing
    for octets in (
        line(id=1, port=25, helo="a.example", tls="NO", reuse=False),
        line(sender=None, id="a", auth={"username": "a", "password": "b"}, chunking="NO"),
    ):
        assert isinstance(decoder.decode(octets), Request)


def test_a_server_is_the_same_object_in_a_line_that_has_more() -> None:
    decoder = RequestDecoder()
    terms = {"port": 26, "tls": "NO", "auth": {"username": "a", "password": "b"}}
    common, more = decoder.decode(line(**terms)), decoder.decode(line(**terms, trace=True))
    assert isinstance(common, Request)
    assert isinstance(more, Request)
    assert common.server is more.server


# base64


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", "\v", "\f"])
def test_ascii_white_space_in_base64_is_ignored(space: str) -> None:
    wrapped = space + space.join(BASE64[i : i + 7] for i in range(0, len(BASE64), 7)) + space
    assert accepted(line(message=wrapped, id=1)).content.message == MESSAGE


def test_an_empty_message_is_a_message() -> None:
    assert accepted(line(message="")).content.message == b""
    assert accepted(line(message=" \n")).content.message == b""


@pytest.mark.parametrize(
    "text",
    [
        "U3Vi_mVj",
        "U3Vi-mVj",
        "U3ViamV",
        "U3ViamVjdA",
        "U3ViamVjdA=",
        "U3ViamVjdA===",
        "U3Vi=amV",
        "U3ViamVjdA==AAAA",
        "=",
        "====",
        "A",
        "é",
        "U3Vi\u00a0amVj",
        "U3Vi\x00amVj",
        "U3Vi\u2028amVj",
        "\ud800",
        "U3Vi\namV",
        5,
        None,
        ["U3Vi"],
    ],
)
def test_what_is_not_base64_is_refused_by_the_name_of_the_field(text: object) -> None:
    rejection = refused(line(message=text, id="x"))
    assert rejection.id == "x"
    assert str(rejection.error).startswith("message: expected ")


@given(st.binary(max_size=300), st.integers(1, 80))
def test_any_message_comes_through_wrapped_or_not(message: bytes, width: int) -> None:
    text = base64.b64encode(message).decode()
    wrapped = "\r\n".join(text[i : i + width] for i in range(0, len(text), width))
    assert accepted(line(message=text)).content.message == message
    assert accepted(line(message=wrapped)).content.message == message


# Bad requests


@pytest.mark.parametrize(
    "octets",
    [
        b"x",
        b"1",
        b"null",
        b"true",
        b'"a"',
        b"[]",
        b"{",
        b"{}}",
        b"{'host':1}",
        b'{"host":"a",}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'{"host":"\xff"}',
        b'{"host":"\xed\xa0\x80"}',
        b'{"host":"a\tb"}',
        b'{"id":01}',
        b"\x00",
        b"[" * 100_000,
        b'{"id":' * 100_000,
        b'{"id":1,"x":' + b"[" * 100_000,
        b"{} {}",
    ],
)
def test_what_is_not_a_json_object_is_refused_as_a_whole(octets: bytes) -> None:
    rejection = refused(octets)
    assert rejection.id is UNSET
    assert str(rejection.error).startswith("expected ")
    assert len(str(rejection.error)) < 300


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("pipelinig", "pipelining"),
        ("PIPELINING", "pipelining"),
        ("hots", "host"),
        ("recipient", "recipients"),
        ("connection_timeouts", "connection_timeout"),
        ("msg", "message"),
        ("tlsname", "tls_name"),
        ("from", None),
        ("", None),
        ("x" * 100_000, None),
        ("\ud800\n", None),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_name(field: str, nearest: str | None) -> None:
    rejection = refused(line(id=5, **{field: "TRY"}))
    assert rejection.id == 5
    text = str(rejection.error)
    assert "unknown field" in text
    assert len(text) < 200
    assert text.split()[-1] in schema.types_of(schema.RequestFields)
    if nearest is not None:
        assert text == f"{field}: unknown field; the nearest known name is {nearest}"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"auth": {"usrname": "a"}}, "auth.usrname: unknown field; the nearest known name is username"),
        ({"dsn": {"rets": "FULL"}}, "dsn.rets: unknown field; the nearest known name is ret"),
        (
            {"recipients": ["a@b.de", {"address": "a@b.de", "notfy": []}]},
            "recipients[1].notfy: unknown field; the nearest known name is notify",
        ),
        (
            {"recipients": ..., "recpients": [{"adress": "a@b.de"}]},
            "recpients[0].adress: unknown field; the nearest known name is address",
        ),
    ],
)
def test_an_unknown_field_inside_a_field_is_refused_too(changed: dict[str, Any], text: str) -> None:
    assert str(refused(line(**changed)).error) == text


_WRONG_TYPES: dict[str, list[object]] = {
    "id": [1.0, True, [], {}, "\ud800"],
    "host": [None, 1, [], ""],
    "port": [None, True, 25.0, "25", 0, -1, 65536, 10**30, [], {}],
    "helo": [None, 1, [], ""],
    "pipelining": [None, "try", "", True, []],
    "chunking": [None, "ALWAYS", 1],
    "connection_timeout": [None, 0, -1, True, "5", 10**400, 86401, float("nan"), float("inf")],
    "response_timeout": [None, 0, -0.5, False, "5", 1e300, float("-inf")],
    "sender": [1, [], "", "a", True],
    "recipients": [None, "a@b.de", [], {}, [None], [1], [["a@b.de"]], [""]],
    "protocol": [None, "smtp", "ESMTP"],
    "tls": [None, "IF", True, "try"],
    "tls_name": [None, 1, ""],
    "tls_fingerprint": [None, "sha256:00", "00" * 32, 1],
    "source_address": [None, "host.example", 1, ""],
    "requiretls": [None, "true", 0, 1],
    "binary": [0, "no"],
    "trace": [0, 1, None],
    "reuse": [0, 1, None, "yes"],
    "eightbitmime": ["NO", None, True],
    "auth": [None, "user", []],
    "dsn": ["FULL", {"ret": "SOME"}],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in _WRONG_TYPES.items() for value in values]
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_the_name_of_its_field(
    field: str, value: object
) -> None:
    error = refused(line(**{field: value})).error
    assert isinstance(error, InvalidRequest)
    assert error.field is not None
    assert error.field.startswith(field)
    assert "expected" in str(error) or "not supported yet" in str(error)


@pytest.mark.parametrize("field", ["host", "recipients", "message"])
def test_a_required_field_that_is_missing_is_named(field: str) -> None:
    text = str(refused(line(**{field: ...})).error)
    assert text.startswith(f"{field}: is required; expected ")


def test_an_object_without_an_address_is_refused() -> None:
    assert refused_field(line(recipients=["a@b.de", {}])) == "recipients[1].address"


@pytest.mark.parametrize("evil", ["\r", "\n", "\0", "\r\nRCPT TO:<x@y.de>", "\ud800"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "mx{}.example"),
        ("host", "fe80::1%{}"),
        ("host", "unix:/run/{}"),
        ("helo", "a{}.example"),
        ("helo", "a.example{}"),
        ("helo", "[x:{}]"),
        ("sender", "foo{}@bar.de"),
        ("sender", '"foo{}"@bar.de'),
        ("sender", "foo@bar.de{}"),
        ("tls_name", "mx{}.example"),
        ("tls_fingerprint", "sha256:" + "00" * 32 + "{}"),
        ("source_address", "192.0.2.1{}"),
        ("source_address", "fe80::1%{}"),
        ("pipelining", "TRY{}"),
    ],
)
def test_no_line_end_nul_or_half_character_passes_in_a_field(field: str, value: str, evil: str) -> None:
    assert refused_field(line(**{field: value.format(evil)})) == field


@pytest.mark.parametrize("evil", ["\r", "\n", "\0", "\ud800"])
def test_nor_in_a_recipient(evil: str) -> None:
    address = f"a{evil}@b.de"
    assert refused_field(line(recipients=["a@b.de", address])) == "recipients[1]"
    assert refused_field(line(recipients=["a@b.de", {"address": address}])) == "recipients[1].address"


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("deadline", 2.5, "deadline"),
        ("trace", True, "trace"),
        ("transcript", True, "transcript"),
        ("key", "k" * 128, "key"),
    ],
)
def test_what_a_request_may_ask_besides(field: str, value: object, name: str) -> None:
    request = accepted(line(**{field: value}))
    assert getattr(request, name) == value
    plain = accepted(line())
    assert (plain.deadline, plain.trace, plain.transcript, plain.key) == (None, False, False, None)


@pytest.mark.parametrize("key", ["", "k" * 129, 5, None])
def test_a_key_has_1_to_128_characters(key: object) -> None:
    rejection = refused(line(key=key))
    assert str(rejection.error) == "key: expected a string of 1 to 128 characters"


@pytest.mark.parametrize("deadline", [0, -1, True, "5", 86401])
def test_a_deadline_is_seconds(deadline: object) -> None:
    assert refused_field(line(deadline=deadline)) == "deadline"


def test_a_probe_may_be_bounded_traced_and_written_down() -> None:
    request = decode(b'{"probe":true,"host":"mx.example","deadline":3,"trace":true,"transcript":true}')
    assert isinstance(request, ProbeRequest)
    assert (request.deadline, request.trace, request.transcript) == (3.0, True, True)


@pytest.mark.parametrize("target", [1, "a"])
def test_a_cancel_names_the_id_of_a_request(target: int | str) -> None:
    request = decode(json.dumps({"cancel": target}).encode())
    assert isinstance(request, CancelRequest)
    assert (request.id, request.target) == (UNSET, target)
    request = decode(json.dumps({"id": "c", "cancel": target}).encode())
    assert isinstance(request, CancelRequest)
    assert (request.id, request.target) == ("c", target)


def test_a_cancel_has_nothing_but_an_id_beside_it() -> None:
    rejection = refused(b'{"id":3,"cancel":1,"host":"mx.example"}')
    assert rejection.id == 3
    assert str(rejection.error) == "host: has no meaning in a cancel"
    assert refused_field(line(cancel=1)) == "host"


@pytest.mark.parametrize("target", [None, 1.5, True, [1], {}])
def test_a_cancel_of_what_no_request_can_bear_is_refused(target: object) -> None:
    rejection = refused(json.dumps({"cancel": target}).encode())
    assert str(rejection.error) == "cancel: expected a string or an integer, the id of a request"


def test_what_asks_for_what_is_done_anyway_is_accepted() -> None:
    accepted(line(trace=False, transcript=False, probe=False, reuse=True))
    accepted(line(recipients=[{"address": "a@b.de", "parameters": {}}]))


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (b',"port":25,"port":26', "port"),
        (b',"host":"other.example"', "host"),
        (b',"sender":null', "sender"),
        (b',"recipients":["a@b.de"]', "recipients"),
        (b',"message":""', "message"),
        (b',"message":"U3Vi\\namVj"', "message"),
        (b',"p\\u006frt":25,"port":26', "port"),
        (b',"helo":"a.example","helo":"a.example"', "helo"),
        (b',"requiretls":true,"requiretls":false', "requiretls"),
        (b',"reuse":true,"reuse":true', "reuse"),
        (b',"mail_parameters":{"A":"1"},"mail_parameters":{}', "mail_parameters"),
    ],
)
def test_a_field_that_is_given_twice_is_refused(octets: bytes, field: str) -> None:
    rejection = refused(line(id=1)[:-1] + octets + b"}")
    assert rejection.id == 1
    assert str(rejection.error) == f"{field}: is given twice"


def test_of_two_ids_none_is_echoed() -> None:
    rejection = refused(line(id=1)[:-1] + b',"id":2}')
    assert rejection.id is UNSET
    assert str(rejection.error) == "id: is given twice"


def test_a_field_given_twice_inside_a_recipient_is_refused() -> None:
    octets = line(recipients=[]).replace(b"[]", b'[{"address":"a@b.de","address":"c@d.de"}]')
    assert str(refused(octets).error) == "address: is given twice"


@pytest.mark.parametrize(
    "octets",
    [
        line(id=1, recipients=["a@b.de"] * 40_000),
        line(id=1, recipients=[{}] * 40_000),
        line(id=1, recipients=[[]] * 40_000),
        line(id=1, unknown=[0] * 40_000),
        line(id=1, mail_parameters={f"X{number}": None for number in range(40_000)}),
        line(id=1, message="AAAA") + b"," * 70_000,
    ],
)
def test_a_line_of_more_values_than_memory_bears_is_not_even_read(octets: bytes) -> None:
    rejection = RequestDecoder(max_values=30_000).decode(octets.replace(b'{"host"', b'{"id": 7, "host"', 1))
    assert isinstance(rejection, Rejection)
    assert isinstance(rejection.error, RequestTooLarge)
    assert str(rejection.error) == "expected at most 30000 values in a line, recipients included"
    assert rejection.id == 7


def test_a_line_of_as_many_values_as_it_may_have_is_a_request() -> None:
    octets = line(recipients=["a@b.de"] * 29_997)
    assert octets.count(b",") == 29_999
    assert isinstance(RequestDecoder(max_values=30_000).decode(octets), Request)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"pipelinig": "TRY"}, "pipelinig: unknown field; the nearest known name is pipelining"),
        ({"port": 0}, "port: expected an integer from 1 to 65535"),
        ({"sender": "a b"}, "sender: expected"),
        ({"host": ...}, "host: is required"),
        ({"message": "A" * 99_999}, "message: expected a string of base64"),
        ({"message": "A" * 99_999 + "\U0001f600"}, "message: expected a string of base64"),
        ({"message": ["A" * 99_999]}, "message: expected a string of base64"),
        ({"helo": "A" * 2_000_000 + "\U0001f600"}, "helo: expected"),
        (
            {"helo": "A" * 2_000_000 + "\U0001f600", "port": 0},
            "expected at most 1048576 octets beside the message",
        ),
        ({"helo": "\U0001f600" + "A" * 99_999, "sender": 1}, "sender: expected a string or null"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_fault_beside_a_long_message_is_named_and_the_id_echoed(
    changed: dict[str, object], complaint: str, first: bool
) -> None:
    given = fields(**{"message": "A" * 100_000, **changed})
    given = {"id": 7, **given} if first else {**given, "id": 7}
    rejection = refused(json.dumps(given, ensure_ascii=False).encode())
    assert str(rejection.error).startswith(complaint)
    assert rejection.id == 7 or (not first and complaint.startswith("expected at most"))


def test_a_field_given_twice_beside_a_long_message_is_named() -> None:
    octets = line(message="A" * 100_000)
    assert str(refused(octets[:-1] + b',"host":"x"}').error) == "host: is given twice"
    assert str(refused(octets[:-1] + b',"message":"AAAA"}').error) == "message: is given twice"


def test_white_space_in_a_long_message_is_ignored_and_a_cancel_may_be_long() -> None:
    wrapped = "\n".join(["AAAA" * 19] * 2_000)
    assert accepted(line(message=wrapped)).content.message == bytes(2_000 * 57)
    cancel = decode(json.dumps({"cancel": "x" * 100_000}).encode())
    assert isinstance(cancel, CancelRequest)


def test_a_password_is_in_no_error_and_no_repr() -> None:
    rejection = refused(line(auth={"username": "a", "password": "geheim", "tokn": "geheim"}))
    assert "geheim" not in repr(rejection)
    assert "geheim" not in repr(schema.AuthFields(password="geheim"))


def test_the_tables_speak_of_fields_that_exist() -> None:
    known = schema.types_of(schema.RequestFields)
    assert {name for name in schema.EXPECTED if "." not in name} == set(known)
    assert set(schema.OF_A_CANCEL) < set(known)
    assert set(schema.LEGACY) < set(known)
    assert set(schema.LEGACY.values()) < set(known)
    recipient = schema.types_of(schema.RecipientFields)
    assert {f"recipients.{name}" for name in recipient} <= set(schema.EXPECTED)
    for name in schema.EXPECTED:
        outer, _, inner = name.partition(".")
        assert not inner or inner in schema.types_of(schema.NESTED[outer])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["TRY", BASE64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["address", "notify", "x", "username"]), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = st.sampled_from([*schema.EXPECTED, "x"])


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(_FIELDS, _JSON, max_size=6))
def test_any_value_in_any_field_gives_a_request_or_names_a_field(changed: dict[str, object]) -> None:
    decoded = decode(json.dumps({**fields(), **changed}).encode())
    if isinstance(decoded, Rejection):
        assert isinstance(decoded.error, InvalidRequest)
        assert decoded.error.field


@settings(deadline=None, max_examples=300)
@given(st.binary() | st.tuples(st.integers(0, 200), st.binary(max_size=4)))
def test_any_octets_give_a_request_or_a_rejection(given: bytes | tuple[int, bytes]) -> None:
    if isinstance(given, tuple):
        at, octets = given
        good = line(id=1)
        given = good[:at] + octets + good[at + len(octets) :]
    assert isinstance(decode(given), (Request, Rejection))


@pytest.mark.parametrize("field", ["host", "port", "deadline", "cancel"])
def test_an_integer_that_is_too_long_for_python_is_refused_by_the_name_of_its_field(field: str) -> None:
    octets = json.dumps({"id": 7}).encode()[:-1] + b', "%b": %b}' % (field.encode(), b"1" * 5000)
    rejection = refused(octets)
    assert rejection.id == 7
    assert isinstance(rejection.error, InvalidRequest)
    assert rejection.error.field == field
