"""
Tests that connections are kept by key, within their limits, and that nobody pays for one that has gone.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.client.mailing import CHUNKING, PIPELINING_ONLY, WAYS, Mailing
from tests.client.memory import Outcome
from tests.client.sessions import HOST, MESSAGE, Script, envelope, terms
from twisted_smtpclient import (
    ConnectionRefused,
    Content,
    MessageTooLarge,
    Mode,
    Protocol,
    Refused,
    ResponseTimeout,
    ShuttingDown,
    Timeouts,
    TLSMode,
)
from twisted_smtpclient.client.pool import LOWERED
from twisted_smtpclient.testing import Action, Closed, Fault, Sink, Stage

BYE = b"421 4.4.2 idle for too long\r\n"
SLOW = "192.0.2.2"


def state(here: Mailing) -> str:
    """What the agent's repr tells of its pool."""
    found = re.search(r"<Pool (.*)>>", repr(here.agent))
    assert found is not None, repr(here.agent)
    return found[1]


# Kept by key.


def test_a_connection_is_kept_and_used_again() -> None:
    here = Mailing(connections=10)
    for _ in range(5):
        (outcome,) = here.posted()
        assert outcome.value.all_ok
    assert here.sink.session_count == 1
    assert state(here) == "1 open, 0 busy, 0 opening, 0 waiting, 1 keys"
    here.close()


CHANGES: dict[str, dict[str, Any]] = {
    "host": {"host": "192.0.2.3"},
    "port": {"port": 2525},
    "helo": {"helo": "other.example"},
    "pipelining": {"pipelining": Mode.NO},
    "chunking": {"chunking": Mode.DEPEND},
    "tls": {"tls": TLSMode.TRY},
    "tls_name": {"tls_name": "other.example"},
    "tls_fingerprint": {"tls_fingerprint": "sha256:" + 64 * "0"},
    "source_address": {"source_address": "192.0.2.7"},
    "connection_timeout": {"connection_timeout": 7.0},
    "timeouts": {"timeouts": Timeouts(mail=7.0)},
}


@pytest.mark.parametrize("field", CHANGES)
def test_servers_that_differ_in_a_field_share_no_connection(field: str) -> None:
    here = Mailing(connections=10)
    here.network.serve(here.sink, "192.0.2.3")
    here.posted()
    here.posted(**CHANGES[field])
    assert here.sink.session_count == 2
    # And both are kept, each for its own.
    here.posted()
    here.posted(**CHANGES[field])
    assert here.sink.session_count == 2
    assert here.ok() == {1, 2, 3, 4}
    here.close()


def test_every_field_of_a_server_is_one_that_tells_connections_apart() -> None:
    # Those not in CHANGES have tests of their own: a sink speaks SMTP or LMTP,
    # knows users or none, and is where an endpoint leads.
    compared = {attribute.alias for attribute in terms().__attrs_attrs__ if attribute.eq}
    assert compared == {*CHANGES, "protocol", "auth", "endpoint"}


def test_smtp_and_lmtp_at_one_port_share_no_connection() -> None:
    here = Mailing(lmtp=True)
    here.posted(protocol=Protocol.LMTP, port=2525)
    (outcome,) = here.posted(port=2525)
    assert here.sink.session_count >= 2
    assert isinstance(outcome.error, Refused)
    here.close()


def test_equal_servers_share_their_connections() -> None:
    here = Mailing()
    for _ in range(3):
        here.posted(server=terms(host=HOST, port=25))
        here.posted(server=terms(host=HOST))
    assert here.sink.session_count == 1
    here.close()


# Limits.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [1, 3, 10])
def test_no_more_connections_are_open_than_allowed(limit: int, way: str) -> None:
    here = Mailing(connections=limit, delay=1.0, **WAYS[way])
    here.post(100)
    most = 0
    for _ in range(440):
        here.network.elapse(0.25, step=0.25)
        most = max(most, len(here.sink.open_sessions))
    assert most == limit
    assert here.ok() == set(range(1, 101))
    assert here.sink.session_count == limit
    here.close()


