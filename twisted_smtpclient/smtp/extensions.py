"""
What a server offers: an EHLO or LHLO reply, read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from .grammar import ESMTP_KEYWORD
from .reply import Reply

#: size-value = 1*20DIGIT                                    RFC 1870 section 3
_SIZE: Final = re.compile(r"\d{1,20}", re.ASCII)


class Extensions(Mapping[str, tuple[str, ...]]):
    """
    The extensions of a session, by keyword in upper case.

    A keyword that is given more than once has the parameters of all its
    lines, in order, each once; ``AUTH=LOGIN`` (an old spelling) counts as
    ``AUTH LOGIN``.  Lines that are not a keyword are passed over, as RFC 5321
    section 4.1.1.1 would have it; the first line is the server's name and
    never a keyword.
    """

    __slots__ = ("_keywords", "chunking", "eightbitmime", "pipelining", "size", "size_limit", "smtputf8")

    def __init__(self, keywords: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._keywords: dict[str, tuple[str, ...]] = dict(keywords or {})
        # Each mail asks for these; an attribute costs a tenth of a look-up.
        self.pipelining = "PIPELINING" in self._keywords
        self.chunking = "CHUNKING" in self._keywords
        self.size = "SIZE" in self._keywords
        self.eightbitmime = "8BITMIME" in self._keywords
        self.smtputf8 = "SMTPUTF8" in self._keywords
        #: The largest message in octets (RFC 1870 section 4).  None where the
        #: server tells none: no SIZE, SIZE alone, 0, or not a number.
        self.size_limit = _size_limit(self._keywords.get("SIZE", ()))

    @classmethod
    def parse(cls, reply: Reply) -> Extensions:
        """Read a positive reply to EHLO or LHLO."""
        # Each keyword's parameters are the keys of a dict: looking through a
        # tuple for each one took a second and more for a hostile reply.
        keywords: dict[str, dict[str, None]] = {}
        for line in reply.lines[1:]:
            words = line[4:].decode("ascii", "backslashreplace").split()
            if words and words[0].upper().startswith("AUTH="):
                words = ["AUTH", *words[0][5:].split(), *words[1:]]
            if not words or not ESMTP_KEYWORD.fullmatch(words[0]):
                continue
            keywords.setdefault(words[0].upper(), {}).update(dict.fromkeys(words[1:]))
        return cls({keyword: tuple(parameters) for keyword, parameters in keywords.items()})

    def without(self, *keywords: str) -> Extensions:
        """The same extensions less ``keywords``."""
        return Extensions({key: value for key, value in self._keywords.items() if key not in keywords})

    def __getitem__(self, keyword: str) -> tuple[str, ...]:
        return self._keywords[keyword]

    def __contains__(self, keyword: object) -> bool:
        return keyword in self._keywords

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)

    def __repr__(self) -> str:
        return f"<Extensions {' '.join(self._keywords)}>"


def _size_limit(parameters: tuple[str, ...]) -> int | None:
    for value in parameters[:1]:
        if _SIZE.fullmatch(value):
            return int(value) or None
    return None
