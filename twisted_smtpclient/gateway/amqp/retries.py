"""
Whether there is another try, and when.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .progress import Progress

__all__ = ["AGE", "ATTEMPTS", "DELAYS", "Retries"]

#: RFC 5321 section 4.5.4.1: a client gives up after four to five days, and
#: tries twice in the first hour.  Three hours apart makes 40 tries in the rest.
DELAYS: Final = (60, 300, 900, 3600, 10800)
ATTEMPTS: Final = 50
AGE: Final = 5 * 24 * 3600.0


class Retries(NamedTuple):
    """
    :ivar attempts: tries in all, the first included.
    :ivar age: seconds after the first within which the last is begun.
    :ivar delays: seconds before the second try, the third, and so on; the last
        of them before all further ones.
    :ivar in_doubt: whether recipients in doubt are tried again, which may
        deliver to them twice.
    """

    attempts: int = ATTEMPTS
    age: float = AGE
    delays: tuple[int, ...] = DELAYS
    in_doubt: bool = False

    def delay(self, progress: Progress, now: float) -> int | None:
        """Seconds from this try to the next; None where there is none."""
        if progress.attempt >= self.attempts:
            return None
        delay = self.delays[min(progress.attempt, len(self.delays)) - 1]
        return delay if now + delay - progress.first_seen <= self.age else None
