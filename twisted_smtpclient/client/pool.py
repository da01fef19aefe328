"""
Kept connections, by key; knows no SMTP.

A job (a mail) goes

1. to a connection with nothing under way, or else with fewer than
   :data:`FEW`;
2. else a new connection is opened, while fewer than the limit are open or
   opening, and the job takes whichever is ready first;
3. else to the connection with the fewest under way, to its capacity;
4. else it waits: first come, first served among the jobs of its key.

A job that is to have a connection of its own (:meth:`Pool.submit_alone`) waits
for room to open one; where there is none, the connection with the fewest under
way closes behind them to make it.  Of two that wait for a new connection, one
of each kind, the older one has it.

Jobs of different keys never wait for each other.  Each call decides in one
synchronous step, by counts that are kept up to date as things happen, so the
cost of a job does not grow with the number of connections.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .connect import Reactor

#: A connection with fewer under way takes a job at once; from here on a
#: further connection is worth its handshake.
FEW: Final = 3

#: Seconds for which a key's limit stays lowered to what was open when a
#: further connection was refused.
LOWERED: Final = 60.0


class Connection(Protocol):
    """What the pool asks of a connection."""

    @property
    def accepts(self) -> bool:
        """Whether it takes a further job."""

    #: how many jobs may be under way on it at a time; always the same
    capacity: int

    def finish(self) -> None:
        """Take no further job, and close behind those under way."""

    def when_gone(self) -> Deferred[None]:
        """Fires when it is closed."""


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Connection)
J = TypeVar("J", bound=Hashable)


class Pool(Generic[K, C, J]):
    """
    The connections and the waiting jobs of any number of keys.

    :param reactor: for time.
    :param open_connection: opens a connection; fires with it when it takes
        jobs.
    :param assign: gives a connection a job.  :meth:`done` is to be called
        once when the job has left it.
    :param refuse: tells a job that no connection could be had, and why.
    :param limit: how many connections of a key may be open or opening.
    """

    def __init__(
        self,
        reactor: Reactor,
        open_connection: Callable[[K], Deferred[C]],
        assign: Callable[[C, J], None],
        refuse: Callable[[J, Exception], None],
        *,
        limit: int = 10,
    ) -> None:
        self.reactor = reactor
        self.open_connection = open_connection
        self.assign = assign
        self.refuse = refuse
        self.limit = limit
        self._lanes: dict[K, _Lane[K, C, J]] = {}
        #: by connection too, and the last one that was asked for by its key: a
        #: key's hash costs more than all else here
        self.lane_of: dict[C, _Lane[K, C, J]] = {}
        self._last: _Lane[K, C, J] | None = None

    def __repr__(self) -> str:
        lanes = self._lanes.values()
        return (
            f"<Pool {sum(lane.open for lane in lanes)} open, {sum(lane.busy for lane in lanes)} busy, "
            f"{sum(lane.opening for lane in lanes)} opening, {sum(lane.waiting for lane in lanes)} waiting, "
            f"{len(self._lanes)} keys>"
        )

    def state(self) -> dict[str, float]:
        """Sums over all keys."""
        lanes = self._lanes.values()
        return {
            "servers": len(lanes),
            "connections_open": sum(lane.open for lane in lanes),
            "connections_busy": sum(lane.busy for lane in lanes),
            "connections_opening": sum(lane.opening for lane in lanes),
            "queue_length": sum(lane.waiting for lane in lanes),
        }

    def states(self) -> Iterator[tuple[K, str]]:
        """Each key, and what is open, busy and waiting there."""
        for key, lane in self._lanes.items():
            yield key, repr(lane)

    def submit(self, key: K, job: J, *, first: bool = False) -> None:
        """
        Give a job to a connection, or let it wait for one.

        :param first: whether it goes before those that wait, because it has
            waited its turn before.
        """
        self._lane(key).submit(job, first)

    def submit_alone(self, key: K, job: J) -> None:
        """Give a job a connection of its own, which is closed behind it."""
        self._lane(key).submit_alone(job)

    def withdraw(self, key: K, job: J) -> bool:
        """
        Take a job back that waits, or whose own connection is being opened.

        :returns: False where it was given to a connection, or refused.
        """
        lane = self._lanes.get(key)
        return lane is not None and lane.withdraw(job)

    def done(self, connection: C) -> None:
        """A job has left its connection."""
        lane = self.lane_of.get(connection)
        if lane is not None:
            lane.done(connection)

    def finish(self) -> None:
        """Have every connection close behind the jobs under way on it."""
        for lane in list(self._lanes.values()):
            lane.finish()

    def _lane(self, key: K) -> _Lane[K, C, J]:
        last = self._last
        if last is not None and last.key is key:
            return last
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self, key)
        self._last = lane
        return lane

    def forget(self, key: K, lane: _Lane[K, C, J]) -> None:
        """A key has nothing open and nothing waiting; for its lane alone."""
        if self._lanes.get(key) is lane:
            del self._lanes[key]
        if self._last is lane:
            self._last = None


class _Lane(Generic[K, C, J]):
    """One key's connections and waiting jobs."""

    def __init__(self, pool: Pool[K, C, J], key: K) -> None:
        self._pool = pool
        self.key = key
        # Jobs that wait, each with its turn; one can be taken out of the middle
        # of a hundred thousand.
        self._waiting: OrderedDict[J, int] = OrderedDict()
        #: those that go before them, for they have waited before
        self._again: OrderedDict[J, int] = OrderedDict()
        self._alone: OrderedDict[J, int] = OrderedDict()
        self._turn = 0
        #: jobs for which a connection of their own is being opened
        self._opening_for: set[J] = set()
        #: connections with room, by the number of jobs under way on them
        self._by_load: list[dict[C, None]] = [{}]
        #: no shelf below has a connection on it
        self._lowest = 0
        self._loads: dict[C, int] = {}
        self.open = 0
        self.opening = 0
        #: the same of those that are given nothing more, while they have any
        self._last_loads: dict[C, int] = {}
        self._lowered: int | None = None
        self._lowered_until = 0.0
        self._dispatching = False
        #: something has changed since the waiting jobs were last looked at
        self._changed = False

    def __repr__(self) -> str:
        return f"<{self.open} open, {self.busy} busy, {self.opening} opening, {self.waiting} waiting>"

    @property
    def busy(self) -> int:
        """Connections with a job under way."""
        return len(self._last_loads) + sum(1 for load in self._loads.values() if load)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return self._to_share + len(self._alone) + len(self._opening_for)

    @property
    def _to_share(self) -> int:
        """Jobs that wait for any connection."""
        return len(self._again) + len(self._waiting)

    # What happens.

    def submit(self, job: J, first: bool) -> None:
        if not (self._waiting or self._again):
            connection = self._take()
            if connection is not None:
                self._pool.assign(connection, job)
                return
        (self._again if first else self._waiting)[job] = self._next_turn()
        # One for each job: those that are opening may have been for jobs that
        # were withdrawn since, and may be stuck.
        if self._may_open:
            self._open(None)

    def submit_alone(self, job: J) -> None:
        self._alone[job] = self._next_turn()
        self._dispatch()

    def withdraw(self, job: J) -> bool:
        if job in self._opening_for:
            # What is being opened may do for another.
            self._opening_for.discard(job)
            return True
        for queue in (self._again, self._waiting, self._alone):
            if job in queue:
                del queue[job]
                self._forget_if_empty()
                return True
        return False

    def done(self, connection: C) -> None:
        load = self._loads.get(connection)
        if load is not None:
            by_load = self._by_load
            self._loads[connection] = less = load - 1
            if load < connection.capacity:
                by_load[load].pop(connection, None)
            if less < connection.capacity:
                by_load[less][connection] = None
                if less < self._lowest:
                    self._lowest = less
        elif (last := self._last_loads.pop(connection, 0)) > 1:
            self._last_loads[connection] = last - 1
        if self._waiting or self._alone or self._again:
            self._dispatch()

    def finish(self) -> None:
        for connection in list(self._loads):
            connection.finish()

    # What follows.

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _dispatch(self) -> None:
        self._changed = True
        if self._dispatching:
            # What is opened at once, or fails at once, is seen to below: not
            # inside of it, for thousands may wait to fail.
            return
        self._dispatching = True
        try:
            while self._changed:
                self._changed = False
                self._share_out()
        finally:
            self._dispatching = False
        if self._alone:
            self._make_room()

    def _share_out(self) -> None:
        while (queue := self._again or self._waiting) and (connection := self._take()) is not None:
            self._pool.assign(connection, queue.popitem(last=False)[0])
        while not self._changed and self._may_open and (self._alone or self._wants_another):
            if self._alone and not (self._wants_another and self._is_older_than_alone):
                self._open(self._alone.popitem(last=False)[0])
            else:
                self._open(None)

    @property
    def _wants_another(self) -> bool:
        """Whether more wait than connections are being opened for them."""
        return self.opening - len(self._opening_for) < self._to_share

    @property
    def _is_older_than_alone(self) -> bool:
        """Whether the next that waits to share came before the next that does not."""
        return bool(self._again) or _first(self._waiting) < _first(self._alone)

    def _take(self) -> C | None:
        """
        The connection for the next job, the job counted on it; None where the
        job is to wait.
        """
        by_load = self._by_load
        while (load := self._lowest) < len(by_load):
            connections = by_load[load]
            while connections:
                # The last one that came here: those that are not needed stay
                # idle until they close.  To look at the first is to pass all
                # that have left since, one by one.
                connection, _ = connections.popitem()
                if not connection.accepts:
                    self._drop(connection)
                elif load >= FEW and self._may_open:
                    connections[connection] = None
                    return None
                else:
                    self._loads[connection] = more = load + 1
                    if more < connection.capacity:
                        if more == len(by_load):
                            by_load.append({})
                        by_load[more][connection] = None
                    return connection
            self._lowest = load + 1
        return None

    def _drop(self, connection: C) -> None:
        """Give it nothing more."""
        load = self._loads.pop(connection, None)
        if load is None:
            return
        if load:
            self._last_loads[connection] = load
        # A full connection is on no shelf, so no look for room comes past it.
        if load < len(self._by_load):
            self._by_load[load].pop(connection, None)

    @property
    def _may_open(self) -> bool:
        limit = self._pool.limit if self._lowered is None else self._lowered_limit()
        return self.open + self.opening < limit

    def _lowered_limit(self) -> int:
        if self._lowered is not None and self._pool.reactor.seconds() < self._lowered_until:
            return self._lowered
        self._lowered = None
        return self._pool.limit

    def _make_room(self) -> None:
        """Jobs want connections of their own: let as many others end."""
        closing = self.open - len(self._loads)
        for connection in sorted(self._loads, key=lambda connection: self._loads[connection]):
            if closing >= len(self._alone):
                return
            self._drop(connection)
            connection.finish()
            closing += 1

    def _open(self, job: J | None) -> None:
        """Open a connection, for whoever waits or for one job alone."""
        self.opening += 1
        if job is not None:
            self._opening_for.add(job)
        opening = self._pool.open_connection(self.key)
        opening.addCallbacks(self._opened, self._failed, callbackArgs=(job,), errbackArgs=(job,))

    def _opened(self, connection: C, job: J | None) -> None:
        self.opening -= 1
        self.open += 1
        self._pool.lane_of[connection] = self
        if job is not None and job in self._opening_for:
            self._opening_for.discard(job)
            self._last_loads[connection] = 1
            self._pool.assign(connection, job)
            connection.finish()
        elif job is None or self._to_share:
            self._loads[connection] = 0
            self._by_load[0][connection] = None
            self._lowest = 0
        else:
            # The one that it was for was taken back.
            connection.finish()
        connection.when_gone().addCallback(self._gone, connection)
        self._dispatch()

    def _gone(self, _: object, connection: C) -> None:
        self.open -= 1
        self._pool.lane_of.pop(connection, None)
        self._drop(connection)
        self._last_loads.pop(connection, None)
        self._dispatch()
        self._forget_if_empty()

    def _failed(self, failure: Failure, job: J | None) -> None:
        self.opening -= 1
        error: Any = failure.value
        if job is not None:
            if job in self._opening_for:
                self._opening_for.discard(job)
                self._pool.refuse(job, error)
        elif self.open or self.opening:
            # It is up, and wants no more of us: make do with what there is.
            self._lowered = max(1, self.open + self.opening)
            self._lowered_until = self._pool.reactor.seconds() + LOWERED
        else:
            self._lowered = None
            refused = [*self._again, *self._waiting]
            self._again.clear()
            self._waiting.clear()
            for waiting in refused:
                self._pool.refuse(waiting, error)
        self._dispatch()
        self._forget_if_empty()

    def _forget_if_empty(self) -> None:
        if not (self.open or self.opening or self.waiting):
            self._pool.forget(self.key, self)


def _first(waiting: OrderedDict[J, int]) -> int:
    """The turn of the one that has waited longest."""
    return next(iter(waiting.values()))
