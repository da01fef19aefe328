"""
Faults of a server, scripted: a stage of the session, and what happens there.

A :class:`Fault` is a value.  What each action does is one table,
:data:`_SCRIPTS`: from the action to the steps (see
:mod:`twisted_smtpclient.testing.outbox`) that stand in place of the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeVar

from .outbox import Batch, Flood, Pieces, Wait, abort, close, deaf, stall

__all__ = ["Action", "Fault", "FaultPlan", "Stage"]

_E = TypeVar("_E", bound=Enum)


class Stage(str, Enum):
    """A point of the session at which a fault may act; most bear the name of the command."""

    #: A connection has come in and is to be greeted.
    GREETING = "GREETING"
    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"
    STARTTLS = "STARTTLS"
    #: An AUTH command has come in, with its initial response if it has one.
    AUTH = "AUTH"
    #: A response to a challenge has come in, or ``*``.
    RESPONSE = "RESPONSE"
    #: The first octets of the client's TLS handshake have come in.
    HANDSHAKE = "HANDSHAKE"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    #: ``after_octets`` octets of one mail's content have come in (DATA or BDAT).
    CONTENT = "CONTENT"
    #: The end of DATA's content has come in.
    END_OF_DATA = "."
    #: A BDAT command and its whole chunk have come in.
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    QUIT = "QUIT"
    #: A mail has had its final reply, and nothing that came in is unanswered.
    IDLE = "IDLE"


class Action(str, Enum):
    """What a fault does in place of the reply."""

    #: Close in order: what was said before goes out, then a FIN.
    CLOSE = "CLOSE"
    #: Reset: RST at once; replies that had not left yet are lost.
    RESET = "RESET"
    #: Answer nothing any more, go on reading.
    STALL = "STALL"
    #: Answer nothing any more and stop reading, so that the client's writes fill up.
    DEAF = "DEAF"
    #: The reply one octet every ``interval`` seconds; ``endless``: continuation lines without end.
    TRICKLE = "TRICKLE"
    #: Continuation lines (or ``reply``, again and again) without end, as fast as the client reads.
    FLOOD = "FLOOD"
    #: The octets ``reply`` as they stand.
    REPLY = "REPLY"
    #: The same, by the name of what it is mostly for.
    NONSENSE = REPLY
    #: The octets ``reply`` (421, mostly), then close in order.
    REPLY_AND_CLOSE = "REPLY_AND_CLOSE"
    #: The octets ``reply`` before what they answer is over (CONTENT: the final reply, of which
    #: no other follows), or unasked (IDLE).
    EARLY = "EARLY"
    #: The sink's own reply, and the octets ``reply`` behind it in the same write.
    INJECT = "INJECT"


def _member(kind: type[_E], name: object) -> _E:
    for member in kind.__members__.values():
        if name is member or name == member.value:
            return member
    if isinstance(name, str) and name in kind.__members__:
        return kind.__members__[name]
    raise ValueError(f"{name!r} is no {kind.__name__}; there are {', '.join(kind.__members__)}")


@dataclass(frozen=True)
class Fault:
    """
    At the ``nth`` time that the stage is reached, do this.

    After ``REPLY`` (and the other actions that say something of their own)
    the sink goes on as a server that meant it: a command takes effect if the
    first digit of ``reply`` is 2 (3 for DATA and for a challenge), and 500 or 502 to BDAT means
    that the chunk is then read as commands.  After ``STALL``, ``DEAF`` and
    ``FLOOD`` commands are still recorded and take effect as if they had been
    answered.

    :ivar at: a :class:`Stage`, or its value as a string (``"."`` is the end
        of DATA).
    :ivar do: an :class:`Action`, or its name.
    :ivar reply: raw octets, CRLF included; or a callable that makes them of
        the sink's own reply (see :mod:`twisted_smtpclient.testing.lies`).
    :ivar nth: the how many-th time, counted over all connections from when
        the fault was given to the sink; None: each time.
    :ivar connection: acts (and counts) on this connection only; the first of
        a sink is 1.
    :ivar after_octets: for ``CONTENT``: how many octets of the content, as on
        the wire, have come in.  The sink looks once a read.
    :ivar after: seconds between the stage and the action; nothing is answered
        meanwhile.  At ``IDLE`` the client calls it off by saying something.
    :ivar interval: for ``TRICKLE``: seconds from one octet to the next.
    :ivar endless: for ``TRICKLE``: begin again when ``reply`` is through.
    :raises ValueError: for a stage or action that does not exist, or that
        do not go together.
    """

    at: Stage | str
    do: Action | str
    reply: bytes | Callable[[bytes], bytes] | None = None
    nth: int | None = 1
    connection: int | None = None
    after_octets: int = 0
    after: float = 0.0
    interval: float = 1.0
    endless: bool = False

    def __post_init__(self) -> None:
        at, do = _member(Stage, self.at), _member(Action, self.do)
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "do", do)
        if self.reply == b"" or (do in _NEED_OCTETS and self.reply is None):
            raise ValueError(f"{do.name} needs reply=, the octets to send")
        if do is Action.EARLY and at not in _EARLY_STAGES:
            raise ValueError("EARLY goes with CONTENT and IDLE; elsewhere it is INJECT at the command before")
        if do is Action.INJECT and at in _WITHOUT_REPLY:
            raise ValueError(f"nothing is answered at {at.name} that octets could stand behind")
        if self.after_octets and at is not Stage.CONTENT:
            raise ValueError("after_octets goes with CONTENT")
        if self.nth is not None and self.nth < 1:
            raise ValueError("nth counts from 1")

    def in_answer_to(self, own_reply: bytes) -> Fault:
        """The fault with the octets that its callable makes of the sink's own reply."""
        return replace(self, reply=self.reply(own_reply)) if callable(self.reply) else self

    @property
    def octets(self) -> bytes | None:
        """What there is to say; None: the sink's own reply, or what :meth:`in_answer_to` makes of it."""
        return None if callable(self.reply) else self.reply


