"""
Exit statuses, and running the reactor to one.

The numbers are those of ``sysexits.h``, which sendmail and its successors use:
a caller may ask again later on 75 and on nothing else.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import DeliveryError, InternalError
from ..smtp.result import RecipientStatus, Status

T = TypeVar("T")

#: The server took the mail for every recipient.
OK: Final = 0
#: EX_NOINPUT: the message cannot be read.
NO_INPUT: Final = 66
#: EX_UNAVAILABLE: a recipient or the request was refused for good.
PERMANENT: Final = 69
#: EX_SOFTWARE: a fault of this software.
FAULT: Final = 70
#: EX_OSERR: the operating system said no, such as to a port that is in use.
SYSTEM: Final = 71
#: EX_TEMPFAIL: nothing but temporary failures: the same command may succeed later.
TEMPORARY: Final = 75
#: EX_PROTOCOL: it is in doubt whether the mail was accepted; sent again, it
#: may arrive twice.
IN_DOUBT: Final = 76
#: 128 and the number of SIGINT, as shells have it.
INTERRUPTED: Final = 128 + signal.SIGINT


def of_recipients(recipients: Iterable[RecipientStatus]) -> int:
    """The status that tells most: doubt, then permanent, then temporary."""
    recipients = tuple(recipients)
    if any(entry.in_doubt for entry in recipients):
        return IN_DOUBT
    if any(entry.status is Status.PERMANENT_ERROR for entry in recipients):
        return PERMANENT
    return OK if all(entry.status is Status.OK for entry in recipients) else TEMPORARY


def of_error(error: DeliveryError) -> int:
    """The status for a delivery without a verdict."""
    if isinstance(error, InternalError):
        return FAULT
    if error.in_doubt:
        return IN_DOUBT
    if not error.temporary:
        return PERMANENT
    return PERMANENT if of_recipients(error.recipients) == PERMANENT else TEMPORARY


class Interrupted(Exception):
    """
    A signal ended the program.

    :ivar status: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def run(main: Callable[[Any], Awaitable[T]]) -> T:
    """
    Run the reactor until ``main(reactor)`` has a result.

    Whatever is still under way when a signal comes is left; nothing more is
    said of it.

    :raises Interrupted: on SIGINT and SIGTERM.
    :raises Exception: what ``main`` raised.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    outcome: list[T | Failure] = []

    def end(result: T | Failure) -> None:
        if not outcome:
            outcome.append(result)
            reactor.stop()

    def interrupt(number: int, _: object) -> None:
        reactor.callFromThread(end, Failure(Interrupted(number)))

    async def called() -> T:
        return await main(reactor)

    # Twisted takes both for itself unless told not to.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(called()).addBoth(end))
    reactor.run(installSignalHandlers=False)
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result
