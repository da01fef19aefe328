"""
Octets to a socket at once, where nothing is in the way.

A Twisted transport keeps what it is given until the reactor comes round:
two changes of what is watched for, and a further turn, for each write.  With
one flight a mail that is a fifth of what a mail costs.  A socket that has room
takes the octets just as well now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.tcp import Connection


def direct_write(transport: Any) -> Callable[[bytes], None]:
    """
    How to write to ``transport``.

    What the socket does not take at once goes the usual way, so that the
    order, the producer and the end of the connection are as ever; an error is
    found by the reactor.  Transports that are not plain TCP of Twisted's are
    written to as they are.
    """
    if not isinstance(transport, Connection) or transport.TLS:
        write: Callable[[bytes], None] = transport.write
        return write

    def write_now(octets: bytes) -> None:
        if transport.connected and not (
            transport.disconnecting or transport.dataBuffer or transport._tempDataBuffer
        ):
            taken = transport.writeSomeData(octets)
            if taken == len(octets):
                return
            if isinstance(taken, int) and taken > 0:
                octets = octets[taken:]
        transport.write(octets)

    return write_now