def test_a_connection_counts_until_the_server_has_closed_it() -> None:
    # QUIT is not answered for three seconds.
    quit_is_slow = Fault(Stage.QUIT, Action.REPLY, b"221 bye\r\n", nth=None, after=3.0)
    here = Mailing(connections=2, agent={"messages_per_connection": 1}, faults=[quit_is_slow])
    here.post(10)
    most = 0
    for _ in range(100):
        here.network.elapse(0.5, step=0.5)
        most = max(most, len(here.sink.open_sessions))
    assert most == 2
    assert here.ok() == set(range(1, 11))
    assert here.sink.session_count == 10
    here.close()


@pytest.mark.parametrize("depth", [1, 2, 10, 50])
def test_no_more_mails_are_under_way_on_a_connection_than_its_depth(depth: int) -> None:
    here = Mailing(depth=depth, faults=[Fault(Stage.BDAT, Action.STALL)])
    here.posted(100)
    assert here.sink.commands.count(b"BDAT 22 LAST") == depth
    assert state(here) == f"1 open, 1 busy, 0 opening, {100 - depth} waiting, 1 keys"
    here.close()


def test_without_pipelining_one_mail_is_under_way() -> None:
    here = Mailing(pipelining=False, faults=[Fault(Stage.MAIL, Action.STALL)])
    here.posted(10)
    assert state(here) == "1 open, 1 busy, 0 opening, 9 waiting, 1 keys"
    here.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_is_closed_behind_so_many_messages_and_quit_costs_no_flight(way: str) -> None:
    here = Mailing(agent={"messages_per_connection": 5}, **WAYS[way])
    here.posted(20)
    here.network.elapse(3)
    assert [len(session.mails) for session in here.sink.sessions] == [5, 5, 5, 5]
    assert all(session.closed is Closed.QUIT for session in here.sink.sessions)
    # QUIT rides behind the last content.
    for end in here.network.ends:
        assert end.writes[-1].endswith(b"QUIT\r\n")
        assert end.writes[-1] != b"QUIT\r\n"
    assert here.ok() == set(range(1, 21))
    here.close()


def test_mailmax_closes_a_connection_as_well() -> None:
    here = Mailing(extensions=["LIMITS MAILMAX=3"])
    here.posted(10)
    here.network.elapse(3)
    assert [len(session.mails) for session in here.sink.sessions] == [3, 3, 3, 1]
    assert here.ok() == set(range(1, 11))
    here.close()


def test_the_lower_of_mailmax_and_our_own_limit_counts() -> None:
    here = Mailing(extensions=["LIMITS MAILMAX=100"], agent={"messages_per_connection": 4})
    here.posted(8)
    here.network.elapse(3)
    assert [len(session.mails) for session in here.sink.sessions] == [4, 4]
    here.close()


def test_an_idle_connection_says_quit_after_its_time() -> None:
    here = Mailing(agent={"idle_timeout": 7.0})
    here.posted()
    here.network.elapse(6.5, step=0.5)
    assert here.sink.sessions[0].closed is None
    here.network.elapse(1.0, step=0.5)
    assert here.sink.sessions[0].commands[-1] == b"QUIT"
    here.network.elapse(3)
    assert here.sink.sessions[0].closed is Closed.QUIT
    assert state(here) == "0 open, 0 busy, 0 opening, 0 waiting, 0 keys"
    here.network.assert_nothing_is_left()


def test_a_mail_in_time_prolongs_an_idle_connections_time() -> None:
    here = Mailing(agent={"idle_timeout": 7.0})
    for _ in range(10):
        here.posted()
        here.network.elapse(6.5, step=0.5)
    assert here.sink.session_count == 1
    here.close()


def test_ten_thousand_mails_that_the_server_will_not_take_have_each_their_error() -> None:
    here = Mailing(size=10)
    here.posted(10_000)
    assert all(isinstance(outcome.error, MessageTooLarge) for outcome in here.outcomes)
    assert not any(command.startswith(b"MAIL") for command in here.sink.commands)
    here.close()


# Fair waiting.


def test_those_that_wait_are_served_in_the_order_in_which_they_came() -> None:
    here = Mailing(depth=3)
    here.posted(30)
    assert [mail.sender for mail in here.sink.mails] == [f"s{number}@example.org" for number in range(1, 31)]
    here.close()


