"""
Tests of cancelling a delivery, and of closing the agent, in each of its phases.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.client.departing import leaving as leaving
from tests.client.memory import Outcome
from tests.client.sessions import HOST, RECIPIENTS, Post, Session
from twisted_smtpclient import (
    Cancelled,
    DeliveryCancelled,
    DeliveryError,
    DeliveryResult,
    ShuttingDown,
    Status,
    TLSMode,
)
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.testing import Action, Fault, Stage, make_certificates

CERTIFICATES = make_certificates(HOST)
LARGE = b"x" * (4 * SMALL)


def never(host: str) -> Deferred[Any]:
    """A resolver that does not answer."""
    return Deferred()


def at(
    stage: Stage, *, chunking: bool = True, message: bytes = b"x", do: Action = Action.STALL
) -> dict[str, Any]:
    fault = Fault(stage, do, after_octets=1 if stage is Stage.CONTENT else 0)
    return {"sink": {"chunking": chunking, "faults": [fault]}, "mail": {"message": message}}


def in_tls(stage: Stage) -> dict[str, Any]:
    phase = at(stage)
    phase["sink"]["starttls"] = CERTIFICATES.server_context()
    phase["mail"]["tls"] = TLSMode.TRY
    return phase


#: How to have a delivery stand still there, and what is known of it: nothing
#: (None), or whether it is in doubt.
PHASES: dict[str, tuple[dict[str, Any], bool | None]] = {
    "looking up": ({"agent": {"resolver": never}, "mail": {"host": "mail.example"}}, None),
    "connecting": ({"silent": True}, None),
    "waiting for the greeting": (at(Stage.GREETING), None),
    "waiting for EHLO": (at(Stage.EHLO), None),
    "waiting for STARTTLS": (in_tls(Stage.STARTTLS), None),
    "in the TLS handshake": (in_tls(Stage.HANDSHAKE), None),
    "waiting for MAIL": (at(Stage.MAIL, chunking=False), False),
    "waiting for MAIL, the content written": (at(Stage.MAIL), True),
    "waiting for RCPT": (at(Stage.RCPT, chunking=False), False),
    "waiting for DATA": (at(Stage.DATA, chunking=False), False),
    "in the content by DATA": (at(Stage.CONTENT, chunking=False, message=LARGE, do=Action.DEAF), False),
    "in the content by BDAT": (at(Stage.CONTENT, message=LARGE, do=Action.DEAF), False),
    "waiting for the end of data": (at(Stage.END_OF_DATA, chunking=False), True),
    "waiting for the end of much data": (at(Stage.END_OF_DATA, chunking=False, message=LARGE), True),
    "waiting for BDAT": (at(Stage.BDAT), True),
}

EACH_PHASE = pytest.mark.parametrize(("phase", "in_doubt"), PHASES.values(), ids=PHASES.keys())


def standing_still(phase: dict[str, Any]) -> tuple[Post, Deferred[DeliveryResult]]:
    here = Post(agent=phase.get("agent", {}), **phase.get("sink", {}))
    if phase.get("silent"):
        here.network.serve(None)
    result = here.deliver(**phase.get("mail", {}))
    here.network.settle()
    assert not result.called
    return here, result


def assert_known(error: DeliveryError, in_doubt: bool | None) -> None:
    if in_doubt is None:
        assert error.recipients == ()
        assert not error.in_doubt
    else:
        assert [entry.recipient for entry in error.recipients] == list(RECIPIENTS)
        assert {entry.status for entry in error.recipients} == {Status.UNKNOWN}
        assert error.in_doubt is in_doubt


@EACH_PHASE
def test_a_cancelled_delivery_errbacks_at_once_and_tells_what_is_known(
    phase: dict[str, Any], in_doubt: bool | None
) -> None:
    here, result = standing_still(phase)
    outcome = Outcome(result)
    result.cancel()
    # Before anything else could happen.
    error = outcome.error
    assert isinstance(error, DeliveryCancelled)
    assert isinstance(error, CancelledError)
    assert isinstance(error, Cancelled)
    assert error.temporary
    assert_known(error, in_doubt)

    # A second one changes nothing, and the agent is as good as before; on
    # other terms, for a connection that still waits may be waited for.
    result.cancel()
    here.network.serve(here.sink)
    assert here.delivered(helo="other.example").value.all_ok
    here.close()


@EACH_PHASE
def test_closing_the_agent_ends_a_delivery_with_shutting_down(
    phase: dict[str, Any], in_doubt: bool | None
) -> None:
    here, result = standing_still(phase)
    outcome = Outcome(result)
    closed = Outcome(here.agent.close())
    assert isinstance(outcome.error, ShuttingDown)
    assert_known(outcome.error, in_doubt)
    here.network.elapse(6)
    assert closed.value is None
    here.network.elapse(3)
    here.network.assert_nothing_is_left()


@EACH_PHASE
def test_a_cancelled_delivery_leaves_nothing_behind_when_the_agent_is_closed(
    phase: dict[str, Any], in_doubt: bool | None
) -> None:
    here, result = standing_still(phase)
    outcome = Outcome(result)
    result.cancel()
    assert outcome.came
    here.close()


def test_a_delivery_that_is_done_cannot_be_cancelled() -> None:
    here = Post()
    result = here.deliver()
    here.network.settle()
    outcome = Outcome(result)
    result.cancel()
    assert outcome.value.all_ok
    here.close()


def test_a_closed_agent_takes_no_further_delivery() -> None:
    here = Post()
    here.close()
    outcome = here.delivered()
    assert isinstance(outcome.error, ShuttingDown)
    assert here.network.ends == []


def test_closing_an_agent_twice_is_closing_it_once() -> None:
    here = Post()
    assert here.delivered().value.all_ok
    here.close()
    here.close()


# On a session of its own, where neighbors can be looked at.


def test_a_mail_cancelled_before_the_session_is_ready_is_never_begun() -> None:
    session = Session()
    first, first_outcome = session.deliver("first@example.net")
    _, second_outcome = session.deliver("second@example.net")
    first.cancel()
    assert isinstance(first_outcome.error, Cancelled)
    assert first_outcome.error.recipients == ()
    said = session.open(b"PIPELINING", b"CHUNKING")
    assert b"first@example.net" not in said
    session.say(b"250 1", b"250 2", b"250 queued")
    assert second_outcome.value.all_ok


def test_a_mail_cancelled_in_its_envelope_leaves_its_neighbors_alone() -> None:
    session = Session()
    session.open(b"PIPELINING")
    first, first_outcome = session.deliver("first@example.net")
    assert session.script.heard.endswith(b"DATA\r\n")
    first.cancel()
    session.network.settle()
    assert isinstance(first_outcome.error, Cancelled)
    assert not first_outcome.error.in_doubt
    # DATA was said, so only the end of the connection ends it unsent.
    assert not session.end.connected


def test_a_mail_cancelled_before_data_is_said_ends_with_rset() -> None:
    session = Session()
    session.open(b"SIZE")
    first, first_outcome = session.deliver("first@example.net")
    _, second_outcome = session.deliver("second@example.net")
    assert session.script.heard.startswith(b"MAIL")
    first.cancel()
    assert isinstance(first_outcome.error, Cancelled)
    assert session.say(b"250 sender ok") == b"RSET\r\n"
    assert session.say(b"250 reset").startswith(b"MAIL")
    assert session.say(b"250 ok") == b"RCPT TO:<second@example.net>\r\n"
    session.say(b"250 ok")
    session.say(b"354 go")
    session.say(b"250 queued")
    assert second_outcome.value.all_ok


def test_a_mail_cancelled_when_it_was_whole_leaves_the_connection_alive() -> None:
    session = Session()
    first, first_outcome = session.deliver("first@example.net")
    session.open(b"PIPELINING", b"CHUNKING")
    first.cancel()
    assert isinstance(first_outcome.error, Cancelled)
    assert first_outcome.error.in_doubt
    session.say(b"250 1", b"250 2", b"250 queued, all the same")
    assert session.end.connected
    _, second_outcome = session.deliver("second@example.net")
    assert session.script.heard.startswith(b"MAIL")
    session.say(b"250 1", b"250 2")
    session.say(b"250 queued")
    assert second_outcome.value.all_ok


def test_who_is_told_of_one_mail_may_cancel_its_neighbor() -> None:
    session = Session()
    first, _ = session.deliver("first@example.net")
    second, second_outcome = session.deliver("second@example.net")
    told: list[int] = []

    def cancel(result: DeliveryResult) -> DeliveryResult:
        second.cancel()
        told.append(second_outcome.came)
        return result

    first.addCallback(cancel)
    session.open(b"PIPELINING", b"CHUNKING")
    session.say(b"250 1", b"250 2", b"250 queued")
    assert told == [1]
    assert isinstance(second_outcome.error, Cancelled)
    assert second_outcome.error.in_doubt
    session.say(b"250 0", b"250 1", b"250 2", b"250 queued")
    assert session.end.connected


def test_a_neighbor_whose_verdict_is_there_already_gets_it_when_it_is_cancelled() -> None:
    session = Session()
    first, _ = session.deliver("first@example.net")
    second, second_outcome = session.deliver("second@example.net")
    first.addCallback(lambda result: second.cancel())
    session.open(b"PIPELINING", b"CHUNKING")
    session.say(b"250 1", b"250 2", b"250 queued", b"250 0", b"250 1", b"250 2", b"250 queued")
    assert second_outcome.value.all_ok


def test_cancelling_a_mail_that_is_done_changes_nothing() -> None:
    session = Session()
    result, outcome = session.deliver()
    session.open(b"PIPELINING", b"CHUNKING")
    session.say(b"250 1", b"250 2", b"250 3", b"250 queued")
    result.cancel()
    assert outcome.value.all_ok
    assert session.end.connected
