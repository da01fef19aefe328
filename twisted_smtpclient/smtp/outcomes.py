"""
What becomes of a connection's mails, and who is in doubt when it ends.

In doubt is a mail whose content was written whole, whose final reply is
missing, and before which nothing on the connection was answered with 421.
Replies come in order, so what stands behind a 421 was not done.
"""

from __future__ import annotations

from typing import Final

from ..errors import DeliveryError
from .result import DeliveryResult
from .steps import Stage
from .transaction import Transaction

#: More mails than a connection has.
_NONE: Final = 1 << 60


class Outcomes:
    """
    Settles mails, each once.

    :ivar finished: those that were settled, for the caller to take.
    :ivar nothing_behind: what stands behind the reply just taken was not done.
    """

    def __init__(self) -> None:
        self.finished: list[Transaction] = []
        self.nothing_behind = False
        #: what was begun from this number on is held back
        self._held_from = _NONE
        #: begun before, and held back is its end
        self._held_end: Transaction | None = None

    def take(self) -> list[Transaction]:
        """What has finished, which is the caller's from now on."""
        finished, self.finished = self.finished, []
        return finished

    def hold(self, begun: int, writing: Transaction | None) -> None:
        """What is written from now on is held back: so many were begun, and of this one the end is left."""
        self._held_from = begun
        self._held_end = writing

    def release(self) -> None:
        """What was held back goes."""
        self._held_from = _NONE
        self._held_end = None

    def holds(self, transaction: Transaction) -> bool:
        """Whether nothing of it was written, so that no reply can be its own."""
        return transaction.number >= self._held_from

    def settle(self, transaction: Transaction, outcome: DeliveryResult | DeliveryError) -> None:
        """What has become of it, where that is not known yet."""
        if transaction.outcome is None:
            transaction.outcome = outcome
            self.finished.append(transaction)

    def settle_error(
        self,
        transaction: Transaction,
        error: DeliveryError,
        *,
        in_doubt: bool = False,
        untouched: bool = False,
    ) -> None:
        """
        The same for an error, which is told what is known of each recipient.

        :param untouched: nothing of the mail was done, so that it may go elsewhere.
        """
        if transaction.outcome is not None:
            # Cancelled; what comes of it now concerns nobody.
            return
        if transaction.mail_is_written:
            error = error.concerning(transaction.statuses(in_doubt=in_doubt))
        transaction.untouched = untouched
        self.settle(transaction, error)

    def cancel(self, transaction: Transaction, error: DeliveryError) -> None:
        """One that the user wants no more of, wherever it stands."""
        self.settle_error(transaction, error, in_doubt=self._may_be_done(transaction))

    def conclude(self, transaction: Transaction, error: DeliveryError, *, moves: bool = True) -> None:
        """
        One whose replies will not all come.

        :param moves: whether it may go elsewhere if it was not done.
        """
        if not transaction.moves and (verdict := transaction.last_words()) is not None:
            self.settle(transaction, verdict)
            return
        held = transaction is self._held_end or self.holds(transaction)
        in_doubt = not held and self._may_be_done(transaction)
        self.settle_error(transaction, error, in_doubt=in_doubt, untouched=moves and not in_doubt)

    def _may_be_done(self, transaction: Transaction) -> bool:
        """Whether the server may have taken the mail, and not told us yet."""
        if transaction.stage is not Stage.WHOLE:
            return False
        # A server that goes on to answer a content has done it, over LMTP
        # for each recipient, whatever it said before.
        return not self.nothing_behind or transaction.content_answered
