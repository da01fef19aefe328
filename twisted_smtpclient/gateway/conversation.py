"""
What one client asks for, and what it is told: each line is answered once.

It knows neither how its lines come nor how its replies go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import UNSET
from twisted.logger import Logger

from ..errors import DeliveryError, InternalError, QueueFull, RequestTooLarge
from .codec import AnyRequest, Rejection, Request
from .complaint import id_at_the_start
from .framing import Line, LineBuffer
from .reply import encode_error, wire_name
from .schema import RequestId
from .under_way import FAULT, Answer

if TYPE_CHECKING:
    from .delivery import Deliveries

__all__ = ["Conversation"]

#: What is said where a line was given up.
NO_ROOM: Final = "no room for a line of this length, for --max-memory is used up"

_log = Logger(__name__)


class _Turn:
    """The place in the order of a request without an id."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: bytes | None = None


class Conversation:
    """
    Lines in, replies out.

    A request that has an ``id`` is answered as soon as its reply is there, one
    that has none in its turn.  No line is taken while ``max_in_flight`` have no
    reply yet, while the client does not read its replies, or while there is no
    room for what a line may come to.

    :param deliveries: takes the requests.
    :param decode: makes a request of a line.
    :param client: whose requests they are.
    :param max_request: octets of a line, its end not counted.
    :param max_in_flight: lines whose reply was not fetched.
    :param due: called for the first reply that waits to be fetched, and maybe for
        further ones.
    :ivar decode: as it was given.
    :ivar in_flight: lines taken whose reply was not fetched: they are under way,
        wait for their turn, or are to be fetched.
    :ivar closed: whether no reply is wanted any more.
    :ivar unread: whether the client does not read its replies.
    :ivar in_turns: octets of replies that wait for their turn.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        decode: Callable[[bytes | bytearray], AnyRequest | Rejection],
        client: object,
        *,
        max_request: int,
        max_in_flight: int,
        due: Callable[[], None],
    ) -> None:
        self.decode: Callable[[bytes | bytearray], AnyRequest | Rejection] = decode
        self.in_flight = 0
        self.closed = False
        self.unread = False
        self.in_turns = 0
        self._deliveries = deliveries
        self._memory = deliveries.memory
        self._client: object = client
        self._max_request = max_request
        self._max_in_flight = max_in_flight
        self._due: Callable[[], None] = due
        self._buffer = LineBuffer(max_request)
        #: Lines that were read and not taken yet, the first one last: what one read
        #: gave, or two where the first was not over.
        self._lines: list[Line] = []
        self._turns: deque[_Turn] = deque()
        self._output: list[bytes] = []
        # Bound once, not for each line.
        self._on_reply: Answer = self._answer

    def __repr__(self) -> str:
        return f"<Conversation: {self.state()}>"

    def state(self) -> str:
        """How it stands, in words."""
        return f"{self.in_flight} in flight, {len(self._lines)} lines waiting"

    @property
    def lines(self) -> int:
        """How many lines were read and not taken yet."""
        return len(self._lines)

    @property
    def waiting(self) -> int:
        """How many octets they have."""
        return sum([len(line) for line in self._lines if line is not None])

    @property
    def pending(self) -> int:
        """How many octets of a line there are that is not complete."""
        return self._buffer.pending

    @property
    def has_room(self) -> bool:
        """Whether a further line would be taken, as far as this one client goes."""
        return not self._lines and not self.unread and self.in_flight < self._max_in_flight

    # Lines in

    def feed(self, data: bytes) -> None:
        """So much was read."""
        lines = self._buffer.feed(data)
        lines.reverse()
        self._lines = lines if not self._lines else lines + self._lines
        self.take()

    def end(self) -> None:
        """All was read: what is left is a line."""
        line = self._buffer.end()
        if line != b"":
            self._lines.insert(0, line)
        self.take()

    def give_up(self) -> None:
        """There is no room for the rest of the line that is not complete."""
        self._reject(id_at_the_start(self._buffer.give_up()), QueueFull(NO_ROOM))

    def take(self) -> None:
        """Take lines for as long as there is room for their replies."""
        memory = self._memory
        while (
            self._lines
            and self.in_flight < self._max_in_flight
            and not self.unread
            and memory.has_room_to_take()
        ):
            self._take_one()

    def _take_one(self) -> None:
        line = self._lines.pop()
        if line is None:
            error = RequestTooLarge(f"expected a line of at most {self._max_request} octets")
            self._reject(id_at_the_start(self._buffer.heads.popleft()), error)
            return
        if len(line) <= 1 and line in (b"", b"\r"):
            return
        request = self._decoded(line)
        # It may be as long as the message, which alone is needed now.
        del line
        # Asked for first is what most are, and what is compiled.
        if not isinstance(request, Request) and isinstance(request, Rejection):
            self._reject(request.id, request.error)
            return
        self.in_flight += 1
        self._deliveries.start(request, self._answer_for(request.id), self._client)

    def _decoded(self, line: bytes | bytearray) -> AnyRequest | Rejection:
        try:
            return self.decode(line)
        except Exception:
            _log.failure("a line could not be decoded for a fault of this software")
            return Rejection(UNSET, InternalError(FAULT))

    # Replies out

    def fetch(self) -> bytes:
        """The replies that are due, each with its line end; they are in flight no more."""
        output, self._output = self._output, []
        self.in_flight -= len(output)
        output.append(b"")
        return b"\n".join(output)

    def close(self) -> None:
        """There is nobody to be told any more."""
        self.closed = True
        self._lines.clear()
        self._turns.clear()
        self._output.clear()

    def _answer_for(self, request_id: RequestId) -> Answer:
        if request_id is not UNSET and request_id is not None:
            return self._on_reply
        turn = _Turn()
        self._turns.append(turn)
        return partial(self._answer_in_turn, turn)

    def _reject(self, request_id: RequestId, error: DeliveryError) -> None:
        self.in_flight += 1
        self._deliveries.rejected[wire_name(error)] += 1
        self._answer_for(request_id)(encode_error(request_id, error))

    def _answer(self, reply: bytes) -> None:
        if self.closed:
            return
        output = self._output
        output.append(reply)
        if len(output) == 1:
            self._due()

    def _answer_in_turn(self, turn: _Turn, reply: bytes) -> None:
        turn.reply = reply
        self.in_turns += len(reply)
        turns = self._turns
        while turns and (reply_due := turns[0].reply) is not None:
            turns.popleft()
            self.in_turns -= len(reply_due)
            self._answer(reply_due)
