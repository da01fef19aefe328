"""
What became of a request, over all of its tries: what is known, whose turn it
is again, and by which word it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from ...errors import ConnectionLost, DeliveryError, InvalidRequest, RequestTooLarge
from ...smtp.result import DeliveryResult, RecipientStatus, Status

__all__ = ["Outcome", "State", "merge", "outstanding"]


class Outcome(str, Enum):
    """
    What became of a request as a whole; the values are routing keys.

    Of two that fit it is the one further down: where a recipient is in doubt
    nothing else counts, and ``temporary`` says that some recipient would need
    another try, whatever the others had.
    """

    OK = "ok"
    PERMANENT = "permanent"
    #: Some recipients had ``Ok``, the others were refused for good.
    PARTIAL = "partial"
    TEMPORARY = "temporary"
    INDOUBT = "indoubt"
    #: No request at all.
    INVALID = "invalid"


class State(NamedTuple):
    """
    What is known of a request once a try has ended.

    :ivar recipients: one entry a recipient, in the request's order.
    :ivar again: positions of those that need another try.
    :ivar error: why the last try has no verdict; None where it has.
    :ivar known: whether anything was said of the recipients, in any try.
    """

    recipients: Sequence[RecipientStatus]
    again: Sequence[int]
    error: DeliveryError | None
    known: bool

    @property
    def outcome(self) -> Outcome:
        """The word for it, should there be no further try."""
        if isinstance(self.error, (InvalidRequest, RequestTooLarge)):
            return Outcome.INVALID
        if any(entry.in_doubt for entry in self.recipients):
            return Outcome.INDOUBT
        accepted = sum(entry.status is Status.OK for entry in self.recipients)
        if accepted == len(self.recipients):
            return Outcome.OK
        if self.again:
            return Outcome.TEMPORARY
        return Outcome.PARTIAL if accepted else Outcome.PERMANENT

    def told(self, sender: str | None) -> DeliveryResult | DeliveryError:
        """What the reply is made of: verdicts on all, or the lack of some."""
        if all(entry.reply is not None for entry in self.recipients):
            return DeliveryResult(sender, self.recipients)
        error = self.error or ConnectionLost("an earlier try has ended before the verdict")
        return error.concerning(self.recipients if self.known else ())


def outstanding(verdicts: Sequence[RecipientStatus], *, in_doubt: bool) -> list[int]:
    """
    The positions of those whose turn it is, by what earlier tries have left.

    :param in_doubt: whether it is that of recipients in doubt too.
    """
    return [
        position
        for position, entry in enumerate(verdicts)
        if entry.status is Status.TEMPORARY_ERROR
        or (entry.status is Status.UNKNOWN and (in_doubt or not entry.in_doubt))
    ]


def merge(
    before: Sequence[RecipientStatus],
    tried: Sequence[int],
    addresses: Sequence[str],
    outcome: DeliveryResult | DeliveryError,
    *,
    retry_in_doubt: bool,
) -> State:
    """
    What is known after a further try.

    A recipient that is in doubt stays so, whatever a later try meets, until
    some server takes the mail for it, or refuses it for good.  A verdict is
    not given up for the lack of one.

    :param before: what was known before it; empty for the first.
    :param tried: positions of those that it was for.
    :param addresses: of all recipients.
    :param outcome: what became of it.
    :param retry_in_doubt: whether one in doubt is to be tried again.
    """
    error = outcome if isinstance(outcome, DeliveryError) else None
    now = outcome.recipients or [RecipientStatus(addresses[place], Status.UNKNOWN) for place in tried]
    merged = list(before) or [RecipientStatus(address, Status.UNKNOWN) for address in addresses]
    hopeless = error is not None and not error.temporary
    again: list[int] = []
    for place, entry in zip(tried, now, strict=True):
        merged[place] = kept = _better(merged[place], entry, hopeless=hopeless)
        if kept.in_doubt:
            wanted = retry_in_doubt
        elif entry.status is Status.UNKNOWN:
            wanted = not hopeless
        else:
            wanted = entry.status is Status.TEMPORARY_ERROR
        if wanted:
            again.append(place)
    return State(merged, again, error, bool(before) or bool(outcome.recipients))


def _better(old: RecipientStatus, new: RecipientStatus, *, hopeless: bool) -> RecipientStatus:
    if new.in_doubt or new.status in (Status.OK, Status.PERMANENT_ERROR):
        return new
    if old.in_doubt:
        return old
    if new.status is Status.UNKNOWN and not hopeless:
        return old
    return new