def test_who_was_moved_goes_before_those_that_came_later_and_in_order() -> None:
    here = Mailing(depth=5, faults=[Fault(Stage.MAIL, Action.CLOSE, nth=3)], **PIPELINING_ONLY)
    here.posted(20)
    assert [mail.sender for mail in here.sink.mails] == [f"s{number}@example.org" for number in range(1, 21)]
    here.close()


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.MAIL])
def test_one_slow_server_never_holds_up_another(stage: Stage) -> None:
    here = Mailing(connections=2)
    slow = Sink(here.network, faults=[Fault(stage, Action.STALL, nth=None)])
    here.network.serve(slow, SLOW)
    waiting = here.posted(100, host=SLOW)
    assert all(outcome.value.all_ok for outcome in here.posted(100))
    assert not any(outcome.came for outcome in waiting)
    # Nor does one that does not even answer at all.
    here.network.serve(None, "192.0.2.4")
    here.posted(100, host="192.0.2.4")
    assert all(outcome.value.all_ok for outcome in here.posted(100))
    here.close()


def test_one_slow_mail_does_not_hold_up_those_of_other_connections() -> None:
    here = Mailing(connections=2, depth=1, faults=[Fault(Stage.MAIL, Action.STALL)])
    here.posted(100)
    assert len(here.ok()) == 99
    here.close()


# On its own.


@pytest.mark.parametrize("way", WAYS)
def test_a_mail_on_its_own_shares_no_connection_and_leaves_none_behind(way: str) -> None:
    here = Mailing(connections=3, **WAYS[way])
    here.posted()
    here.posted(reuse=False)
    here.posted()
    here.network.elapse(3)
    assert [len(session.mails) for session in here.sink.sessions] == [2, 1]
    assert here.sink.sessions[1].closed is Closed.QUIT
    assert here.sink.sessions[0].closed is None
    here.close()


def test_connections_of_ones_own_count_against_the_limit() -> None:
    here = Mailing(connections=3, delay=1.0)
    here.post(10, reuse=False)
    here.post(10)
    most = 0
    for _ in range(240):
        here.network.elapse(0.25, step=0.25)
        most = max(most, len(here.sink.open_sessions))
    assert most == 3
    assert here.ok() == set(range(1, 21))
    alone = {f"s{number}@example.org" for number in range(1, 11)}
    own = [session for session in here.sink.sessions if {mail.sender for mail in session.mails} & alone]
    assert [len(session.mails) for session in own] == [1] * 10
    here.close()


def test_a_mail_on_its_own_that_was_not_done_goes_again_on_its_own() -> None:
    here = Mailing(connections=3, faults=[Fault(Stage.MAIL, Action.CLOSE, connection=2)])
    here.posted()
    # Large, so that the content waits for its recipients.
    here.posted(reuse=False, message=b"x" * 300_000)
    here.network.elapse(3)
    assert here.ok() == {1, 2}
    assert [len(session.mails) for session in here.sink.sessions] == [1, 0, 1]
    assert here.sink.sessions[2].closed is Closed.QUIT
    here.close()


# Those that have gone.


