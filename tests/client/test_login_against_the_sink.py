"""Each mechanism against the embedded sink, with right and wrong secrets, in clear and under TLS."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL

from tests.client.submission import (
    BOUND,
    CERTIFICATES,
    OF_PASSWORDS,
    OF_TOKENS,
    PASSWORD,
    TOKEN,
    UNTRUSTED,
    USER,
    Submission,
    credentials,
    each_in_clear,
    each_way,
    submission,
)
from twisted_smtpclient import (
    Credentials,
    ExtensionUnsupported,
    Protocol,
    Refused,
    TLSMode,
)
from twisted_smtpclient.testing import Certificates, Fault

# Right and wrong.


@each_way
def test_the_right_secret_delivers_the_mail(name: str, tls: TLSMode) -> None:
    here = submission(name, tls)
    assert here.submit(credentials(name)).value.all_ok
    assert here.submit(credentials(name)).value.all_ok
    assert [mail.login for mail in here.sink.mails] == [(USER, name)] * 2
    # The second went over the connection of the first.
    assert here.attempt.reply.startswith("235 ")
    assert here.sink.sessions[0].tls is (tls is TLSMode.DEPEND)
    here.end()


@each_way
def test_a_wrong_secret_is_refused_and_nothing_else_is_tried(name: str, tls: TLSMode) -> None:
    here = submission(name, tls)
    error = here.error(credentials(name, wrong=True, only=False), Refused)
    assert (error.command, error.code, error.temporary) == ("AUTH", 535, False)
    assert error.response.startswith("535 5.7.8 ")
    assert len(here.attempts) == 1
    assert here.sink.sessions[0].login is None


@pytest.mark.parametrize("name", OF_TOKENS)
def test_what_is_wrong_with_a_token_is_told(name: str) -> None:
    error = Submission().error(credentials(name, wrong=True), Refused)
    assert '"status":"' in error.detail


@pytest.mark.parametrize("kind", ["tls-exporter", "tls-server-end-point"])
@pytest.mark.parametrize("name", BOUND)
def test_a_login_is_bound_by_what_the_server_knows(name: str, kind: str) -> None:
    here = Submission(TLSMode.DEPEND, channel_bindings=[kind])
    assert here.submit(credentials(name)).value.all_ok
    assert here.sink.mails[0].login == (USER, name)
    here.end()


@pytest.mark.parametrize("kind", ["tls-unique", "tls-server-end-point"])
@pytest.mark.parametrize("name", BOUND)
def test_before_tls_1_3_it_is_bound_too(name: str, kind: str) -> None:
    old = CERTIFICATES.server_context()
    old.getContext().set_max_proto_version(SSL.TLS1_2_VERSION)
    here = Submission(TLSMode.DEPEND, starttls=old, channel_bindings=[kind])
    assert here.submit(credentials(name)).value.all_ok
    assert here.sink.mails[0].login == (USER, name)
    here.end()


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_token_that_has_run_out_is_asked_for_once_more(name: str) -> None:
    tokens = ["stale", TOKEN]
    here = Submission()
    auth = Credentials(USER, token=lambda: tokens.pop(0), mechanisms=[name])
    assert here.submit(auth).value.all_ok
    assert [attempt.reply[:3] for attempt in here.attempts] == ["535", "235"]
    assert tokens == []
    here.end()


def test_the_strongest_that_is_offered_is_taken() -> None:
    for tls, of_password in ((TLSMode.NO, "SCRAM-SHA-256"), (TLSMode.DEPEND, "SCRAM-SHA-256-PLUS")):
        here = Submission(tls)
        here.submit(credentials("PLAIN", only=False))
        here.submit(credentials("XOAUTH2", only=False))
        assert [mail.login for mail in here.sink.mails] == [(USER, of_password), (USER, "OAUTHBEARER")]
        here.end()


def test_lmtp_logs_in_too() -> None:
    here = Submission(lmtp=True)
    assert here.submit(credentials("CRAM-MD5"), protocol=Protocol.LMTP).value.all_ok
    assert here.sink.mails[0].login == (USER, "CRAM-MD5")
    here.end()


# What is offered.


@pytest.mark.parametrize(
    "sink",
    [
        {"users": {}, "tokens": {}},
        {"mechanisms": ["CRAM-MD5", "XOAUTH2"]},
        {"mechanisms_in_clear": []},
        {"faults": [Fault("EHLO", "REPLY", b"250-x\r\n250 AUTH FOO PLAINER\r\n")]},
        {"esmtp": False},
    ],
    ids=["no AUTH", "others", "under TLS only", "unknown ones", "no EHLO"],
)
def test_without_a_mechanism_there_is_no_mail(sink: dict[str, Any]) -> None:
    here = Submission(**sink)
    here.error(credentials("PLAIN"), ExtensionUnsupported)
    assert here.attempts == []


def test_plain_goes_over_tls_where_it_is_not_offered_before() -> None:
    here = Submission(TLSMode.DEPEND, mechanisms=["PLAIN"], mechanisms_in_clear=[])
    assert here.submit(credentials("PLAIN")).value.all_ok
    assert here.sink.mails[0].login == (USER, "PLAIN")
    here.end()


@pytest.mark.parametrize("certificates", [None, UNTRUSTED], ids=["no TLS", "no trust"])
def test_no_secret_is_shown_where_tls_was_only_tried(certificates: Certificates | None) -> None:
    starttls = certificates.server_context() if certificates is not None else None
    for name in ("PLAIN", "LOGIN", *OF_TOKENS):
        here = Submission(TLSMode.TRY, starttls=starttls)
        here.error(credentials(name), ExtensionUnsupported)
        assert here.attempts == []
    here = Submission(TLSMode.TRY, starttls=starttls)
    assert here.submit(credentials("PLAIN", only=False)).value.all_ok
    plus = "" if certificates is None else "-PLUS"
    assert here.sink.mails[0].login == (USER, f"SCRAM-SHA-256{plus}")
    here.end()


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", *OF_TOKENS])
def test_it_is_shown_where_tls_was_tried_and_verifies(name: str) -> None:
    here = Submission(TLSMode.TRY)
    assert here.submit(credentials(name)).value.all_ok
    assert here.sink.mails[0].login == (USER, name)
    here.end()


def test_an_offer_of_plus_that_somebody_has_hidden_is_found_out() -> None:
    def hide(own: bytes) -> bytes:
        return own.replace(b"SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS ", b"")

    here = Submission(TLSMode.DEPEND, faults=[Fault("EHLO", "REPLY", hide, nth=2)])
    error = here.error(credentials("PLAIN", only=False), Refused)
    assert error.code == 535
    assert here.attempt.mechanism == "SCRAM-SHA-256"


# The next mechanism.


@pytest.mark.parametrize("reply", ["504 5.5.4 Unknown", "534 5.7.9 Too weak"])
def test_the_next_mechanism_is_tried_where_the_server_does_not_do_this_one(reply: str) -> None:
    here = Submission(refuse_mechanism={"SCRAM-SHA-256": reply, "SCRAM-SHA-1": reply})
    assert here.submit(credentials("PLAIN", only=False)).value.all_ok
    assert [attempt.mechanism for attempt in here.attempts] == ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"]
    here.end()


@pytest.mark.parametrize("reply", ["504 5.5.4 Unknown", "534 5.7.9 Too weak"])
def test_where_it_does_none_its_last_word_counts(reply: str) -> None:
    here = Submission(refuse_mechanism=dict.fromkeys(OF_PASSWORDS, reply))
    error = here.error(credentials("PLAIN", only=False), Refused)
    assert (error.command, error.response) == ("AUTH", reply)
    assert [attempt.mechanism for attempt in here.attempts] == OF_PASSWORDS


@each_in_clear
@pytest.mark.parametrize("code", [432, 454, 421, 500, 501, 535, 538, 550])
def test_any_other_refusal_is_the_last_word(name: str, code: int) -> None:
    here = Submission(faults=[Fault("AUTH", "REPLY", b"%d No\r\n" % code)])
    error = here.error(credentials(name, only=False), Refused)
    assert (error.command, error.code, error.response) == ("AUTH", code, f"{code} No")
    assert error.temporary is (code < 500)
    assert len(here.attempts) == 1


# Secrets.


@pytest.mark.parametrize(
    ("name", "at", "nth", "secret"),
    [
        ("PLAIN", "AUTH", 1, PASSWORD),
        ("LOGIN", "RESPONSE", 2, PASSWORD),
        ("XOAUTH2", "AUTH", 1, TOKEN),
        ("OAUTHBEARER", "AUTH", 1, TOKEN),
    ],
)
def test_a_secret_that_the_server_repeats_is_hidden(name: str, at: str, nth: int, secret: str) -> None:
    said = f"535-{secret} is wrong\r\n535 you said {secret}\r\n".encode()
    here = Submission(faults=[Fault(at, "REPLY", said, nth=nth)])
    error = here.error(credentials(name), Refused)
    assert error.response == "535-*** is wrong\n535 you said ***"


def test_a_command_that_the_server_repeats_is_hidden() -> None:
    here = Submission()
    here.sink.faults.append(
        Fault("AUTH", "REPLY", lambda own: b"500 What is " + here.sink.commands[-1] + b"?\r\n")
    )
    error = here.error(credentials("PLAIN"), Refused)
    assert error.response == "500 What is AUTH PLAIN ***?"


# Long ones.


@pytest.mark.parametrize("tls", [TLSMode.NO, TLSMode.DEPEND])
@pytest.mark.parametrize("size", [*range(320, 380, 3), 8000])
@pytest.mark.parametrize("name", ["PLAIN", "OAUTHBEARER", "XOAUTH2"])
def test_a_long_secret_waits_for_an_empty_challenge(name: str, size: int, tls: TLSMode) -> None:
    secret = "x" * size
    here = Submission(tls, users={USER: secret}, tokens={USER: secret})
    of_token = {"token": secret} if name in OF_TOKENS else {"password": secret}
    assert here.submit(Credentials(USER, **of_token, mechanisms=[name])).value.all_ok
    initial, (*later,) = here.attempt.initial_response, here.attempt.responses
    (said,) = later if initial is None else [initial]
    # "AUTH", the name, base64 and CRLF: RFC 4954 4 has 512 for all of it.
    room = 512 - len(f"AUTH {name} \r\n")
    assert (initial is not None) is (-(-len(said) // 3) * 4 <= room)
    here.end()


@pytest.mark.parametrize("name", ["PLAIN", "EXTERNAL", *OF_TOKENS])
def test_a_server_that_asks_for_what_it_was_given(name: str) -> None:
    # As some do that take no initial response.
    tls = TLSMode.DEPEND if name == "EXTERNAL" else TLSMode.NO
    here = submission(name, tls, mechanisms=[name], faults=[Fault("AUTH", "REPLY", b"334 \r\n")])
    assert here.submit(credentials(name)).value.all_ok
    assert here.attempt.responses == [here.attempt.initial_response]
    here.end()
