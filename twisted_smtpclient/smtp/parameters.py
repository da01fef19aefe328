"""
ESMTP parameters that stand behind a path as they were given (RFC 5321 section
4.1.2): for extensions of which this package knows no more than the keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import InvalidRequest
from .grammar import ESMTP_KEYWORD, ESMTP_VALUE

#: All parameters of one command; the extensions of RFC 5321 4.5.3.1.4's kind
#: together allow some 1,500 octets.
MAX_PARAMETERS: Final = 2048

#: Those that are sent as something else of a request has it.
_SENT_ANYWAY: Final = frozenset(
    {"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID", "NOTIFY", "ORCPT", "REQUIRETLS"}
)

#: The extension of a parameter that does not bear its name (RFC 2852 section
#: 4, RFC 4865 section 4).
_EXTENSIONS: Final = {"BY": "DELIVERBY", "HOLDFOR": "FUTURERELEASE", "HOLDUNTIL": "FUTURERELEASE"}


def parameters(given: Mapping[str, str | None], field: str = "parameters") -> bytes:
    """
    The parameters' octets, each with a space before it.

    :raises InvalidRequest: naming ``field``, where a keyword or value is not
        of RFC 5321's grammar, a keyword is given twice, or has a place of its
        own in a request.
    """
    words: dict[str, str] = {}
    left = MAX_PARAMETERS
    for keyword, value in given.items():
        if not isinstance(keyword, str):
            raise InvalidRequest("expected a string for each keyword", field)
        if not isinstance(value, str | None):
            raise InvalidRequest("expected a string or None for each value", field)
        # Before anything else looks at them, or tells them in an error.
        left -= len(keyword) + 1 + (0 if value is None else len(value) + 1)
        if left < 0:
            raise InvalidRequest(f"expected at most {MAX_PARAMETERS} octets", field)
        if not ESMTP_KEYWORD.fullmatch(keyword):
            raise InvalidRequest(f"not an ESMTP keyword: {keyword!r}", field)
        name = keyword.upper()
        if name in _SENT_ANYWAY:
            raise InvalidRequest("is not sent from here: it has a field of its own", f"{field}.{keyword}")
        if name in words:
            raise InvalidRequest("is given twice", f"{field}.{keyword}")
        if value is None:
            words[name] = f" {keyword}"
        elif ESMTP_VALUE.fullmatch(value):
            words[name] = f" {keyword}={value}"
        else:
            raise InvalidRequest(f"not an ESMTP value: {value!r}", f"{field}.{keyword}")
    return "".join(words.values()).encode("ascii")


def extensions_of(given: Mapping[str, str | None], field: str = "parameters") -> dict[str, str]:
    """
    The extensions that parameters ask for, by keyword in upper case.

    :returns: beside each the field that asks for it, such as
        ``parameters.BY``.
    """
    asked: dict[str, str] = {}
    for keyword in given:
        name = keyword.upper()
        asked.setdefault(_EXTENSIONS.get(name, name), f"{field}.{keyword}")
    return asked
