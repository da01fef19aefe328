"""
Each mechanism against a sink that lies while one logs in.

The sink is a strict judge: what the client says while it is lied to has to be
right all the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.submission import (
    BOUND,
    OF_TOKENS,
    Submission,
    credentials,
    each_in_clear,
    each_way,
    each_with_challenges,
    submission,
)
from twisted_smtpclient import (
    ConnectionLost,
    ProtocolError,
    Refused,
    ResponseTimeout,
    Timeouts,
    TLSMode,
)
from twisted_smtpclient.testing import Action, Fault, lies

# Lies.


def canceled(here: Submission, name: str, **changes: Any) -> ProtocolError:
    """It ends with ``*`` and ProtocolError, and no further mechanism is tried."""
    error = here.error(credentials(name, only=False, **changes), ProtocolError)
    assert isinstance(error, ProtocolError)
    assert not error.temporary
    assert here.attempt.cancelled
    assert here.sink.sessions[0].login is None
    return error


@each_way
@pytest.mark.parametrize(
    "challenge",
    [
        lies.MALFORMED,
        b"334 A\r\n",
        b"334 AA=\r\n",
        b"334 AB==\r\n",
        b"334 QUJD*\r\n",
        b"334 QUJD QUJD\r\n",
        b"334-QUJD\r\n334 QUJD\r\n",
        b"334 \xc3\xa4\r\n",
    ],
)
def test_a_challenge_that_is_not_base64(name: str, tls: TLSMode, challenge: bytes) -> None:
    here = submission(name, tls, mechanisms=[name], faults=[Fault("AUTH", "REPLY", challenge)])
    canceled(here, name)


@each_with_challenges
def test_a_later_challenge_that_is_not_base64(name: str) -> None:
    canceled(Submission(mechanisms=[name], faults=[Fault("RESPONSE", "REPLY", lies.MALFORMED)]), name)


@each_way
@pytest.mark.parametrize("again", [b"334 \r\n", lies.challenge(b"again"), lies.challenge(b"x" * 3000)])
def test_challenges_without_end(name: str, tls: TLSMode, again: bytes) -> None:
    stages = ["AUTH", *["RESPONSE"] * 100]
    counts: dict[str, int] = {}
    faults = []
    for stage in stages:
        counts[stage] = counts.get(stage, 0) + 1
        # A challenge to the cancel too, which is answered by nothing.
        faults.append(Fault(stage, "REPLY", again, nth=counts[stage]))
    here = submission(name, tls, mechanisms=[name], faults=faults)
    canceled(here, name)
    assert len(here.attempt.responses) < 5


@each_in_clear
def test_a_challenge_in_the_place_of_the_verdict(name: str) -> None:
    # What the sink answers at its end is 334, and only then what it thinks.
    def further(own: bytes) -> bytes:
        return lies.challenge(b"more") if own.startswith(b"235 ") else own

    faults = [Fault(stage, "REPLY", further, nth=nth) for stage in ("AUTH", "RESPONSE") for nth in (1, 2, 3)]
    here = Submission(mechanisms=[name], faults=faults)
    if name in OF_TOKENS:
        # To a token it is a refusal whose 535 has yet to come; 235 is none.
        here.error(credentials(name), ProtocolError)
    else:
        canceled(here, name)


@each_way
def test_a_success_in_answer_to_auth(name: str, tls: TLSMode) -> None:
    here = submission(name, tls, mechanisms=[name], faults=[Fault("AUTH", "REPLY", b"235 2.7.0 Come in\r\n")])
    if not name.startswith("SCRAM"):
        # There is nothing that the server has yet to show.
        assert here.submit(credentials(name)).value.all_ok
        here.end()
    else:
        error = here.error(credentials(name), ProtocolError)
        assert not error.temporary


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_a_success_in_the_middle(name: str) -> None:
    fault = Fault("RESPONSE", "REPLY", b"235 2.7.0 Come in\r\n")
    Submission(mechanisms=[name], faults=[fault]).error(credentials(name), ProtocolError)


@pytest.mark.parametrize("tls", [TLSMode.NO, TLSMode.DEPEND])
@pytest.mark.parametrize("at", ["AUTH", "RESPONSE"])
@pytest.mark.parametrize(
    "said", [b"250 Ok\r\n", b"220 Hello\r\n", b"354 Go\r\n", b"235-x\r\n250 x\r\n", b"hm\r\n"]
)
def test_a_reply_that_auth_does_not_have(tls: TLSMode, at: str, said: bytes) -> None:
    Submission(tls, faults=[Fault(at, "REPLY", said)]).error(credentials("CRAM-MD5"), ProtocolError)


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-1", *BOUND])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("AUTH", "REPLY", lies.wrong_nonce),
        Fault("AUTH", "REPLY", lies.iterations(1)),
        Fault("AUTH", "REPLY", lies.iterations(4095)),
        Fault("AUTH", "REPLY", lies.iterations(0)),
        Fault("AUTH", "REPLY", lies.iterations(100_000_000)),
        Fault("AUTH", "REPLY", lies.iterations(10**300)),
        Fault("AUTH", "REPLY", lies.challenge(b"r=x,s=,i=4096")),
        Fault("AUTH", "REPLY", lies.challenge(b"m=x,r=x,s=QUJD,i=4096")),
        Fault("AUTH", "REPLY", lies.challenge(b"\xff\x00")),
        Fault("RESPONSE", "REPLY", lies.wrong_signature),
        Fault("RESPONSE", "REPLY", lies.challenge(b"v=")),
        Fault("RESPONSE", "REPLY", lies.challenge(b"v=AAAA")),
        Fault("RESPONSE", "REPLY", lies.challenge(b"r=x,s=QUJDQUJDQUJDQUJD,i=4096")),
    ],
    ids=lambda fault: f"{fault.at.value} {getattr(fault.reply, '__name__', fault.reply)}"[:40],
)
def test_a_server_that_does_not_know_the_password_is_found_out(name: str, fault: Fault) -> None:
    tls = TLSMode.DEPEND if name in BOUND else TLSMode.NO
    canceled(Submission(tls, mechanisms=[name], faults=[fault]), name)


@pytest.mark.parametrize("at", ["AUTH", "RESPONSE"])
def test_an_error_of_scrams_own_is_told(at: str) -> None:
    fault = Fault(at, "REPLY", lies.challenge(b"e=other-error"))
    here = Submission(mechanisms=["SCRAM-SHA-256"], faults=[fault])
    error = here.error(credentials("SCRAM-SHA-256", wrong=at == "RESPONSE"), Refused)
    assert error.code == 535
    assert error.detail == "other-error"


@each_with_challenges
@pytest.mark.parametrize(
    "reply", [b"334 \r\n", b"235 2.7.0 Welcome\r\n", b"250 Ok\r\n", b"421 Bye\r\n", b"504 x\r\n"]
)
def test_whatever_is_said_to_a_cancel(name: str, reply: bytes) -> None:
    faults = [Fault("AUTH", "REPLY", lies.MALFORMED), Fault("RESPONSE", "REPLY", reply)]
    here = Submission(mechanisms=[name], faults=faults)
    error = here.error(credentials(name), ProtocolError)
    assert "not base64" in str(error)
    assert here.attempt.cancelled


# Ends.


@each_with_challenges
@pytest.mark.parametrize("at", ["AUTH", "RESPONSE"])
@pytest.mark.parametrize("tls", [TLSMode.NO, TLSMode.DEPEND])
@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_a_server_that_goes_while_one_logs_in(name: str, at: str, tls: TLSMode, action: Action) -> None:
    here = Submission(tls, mechanisms=[name], faults=[Fault(at, action)])
    error = here.error(credentials(name), ConnectionLost)
    assert error.temporary


@each_with_challenges
@pytest.mark.parametrize("at", ["AUTH", "RESPONSE"])
@pytest.mark.parametrize(
    "fault",
    [{"do": Action.STALL}, {"do": Action.DEAF}, {"do": Action.TRICKLE, "interval": 4.0, "endless": True}],
    ids=lambda fields: fields["do"].value,
)
def test_a_server_that_never_answers(name: str, at: str, fault: dict[str, Any]) -> None:
    here = Submission(mechanisms=[name], faults=[Fault(at, **fault)])
    error = here.error(credentials(name), ResponseTimeout, bound=30.0, timeouts=Timeouts.uniform(10))
    assert "AUTH" in str(error)


def test_421_in_the_middle_is_the_end() -> None:
    fault = Fault("RESPONSE", "REPLY_AND_CLOSE", b"421 4.3.2 Going down\r\n")
    error = Submission(faults=[fault]).error(credentials("LOGIN"), Refused)
    assert (error.command, error.code, error.temporary) == ("AUTH", 421, True)


def test_what_stands_behind_the_success_unasked_is_no_reply_to_the_mail() -> None:
    here = Submission(faults=[Fault("AUTH", "INJECT", b"250 evil\r\n")])
    here.error(credentials("PLAIN"), ProtocolError)