_NEED_OCTETS: Final = (Action.REPLY, Action.REPLY_AND_CLOSE, Action.EARLY, Action.INJECT)
_WITHOUT_REPLY: Final = (Stage.CONTENT, Stage.IDLE, Stage.HANDSHAKE)
_EARLY_STAGES: Final = (Stage.CONTENT, Stage.IDLE)

#: After these the sink takes no further octet of the client to heart.
_ENDS: Final = (Action.CLOSE, Action.RESET, Action.REPLY_AND_CLOSE)
_SILENT: Final = (Action.CLOSE, Action.RESET, Action.STALL, Action.DEAF, Action.FLOOD)

_SCRIPTS: Final[dict[Action | str, Callable[[Fault, bytes], Batch]]] = {
    Action.CLOSE: lambda fault, own: [close],
    Action.RESET: lambda fault, own: [abort],
    Action.STALL: lambda fault, own: [stall],
    Action.DEAF: lambda fault, own: [deaf],
    Action.TRICKLE: lambda fault, own: [Pieces(_slow_octets(fault, own), 1, fault.interval, fault.endless)],
    Action.FLOOD: lambda fault, own: [Flood(fault.octets or continued(own))],
    Action.REPLY: lambda fault, own: [said(fault, own)],
    Action.REPLY_AND_CLOSE: lambda fault, own: [said(fault, own), close],
    Action.EARLY: lambda fault, own: [said(fault, own)],
    Action.INJECT: lambda fault, own: [own + (fault.octets or b"")],
}


def steps_of(fault: Fault, own_reply: bytes) -> Batch:
    """What stands in the reply's place."""
    steps = _SCRIPTS[fault.do](fault, own_reply)
    return [Wait(fault.after), *steps] if fault.after and fault.at != Stage.IDLE else steps


def said(fault: Fault, own_reply: bytes) -> bytes:
    """The octets that a client which believed them would go by."""
    return own_reply if fault.octets is None or fault.do in (Action.INJECT, Action.FLOOD) else fault.octets


def heard(fault: Fault, own_reply: bytes) -> bytes:
    """The octets that go out as a reply; empty for the silent, and for what never becomes one."""
    return b"" if fault.do in _SILENT else said(fault, own_reply)


def ends_session(fault: Fault) -> bool:
    return fault.do in _ENDS


def continued(reply: bytes) -> bytes:
    """The reply as one that has not ended: each line with a hyphen behind its code."""
    lines = (reply or b"250 Ok\r\n").splitlines()
    return b"".join(b"%b-%b\r\n" % (line[:3], line[4:]) for line in lines)


def _slow_octets(fault: Fault, own: bytes) -> bytes:
    if fault.octets is not None:
        return fault.octets
    return continued(own) if fault.endless else own


class FaultPlan:
    """
    Which fault acts now.

    :ivar faults: the script, in the order in which it is asked; it may be
        changed at any time.
    """

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults = list(faults)
        # The fault beside its count keeps its id from being given to another.
        self._reached: dict[int, tuple[Fault, int]] = {}

    def take(self, stage: Stage, connection: int) -> Fault | None:
        """The first fault whose time has come; every one that waits for this stage counts it."""
        taken = None
        for fault in {id(each): each for each in self.faults}.values():
            if fault.at != stage or fault.connection not in (None, connection):
                continue
            count = self._reached.get(id(fault), (fault, 0))[1] + 1
            self._reached[id(fault)] = (fault, count)
            if taken is None and fault.nth in (None, count):
                taken = fault
        return taken
