"""
Making very many values at once.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: From so many values on, the collector would come a dozen times.
MANY: Final = 10_000


@contextmanager
def many_values() -> Iterator[None]:
    """
    Leave the collector out while many values are made.

    They are all kept, and none knows another, so it would find nothing; but it
    looks at all there are, again and again, which made a recipient of 100,000
    cost twice as much as one of 10,000.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
