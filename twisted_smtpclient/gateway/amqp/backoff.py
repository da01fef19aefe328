"""
Seconds between one try to reach the broker and the next.
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["LONGEST", "Backoff"]

#: Seconds before the first further try, and the most before a later one.
SHORTEST: Final = 1.0
LONGEST: Final = 30.0


class Backoff:
    """Waits that double, up to :data:`LONGEST`; each somewhat random, for daemons are many."""

    def __init__(self) -> None:
        self._last = 0.0

    def next(self) -> float:
        """Seconds to wait now."""
        self._last = min(LONGEST, self._last * 2 or SHORTEST)
        return self._last * random.uniform(0.75, 1.0)  # noqa: S311  # nothing is guessed from it

    def reset(self) -> None:
        """All is well again."""
        self._last = 0.0