IDLE_ENDS: dict[str, dict[str, Any]] = {
    "421, then a close": {"do": Action.REPLY_AND_CLOSE, "reply": BYE},
    "421 alone": {"do": Action.EARLY, "reply": BYE},
    "a close": {"do": Action.CLOSE},
    "a reset": {"do": Action.RESET},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", IDLE_ENDS)
def test_a_connection_that_ends_while_idle_costs_nobody_anything(what: str, way: str) -> None:
    here = Mailing(faults=[Fault(Stage.IDLE, after=2.0, nth=None, **IDLE_ENDS[what])], **WAYS[way])
    for _ in range(3):
        (outcome,) = here.posted()
        assert outcome.value.all_ok
        here.network.elapse(6)
        assert state(here) == "0 open, 0 busy, 0 opening, 0 waiting, 0 keys"
    assert here.sink.session_count == 3
    here.check()
    here.network.assert_nothing_is_left()


STALE: dict[str, dict[str, Any]] = {
    "it was closed": {"do": Action.CLOSE},
    "it was reset": {"do": Action.RESET},
    "421, then a close": {"do": Action.REPLY_AND_CLOSE, "reply": BYE},
    "421 alone": {"do": Action.REPLY, "reply": BYE},
}


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING_ONLY, {"pipelining": False}])
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("size", [22, 300_000])
@pytest.mark.parametrize("what", STALE)
def test_mails_behind_a_stale_connection_go_to_a_new_one_without_doubt(
    what: str, size: int, count: int, offers: dict[str, Any]
) -> None:
    here = Mailing(faults=[Fault(Stage.MAIL, connection=1, nth=2, **STALE[what])], **offers)
    here.posted()
    here.network.elapse(10)
    here.post(count, message=b"x" * size)
    here.network.elapse(10)
    here.check()
    assert here.ok() == set(range(1, count + 2))
    assert here.sink.session_count == 2
    # Not an octet of a content went to where it was not wanted.
    stale = here.network.ends[0]
    assert len(stale.sent) < 1500
    here.close()


def test_a_stale_connection_is_replaced_as_often_as_it_takes() -> None:
    # Ten kept connections, and the server has forgotten all of them.
    faults = [Fault(Stage.MAIL, Action.CLOSE, connection=number, nth=2) for number in range(1, 11)]
    here = Mailing(connections=10, depth=1, faults=faults, delay=0.1)
    here.post(10)
    here.network.elapse(3, step=0.1)
    assert here.sink.session_count == 10
    here.network.elapse(10)
    here.post(10)
    here.network.elapse(10, step=0.1)
    here.check()
    assert here.ok() == set(range(1, 21))
    here.close()


# A server that wants no more of us.


def test_a_4xx_greeting_beside_a_live_connection_lowers_the_limit_for_a_minute() -> None:
    busy = Fault(Stage.GREETING, Action.REPLY_AND_CLOSE, b"421 4.7.0 too many\r\n", nth=None)
    here = Mailing(connections=5, depth=3, delay=1.0, agent={"idle_timeout": 1000.0})
    here.post(2)
    here.network.elapse(2.5, step=0.5)
    assert here.sink.session_count == 2
    here.sink.faults.append(busy)
    here.post(50)
    here.network.elapse(20, step=0.5)
    assert here.ok() == set(range(1, 53))
    refused = here.sink.session_count
    assert refused <= 5
    here.post(50)
    here.network.elapse(LOWERED - 22, step=0.5)
    assert here.ok() == set(range(1, 103))
    assert here.sink.session_count == refused
    here.sink.faults.clear()
    here.network.elapse(2, step=0.5)
    # The minute is over.
    here.post(50)
    here.network.elapse(30, step=0.5)
    assert here.ok() == set(range(1, 153))
    assert len(here.sink.open_sessions) == 5
    here.close()


def test_a_4xx_greeting_with_nothing_else_open_is_everybodys_error() -> None:
    here = Mailing(
        connections=5,
        faults=[Fault(Stage.GREETING, Action.REPLY_AND_CLOSE, b"421 4.7.0 too many\r\n", nth=None)],
    )
    here.posted(20)
    for outcome in here.outcomes:
        assert isinstance(outcome.error, Refused)
        assert outcome.error.code == 421
        assert outcome.error.temporary
        assert not outcome.error.recipients
    here.close()


def test_a_server_that_is_not_there_is_everybodys_error() -> None:
    here = Mailing(connections=5)
    here.posted(20, host="192.0.2.99")
    assert all(isinstance(outcome.error, ConnectionRefused) for outcome in here.outcomes)
    assert state(here) == "0 open, 0 busy, 0 opening, 0 waiting, 0 keys"
    here.close()


def test_a_timeout_in_the_greeting_of_a_further_connection_harms_no_mail() -> None:
    here = Mailing(
        connections=3,
        delay=0.5,
        faults=[Fault(Stage.GREETING, Action.STALL, connection=number) for number in (2, 3)],
    )
    here.post(50)
    here.network.elapse(700, step=1.0)
    assert here.ok() == set(range(1, 51))
    assert not any(isinstance(error, ResponseTimeout) for error in here.errors().values())
    here.close()


