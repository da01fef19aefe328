"""
Tests of verdicts and results.
"""

from __future__ import annotations

import copy
import pickle

from twisted_smtpclient.smtp.reply import EnhancedStatusCode, Reply
from twisted_smtpclient.smtp.result import VERDICTS, DeliveryResult, RecipientStatus, Status

OK = RecipientStatus("a@x", Status.OK, Reply(250, (b"250-2.0.0 ok", b"250 queued")), ".")
LATER = RecipientStatus("b@x", Status.TEMPORARY_ERROR, Reply(450, (b"450 4.2.0 later",)), "RCPT")
NEVER = RecipientStatus("a@x", Status.PERMANENT_ERROR, Reply(550, (b"550 no",)), "RCPT")


def test_the_statuses_are_the_words_of_the_contract() -> None:
    assert [status.value for status in Status] == ["Ok", "TemporaryError", "PermanentError", "Unknown"]


def test_the_first_digit_is_the_verdict() -> None:
    assert VERDICTS == {2: Status.OK, 4: Status.TEMPORARY_ERROR, 5: Status.PERMANENT_ERROR}


def test_a_verdict_tells_the_reply_that_decided_it() -> None:
    assert OK.code == 250
    assert OK.response == "250-2.0.0 ok\n250 queued"
    assert OK.enhanced == EnhancedStatusCode(2, 0, 0)
    assert OK.command == "."
    assert not OK.in_doubt
    assert NEVER.enhanced is None


def test_without_a_verdict_there_is_no_reply() -> None:
    unknown = RecipientStatus("a@x", Status.UNKNOWN, in_doubt=True)
    assert (unknown.reply, unknown.code, unknown.response, unknown.enhanced, unknown.command) == (None,) * 5
    assert unknown.in_doubt


def test_a_result_keeps_order_and_duplicates() -> None:
    result = DeliveryResult("s@x", [OK, LATER, NEVER])
    assert [entry.recipient for entry in result.recipients] == ["a@x", "b@x", "a@x"]
    assert [entry.status for entry in result.recipients] == [
        Status.OK,
        Status.TEMPORARY_ERROR,
        Status.PERMANENT_ERROR,
    ]
    assert result.sender == "s@x"


def test_all_ok_is_said_only_where_all_are() -> None:
    assert DeliveryResult(None, [OK, OK]).all_ok
    for other in (LATER, NEVER, RecipientStatus("c@x", Status.UNKNOWN)):
        assert not DeliveryResult(None, [OK, other]).all_ok


def test_a_result_shows_how_many_of_each() -> None:
    assert (
        repr(DeliveryResult("s@x", [OK, NEVER, OK])) == "<DeliveryResult from 's@x': 2 Ok, 1 PermanentError>"
    )
    assert repr(DeliveryResult(None, [LATER])) == "<DeliveryResult from None: 1 TemporaryError>"


def test_a_verdict_survives_copying_and_pickling() -> None:
    for verdict in (OK, LATER, NEVER):
        assert copy.deepcopy(verdict) == verdict
        assert pickle.loads(pickle.dumps(verdict)) == verdict


def test_a_result_can_be_copied_and_pickled() -> None:
    verdict = RecipientStatus("a@b.de", Status.OK, Reply(250, (b"250 ok",)), ".")
    result = DeliveryResult(None, [verdict])
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):  # our own
        assert (other.sender, other.recipients) == (None, [verdict])
