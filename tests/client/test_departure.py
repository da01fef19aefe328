"""What sessions have to say leaves at the end of a turn: in one write, in order, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from tests.client.links import LOST, LOST_FOR_GOOD, Kernel, Link, Linked, Taking
from tests.client.memory import FULL
from tests.client.sessions import MESSAGE, Session
from twisted_smtpclient import ConnectionLost as Lost
from twisted_smtpclient import Content, DeliveryCancelled, DeliveryError, Envelope, InternalError
from twisted_smtpclient.client.departure import AT_ONCE, Departure, write_at_once, writes_at_once
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.smtp.sender import WRITE
from twisted_smtpclient.smtp.steps import Stage
from twisted_smtpclient.smtp.transaction import Transaction

KIB = 1024


class Saying:
    """Somebody who leaves by a departure."""

    def __init__(self, name: str, said: list[str], error: Exception | None = None) -> None:
        self.name, self.said, self.error = name, said, error

    def depart(self) -> None:
        self.said.append(self.name)
        if self.error is not None:
            raise self.error

    def take_turn(self) -> None:
        self.depart()


def numbered(size: int, number: int = 0) -> bytes:
    """A message of which each line says where it stands, so that none can be missed or moved."""
    lines = (b"%d %d\r\n" % (number, position) for position in range(size // 6))
    return b"".join(lines)[:size] + b"\r\n"


# The departure.


def test_all_whose_turn_it_is_take_it_in_one_call_in_order() -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)
    for name in "cab":
        departure.call_turn(Saying(name, said))
    (call,) = clock.getDelayedCalls()
    assert (call.getTime(), said) == (clock.seconds(), [])
    clock.advance(0)
    assert said == ["c", "a", "b"]
    assert clock.getDelayedCalls() == []


def test_a_turn_that_is_called_in_another_s_is_a_later_one() -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)

    class Calling(Saying):
        def take_turn(self) -> None:
            super().take_turn()
            departure.call_turn(Saying("next", said))

    departure.call_turn(Calling("first", said))
    departure.call_turn(Saying("second", said))
    clock.advance(0)
    assert said == ["first", "second", "next"]


def test_a_signal_in_a_turn_takes_no_other_one_away() -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)

    class Interrupted(Saying):
        def take_turn(self) -> None:
            super().take_turn()
            departure.call_turn(Saying("next", said))
            raise KeyboardInterrupt

    departure.call_turn(Interrupted("first", said))
    departure.call_turn(Saying("second", said))
    with pytest.raises(KeyboardInterrupt):
        clock.advance(0)
    clock.advance(0)
    departure.call_turn(Saying("later", said))
    clock.advance(0)
    assert said == ["first", "second", "next", "later"]


def test_all_who_have_to_say_something_in_one_turn_leave_in_one_call_in_order() -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)
    for name in "cab":
        departure.add(Saying(name, said))
    (call,) = clock.getDelayedCalls()
    assert (call.getTime(), said) == (clock.seconds(), [])
    clock.advance(0)
    assert said == ["c", "a", "b"]
    assert clock.getDelayedCalls() == []


def test_who_has_to_say_something_while_others_leave_leaves_in_the_next_turn() -> None:
    class Turns(Clock):
        turns = 0

        def callLater(self, delay: float, callable: Any, *given: object, **named: object) -> Any:  # noqa: A002 # Twisted's name
            self.turns += 1
            return super().callLater(delay, callable, *given, **named)

    clock, said = Turns(), list[str]()
    departure = Departure(clock)

    class Calling(Saying):
        def depart(self) -> None:
            super().depart()
            departure.add(Saying("next", said))

    departure.add(Calling("first", said))
    departure.add(Saying("second", said))
    clock.advance(0)
    assert (said, clock.turns) == (["first", "second", "next"], 2)


def test_one_that_raises_is_logged_and_takes_nobody_with_it(logged_failures: Any) -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)
    for name, error in (("a", None), ("b", ZeroDivisionError()), ("c", None)):
        departure.add(Saying(name, said, error))
    clock.advance(0)
    assert said == ["a", "b", "c"]
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_signal_in_between_leaves_nobody_behind() -> None:
    clock, said = Clock(), list[str]()
    departure = Departure(clock)

    class Interrupted(Saying):
        def depart(self) -> None:
            super().depart()
            departure.add(Saying("next", said))
            raise KeyboardInterrupt

    departure.add(Interrupted("first", said))
    with pytest.raises(KeyboardInterrupt):
        clock.advance(0)
    clock.advance(0)
    departure.add(Saying("later", said))
    clock.advance(0)
    assert said == ["first", "next", "later"]


# Sessions.


def test_sessions_write_their_flights_behind_one_another_each_in_one_write() -> None:
    here = Linked(3)
    outcomes = [here.post(MESSAGE, at) for at in range(3) for _ in range(5)]
    here.kernel.advance(0)
    assert [len(link.tried) for link in here.links] == [1, 1, 1]
    assert here.kernel.writers == set()
    here.kernel.settle()
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert [here.arrived(at) for at in range(3)] == [b"".join(link.tried) for link in here.links]


def test_what_a_pipeline_says_in_pieces_leaves_in_one_write() -> None:
    here = Linked()
    outcomes = [here.post(numbered(20 * KIB, number)) for number in range(6)]
    here.kernel.settle()
    # The first waits for its recipients; what the others say is more than one piece.
    most = max(map(len, here.links[0].tried))
    assert WRITE + 20 * KIB < most <= AT_ONCE
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert [mail.content for mail in here.sink.mails] == [numbered(20 * KIB, number) for number in range(6)]


def test_a_large_content_leaves_in_order_and_the_transport_holds_it_back() -> None:
    here = Linked()
    message = numbered(2 * KIB * KIB)
    (link,) = here.links
    link.takes = [10**9, 10**9, *[100, 5000, 0] * 20]
    outcome = here.post(message)
    most = 0
    for _ in range(1000):
        here.kernel.advance(0)
        most = max(most, link.waiting)
        if not any([link.move(), link.other.move()]):
            break
    assert outcome.value.all_ok
    assert [mail.content for mail in here.sink.mails] == [message]
    assert len(here.arrived()) == here.clients[0].octets_sent
    # As of what goes by the transport alone: a write that fills it, and what was there before.
    assert AT_ONCE < most <= FULL + WRITE + SMALL


TAKES = st.lists(st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 200_000)), max_size=30)
TURNS = st.lists(
    st.lists(st.sampled_from([1, 300, 5000, 40_000, 150_000, SMALL + 1]), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(takes=TAKES, turns=TURNS, chunking=st.booleans())
def test_whatever_the_socket_takes_each_octet_reaches_it_once_and_in_order(
    takes: list[Taking], turns: list[list[int]], chunking: bool
) -> None:
    here = Linked(chunking=chunking)
    here.links[0].takes = takes
    messages: list[bytes] = []
    outcomes = []
    for sizes in turns:
        for size in sizes:
            messages.append(numbered(size, len(messages)))
            outcomes.append(here.post(messages[-1]))
        here.kernel.advance(0)
        here.links[0].move()
        here.links[0].other.move()
    here.kernel.settle()
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert [mail.content for mail in here.sink.mails] == messages
    assert here.sink.violations == []
    assert len(here.arrived()) == here.clients[0].octets_sent


@pytest.mark.parametrize("give_up", ["abort", "the connection is lost"])
def test_of_a_session_that_is_given_up_before_it_leaves_not_an_octet_reaches_the_socket(give_up: str) -> None:
    here = Linked(2)
    first, second = here.post(MESSAGE), here.post(MESSAGE, 1)
    here.kernel.advance(0)
    for link in here.links:
        # The content is what it says to the replies to its envelope.
        link.move()
        link.other.move()
    before = here.arrived()
    assert here.clients[0].octets_sent > len(before)
    if give_up == "abort":
        here.clients[0].abort(DeliveryCancelled("for a test"))
    else:
        here.links[0].cut(LOST_FOR_GOOD)
    here.kernel.settle()
    assert here.arrived() == before
    assert isinstance(first.error, DeliveryCancelled if give_up == "abort" else Lost)
    assert second.value.all_ok


class Leaving(Linked):
    """
    A session with a mail that leaves as soon as the turn is over, its content
    and all, for the mail before it has just been taken.

    :ivar before_it: what had reached the socket by then.
    """

    def __init__(self, **sink: Any) -> None:
        super().__init__(**sink)
        mail = Envelope("me@example.org", ["a@example.net"])
        self.transactions: list[Transaction] = []

        def give_next(transaction: Transaction) -> None:
            self.give(mail, lambda _: None)

        self.give(mail, give_next)
        (link,) = self.links
        while len(self.transactions) < 2:
            self.kernel.advance(0)
            link.move()
            link.other.move()
        assert self.transactions[1].stage is Stage.WHOLE
        self.before_it = self.arrived()

    def give(self, mail: Envelope, then: Callable[[Transaction], None]) -> None:
        transaction = Transaction(mail, Content(MESSAGE))
        transaction.on_settled = then
        self.transactions.append(transaction)
        self.clients[0].submit(transaction)

    def assert_it_may_go_elsewhere(self) -> None:
        """Without doubt, for not an octet of it has left."""
        self.kernel.settle()
        assert self.arrived() == self.before_it
        outcome = self.transactions[1].outcome
        assert isinstance(outcome, DeliveryError)
        assert self.transactions[1].untouched
        assert not outcome.in_doubt
        self.kernel.elapse(1)
        assert not self.links[0].connected


def test_a_mail_that_has_not_left_yet_when_its_connection_is_lost_is_in_no_doubt() -> None:
    here = Leaving()
    here.links[0].cut(LOST_FOR_GOOD)
    here.assert_it_may_go_elsewhere()


def test_a_mail_that_has_not_left_yet_when_its_session_is_given_up_is_in_no_doubt() -> None:
    here = Leaving()
    here.clients[0].abort(DeliveryCancelled("for a test"))
    here.assert_it_may_go_elsewhere()


def test_a_mail_that_has_left_is_in_doubt_when_its_connection_is_lost() -> None:
    here = Leaving()
    here.kernel.advance(0)
    here.links[0].cut(LOST_FOR_GOOD)
    outcome = here.transactions[1].outcome
    assert isinstance(outcome, Lost)
    assert outcome.in_doubt


def test_behind_a_421_leaves_nothing_that_was_about_to() -> None:
    here = Leaving()
    here.clients[0].dataReceived(b"421 4.3.2 going down\r\n")
    here.assert_it_may_go_elsewhere()


def test_a_421_to_what_has_left_is_heard_out_and_nothing_leaves_behind_it() -> None:
    here = Linked()
    here.links[0].other.reading = False
    first = here.post(MESSAGE)
    here.kernel.advance(0)
    before = here.arrived()
    exchange = here.clients[0].exchange
    assert exchange is not None
    # What the server says to MAIL lets the rest of the first mail leave.
    here.clients[0].dataReceived(b"250 OK\r\n")
    assert exchange.octets_sent > len(before)
    here.clients[0].dataReceived(b"421 4.3.2 going down\r\n")
    here.kernel.advance(0)
    assert here.arrived() == before
    here.links[0].cut(LOST_FOR_GOOD)
    assert first.value.recipients[0].code == 421


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_said_to_a_mail_that_has_not_left_yet_is_no_reply_to_it(count: int) -> None:
    here = Leaving()
    here.clients[0].dataReceived(b"250 OK\r\n" * count)
    here.assert_it_may_go_elsewhere()


def test_a_flight_that_could_not_be_written_ends_its_session_and_no_other(logged_failures: Any) -> None:
    # What is written next would stand where the server expects something else.
    here = Linked(2)
    here.links[0].takes = [MemoryError]
    first, second = here.post(MESSAGE), here.post(MESSAGE, 1)
    here.kernel.advance(0)
    assert isinstance(first.error, InternalError)
    assert len(logged_failures.flush(MemoryError)) == 1
    third = here.post(MESSAGE)
    here.kernel.settle()
    assert isinstance(third.error, Lost)
    assert here.arrived() == b""
    assert not here.links[0].connected
    assert second.value.all_ok


def test_a_connection_that_turns_out_lost_when_it_is_written_to_ends_as_any_other() -> None:
    here = Linked()
    (link,) = here.links
    link.takes = [LOST, LOST]
    outcome = here.post(MESSAGE)
    here.kernel.advance(0)
    assert (outcome.came, link.waiting) == (0, here.clients[0].octets_sent)
    here.kernel.settle()
    assert isinstance(outcome.error, Lost)
    assert here.arrived() == b""


# A write.


def linked(*takes: Taking) -> tuple[Kernel, Any]:
    kernel = Kernel()
    link = Link(kernel, Protocol())
    link.takes = list(takes)
    return kernel, link


def test_what_the_socket_takes_whole_leaves_nothing_behind() -> None:
    kernel, link = linked()
    write_at_once(link, b"all of it")
    assert (link.arrived, link.waiting, kernel.writers) == (b"all of it", 0, set())


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_what_the_socket_does_not_take_waits_in_the_transport(taken: int) -> None:
    kernel, link = linked(taken)
    write_at_once(link, b"a part")
    assert (link.arrived, link.waiting) == (b"a part"[:taken], 6 - taken)
    assert kernel.writers == {link}
    link.doWrite()
    assert (link.arrived, link.waiting, kernel.writers) == (b"a part", 0, set())


@pytest.mark.parametrize("told", [LOST, -1])
def test_what_is_written_to_a_lost_connection_waits_for_the_reactor_to_find_out(told: Taking) -> None:
    kernel, link = linked()
    # Twisted's documentation spoke of -1, once.
    link.writeSomeData = lambda data: told
    write_at_once(link, b"too late")
    assert (link.waiting, kernel.writers) == (8, {link})
    assert link.doWrite() == told


def test_nothing_overtakes_what_waits_in_the_transport() -> None:
    _, link = linked(2, 3)
    write_at_once(link, b"one ")
    write_at_once(link, b"two ")
    assert link.tried == [b"one "]
    # Between two of its writes the transport keeps it in another place.
    link.doWrite()
    assert link.arrived == b"one t"
    write_at_once(link, b"three")
    assert len(link.tried) == 2
    link.doWrite()
    assert link.arrived == b"one two three"


def test_nothing_overtakes_what_was_written_to_the_transport() -> None:
    _, link = linked()
    link.write(b"first ")
    write_at_once(link, b"second")
    assert (link.tried, link.waiting) == ([], 12)
    link.doWrite()
    assert link.arrived == b"first second"


def test_what_is_written_to_a_closing_transport_is_the_transports() -> None:
    _, link = linked()
    link.loseConnection()
    write_at_once(link, b"QUIT\r\n")
    assert link.tried == []
    assert link.doWrite() is not None
    assert link.arrived == b"QUIT\r\n"


def test_what_is_written_to_a_transport_that_is_gone_is_dropped_as_ever() -> None:
    kernel, link = linked()
    link.cut(LOST_FOR_GOOD)
    write_at_once(link, b"too late")
    assert (link.tried, link.waiting, kernel.writers) == ([], 0, set())


# Which transports.


class Spied(Link):
    """One that looks at what is written to it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.seen.append(data)
        super().write(data)  # type: ignore[no-untyped-call]  # Twisted has no types here


