"""
Enough file descriptors for as many clients as are allowed.

Of a client beyond the limit Twisted's port accepts the connection with a
descriptor that it keeps for this, and closes it; the client sees a reset, and
the log says EMFILE.  So there had better be enough.
"""

from __future__ import annotations

import resource
from typing import Final

from twisted.logger import Logger

__all__ = ["BESIDES", "allow_files"]

#: Descriptors for all that are no clients: connections to servers (ten to each
#: of a hundred), ports, the log.
BESIDES: Final = 1024

_log = Logger(__name__)


def allow_files(clients: int) -> None:
    """
    Raise this process's limit of open files to what so many clients need, as
    far as it may; the log says so where that is not far enough.

    Only the soft limit is touched, which is low for the sake of programs that
    use ``select()``; a reactor that does (``--reactor select``) cannot have so
    many clients anyway.
    """
    wanted = clients + BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, wanted):
        return
    most = wanted if _is_enough(hard, wanted) else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        # A sandbox may have a say in it too.
        most = soft
    if most < wanted:
        _log.warn(
            "{clients} clients may connect, but only {most} files may be open, where {wanted} are wanted: "
            "raise the limit (LimitNOFILE=, ulimit -n), or lower --max-clients",
            clients=clients,
            most=most,
            wanted=wanted,
        )


def _is_enough(limit: int, wanted: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= wanted
