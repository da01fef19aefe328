"""
Types of what callers give, and what is given is checked by hand.

The constructors of values promise
:class:`~twisted_smtpclient.errors.InvalidRequest` for an argument that is not
of its type.  Where they are compiled (see ``setup.py``) the compiler would
check the arguments before them, and raise a TypeError; so for it, they may be
anything.

And what the compiler alone is told of a class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mypy_extensions import mypyc_attr as mypyc_attr

    from .dsn import DSN, Notify
    from .envelope import Recipient
    from .policy import Mode
else:

    def mypyc_attr(**_: bool) -> Callable[[type], type]:
        """
        What the compiler is to know of a class; to Python nothing.

        ``acyclic``: no value of it can be reached from itself, so the collector
        need not look.  That is so of what is valid once built and then stays as it
        is; a mail has five such values, and a tenth of its cost was the collector's.
        """
        return lambda kind: kind


#: True to the compiler alone.
COMPILED = False

if COMPILED:
    Text: TypeAlias = Any
    OptionalText: TypeAlias = Any
    Octets: TypeAlias = Any
    Flag: TypeAlias = Any
    Addresses: TypeAlias = Any
    OptionalParameters: TypeAlias = Any
    OptionalNotify: TypeAlias = Any
    OptionalDSN: TypeAlias = Any
    TryOrDepend: TypeAlias = Any
else:
    Text: TypeAlias = str
    OptionalText: TypeAlias = "str | None"
    Octets: TypeAlias = bytes
    Flag: TypeAlias = bool
    Addresses: TypeAlias = "Iterable[str | Recipient]"
    OptionalParameters: TypeAlias = "Mapping[str, str | None] | None"
    OptionalNotify: TypeAlias = "Collection[Notify] | None"
    OptionalDSN: TypeAlias = "DSN | None"
    TryOrDepend: TypeAlias = "Mode"