class Secured(Link):
    """One whose octets are encrypted on their way."""

    TLS = True


def wrapper() -> ProtocolWrapper:
    wrapped = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    wrapped.makeConnection(Link(Kernel(), wrapped))
    return wrapped


def test_only_twisteds_own_transports_in_clear_are_written_to_at_once() -> None:
    assert writes_at_once(Link(Kernel()))
    others = [Spied(Kernel()), Secured(Kernel()), wrapper(), StringTransport(), object()]
    assert not any(map(writes_at_once, others))


def test_a_transport_that_keeps_what_waits_in_another_place_is_not_written_to_at_once() -> None:
    for name in ("dataBuffer", "_tempDataBuffer"):

        class Later(Link):
            def __getattribute__(self, asked: str, without: str = name) -> Any:
                if asked == without:
                    raise AttributeError(asked)
                return super().__getattribute__(asked)

        assert not writes_at_once(Later(Kernel()))


@pytest.mark.parametrize("kind", [tcp.Client, unix.Client])
def test_the_transports_of_this_twisted_are_known(kind: type[FileDescriptor]) -> None:
    kernel = Kernel()
    # Without the connecting that its own constructor begins with.
    transport: Any = kind.__new__(kind)
    FileDescriptor.__init__(transport, kernel)  # type: ignore[arg-type]  # as much of a reactor as it needs
    transport._sendmsgQueue = []
    transport.connected = 1
    assert writes_at_once(transport)
    assert transport.disconnecting == 0
    # What waits is seen where write_at_once looks for it.
    transport.write(b"waits")
    assert transport.dataBuffer or transport._tempDataBuffer
    write_at_once(transport, b" its turn")
    assert b"".join(transport._tempDataBuffer) == b"waits its turn"


def test_a_session_on_another_transport_writes_in_the_turn_itself() -> None:
    there = Session()
    there.open(b"PIPELINING")
    there.deliver()
    before = len(there.end.writes)
    there.client.dataReceived(b"250 OK\r\n" * 3 + b"354 go on\r\n")
    assert b"".join(there.end.writes[before:]).startswith(MESSAGE)


def test_a_class_that_looks_at_what_is_written_to_it_sees_all_of_it() -> None:
    here = Linked(link=Spied)
    (link,) = here.links
    assert isinstance(link, Spied)
    link.seen.clear()
    outcomes = [here.post(numbered(size)) for size in (10, 100_000, SMALL + 1)]
    here.kernel.settle()
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert b"".join(link.seen) == here.arrived()