# The end.


def test_close_says_quit_on_idle_connections_and_waits_until_they_are_closed() -> None:
    here = Mailing(connections=5, depth=1, delay=0.5)
    here.post(5)
    here.network.elapse(10, step=0.25)
    closed = Outcome(here.agent.close())
    here.network.settle()
    assert not closed.came
    here.network.elapse(4)
    assert closed.value is None
    assert [session.commands[-1] for session in here.sink.sessions] == [b"QUIT"] * 5
    assert [session.closed for session in here.sink.sessions] == [Closed.QUIT] * 5
    here.network.assert_nothing_is_left()


def test_close_ends_those_that_wait_and_opens_nothing_more() -> None:
    here = Mailing(connections=2, faults=[Fault(Stage.MAIL, Action.STALL, nth=None)], **PIPELINING_ONLY)
    here.posted(100)
    opened = here.sink.session_count
    here.close()
    assert all(isinstance(outcome.error, ShuttingDown) for outcome in here.outcomes)
    assert here.sink.session_count == opened
    (late,) = here.posted()
    assert isinstance(late.error, ShuttingDown)


def test_close_tells_of_doubt_where_there_is_any() -> None:
    here = Mailing(faults=[Fault(Stage.BDAT, Action.STALL)])
    here.posted(20)
    here.close()
    assert here.in_doubt() == set(range(1, 11))
    assert all(isinstance(error, ShuttingDown) for error in here.errors().values())


# What it tells.


def test_the_repr_of_an_agent_tells_what_is_open_busy_opening_and_waiting() -> None:
    here = Mailing(connections=2, depth=3, delay=1.0)
    assert state(here) == "0 open, 0 busy, 0 opening, 0 waiting, 0 keys"
    here.post(20)
    here.network.settle()
    assert state(here) == "0 open, 0 busy, 2 opening, 20 waiting, 1 keys"
    here.network.elapse(2.0, step=0.5)
    assert state(here) == "2 open, 2 busy, 0 opening, 14 waiting, 1 keys"
    assert repr(here.agent).startswith("<DeliveryAgent 20 under way, ")
    here.network.elapse(10)
    assert state(here) == "2 open, 0 busy, 0 opening, 0 waiting, 1 keys"
    assert repr(here.agent).startswith("<DeliveryAgent 0 under way, ")
    here.close()


def test_a_server_that_is_the_tests_own_may_close_between_any_two_replies_of_a_second_mail() -> None:
    # As one does that has been restarted meanwhile.
    here = Mailing(**PIPELINING_ONLY)
    scripts: list[Script] = []

    class Factory:
        def buildProtocol(self, _: object) -> Script:
            scripts.append(Script())
            return scripts[-1]

    here.network.serve(Factory(), "192.0.2.5")
    mail = Outcome(here.agent.deliver(terms(host="192.0.2.5"), envelope("a@example.net"), Content(MESSAGE)))
    here.network.settle()

    def say(number: int, octets: bytes) -> bytes:
        here.network.ends[number].other.write_raw(octets)
        here.network.settle()
        return scripts[number].heard

    say(0, b"220 hi\r\n")
    assert say(0, b"250-hi\r\n250 PIPELINING\r\n").startswith(b"MAIL")
    say(0, b"250 ok\r\n250 ok\r\n354 go\r\n")
    say(0, b"250 taken\r\n")
    assert mail.value.all_ok
    second = Outcome(here.agent.deliver(terms(host="192.0.2.5"), envelope("a@example.net"), Content(MESSAGE)))
    here.network.settle()
    assert scripts[0].heard.startswith(b"MAIL")
    here.network.ends[0].other.abort()
    here.network.settle()
    assert len(scripts) == 2
    say(1, b"220 hi\r\n")
    assert say(1, b"250-hi\r\n250 PIPELINING\r\n").startswith(b"MAIL")
    say(1, b"250 ok\r\n250 ok\r\n354 go\r\n")
    say(1, b"250 taken\r\n")
    assert second.value.all_ok
    here.network.ends[1].other.lose()
    here.network.settle()
    here.close()
