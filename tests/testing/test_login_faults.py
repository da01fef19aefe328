"""What a sink may be told to say falsely while a client logs in."""

from __future__ import annotations

import pytest
from scramp import ScramException

from tests.testing.driving import ENVELOPE
from tests.testing.logging_in import CLIENTS, USERS, challenge_in, encoded, greeted, log_in
from twisted_smtpclient.testing import Action, Fault, lies

SCRAM = "SCRAM-SHA-256"


def test_a_malformed_challenge() -> None:
    driven = greeted(faults=[Fault("AUTH", "REPLY", lies.MALFORMED)])
    assert driven.send(b"AUTH CRAM-MD5\r\n") == b"334 not base64!\r\n"
    assert driven.say(b"*") == [501]
    assert driven.session.violations == []


def test_challenges_without_end() -> None:
    again = lies.challenge(b"again")
    driven = greeted(faults=[Fault("AUTH", "REPLY", again), Fault("RESPONSE", "REPLY", again, nth=None)])
    driven.say(b"AUTH PLAIN AGEAYg==")
    for _ in range(50):
        assert driven.send(b"AAAA\r\n") == b"334 YWdhaW4=\r\n"
    assert driven.send(b"*\r\n") == b"334 YWdhaW4=\r\n"
    assert driven.session.login is None


def test_success_before_the_end_of_the_exchange() -> None:
    driven = greeted(faults=[Fault("AUTH", "REPLY", b"235 2.7.0 Come in\r\n")])
    assert driven.say(b"AUTH SCRAM-SHA-1 " + encoded(b"n,,n=anna,r=abcdef")) == [235]
    # The sink goes on as a server that meant it.
    assert driven.session.login == ("anna", "SCRAM-SHA-1")
    assert driven.send(ENVELOPE + b"BDAT 1 LAST\r\nx").endswith(b"queued as 1\r\n")


def test_a_challenge_behind_the_last_response_and_the_verdict_behind_that() -> None:
    driven = greeted(faults=[Fault("AUTH", "REPLY", b"334 \r\n")])
    assert driven.say(b"AUTH PLAIN " + encoded(b"\0olga\0other")) == [334]
    assert driven.session.login is None
    assert driven.send(b"\r\n") == b"235 2.7.0 Authentication successful\r\n"
    assert driven.session.login == ("olga", "PLAIN")


def test_a_challenge_to_a_cancel() -> None:
    driven = greeted(faults=[Fault("RESPONSE", "REPLY", b"334 \r\n")])
    driven.say(b"AUTH LOGIN")
    assert driven.say(b"*") == [334]
    assert driven.session.attempts[0].cancelled
    assert driven.say(b"*") == [501]


def test_a_wrong_signature_and_a_wrong_nonce() -> None:
    for fault, told in (
        (Fault("RESPONSE", "REPLY", lies.wrong_signature), "signature doesn't match"),
        (Fault("AUTH", "REPLY", lies.wrong_nonce), "nonce doesn't match"),
    ):
        driven = greeted(faults=[fault])
        with pytest.raises(ScramException, match=told):
            log_in(driven.send, SCRAM, CLIENTS[SCRAM]("anna", USERS["anna"]))
        assert driven.say(b"*") == [501]


@pytest.mark.parametrize("count", [1, 2**40])
def test_an_iteration_count_too_small_and_too_large(count: int) -> None:
    driven = greeted(faults=[Fault("AUTH", "REPLY", lies.iterations(count))])
    told = challenge_in(driven.send(b"AUTH SCRAM-SHA-1 " + encoded(b"n,,n=anna,r=abcdef") + b"\r\n"))
    assert told.startswith(b"r=abcdef")
    assert told.endswith(b",i=%d" % count)


def test_a_lie_leaves_alone_what_it_is_not_for() -> None:
    each = [lies.wrong_nonce, lies.wrong_signature, lies.iterations(1)]
    for own in (b"334 \r\n", lies.challenge(b"Username:"), b"235 Ok\r\n", lies.MALFORMED):
        assert [lie(own) for lie in each] == [own] * 3
    faults = [Fault("RESPONSE", "REPLY", lies.wrong_signature, nth=None)]
    driven = greeted(faults=faults)
    assert log_in(driven.send, "LOGIN", CLIENTS["LOGIN"]("olga", "other")).startswith(b"235 ")


