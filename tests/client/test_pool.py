"""
Tests of the pool: each rule of its docstring, with connections that are not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from twisted_smtpclient.client.pool import FEW, LOWERED, Pool


class Fake:
    """A connection that does what the test says."""

    def __init__(self, desk: Desk, key: str, capacity: int) -> None:
        self.desk = desk
        self.key = key
        self.willing = True
        self.capacity = capacity
        self.jobs: list[str] = []
        self.had: list[str] = []
        self.finished = False
        self.gone: Deferred[None] = Deferred()

    @property
    def accepts(self) -> bool:
        self.desk.asked += 1
        return self.willing and not self.finished

    def finish(self) -> None:
        self.finished = True

    def when_gone(self) -> Deferred[None]:
        return self.gone

    def end(self, job: str) -> None:
        self.jobs.remove(job)
        self.desk.pool.done(self)

    def end_all(self) -> None:
        for job in list(self.jobs):
            self.end(job)

    def close(self) -> None:
        self.willing = False
        self.gone.callback(None)


class Desk:
    """
    A pool, and what it did.

    :ivar asked: how often a connection was asked for something.
    """

    def __init__(self, limit: int = 10, capacity: int = 10, *, at_once: bool = False) -> None:
        self.clock = Clock()
        self.pool: Pool[str, Fake, str] = Pool(
            self.clock, self._open, self._assign, self._refuse, limit=limit
        )
        self.capacity = capacity
        self.at_once = at_once
        self.openings: list[tuple[str, Deferred[Fake]]] = []
        self.opened = 0
        self.connections: list[Fake] = []
        self.assigned: list[str] = []
        self.refused: list[tuple[str, Exception]] = []
        self.on_refused: Callable[[str], None] = lambda job: None
        #: Raised by each attempt to open, at once.
        self.fault: Exception | None = None
        self.asked = 0

    def _open(self, key: str) -> Deferred[Fake]:
        self.opened += 1
        opening: Deferred[Fake] = Deferred()
        self.openings.append((key, opening))
        if self.fault is not None:
            self.fail(self.fault)
        elif self.at_once:
            self.connect()
        return opening

    def _assign(self, connection: Fake, job: str) -> None:
        connection.jobs.append(job)
        connection.had.append(job)
        self.assigned.append(job)

    def _refuse(self, job: str, error: Exception) -> None:
        self.refused.append((job, error))
        self.on_refused(job)

    def connect(self, place: int = 0) -> Fake:
        """One that was being opened is open."""
        key, opening = self.openings.pop(place)
        connection = Fake(self, key, self.capacity)
        self.connections.append(connection)
        opening.callback(connection)
        return connection

    def fail(self, error: Exception, place: int = 0) -> None:
        _, opening = self.openings.pop(place)
        opening.errback(error)

    def submit(self, *jobs: str, key: str = "k", first: bool = False) -> None:
        for job in jobs:
            self.pool.submit(key, job, first=first)

    def loads(self) -> list[int]:
        return [len(connection.jobs) for connection in self.connections]

    def state(self) -> str | None:
        return dict(self.pool.states()).get("k")


def jobs(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


# 1. to a connection with little under way


def test_the_first_job_opens_a_connection_and_has_it() -> None:
    desk = Desk()
    desk.submit("a")
    assert desk.opened == 1
    assert not desk.assigned
    assert desk.connect().jobs == ["a"]


def test_a_job_goes_to_an_idle_connection_before_any_other() -> None:
    desk = Desk(at_once=True)
    desk.submit(*jobs(FEW + 1))
    assert desk.loads() == [FEW, 1]
    desk.connections[0].end_all()
    desk.submit("x")
    assert desk.connections[0].jobs == ["x"]
    assert desk.opened == 2


def test_of_two_idle_connections_the_one_that_was_used_last_goes_first() -> None:
    desk = Desk(at_once=True)
    desk.submit(*jobs(FEW + 1))
    desk.connections[1].end_all()
    desk.connections[0].end_all()
    for _ in range(5):
        desk.submit("x")
        desk.connections[0].end("x")
    assert len(desk.connections[1].had) == 1


def test_a_connection_with_few_under_way_takes_another_before_one_is_opened() -> None:
    desk = Desk(at_once=True)
    desk.submit(*jobs(FEW))
    assert desk.loads() == [FEW]
    assert desk.opened == 1
    desk.submit("x")
    assert desk.loads() == [FEW, 1]


# 2. to whichever is ready first


def test_a_job_goes_to_one_that_has_room_before_the_one_that_was_opened_for_it_is_ready() -> None:
    desk = Desk()
    desk.submit(*jobs(FEW))
    first = desk.connect()
    desk.submit("x")
    assert first.jobs == jobs(FEW)
    assert desk.openings
    first.end("0")
    assert first.jobs == ["1", "2", "x"]


def test_no_more_are_opened_than_the_limit_however_many_wait() -> None:
    desk = Desk(limit=3)
    desk.submit(*jobs(100))
    assert desk.opened == 3
    for _ in range(3):
        desk.connect()
    assert desk.opened == 3
    assert desk.loads() == [10, 10, 10]
    assert desk.state() == "<3 open, 3 busy, 0 opening, 70 waiting>"


def test_a_connection_counts_until_it_is_gone() -> None:
    desk = Desk(limit=1, at_once=True)
    desk.submit("a")
    first = desk.connections[0]
    first.finish()
    first.end("a")
    desk.submit("b")
    assert desk.opened == 1
    first.close()
    assert desk.opened == 2
    assert desk.connections[1].jobs == ["b"]


# 3. to the one with the fewest


def test_at_the_limit_a_job_goes_to_the_one_with_the_fewest_under_way() -> None:
    desk = Desk(limit=3, at_once=True)
    desk.submit(*jobs(3 * 5))
    assert desk.loads() == [5, 5, 5]
    desk.connections[1].end(desk.connections[1].jobs[0])
    desk.connections[1].end(desk.connections[1].jobs[0])
    desk.submit("x", "y")
    assert desk.loads() == [5, 5, 5]
    assert desk.connections[1].jobs[-2:] == ["x", "y"]


@pytest.mark.parametrize("capacity", [1, 2, FEW, 10])
def test_no_connection_has_more_under_way_than_its_capacity(capacity: int) -> None:
    desk = Desk(limit=2, capacity=capacity, at_once=True)
    desk.submit(*jobs(100))
    assert desk.loads() == [capacity, capacity]
    desk.connections[0].end_all()
    assert desk.loads() == [capacity, capacity]


def test_connections_of_capacity_one_carry_one_job_after_another_in_order() -> None:
    desk = Desk(limit=2, capacity=1, at_once=True)
    desk.submit(*jobs(20))
    while any(connection.jobs for connection in desk.connections):
        for connection in desk.connections:
            connection.end_all()
    assert desk.assigned == jobs(20)
    assert desk.opened == 2


# 4. it waits


def test_those_that_wait_are_served_in_the_order_in_which_they_came() -> None:
    desk = Desk(limit=1, capacity=2, at_once=True)
    desk.submit(*jobs(10))
    (connection,) = desk.connections
    while connection.jobs:
        connection.end(connection.jobs[-1])
    assert desk.assigned == jobs(10)


def test_a_job_that_has_waited_before_goes_first() -> None:
    desk = Desk(limit=1, capacity=1, at_once=True)
    desk.submit("a", "b", "c")
    desk.submit("moved", first=True)
    for job in ("a", "moved", "b"):
        desk.connections[0].end(job)
    assert desk.assigned == ["a", "moved", "b", "c"]


def test_jobs_that_have_waited_before_keep_their_order() -> None:
    desk = Desk(limit=1, capacity=1, at_once=True)
    desk.submit("a", "b")
    desk.submit("first", "second", "third", first=True)
    for job in ("a", "first", "second", "third"):
        desk.connections[0].end(job)
    assert desk.assigned == ["a", "first", "second", "third", "b"]


def test_a_job_that_has_waited_before_can_be_taken_back_or_refused_too() -> None:
    desk = Desk(limit=1)
    desk.submit("a", "b")
    desk.submit("x", "y", first=True)
    assert desk.pool.withdraw("k", "x")
    desk.fail(OSError("no"))
    assert [job for job, _ in desk.refused] == ["y", "a", "b"]


def test_jobs_of_different_keys_never_wait_for_each_other() -> None:
    desk = Desk(limit=1, capacity=1)
    desk.submit(*jobs(100), key="slow")
    desk.submit("a", key="k")
    desk.connect(1)
    assert desk.assigned == ["a"]
    assert [key for key, _ in desk.pool.states()] == ["slow", "k"]
    assert repr(desk.pool) == "<Pool 1 open, 1 busy, 1 opening, 100 waiting, 2 keys>"


# Connections that stop


def test_a_connection_that_stops_accepting_is_given_nothing_more() -> None:
    desk = Desk(at_once=True)
    desk.submit("a")
    desk.connections[0].willing = False
    desk.submit("b")
    assert desk.loads() == [1, 1]
    desk.connections[0].end("a")
    desk.submit("c")
    assert desk.loads() == [0, 2]


def test_jobs_that_wait_for_a_connection_that_stops_have_a_new_one_when_it_is_gone() -> None:
    desk = Desk(limit=1, capacity=1, at_once=True)
    desk.submit("a", "b")
    first = desk.connections[0]
    first.willing = False
    first.end("a")
    assert desk.assigned == ["a"]
    first.close()
    assert desk.connections[1].jobs == ["b"]


def test_a_connection_that_goes_with_jobs_under_way_makes_room_once() -> None:
    desk = Desk(limit=1, at_once=True)
    desk.submit("a", "b")
    first = desk.connections[0]
    first.close()
    # The jobs leave it afterwards.
    first.end_all()
    desk.submit("c")
    assert desk.connections[1].jobs == ["c"]
    assert desk.state() == "<1 open, 1 busy, 0 opening, 0 waiting>"


def test_a_full_connection_that_goes_makes_room() -> None:
    desk = Desk(limit=1, capacity=1, at_once=True)
    desk.submit("a", "b")
    desk.connections[0].close()
    desk.connections[0].end_all()
    assert desk.connections[1].jobs == ["b"]
    desk.connections[1].end_all()
    assert desk.state() == "<1 open, 0 busy, 0 opening, 0 waiting>"


def test_a_connection_that_is_gone_when_it_is_opened_is_used_for_nothing() -> None:
    desk = Desk(limit=1)
    desk.submit("a")
    _, opening = desk.openings.pop()
    dead = Fake(desk, "k", 10)
    dead.close()
    opening.callback(dead)
    assert not dead.had
    assert desk.opened == 2
    desk.connect()
    assert desk.assigned == ["a"]


def test_a_job_that_leaves_a_key_that_is_forgotten_does_no_harm() -> None:
    desk = Desk(at_once=True)
    desk.submit("a")
    (connection,) = desk.connections
    connection.close()
    assert desk.state() is None
    connection.end("a")
    assert desk.state() is None


def test_finishing_has_each_connection_close_behind_its_jobs() -> None:
    desk = Desk(at_once=True)
    desk.submit(*jobs(5))
    desk.submit("x", key="other")
    desk.pool.finish()
    assert [connection.finished for connection in desk.connections] == [True, True, True]


# Failures


def test_where_nothing_can_be_opened_all_that_wait_are_told_why() -> None:
    desk = Desk(limit=1)
    desk.submit("a", "b")
    error = OSError("no")
    desk.fail(error)
    assert desk.refused == [("a", error), ("b", error)]
    assert desk.state() is None
    assert desk.opened == 1


def test_the_last_of_several_openings_decides() -> None:
    desk = Desk(limit=3)
    desk.submit(*jobs(5))
    desk.fail(OSError("no"))
    desk.fail(OSError("no"))
    assert not desk.refused
    assert desk.opened == 3
    last = OSError("last")
    desk.fail(last)
    assert desk.refused == [(job, last) for job in jobs(5)]


def test_where_one_of_several_openings_succeeds_nobody_is_refused() -> None:
    desk = Desk(limit=3)
    desk.submit(*jobs(5))
    desk.fail(OSError("no"))
    desk.connect()
    desk.fail(OSError("no"))
    assert not desk.refused
    assert desk.loads() == [5]


def test_a_connection_refused_beside_a_live_one_lowers_the_limit_for_a_minute() -> None:
    desk = Desk(limit=10, capacity=FEW)
    desk.submit(*jobs(FEW))
    for _ in range(len(desk.openings) - 1):
        desk.connect()
    before = desk.opened
    assert before == FEW
    desk.fail(OSError("421 too many connections"))
    desk.submit(*jobs(50, start=100))
    assert desk.opened == before
    desk.clock.advance(LOWERED - 1)
    desk.submit("x")
    assert desk.opened == before
    desk.clock.advance(2)
    desk.submit("y")
    assert desk.opened > before
    assert not desk.refused


def test_the_limit_is_not_lowered_for_a_server_that_is_down_altogether() -> None:
    desk = Desk(limit=3)
    desk.on_refused = lambda job: desk.submit(f"{job} again") if len(job) == 1 else None
    desk.submit(*jobs(3))
    for _ in range(3):
        desk.fail(OSError("no"))
    assert len(desk.openings) == 3
    for _ in range(3):
        desk.connect()
    assert len(desk.assigned) == 3
    assert desk.state() is not None


def test_who_is_refused_may_ask_again_at_once_also_where_that_fails_at_once() -> None:
    desk = Desk(limit=2)
    desk.fault = OSError("no")
    tries: list[str] = []

    def again(job: str) -> None:
        tries.append(job)
        if len(job) < 4:
            desk.submit(job + "x")

    desk.on_refused = again
    desk.submit("a")
    assert tries == ["a", "ax", "axx", "axxx"]
    assert desk.state() is None


def test_a_key_that_was_forgotten_and_is_used_again_meanwhile_is_not_forgotten_twice() -> None:
    desk = Desk(limit=1)
    desk.submit("a", "b")

    def again(job: str) -> None:
        if job == "a":
            # It fails at once, and leaves the key with nothing.
            desk.fault = OSError("no")
            desk.submit("c")
            desk.fault = None
        elif job == "b":
            desk.submit("d")

    desk.on_refused = again
    desk.fail(OSError("no"))
    assert [job for job, _ in desk.refused] == ["a", "c", "b"]
    assert desk.state() == "<0 open, 0 busy, 1 opening, 1 waiting>"
    desk.submit("e")
    assert desk.opened == 3
    desk.connect()
    assert desk.assigned == ["d", "e"]


# Withdrawing


def test_a_job_that_waits_can_be_taken_back() -> None:
    desk = Desk(limit=1, capacity=1)
    desk.submit("a", "b", "c")
    assert desk.pool.withdraw("k", "b")
    connection = desk.connect()
    connection.end("a")
    assert desk.assigned == ["a", "c"]


def test_a_job_that_was_given_away_or_never_came_cannot_be_taken_back() -> None:
    desk = Desk(at_once=True)
    desk.submit("a")
    assert not desk.pool.withdraw("k", "a")
    assert not desk.pool.withdraw("k", "b")
    assert not desk.pool.withdraw("other", "a")


def test_a_connection_whose_job_was_taken_back_is_there_for_the_next() -> None:
    desk = Desk()
    desk.submit("a")
    assert desk.pool.withdraw("k", "a")
    connection = desk.connect()
    assert desk.state() == "<1 open, 0 busy, 0 opening, 0 waiting>"
    desk.submit("b")
    assert connection.jobs == ["b"]


def test_a_key_with_nothing_open_and_nothing_waiting_is_forgotten() -> None:
    desk = Desk(at_once=True)
    for number in range(100):
        desk.submit("a", key=str(number))
    for connection in desk.connections:
        connection.end_all()
        connection.close()
    assert list(desk.pool.states()) == []
    assert repr(desk.pool) == "<Pool 0 open, 0 busy, 0 opening, 0 waiting, 0 keys>"


def test_ten_thousand_that_wait_can_be_taken_back_from_the_middle() -> None:
    class Job(str):
        __slots__ = ()
        compared = 0

        def __eq__(self, other: object) -> bool:
            Job.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    desk = Desk(limit=1)
    waiting = [Job(job) for job in jobs(10_000)]
    desk.submit(*waiting)
    for job in reversed(waiting[5:]):
        assert desk.pool.withdraw("k", Job(job))
    assert Job.compared < 20 * len(waiting)
    desk.connect()
    assert desk.assigned == waiting[:5]


# Connections of their own


def test_a_job_alone_has_a_connection_of_its_own_that_closes_behind_it() -> None:
    desk = Desk(at_once=True)
    desk.submit("a")
    desk.pool.submit_alone("k", "b")
    assert [connection.had for connection in desk.connections] == [["a"], ["b"]]
    assert [connection.finished for connection in desk.connections] == [False, True]
    desk.connections[1].end_all()
    desk.submit("c")
    assert desk.connections[0].had == ["a", "c"]


def test_connections_for_jobs_alone_count_against_the_limit() -> None:
    desk = Desk(limit=2, at_once=True)
    for job in jobs(5):
        desk.pool.submit_alone("k", job)
    assert desk.opened == 2
    assert desk.state() == "<2 open, 2 busy, 0 opening, 3 waiting>"
    for number in range(5):
        connection = desk.connections[number]
        connection.end_all()
        connection.close()
    assert desk.assigned == jobs(5)
    assert desk.state() is None


def test_thousands_of_jobs_alone_that_fail_at_once_are_each_told() -> None:
    desk = Desk(limit=1, at_once=True)
    for job in jobs(3000):
        desk.pool.submit_alone("k", job)
    desk.pool.open_connection = lambda key: fail(OSError("no"))
    (first,) = desk.connections
    first.end_all()
    first.close()
    assert [job for job, _ in desk.refused] == jobs(2999, 1)
    assert desk.state() is None


def test_a_connection_with_jobs_that_is_given_nothing_more_is_busy_until_they_are_done() -> None:
    desk = Desk(limit=1, at_once=True)
    desk.submit("a", "b")
    (connection,) = desk.connections
    connection.willing = False
    desk.submit("c")
    for job, state in (("a", "1 open, 1 busy"), ("b", "1 open, 0 busy")):
        assert desk.pool.state()["connections_busy"] == 1
        connection.end(job)
        assert desk.state() == f"<{state}, 0 opening, 1 waiting>"
    assert desk.pool.state()["connections_busy"] == 0
    connection.close()
    assert desk.assigned == ["a", "b", "c"]


def test_where_there_is_no_room_for_a_job_alone_the_least_busy_connection_makes_it() -> None:
    desk = Desk(limit=2, at_once=True)
    desk.submit(*jobs(2 * FEW))
    desk.connections[1].end_all()
    desk.pool.submit_alone("k", "x")
    assert [connection.finished for connection in desk.connections] == [False, True]
    desk.pool.withdraw("k", "y")
    desk.submit("y")
    assert "y" in desk.connections[0].jobs
    desk.connections[1].close()
    assert desk.connections[2].had == ["x"]
    # One made room for one.
    assert not desk.connections[0].finished


def test_a_job_alone_that_cannot_have_its_connection_is_told_and_nobody_else() -> None:
    desk = Desk()
    desk.submit("a")
    desk.pool.submit_alone("k", "b")
    error = OSError("no")
    desk.fail(error, place=1)
    assert desk.refused == [("b", error)]
    assert desk.connect().jobs == ["a"]


def test_its_failure_leaves_those_that_wait_to_their_own() -> None:
    desk = Desk(limit=1)
    desk.pool.submit_alone("k", "b")
    desk.submit("a")
    desk.fail(OSError("no"))
    assert [job for job, _ in desk.refused] == ["b"]
    assert desk.connect().jobs == ["a"]


def test_a_job_alone_that_is_taken_back_before_it_has_its_connection_is_never_done() -> None:
    desk = Desk()
    desk.pool.submit_alone("k", "a")
    assert "1 waiting" in repr(desk.pool)
    assert desk.pool.withdraw("k", "a")
    connection = desk.connect()
    assert connection.had == []
    assert connection.finished
    connection.close()
    assert desk.state() is None


def test_its_connection_serves_those_that_wait_instead() -> None:
    desk = Desk(limit=1)
    desk.pool.submit_alone("k", "a")
    desk.submit("b")
    desk.pool.withdraw("k", "a")
    connection = desk.connect()
    assert connection.jobs == ["b"]
    assert not connection.finished


def test_a_job_alone_that_was_taken_back_is_not_told_of_a_failure() -> None:
    desk = Desk()
    desk.pool.submit_alone("k", "a")
    desk.pool.withdraw("k", "a")
    desk.fail(OSError("no"))
    assert desk.refused == []
    assert desk.state() is None


def test_a_job_alone_that_waits_for_room_can_be_taken_back() -> None:
    desk = Desk(limit=1)
    desk.pool.submit_alone("k", "a")
    desk.pool.submit_alone("k", "b")
    assert desk.pool.withdraw("k", "b")
    desk.connect().close()
    assert desk.assigned == ["a"]
    assert desk.state() is None


@pytest.mark.parametrize("alone_first", [True, False])
def test_of_two_that_wait_for_a_connection_the_older_one_has_it(alone_first: bool) -> None:
    desk = Desk(limit=1)
    desk.pool.submit_alone("k", "before")
    if alone_first:
        desk.pool.submit_alone("k", "alone")
        desk.submit("shared")
    else:
        desk.submit("shared")
        desk.pool.submit_alone("k", "alone")
    desk.connect().close()
    desk.connect()
    assert desk.assigned[1] == ("alone" if alone_first else "shared")


def test_a_stream_of_jobs_alone_does_not_keep_the_others_waiting() -> None:
    desk = Desk(limit=1, at_once=True)
    desk.pool.submit_alone("k", "0")
    desk.submit("patient")
    for number in range(1, 10):
        desk.pool.submit_alone("k", str(number))
        current = desk.connections[-1]
        current.end_all()
        current.close()
    assert desk.assigned.index("patient") == 1


# Costs


def test_a_job_costs_the_same_on_one_connection_and_on_ten_thousand() -> None:
    def cost(connections: int) -> float:
        desk = Desk(limit=connections, capacity=10, at_once=True)
        desk.submit(*jobs(FEW * connections))
        assert len(desk.connections) == connections
        desk.asked = 0
        for connection in desk.connections[:1000]:
            connection.end(connection.jobs[0])
            desk.submit("x")
        return desk.asked / min(connections, 1000)

    assert cost(10_000) <= cost(1) * 1.5 + 1


def test_ten_thousand_connections_are_filled_and_emptied_with_few_questions() -> None:
    count = 10_000
    desk = Desk(limit=count, capacity=1, at_once=True)
    desk.submit(*jobs(2 * count))
    assert desk.opened == count
    assert desk.loads() == [1] * count
    for connection in desk.connections:
        connection.end_all()
    for connection in desk.connections:
        connection.end_all()
        connection.close()
    assert desk.state() is None
    assert desk.asked <= 20 * 2 * count


class World:
    """Whatever may happen to a pool, by name."""

    def __init__(self, limit: int, capacity: int) -> None:
        self.desk = Desk(limit, capacity)
        self.submitted: list[str] = []
        self.withdrawn: list[str] = []
        self.live: list[Fake] = []

    def new_job(self) -> str:
        self.submitted.append(str(len(self.submitted)))
        return self.submitted[-1]

    def submit(self, number: int) -> None:
        self.desk.submit(self.new_job(), first=number % 5 == 0)

    def submit_alone(self, number: int) -> None:
        self.desk.pool.submit_alone("k", self.new_job())

    def withdraw(self, number: int) -> None:
        for job in self.submitted[number : number + 1]:
            if self.desk.pool.withdraw("k", job):
                self.withdrawn.append(job)

    def connect(self, number: int) -> None:
        if self.desk.openings:
            self.live.append(self.desk.connect(number % len(self.desk.openings)))

    def fail(self, number: int) -> None:
        if self.desk.openings:
            self.desk.fail(OSError("no"), number % len(self.desk.openings))

    def end(self, number: int) -> None:
        for connection in self.live[number : number + 1]:
            for job in connection.jobs[:1]:
                connection.end(job)

    def stop(self, number: int) -> None:
        for connection in self.live[number : number + 1]:
            connection.willing = False

    def close(self, number: int) -> None:
        for connection in self.live[number : number + 1]:
            self.live.remove(connection)
            connection.close()
            connection.end_all()

    def wait(self, number: int) -> None:
        self.desk.clock.advance(10 * number)

    def end_well(self) -> None:
        """From here on all connect, all work, and what is to close closes."""
        for _ in range(3 * len(self.submitted) + 3):
            while self.desk.openings:
                self.connect(0)
            for connection in list(self.live):
                connection.end_all()
                if connection.finished or not connection.willing:
                    self.live.remove(connection)
                    connection.close()


STEPS = ["submit", "submit_alone", "withdraw", "connect", "fail", "end", "stop", "close", "wait"]


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=80),
)
def test_whatever_happens_each_job_has_one_end_and_no_limit_is_broken(
    limit: int, capacity: int, steps: list[tuple[str, int]]
) -> None:
    world = World(limit, capacity)
    desk = world.desk
    for step, number in steps:
        getattr(world, step)(number)
        assert len(world.live) + len(desk.openings) <= limit
        assert all(len(connection.jobs) <= capacity for connection in world.live)
    world.end_well()
    ends = [*desk.assigned, *(job for job, _ in desk.refused), *world.withdrawn]
    assert sorted(ends) == sorted(world.submitted)
