"""
Tests that each of ten mails on a connection has one result, and a true one, wherever the connection ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.client.departing import leaving as leaving
from tests.client.mailing import CHUNKING, OUTLASTS_A_TIMEOUT, PIPELINING_ONLY, WAYS, Mailing, number_of
from twisted_smtpclient import ConnectionLost, Protocol, ResponseTimeout
from twisted_smtpclient.client.delivery import DeliveryCancelled
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.testing import Action, Fault, Stage

MAILS = 10
BYE = b"421 4.3.2 too much for today\r\n"
LARGE = b"x" * (4 * SMALL)


class Position(NamedTuple):
    """A reply of a ten-mail pipeline: which one, and whose."""

    stage: Stage
    nth: int
    mail: int

    @property
    def final(self) -> bool:
        return self.stage in (Stage.END_OF_DATA, Stage.BDAT)

    def fault(self, do: Action, reply: bytes | None = None) -> Fault:
        return Fault(self.stage, do, reply, nth=self.nth, connection=1)


def positions(way: str) -> Iterator[Position]:
    content = [Stage.BDAT] if way == "BDAT" else [Stage.DATA, Stage.END_OF_DATA]
    for mail in range(1, MAILS + 1):
        if mail > 1:
            yield Position(Stage.RSET, mail - 1, mail)
        yield Position(Stage.MAIL, mail, mail)
        yield Position(Stage.RCPT, 2 * mail - 1, mail)
        yield Position(Stage.RCPT, 2 * mail, mail)
        for stage in content:
            yield Position(stage, mail, mail)


def ten_mails(way: str, fault: Fault, **sink: Any) -> Mailing:
    """Ten mails at once, and the faults of the first connection they went on."""
    here = Mailing(faults=[fault], **WAYS[way], **sink)
    here.post(MAILS)
    here.network.elapse(OUTLASTS_A_TIMEOUT, step=60.0)
    here.check()
    here.close()
    return here


def behind(mail: int) -> set[int]:
    return set(range(mail, MAILS + 1))


EVERYTHING = behind(1)


def whole_at(position: Position, way: str) -> set[int]:
    """The mails that were written whole, and not answered, before this reply."""
    if way == "BDAT":
        # All of them were written at once.
        return behind(position.mail)
    return {position.mail} if position.final else set()


@pytest.mark.parametrize("split", [None, 16])
@pytest.mark.parametrize("way", WAYS)
def test_a_close_at_any_reply_leaves_in_doubt_what_was_whole_and_moves_the_rest(
    way: str, split: int | None
) -> None:
    for position in positions(way):
        here = ten_mails(way, position.fault(Action.CLOSE), split=split)
        doubt = whole_at(position, way)
        assert here.in_doubt() == doubt, position
        assert here.ok() == EVERYTHING - doubt, position
        assert all(isinstance(error, ConnectionLost) for error in here.errors().values())


@pytest.mark.parametrize("split", [None, 16])
@pytest.mark.parametrize("way", WAYS)
def test_a_reset_at_any_reply_leaves_in_doubt_what_was_whole_and_moves_the_rest(
    way: str, split: int | None
) -> None:
    for position in positions(way):
        here = ten_mails(way, position.fault(Action.RESET), split=split)
        doubt = here.in_doubt()
        # A reset takes replies with it that were under way.
        if way == "BDAT":
            assert behind(position.mail) <= doubt, position
        else:
            assert doubt <= {position.mail - 1, position.mail}, position
            assert len(doubt) <= 1, position
            assert position.mail in doubt or not position.final, position
        assert here.ok() == EVERYTHING - doubt, position


@pytest.mark.parametrize("action", [Action.REPLY_AND_CLOSE, Action.REPLY])
@pytest.mark.parametrize("split", [None, 16])
@pytest.mark.parametrize("way", WAYS)
def test_421_at_any_reply_leaves_nobody_in_doubt(way: str, split: int | None, action: Action) -> None:
    for position in positions(way):
        if position.stage is Stage.RSET and action is Action.REPLY:
            # Who refuses RSET takes no MAIL behind it; the sink, told to, would.
            continue
        here = ten_mails(way, position.fault(action, BYE), split=split)
        # It is the verdict on a connection's first mail, and behind a content.
        refused = {position.mail} if position.final or position.mail == 1 else set()
        if position.stage is Stage.RCPT and action is Action.REPLY and way == "BDAT":
            # The content stood behind it already, and was taken for the other recipient.
            refused = set()
        assert here.errors() == {}, position
        assert here.refused() == refused, position
        assert here.ok() == EVERYTHING - refused, position


@pytest.mark.parametrize("way", WAYS)
def test_what_a_server_still_answers_behind_421_counts_and_is_not_done_again(way: str) -> None:
    for position in positions(way):
        if position.stage is Stage.RSET:
            continue
        here = ten_mails(way, position.fault(Action.REPLY, BYE))
        first = here.sink.sessions[0]
        came = {number_of(mail) for mail in first.mails}
        # On BDAT all of them stood behind it already, on DATA none.
        stood = behind(position.mail + 1) if way == "BDAT" else set()
        if position.final or (position.stage is Stage.RCPT and way == "BDAT"):
            stood.add(position.mail)
        assert came == set(range(1, position.mail)) | stood, position


@pytest.mark.parametrize("split", [None, 16])
@pytest.mark.parametrize("way", WAYS)
def test_silence_at_any_reply_is_a_timeout_of_the_mail_that_it_was_owed_to(
    way: str, split: int | None
) -> None:
    for position in positions(way):
        here = ten_mails(way, position.fault(Action.STALL), split=split)
        errors = here.errors()
        assert isinstance(errors[position.mail], ResponseTimeout), position
        doubt = whole_at(position, way)
        assert here.in_doubt() == doubt, position
        assert here.ok() == EVERYTHING - doubt - {position.mail}, position


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("do", [Action.CLOSE, Action.RESET, Action.STALL])
def test_a_second_connection_that_ends_as_well_leaves_the_same_sums(way: str, do: Action) -> None:
    for position in positions(way):
        here = Mailing(
            faults=[Fault(position.stage, do, nth=position.nth, connection=number) for number in (1, 2, 3)],
            **WAYS[way],
        )
        here.post(3 * MAILS)
        here.network.elapse(4 * OUTLASTS_A_TIMEOUT, step=60.0)
        here.check()
        here.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_content_that_was_not_whole_when_the_connection_ended_goes_again(way: str) -> None:
    for octets in (1, 70_000, len(LARGE) - 1):
        for do in (Action.CLOSE, Action.RESET):
            here = Mailing(
                faults=[Fault(Stage.CONTENT, do, after_octets=octets, connection=1, nth=None)], **WAYS[way]
            )
            # The small ones before it settle, so the connection has done something.
            here.posted(2)
            here.post(3, message=LARGE)
            here.network.elapse(OUTLASTS_A_TIMEOUT, step=60.0)
            here.check()
            here.close()


def test_a_mail_whose_connection_dies_before_anything_was_done_moves_once() -> None:
    here = Mailing(faults=[Fault(Stage.MAIL, Action.CLOSE, nth=None)], **PIPELINING_ONLY)
    here.posted(1)
    (outcome,) = here.outcomes
    assert isinstance(outcome.error, ConnectionLost)
    assert not outcome.error.in_doubt
    assert here.sink.session_count == 2
    here.close()


def test_a_mail_moves_as_long_as_the_connections_that_die_have_done_something() -> None:
    # One mail of each connection is done, then it closes at the next.
    here = Mailing(
        faults=[
            Fault(Stage.MAIL, Action.CLOSE, nth=2, connection=connection)
            for connection in range(1, MAILS + 1)
        ],
        **PIPELINING_ONLY,
    )
    here.posted(MAILS)
    assert here.ok() == EVERYTHING
    assert here.sink.session_count == MAILS
    here.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("do", [Action.CLOSE, Action.RESET, Action.STALL, Action.REPLY_AND_CLOSE])
def test_over_lmtp_the_sums_are_as_true(way: str, do: Action) -> None:
    for position in positions(way):
        here = Mailing(faults=[position.fault(do, BYE)], lmtp=True, **WAYS[way])
        here.post(MAILS, protocol=Protocol.LMTP)
        here.network.elapse(OUTLASTS_A_TIMEOUT, step=60.0)
        here.check()
        if do is Action.REPLY_AND_CLOSE:
            assert here.in_doubt() == set(), position
        here.close()


# Cancel and time-out.


def ten_with_one_cancelled(way: str, mail: int, steps: int, message: bytes | None) -> tuple[Mailing, bool]:
    """Cancel a mail after so many steps; whether there was anything left to happen."""
    here = Mailing(split=40, **WAYS[way])
    for number in range(1, MAILS + 1):
        here.post(message=message) if number == mail and message is not None else here.post()
    alive = True
    for _ in range(steps):
        alive = here.step()
    was_done = bool(here.outcomes[mail - 1].came)
    here.results[mail - 1].cancel()
    assert here.outcomes[mail - 1].came == 1
    if not was_done and not here.outcomes[mail - 1]:
        assert isinstance(here.outcomes[mail - 1].error, DeliveryCancelled)
    here.network.settle()
    here.check()
    assert here.ok() >= EVERYTHING - {mail}
    here.close()
    return here, alive and not was_done


@pytest.mark.parametrize("mail", [1, 5, 10])
@pytest.mark.parametrize("message", [None, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("way", WAYS)
def test_a_cancel_at_any_moment_ends_one_mail_and_not_its_neighbors(
    way: str, message: bytes | None, mail: int
) -> None:
    seen = set()
    for steps in range(1000):
        here, goes_on = ten_with_one_cancelled(way, mail, steps, message)
        if mail in here.errors():
            seen.add((here.errors()[mail].in_doubt, here.taken()[f"a{mail}@example.net"]))
        if not goes_on:
            break
    else:
        raise AssertionError("it never ends")
    assert (False, 0) in seen
    # When it was whole it was done all the same, and was said to be in doubt.
    assert (True, 1) in seen


@pytest.mark.parametrize("way", WAYS)
def test_a_timeout_of_the_callers_ends_one_mail_and_not_its_neighbors(way: str) -> None:
    here = Mailing(delay=1.0, **WAYS[way])
    here.post(MAILS)
    # The greeting and EHLO take two seconds.
    here.results[4].addTimeout(2.5, here.network)
    here.network.elapse(60.0, step=0.25)
    here.check()
    assert here.ok() == EVERYTHING - {5}
    assert here.in_doubt() == ({5} if way == "BDAT" else set())
    assert here.sink.session_count == 1
    here.close()


@pytest.mark.parametrize("way", WAYS)
def test_all_cancelled_at_once_leave_one_result_each_and_a_usable_agent(way: str) -> None:
    for steps in range(0, 60, 3):
        here = Mailing(split=40, **WAYS[way])
        here.post(MAILS)
        for _ in range(steps):
            here.step()
        for result in here.results:
            result.cancel()
        assert [outcome.came for outcome in here.outcomes] == [1] * MAILS
        here.posted(3)
        here.check()
        assert here.ok() >= {11, 12, 13}
        here.close()


def test_closing_the_agent_in_the_middle_of_ten_mails_gives_each_its_result() -> None:
    for offers in (CHUNKING, PIPELINING_ONLY):
        for steps in range(0, 60, 3):
            here = Mailing(split=40, **offers)
            here.post(MAILS)
            for _ in range(steps):
                here.step()
            here.close()
            here.check()
