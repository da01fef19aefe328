"""
Python's collector, as a busy daemon wants it.
"""

from __future__ import annotations

import gc
from typing import Final

from twisted.application.service import Service

__all__ = ["SELDOM", "Collector"]

#: Values that are made, and not dropped again, before the collector looks for
#: those that nobody can reach.  A request has some twenty while it is under way,
#: so Python's own 700 had it look each time that a client's octets were read: a
#: tenth of all the time, for nothing, since what is done with knows nobody else.
#: 20,000 of some 100 octets each are 2 MiB, which is what a circle, such as that
#: of a connection that was lost, may wait for.
SELDOM: Final = 20_000


class Collector(Service):
    """
    Has the collector come seldom while the daemon runs, and leave out what was
    there before: modules, which live as long as the process.
    """

    def startService(self) -> None:
        """Tell the collector."""
        Service.startService(self)
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(SELDOM, *self._before[1:])

    def stopService(self) -> None:
        """Leave it as it was."""
        Service.stopService(self)
        gc.set_threshold(*self._before)
        gc.unfreeze()
