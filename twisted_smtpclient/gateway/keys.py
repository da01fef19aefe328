"""
Requests that are known by a key, so that a client that has lost its connection
can ask again without sending twice.

A request whose key is known joins the delivery under way, or is given its
outcome.  A key is known while its delivery is under way, and for a while
after it has ended; only an outcome which surely left nothing behind, and which
another try may better, is forgotten at once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..errors import Cancelled, DeliveryError, InternalError, InvalidRequest, QueueFull
from ..smtp.result import DeliveryResult, RecipientStatus, Status
from ..smtp.trace import Trace
from .codec import Request
from .complaint import as_value
from .memory import Memory
from .under_way import FAULT

__all__ = ["KEY_TTL", "Keys"]

#: Seconds for which an outcome is kept.
KEY_TTL: Final = 600.0

#: Octets of an outcome: the record, the key, the fingerprint; and of each
#: recipient: its status, its address and a reply of one line.
_RECORD: Final = 1024
_RECIPIENT: Final = 512

Deliver = Callable[[Request, Trace | None], Deferred[DeliveryResult]]

#: Tells why one who has asked gives up; None where it is not known.
Why = Callable[[], DeliveryError | None]


def _not_known() -> None:
    return None


class Keys:
    """
    The requests with a key, under way or remembered.

    :param deliver: delivers one.
    :param clock: for time.
    :param memory: what the outcomes are counted in.  Where they take up an
        eighth of it, a request with a key that is not known is QueueFull: to
        forget an older one would be to send that twice.
    :param ttl: seconds for which an outcome is kept.
    """

    def __init__(
        self, deliver: Deliver, clock: IReactorTime, memory: Memory, *, ttl: float = KEY_TTL
    ) -> None:
        self._deliver = deliver
        self._clock = clock
        self._memory = memory
        self._ttl = ttl
        self._held = 0
        self._known: dict[str, _Known] = {}
        #: those that have ended, the oldest first, and until when each is kept
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._next: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Keys: {len(self._known) - len(self._ended)} under way, {len(self._ended)} remembered>"

    def __len__(self) -> int:
        return len(self._known)

    def deliver(
        self, key: str, request: Request, trace: Trace | None = None, why: Why = _not_known
    ) -> Deferred[DeliveryResult]:
        """
        Deliver ``request``, unless that was done or is being done.

        :param why: asked where what is returned is cancelled, for what ends
            a delivery is told to whoever asks again.
        :returns: the outcome, as :meth:`.delivery.Deliverer.deliver` gives it.
            Cancelling it leaves the delivery to the others that joined it, and
            ends it where there are none.
        :raises InvalidRequest: the key is another request's.
        :raises QueueFull: there is no room for a further key.
        """
        known = self._known.get(key)
        print_of = _fingerprint(request)
        if known is None:
            cost = _RECORD + _RECIPIENT * len(request.envelope.recipients)
            if self._held + cost > self._memory.limit // 8:
                raise QueueFull("no room for a further key; outcomes are kept for --key-ttl seconds")
            known = self._known[key] = _Known(self, key, print_of, cost)
            self._held += cost
            self._memory.take(cost)
            joined = known.join(request, why)
            known.begin(lambda: self._deliver(request, trace))
            return joined
        if known.fingerprint != print_of:
            raise InvalidRequest("is that of another request", "key")
        return known.join(request, why)

    def stop(self) -> None:
        """Leave no delayed call behind; what is remembered is forgotten."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for key in list(self._ended):
            self._forget(key)

    # For one of them to say.

    def ended(self, key: str, outcome: DeliveryResult | DeliveryError) -> None:
        """Its delivery has ended."""
        if not _is_kept(outcome):
            self._give_back(key)
            return
        # It was told in full to who asked, so it is told in full again.
        more = _octets_beyond(outcome)
        self._known[key].cost += more
        self._held += more
        self._memory.take(more)
        self._ended[key] = self._clock.seconds() + self._ttl
        self._arm()

    def _arm(self) -> None:
        if self._next is None and self._ended:
            until = next(iter(self._ended.values()))
            self._next = self._clock.callLater(max(0.0, until - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        self._next = None
        now = self._clock.seconds()
        while self._ended and next(iter(self._ended.values())) <= now:
            self._forget(next(iter(self._ended)))
        self._arm()

    def _forget(self, key: str) -> None:
        del self._ended[key]
        self._give_back(key)

    def _give_back(self, key: str) -> None:
        cost = self._known.pop(key).cost
        self._held -= cost
        self._memory.give_back(cost)


class _Known:
    """One key."""

    __slots__ = ("_delivery", "_key", "_keys", "_outcome", "_reason", "_waiting", "cost", "fingerprint")

    def __init__(self, keys: Keys, key: str, fingerprint: bytes, cost: int) -> None:
        self.fingerprint = fingerprint
        self.cost = cost
        self._keys = keys
        self._key = key
        self._outcome: DeliveryResult | DeliveryError | None = None
        self._delivery: Deferred[DeliveryResult] | None = None
        self._waiting: list[Deferred[DeliveryResult]] = []
        #: why the last one who waited gave up
        self._reason: DeliveryError | None = None

    def join(self, request: Request, why: Why) -> Deferred[DeliveryResult]:
        """One more who waits for the outcome, or has it at once."""
        if isinstance(self._outcome, DeliveryError):
            return fail(self._outcome)
        if self._outcome is not None:
            return succeed(self._outcome)
        waiting: Deferred[DeliveryResult] = Deferred(lambda waiting: self._leave(waiting, request, why))
        self._waiting.append(waiting)
        return waiting

    def begin(self, deliver: Callable[[], Deferred[DeliveryResult]]) -> None:
        """Deliver; who has joined is told the outcome."""
        try:
            self._delivery = deliver()
        except Exception:
            self._ended(Failure())
        else:
            self._delivery.addBoth(self._ended)

    def _leave(self, waiting: Deferred[DeliveryResult], request: Request, why: Why) -> None:
        if len(self._waiting) == 1 and self._delivery is not None:
            self._reason = why()
            # The last one: its Deferred fires as the delivery's does.
            self._delivery.cancel()
            return
        self._waiting.remove(waiting)
        # It goes on for the others, so it may be delivered yet.
        unknown = Status.UNKNOWN
        recipients = [
            RecipientStatus(entry.address, unknown, in_doubt=True) for entry in request.envelope.recipients
        ]
        error = Cancelled("given up; the delivery goes on for others with the same key")
        waiting.errback(error.concerning(recipients))

    def _ended(self, outcome: DeliveryResult | Failure) -> None:
        told = self._outcome = self._told_of(outcome)
        waiting, self._waiting = self._waiting, []
        self._keys.ended(self._key, told)
        for each in waiting:
            if isinstance(outcome, Failure):
                each.errback(outcome)
            else:
                each.callback(outcome)

    def _told_of(self, outcome: DeliveryResult | Failure) -> DeliveryResult | DeliveryError:
        """The outcome, as it is told to who asks again."""
        if not isinstance(outcome, Failure):
            return outcome
        error = outcome.value
        if not isinstance(error, DeliveryError):
            return InternalError(FAULT)
        if self._reason is not None and isinstance(error, Cancelled):
            error = self._reason.concerning(error.recipients)
        return as_value(error)


def _fingerprint(request: Request) -> bytes:
    """What makes two requests the same: where to, from whom, to whom, what."""
    server, envelope = request.server, request.envelope
    # Names are the same in either case (RFC 1035 2.3.3), with a full stop or without.
    host = server.host if server.unix_path is not None else server.host.lower().rstrip(".")
    told = (host, server.port, envelope.sender, [entry.address for entry in envelope.recipients])
    digest = hashlib.sha256(repr(told).encode("utf-8", "surrogatepass"))
    digest.update(hashlib.sha256(request.content.message).digest())
    return digest.digest()


def _octets_beyond(outcome: DeliveryResult | DeliveryError) -> int:
    """What replies take up that are longer than one of many recipients' is counted."""
    replies = {id(entry.reply): entry.reply for entry in outcome.recipients if entry.reply is not None}
    octets = sum(reply.octets for reply in replies.values())
    if isinstance(outcome, DeliveryError):
        octets += len(str(outcome))
    return max(0, octets - _RECIPIENT * len(outcome.recipients))


def _is_kept(outcome: DeliveryResult | DeliveryError) -> bool:
    """Whether it is more than temporary throughout, and surely nothing."""
    if isinstance(outcome, DeliveryError) and not outcome.recipients:
        return not outcome.temporary
    temporary = not isinstance(outcome, DeliveryError) or outcome.temporary
    return not temporary or not all(_may_be_bettered(entry) for entry in outcome.recipients)


def _may_be_bettered(entry: RecipientStatus) -> bool:
    if entry.status is Status.UNKNOWN:
        return not entry.in_doubt
    return entry.status is Status.TEMPORARY_ERROR
