"""What is known of a request over all of its tries, and the word for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.gateway.fakes import unknown, verdict
from twisted_smtpclient.errors import (
    ConnectionLost,
    ConnectionRefused,
    DeliveryError,
    InvalidRequest,
    RequestTooLarge,
    TLSFailed,
)
from twisted_smtpclient.gateway.amqp.outcome import Outcome, State, merge, outstanding
from twisted_smtpclient.smtp.result import DeliveryResult, RecipientStatus, Status

A, B, C = "a@x.de", "b@x.de", "c@x.de"
OK, LATER, NEVER = "250 2.0.0 ok", "450 later", "550 no"


def result(*recipients: RecipientStatus) -> DeliveryResult:
    return DeliveryResult("s@x.de", list(recipients))


def first(outcome: DeliveryResult | DeliveryError, *, retry_in_doubt: bool = False, count: int = 2) -> State:
    return merge([], range(count), [A, B, C][:count], outcome, retry_in_doubt=retry_in_doubt)


@pytest.mark.parametrize(
    ("texts", "word", "again"),
    [
        ((OK, OK), Outcome.OK, []),
        ((OK, NEVER), Outcome.PARTIAL, []),
        ((NEVER, NEVER), Outcome.PERMANENT, []),
        ((OK, LATER), Outcome.TEMPORARY, [1]),
        ((LATER, NEVER), Outcome.TEMPORARY, [0]),
        ((LATER, LATER), Outcome.TEMPORARY, [0, 1]),
    ],
)
def test_verdicts_make_a_word_and_those_that_failed_for_now_are_tried_again(
    texts: tuple[str, str], word: Outcome, again: Sequence[int]
) -> None:
    state = first(result(verdict(A, texts[0]), verdict(B, texts[1])))
    assert (state.outcome, list(state.again)) == (word, again)


def test_an_error_before_mail_tries_all_again_and_tells_nothing_of_the_recipients() -> None:
    error = ConnectionRefused("no")
    state = first(error)
    assert (state.outcome, list(state.again)) == (Outcome.TEMPORARY, [0, 1])
    told = state.told("s@x.de")
    assert isinstance(told, ConnectionRefused)
    assert not told.recipients


def test_an_error_for_good_tries_nobody_again() -> None:
    state = first(TLSFailed("bad"))
    assert (state.outcome, list(state.again)) == (Outcome.PERMANENT, [])


@pytest.mark.parametrize("error", [InvalidRequest("bad", "key"), RequestTooLarge("long")])
def test_what_the_request_itself_is_refused_for_is_invalid(error: DeliveryError) -> None:
    assert first(error).outcome is Outcome.INVALID


@pytest.mark.parametrize(("retry", "again"), [(False, [1]), (True, [0, 1])])
def test_one_in_doubt_is_tried_again_only_where_that_is_said(retry: bool, again: list[int]) -> None:
    error = ConnectionLost("gone").concerning([unknown(A, in_doubt=True), unknown(B, in_doubt=False)])
    state = first(error, retry_in_doubt=retry)
    assert list(state.again) == again
    assert state.outcome is Outcome.INDOUBT


def test_one_in_doubt_is_the_word_for_all() -> None:
    error = ConnectionLost("gone").concerning([verdict(A, OK), unknown(B, in_doubt=True)])
    state = first(error)
    assert (state.outcome, list(state.again)) == (Outcome.INDOUBT, [])


def test_a_further_try_fills_in_its_own_and_leaves_the_others() -> None:
    before = [verdict(A, OK), verdict(B, LATER), verdict(C, NEVER)]
    state = merge(before, [1], [A, B, C], result(verdict(B, OK)), retry_in_doubt=False)
    assert [entry.response for entry in state.recipients] == [OK, OK, NEVER]
    assert (state.outcome, list(state.again)) == (Outcome.PARTIAL, [])
    assert isinstance(state.told("s@x.de"), DeliveryResult)


def test_a_verdict_is_not_given_up_for_the_lack_of_one() -> None:
    state = merge([verdict(A, LATER)], [0], [A], ConnectionRefused("no"), retry_in_doubt=False)
    assert state.recipients[0].response == LATER
    assert (state.outcome, list(state.again)) == (Outcome.TEMPORARY, [0])
    # Each has a verdict, so it is a result.
    assert isinstance(state.told("s@x.de"), DeliveryResult)


def test_an_error_for_good_is_told_in_place_of_an_old_refusal() -> None:
    state = merge([verdict(A, LATER)], [0], [A], TLSFailed("bad"), retry_in_doubt=False)
    assert (state.outcome, list(state.again)) == (Outcome.PERMANENT, [])
    told = state.told(None)
    assert isinstance(told, TLSFailed)
    assert told.recipients[0].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("now", "kept", "again"),
    [(verdict(A, OK), False, []), (verdict(A, NEVER), False, []), (verdict(A, LATER), True, [0])],
)
def test_doubt_lasts_until_a_server_takes_the_mail_or_refuses_it_for_good(
    now: RecipientStatus, kept: bool, again: list[int]
) -> None:
    state = merge([unknown(A, in_doubt=True)], [0], [A], result(now), retry_in_doubt=True)
    assert state.recipients[0].in_doubt is kept
    assert list(state.again) == again


def test_doubt_of_an_earlier_try_is_told_though_the_last_one_went_well() -> None:
    before = [unknown(A, in_doubt=True), verdict(B, LATER)]
    state = merge(before, [1], [A, B], result(verdict(B, OK)), retry_in_doubt=False)
    told = state.told(None)
    assert isinstance(told, ConnectionLost)
    assert told.in_doubt
    assert [entry.status for entry in told.recipients] == [Status.UNKNOWN, Status.OK]


@pytest.mark.parametrize(("in_doubt", "places"), [(False, [1, 3]), (True, [1, 2, 3])])
def test_whose_turn_it_is_by_what_earlier_tries_have_left(in_doubt: bool, places: list[int]) -> None:
    verdicts = [
        verdict(A, OK),
        verdict(B, LATER),
        unknown(C, in_doubt=True),
        unknown(A, in_doubt=False),
        verdict(B, NEVER),
    ]
    assert outstanding(verdicts, in_doubt=in_doubt) == places
