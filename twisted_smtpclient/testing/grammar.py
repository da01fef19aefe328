"""
The sink's own reading of commands, which shares nothing with the client's.

A sink that used the client's parser would find right whatever the client
does.
"""

from __future__ import annotations

import re
from typing import Final

from .records import Parameters

Match = re.Match[bytes]

_FLAGS: Final = re.IGNORECASE | re.DOTALL

#: Path = "<" … ">" (RFC 5321 4.1.2); a quoted local-part may contain ">".
_PATH: Final = rb'([ \t]*)<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>(?:[ \t]+(.*))?$'
MAIL: Final = re.compile(rb"FROM:" + _PATH, _FLAGS)
RCPT: Final = re.compile(rb"TO:" + _PATH, _FLAGS)

#: bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] (RFC 3030 2); 20 digits hold 64 bits.
BDAT: Final = re.compile(rb"([0-9]{1,20})( LAST)?$", re.IGNORECASE)

#: esmtp-param (RFC 5321 4.1.2); RFC 6531 3.3 lets octets over 127 into values.
_PARAMETER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?$")

#: No octet of a command may be one of these (RFC 5321 4.1.1: tab is none of them, but no ABNF has it).
CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")

#: A code point, without half of a surrogate pair (RFC 6533 3).
_HEXPOINT: Final = "(?:[0-9A-F]{2,3}|(?!D[89A-F])[0-9A-F]{4}|[1-9A-F][0-9A-F]{4}|10[0-9A-F]{4})"
_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"

#: What the value of a known parameter looks like (RFC 1870, 6152, 3030, 6531, 3461, 4954 5, 8689, 2852,
#: 4865, 6710).
VALUES: Final = {
    "SIZE": re.compile(r"[0-9]{1,20}"),
    "BODY": re.compile(r"7BIT|8BITMIME|BINARYMIME", re.IGNORECASE),
    "RET": re.compile(r"FULL|HDRS", re.IGNORECASE),
    # 100 characters at most (RFC 3461 4.4).
    "ENVID": re.compile(rf"(?=.{{1,100}}$){_XTEXT}"),
    "AUTH": re.compile(_XTEXT),
    # R with no time left would have to bounce at once (RFC 2852 4).
    "BY": re.compile(r"[+-]?[0-9]{1,9};NT?|\+?(?!0+;)[0-9]{1,9};RT?", re.IGNORECASE),
    "HOLDFOR": re.compile(r"[1-9][0-9]{0,8}"),
    "HOLDUNTIL": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})",
        re.IGNORECASE,
    ),
    "MT-PRIORITY": re.compile(r"-?[1-9]|0"),
    "NOTIFY": re.compile(
        r"NEVER|(?!.*(SUCCESS|FAILURE|DELAY).*\1)(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*",
        re.IGNORECASE,
    ),
    # 500 characters at most (RFC 3461 4.2).  An address of type utf-8 has an escape of its own, and
    # may go without where SMTPUTF8 was asked for (RFC 6533 3).
    "ORCPT": re.compile(
        rf"(?=.{{1,500}}$)(?:(?!(?i:utf-8);)[A-Za-z0-9-]+;{_XTEXT}"
        rf"|(?i:utf-8);(?:[!-*,-<>-\[\]-~\x80-\U0010ffff]|\\x\{{{_HEXPOINT}\}})+)"
    ),
}

#: Parameters that go without a value.
BARE: Final = frozenset({"SMTPUTF8", "REQUIRETLS"})

#: The extension a parameter belongs to, where it does not bear its name.
EXTENSION_OF: Final = {
    "BODY": "8BITMIME",
    "RET": "DSN",
    "ENVID": "DSN",
    "NOTIFY": "DSN",
    "ORCPT": "DSN",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
}

#: Parameters that belong to one of the two commands only.
OF_MAIL: Final = frozenset(
    {
        "SIZE",
        "BODY",
        "SMTPUTF8",
        "RET",
        "ENVID",
        "AUTH",
        "REQUIRETLS",
        "BY",
        "HOLDFOR",
        "HOLDUNTIL",
        "MT-PRIORITY",
    }
)
OF_RCPT: Final = frozenset({"NOTIFY", "ORCPT"})


def text(octets: bytes) -> str:
    """UTF-8; octets that are not, as surrogates."""
    return octets.decode("utf-8", "surrogateescape")


def parameters(octets: bytes | None) -> Parameters | None:
    """What stood behind the path; None if it is no list of parameters, or names one twice."""
    if not octets:
        return {}
    found: Parameters = {}
    for word in octets.split():
        match = _PARAMETER.match(word)
        if match is None:
            return None
        keyword = match[1].decode("ascii").upper()
        if keyword in found:
            return None
        found[keyword] = None if match[2] is None else text(match[2])
    return found


def bad_value(found: Parameters) -> str | None:
    """The first parameter whose value is not what its RFC asks for."""
    for keyword, value in found.items():
        pattern = VALUES.get(keyword)
        if keyword in BARE and value is not None:
            return keyword
        if pattern is not None and (value is None or pattern.fullmatch(value) is None):
            return keyword
    return None