@pytest.mark.parametrize("code", [b"454", b"504", b"534", b"535", b"421"])
def test_the_first_mechanism_may_be_refused(code: bytes) -> None:
    driven = greeted(faults=[Fault("AUTH", "REPLY", code + b" No\r\n")])
    assert driven.say(b"AUTH PLAIN " + encoded(b"\0olga\0other")) == [int(code)]
    assert driven.session.login is None
    assert driven.session.attempts[0].reply == f"{code.decode()} No"
    assert log_in(driven.send, "PLAIN", CLIENTS["PLAIN"]("olga", "other")).startswith(b"235 ")


def test_a_reply_that_repeats_the_password() -> None:
    driven = greeted(faults=[Fault("RESPONSE", "REPLY", b"535 wrong password: other\r\n", nth=2)])
    assert log_in(driven.send, "LOGIN", CLIENTS["LOGIN"]("olga", "other")) == b"535 wrong password: other\r\n"


@pytest.mark.parametrize("at", ["AUTH", "RESPONSE"])
@pytest.mark.parametrize(
    "action", [Action.CLOSE, Action.RESET, Action.STALL, Action.DEAF, Action.TRICKLE, Action.REPLY_AND_CLOSE]
)
def test_each_action_has_its_place_in_a_login(at: str, action: Action) -> None:
    reply = b"421 Bye\r\n" if action is Action.REPLY_AND_CLOSE else None
    driven = greeted(faults=[Fault(at, action, reply)])
    if at == "RESPONSE":
        driven.send(b"AUTH LOGIN\r\n")
    heard = driven.send(encoded(b"olga") + b"\r\n" if at == "RESPONSE" else b"AUTH LOGIN\r\n")
    assert heard == {Action.TRICKLE: b"3", Action.REPLY_AND_CLOSE: reply}.get(action, b"")
    closes = action in (Action.CLOSE, Action.RESET, Action.REPLY_AND_CLOSE)
    assert driven.transport.disconnecting is closes
    assert (driven.transport.producerState == "paused") is (action is Action.DEAF)
    driven.clock.advance(1)
    assert driven.heard() == (b"3" if action is Action.TRICKLE else b"")
    if closes:
        # The octets of one who has not noticed are nothing.
        assert driven.send(b"NOOP\r\n") == b""
        assert driven.session.violations == []


def test_something_behind_the_success() -> None:
    driven = greeted(faults=[Fault("AUTH", "INJECT", b"250 evil\r\n")])
    heard = driven.send(b"AUTH PLAIN " + encoded(b"\0olga\0other") + b"\r\n")
    assert heard == b"235 2.7.0 Authentication successful\r\n250 evil\r\n"


def test_a_false_ehlo_reply_may_offer_what_there_is_not() -> None:
    reply = b"250-x\r\n250-AUTH=PLAIN FOO\r\n250 AUTH BAR\r\n"
    driven = greeted(mechanisms_in_clear=[], faults=[Fault("EHLO", "REPLY", reply)])
    assert [driven.say(b"AUTH " + name) for name in (b"PLAIN", b"FOO", b"BAR")] == [[538], [504], [504]]
    assert driven.session.violations == []


def test_a_reply_may_be_made_of_the_sinks_own() -> None:
    fault = Fault("MAIL", "REPLY", lambda own: b"251" + own[3:])
    driven = greeted(require_login=False, faults=[fault])
    assert driven.send(b"MAIL FROM:<>\r\n") == b"251 2.1.0 Ok\r\n"
    assert driven.say(b"RCPT TO:<a@b.de>") == [250]


def test_a_made_reply_has_its_say_with_each_action() -> None:
    def upper(own: bytes) -> bytes:
        return own.upper()

    said = b"250 2.1.0 OK\r\n"
    for action in (Action.REPLY, Action.REPLY_AND_CLOSE):
        driven = greeted(require_login=False, faults=[Fault("MAIL", action, upper)])
        assert driven.send(b"MAIL FROM:<>\r\n") == said
    driven = greeted(require_login=False, faults=[Fault("MAIL", "INJECT", upper)])
    assert driven.send(b"MAIL FROM:<>\r\n") == b"250 2.1.0 Ok\r\n" + said
    driven = greeted(require_login=False, faults=[Fault("MAIL", "TRICKLE", upper)])
    driven.protocol.dataReceived(b"MAIL FROM:<>\r\n")
    driven.clock.pump([1.0] * len(said))
    assert driven.heard() == said
