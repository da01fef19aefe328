"""
Requests that this process has under way, or has finished: so that one which
the broker delivers once more is known again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from ..memory import Memory

if TYPE_CHECKING:
    from .job import Job

__all__ = ["Finished", "Identity", "Known"]

#: Octets of one that has finished: the record, the identity, its strings.
_RECORD: Final = 512


class Identity(NamedTuple):
    """
    What makes two deliveries of the broker the same request at the same try.

    :ivar queue: where it came from.
    :ivar name: its ``message_id``, or its ``key``.
    :ivar attempt: the number of the try: the next one has the same name.
    :ivar body: a hash of the body, for a name may be given twice.
    """

    queue: str
    name: str
    attempt: int
    body: int


class Finished:
    """In the place of a job whose outcome, or next try, the broker has."""


_FINISHED: Final = Finished()


class Known:
    """
    The requests that are known.

    Those that have ended are remembered because an acknowledgement is not
    confirmed: it may be lost with the connection.  The newest are kept.

    :param memory: what they are counted in; they take up a sixteenth of it at
        the most: with 512 MiB, 65,536 of them.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._most = max(1, memory.limit // (16 * _RECORD))
        self._under_way: dict[Identity, Job] = {}
        self._finished: OrderedDict[Identity, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Known: {len(self._under_way)} under way, {len(self._finished)} finished>"

    def get(self, identity: Identity) -> Job | Finished | None:
        """What is known of a request."""
        job = self._under_way.get(identity)
        if job is None and identity in self._finished:
            return _FINISHED
        return job

    def begins(self, identity: Identity, job: Job) -> None:
        """It is under way."""
        self._under_way[identity] = job

    def ends(self, identity: Identity, job: Job, *, finished: bool) -> None:
        """It is so no more; ``finished`` where the broker has its outcome."""
        if self._under_way.get(identity) is job:
            del self._under_way[identity]
        if finished and identity not in self._finished:
            self._finished[identity] = None
            self._memory.take(_RECORD)
            if len(self._finished) > self._most:
                self._finished.popitem(last=False)
                self._memory.give_back(_RECORD)

    def forget(self) -> None:
        """All that has ended."""
        self._memory.give_back(_RECORD * len(self._finished))
        self._finished.clear()
