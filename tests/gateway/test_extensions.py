"""
Tests of the fields of a request that ask a server for more than plain SMTP.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.fakes import MESSAGE, line
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.gateway.codec import Rejection, Request, RequestDecoder
from twisted_smtpclient.smtp.policy import Mode, Server, TLSMode


def accepted(**changed: Any) -> Request:
    request = RequestDecoder().decode(line(**changed))
    assert isinstance(request, Request), request
    return request


def refusal(**changed: Any) -> str:
    rejection = RequestDecoder().decode(line(id="x", **changed))
    assert isinstance(rejection, Rejection), rejection
    assert isinstance(rejection.error, InvalidRequest)
    assert rejection.id == "x"
    return str(rejection.error)


def rcpt(**fields: Any) -> bytes:
    """The RCPT command of the second of two recipients."""
    recipient = {"address": "a@b.de", **fields}
    request = accepted(recipients=["valid@valid.de", recipient])
    first, second = request.envelope.recipients
    assert first.command == b"RCPT TO:<valid@valid.de>\r\n"
    assert first.asks is None
    return second.command


def test_a_request_that_asks_for_nothing_is_plain() -> None:
    plain = accepted(
        dsn={},
        requiretls=False,
        eightbitmime="TRY",
        binary=False,
        mail_parameters={},
        recipients=[{"address": "a@b.de", "parameters": {}}],
    )
    for request in (accepted(), plain):
        assert request.envelope.asks is None
        assert request.envelope.parameters == b""
        assert request.content.plain
        assert request.server == Server(host="mx.example")


@pytest.mark.parametrize(
    ("dsn", "parameters"),
    [
        ({"ret": "FULL"}, b" RET=FULL"),
        ({"envid": "QQ 1+1"}, b" ENVID=QQ+201+2B1"),
        ({"envid": "x", "ret": "HDRS"}, b" RET=HDRS ENVID=x"),
    ],
)
def test_dsn_is_asked_for_with_mail(dsn: dict[str, str], parameters: bytes) -> None:
    envelope = accepted(dsn=dsn).envelope
    assert envelope.parameters == parameters
    assert envelope.asks == {"DSN": "dsn"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"notify": ["NEVER"]}, b"NOTIFY=NEVER"),
        ({"notify": ["SUCCESS", "FAILURE", "DELAY"]}, b"NOTIFY=SUCCESS,FAILURE,DELAY"),
        ({"orcpt": "c@d.de"}, b"ORCPT=rfc822;c@d.de"),
        ({"orcpt": "rfc822;c+d@d.de", "notify": ["DELAY"]}, b"NOTIFY=DELAY ORCPT=rfc822;c+2Bd@d.de"),
        ({"orcpt": "ü@d.de"}, b"ORCPT=utf-8;\\x{FC}@d.de"),
        ({"parameters": {"RRVS": "2014-04-03T23:01:00Z", "X-Y": None}}, b"RRVS=2014-04-03T23:01:00Z X-Y"),
    ],
)
def test_what_is_asked_for_with_a_recipient_is_that_recipient_s(fields: dict[str, Any], words: bytes) -> None:
    assert rcpt(**fields) == b"RCPT TO:<a@b.de> " + words + b"\r\n"


def test_mail_parameters_go_as_they_stand() -> None:
    envelope = accepted(mail_parameters={"MT-PRIORITY": "3", "BY": "120;R", "HOLDFOR": "3600"}).envelope
    assert envelope.parameters == b" MT-PRIORITY=3 BY=120;R HOLDFOR=3600"
    assert envelope.asks is not None
    assert set(envelope.asks) == {"MT-PRIORITY", "DELIVERBY", "FUTURERELEASE"}


def test_a_binary_message_is_left_as_it_is() -> None:
    content = accepted(binary=True, message="CgANCg==").content
    assert content.binary
    assert content.for_bdat() == b"\n\0\r\n"


def test_eightbitmime_is_a_mode() -> None:
    assert accepted().content.eightbitmime is Mode.TRY
    assert accepted(eightbitmime="DEPEND").content.eightbitmime is Mode.DEPEND


@pytest.mark.parametrize(
    ("given_fields", "mode"),
    [
        ({}, TLSMode.DEPEND),
        ({"port": 25}, TLSMode.DEPEND),
        ({"port": 465}, TLSMode.IMPLICIT),
        ({"tls": "IMPLICIT"}, TLSMode.IMPLICIT),
        ({"tls": "TRY"}, TLSMode.TRY),
        ({"tls": "NO"}, TLSMode.NO),
        ({"port": 465, "tls": "DEPEND"}, TLSMode.DEPEND),
    ],
)
def test_requiretls_makes_depend_the_default(given_fields: dict[str, Any], mode: TLSMode) -> None:
    request = accepted(requiretls=True, **given_fields)
    assert request.server.tls is mode
    assert request.envelope.parameters == b" REQUIRETLS"


def test_a_server_is_not_remembered_by_the_tls_of_another_request() -> None:
    decoder = RequestDecoder()
    modes = []
    for requiretls in (False, True, False, True):
        request = decoder.decode(line(requiretls=requiretls) if requiretls else line())
        assert isinstance(request, Request)
        modes.append(request.server.tls)
    assert modes == [TLSMode.TRY, TLSMode.DEPEND] * 2


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"dsn": {"envid": ""}}, "dsn.envid: expected 1 to 100 printable ASCII characters"),
        ({"dsn": {"envid": "a\r\nb"}}, "dsn.envid: expected 1 to 100"),
        ({"dsn": {"envid": "x" * 101}}, "dsn.envid: expected 1 to 100"),
        ({"dsn": {"envid": 1}}, "dsn.envid: expected a string"),
        ({"dsn": {"ret": "SOME"}}, 'dsn.ret: expected "FULL" or "HDRS"'),
        ({"dsn": {"ret": None}}, 'dsn.ret: expected "FULL" or "HDRS"'),
        ({"dsn": "FULL"}, "dsn: expected an object"),
        ({"dsn": {"ret": "FULL", "envd": "1"}}, "dsn.envd: unknown field; the nearest known name is envid"),
        ({"requiretls": 1}, "requiretls: expected true or false"),
        ({"binary": "yes"}, "binary: expected true or false"),
        ({"eightbitmime": "NO"}, 'eightbitmime: expected "TRY" or "DEPEND"'),
        ({"mail_parameters": {"BY": 1}}, "mail_parameters: expected an object of keywords"),
        ({"mail_parameters": {"BY": "1 2"}}, "mail_parameters.BY: not an ESMTP value: '1 2'"),
        ({"mail_parameters": {"B Y": None}}, "mail_parameters: not an ESMTP keyword: 'B Y'"),
        ({"mail_parameters": {"size": "1"}}, "mail_parameters.size: is not sent from here"),
        ({"mail_parameters": {"AUTH": "<>"}}, "mail_parameters.AUTH: is not sent from here"),
        ({"mail_parameters": {"BY": "1;R", "by": "2;R"}}, "mail_parameters.by: is given twice"),
    ],
)
def test_what_is_not_right_is_refused_by_the_name_of_its_field(changed: dict[str, Any], text: str) -> None:
    assert refusal(**changed).startswith(text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"notify": []}, "notify: expected NEVER alone, or"),
        ({"notify": ["NEVER", "DELAY"]}, "notify: expected NEVER alone, or"),
        ({"notify": ["DELAY", "DELAY"]}, "notify: expected NEVER alone, or"),
        ({"notify": ["never"]}, 'notify: expected ["NEVER"], or a list of "SUCCESS", "FAILURE" and "DELAY"'),
        ({"notify": "NEVER"}, 'notify: expected ["NEVER"], or'),
        ({"notify": ["ALWAYS"]}, 'notify: expected ["NEVER"], or'),
        ({"orcpt": "a"}, "orcpt: expected an address"),
        ({"orcpt": "rfc822;ü@b"}, "orcpt: expected printable ASCII behind rfc822"),
        ({"orcpt": "rfc822;a\n@b"}, "orcpt: expected printable ASCII"),
        ({"orcpt": "x400;" + "a" * 500}, "orcpt: expected at most 500 characters"),
        ({"orcpt": 1}, "orcpt: expected a string"),
        ({"parameters": {"NOTIFY": "NEVER"}}, "parameters.NOTIFY: is not sent from here"),
        ({"parameters": {"orcpt": "rfc822;a@b"}}, "parameters.orcpt: is not sent from here"),
        ({"parameters": {"X": "\r\n"}}, "parameters.X: not an ESMTP value"),
        ({"parameters": []}, "parameters: expected an object of keywords"),
    ],
)
def test_and_so_it_is_in_a_recipient(fields: dict[str, Any], text: str) -> None:
    recipients = ["valid@valid.de", {"address": "a@b.de", **fields}]
    assert refusal(recipients=recipients).startswith(f"recipients[1].{text}")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"mail_parameters": {"X": "\ud800"}}, "mail_parameters"),
        ({"mail_parameters": {"\ud800": None}}, "mail_parameters"),
        ({"recipients": [{"address": "a@b.de", "notify": ["\ud800"]}]}, "recipients[0].notify"),
        ({"recipients": [{"address": "a@b.de", "parameters": {"X": "\ud800"}}]}, "recipients[0].parameters"),
        ({"recipients": [{"address": "a@b.de", "orcpt": "\ud800"}]}, "recipients[0].orcpt"),
        ({"recipients": ["a@b.de", ["\ud800"]]}, "recipients[1]"),
        ({"auth": {"username": "a", "password": "b", "mechanisms": ["\ud800"]}}, "auth.mechanisms"),
        ({"dsn": {"envid": "\ud800"}}, "dsn.envid"),
        ({"binary": {"a": ["\ud800"]}}, "binary"),
    ],
)
def test_half_a_surrogate_pair_is_refused_by_its_field_and_the_id_told(
    changed: dict[str, Any], field: str
) -> None:
    assert refusal(**changed) == f"{field}: expected Unicode; this has half of a surrogate pair"


_TEXTS = st.text() | st.sampled_from(
    ["\ud800", "a@b.de", "rfc822;a@b.de", "utf-8;ü@b", "\r\nRSET", "120;R", "FULL"]
)
_VALUES = _TEXTS | st.none() | st.booleans() | st.integers() | st.lists(_TEXTS, max_size=2)
_DSN = st.dictionaries(st.sampled_from(["ret", "envid", "x"]), _VALUES, max_size=2)
_PARAMETERS = st.dictionaries(_TEXTS | st.just("BY"), _VALUES, max_size=2)
_RECIPIENT = st.fixed_dictionaries(
    {"address": st.just("a@b.de") | _VALUES},
    optional={
        "notify": st.lists(st.sampled_from(["NEVER", "DELAY", "X"]), max_size=3) | _VALUES,
        "orcpt": _VALUES,
        "parameters": _PARAMETERS,
    },
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"recipients": st.lists(_RECIPIENT, min_size=1, max_size=2)},
        optional={"dsn": _DSN | _VALUES, "mail_parameters": _PARAMETERS, "requiretls": _VALUES},
    )
)
def test_whatever_is_asked_for_is_sent_as_words_or_refused(changed: dict[str, Any]) -> None:
    outcome = RequestDecoder().decode(line(**changed))
    if isinstance(outcome, Rejection):
        assert isinstance(outcome.error, InvalidRequest)
        assert outcome.error.field is not None
        assert outcome.error.field.partition(".")[0].partition("[")[0] in changed
        return
    assert isinstance(outcome, Request)
    envelope = outcome.envelope
    for octets in (envelope.parameters + b"\r\n", *(entry.command for entry in envelope.recipients)):
        assert octets.endswith(b"\r\n")
        assert not set(b"\r\n\0") & set(octets[:-2])
    assert outcome.content.message == MESSAGE
