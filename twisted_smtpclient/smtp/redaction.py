"""
Secrets in what a server says: ``***`` stands in their place.

A server that quotes the command it did not understand, or logs in its reply
what it was given, has the secret in an error, a log, a client's screen.  It
may quote it cut to the length of its line, over several lines, in base64 or in
JSON; so what is looked for are parts of a secret, not the secret.

The time is linear in the length of a reply, and some 5 us for one of a line.  A
part is found by looking up each few octets of the reply in a set.  Base64 has
three forms of a secret, so it is decoded rather than compared; whether that
is worth while is told by a few characters of each form.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakValueDictionary

from ..errors import ProtocolError
from .credentials import Secret
from .reply import Reply

_STARS: Final = b"***"

#: Octets of a secret in a row that are hidden as they stand; of one that is
#: not longer all but one of its own.  With fewer, ordinary words would be.
_MIN_RUN: Final = 8

#: The same within base64, whose 8 characters are 5 whole octets at least.
_PART: Final = 5

#: Octets; what is shorter is a secret only where it stands alone, or a reply
#: would show by its gaps what it hides.
_MIN_WITHIN_WORDS: Final = 4

#: Of four octets base64 makes six characters.  RFC 4648's sections 4 and 5.
_BASE64_RUN: Final = re.compile(rb"[A-Za-z0-9+/_-]{6,}={0,2}")

#: Some servers quote in capitals; and base64 has two alphabets.
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_FOLD: Final = bytes(range(256)).lower().translate(_STANDARD)

#: Octets that tell whether a reply is worth a closer look.  Also the first that
#: an error may not quote.
_HINT: Final = 4

#: A code that stands where RFC 2034 has it is what it says, be the secret "2".
_ENHANCED: Final = re.compile(rb"([245])\.\d{1,3}\.\d{1,3}(?:[ \t]+|\Z)")

#: Lines of replies that were looked at before and had nothing to hide: those
#: that servers say again and again, and short enough to have no queue id;
#: "354 End data with <CR><LF>.<CR><LF>" has 35 octets.  Some 20 KiB a session.
_MAX_KNOWN_LINE: Final = 36
_MAX_KNOWN: Final = 256

_HIDDEN: Final = re.compile(rb"\x01+")

_Span = tuple[int, int]


class Redaction:
    """
    What a session has said, or is to say, that nobody else is to read.

    :param secrets: passwords and tokens, of which each part is hidden.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._secrets = {secret: _parts_of(secret) for secret in secrets}
        self._responses: dict[bytes, None] = {}
        self._response_hints: set[bytes] = set()
        self._alone = [pattern for parts in self._secrets.values() for pattern in parts.alone]
        self._known: set[bytes] = set()

    def __repr__(self) -> str:
        return "<Redaction>"

    def add_response(self, response: bytes) -> None:
        """
        What was said to log in: as a whole, as it is and within base64.

        Its parts are a name, which is none, and what is a secret already, or
        was computed of one.
        """
        self._known.clear()
        if len(response) < _MIN_WITHIN_WORDS:
            self._alone += _alone(response)
            return
        self._responses[response.translate(_FOLD)] = None
        for form in (response, *_in_base64(response)):
            # Its end: what many have in common stands in front.
            self._response_hints.add(form.translate(_FOLD)[-_HINT:])

    def clean(self, replies: list[Reply]) -> list[Reply]:
        """
        The same replies without what is secret.

        Their codes stay, and so do enhanced ones.
        """
        if not self._secrets and not self._responses and not self._alone:
            return replies
        return [self._clean(reply) for reply in replies]

    def hide(self, said: bytes) -> bytes:
        """The same octets without what is secret."""
        hidden = self._hide([said])
        return said if hidden is None else hidden[0]

    def blunt(self, error: ProtocolError) -> ProtocolError:
        """
        The same error without the octets that it quotes, or with them where
        they can be no part of a secret.

        They are cut, and escaped: where a part of a secret ends nobody knows.
        """
        told, _, quoted = str(error).partition(": ")
        if self._responses or "\\" in quoted or self._resembles(quoted.encode("utf-8")):
            return ProtocolError(told)
        return error

    def _resembles(self, quoted: bytes) -> bool:
        if self.hide(quoted) != quoted:
            return True
        windows = set(_windows(quoted.translate(_FOLD), _HINT))
        return any(
            not windows.isdisjoint(_windows(form.translate(_FOLD), _HINT))
            for secret in self._secrets
            for form in _forms(secret)
        )

    def _clean(self, reply: Reply) -> Reply:
        lines = reply.lines
        if lines[0] in self._known and len(lines) == 1:
            return reply
        heads = [_head(line) for line in lines]
        hidden = self._hide([line[head:] for line, head in zip(lines, heads, strict=True)])
        if hidden is not None:
            whole = [line[:head] + text for line, head, text in zip(lines, heads, hidden, strict=True)]
            return Reply(reply.code, tuple(whole))
        if len(lines) == 1 and len(lines[0]) <= _MAX_KNOWN_LINE and len(self._known) < _MAX_KNOWN:
            self._known.add(lines[0])
        return reply

    def _hide(self, texts: Sequence[bytes]) -> list[bytes] | None:
        """The same texts, of which one goes on in the next; None where they are as they were."""
        joined = b"".join(texts)
        spans = list(self._spans(joined)) if self._is_worth_a_look(joined) else []
        begin = 0
        for text in texts:
            for pattern in self._alone:
                spans += [(begin + found.start(), begin + found.end()) for found in pattern.finditer(text)]
            begin += len(text)
        if not spans:
            return None
        mask = bytearray(len(joined))
        for first, last in spans:
            mask[first:last] = b"\1" * (last - first)
        return _starred(texts, joined, mask)

    def _is_worth_a_look(self, joined: bytes) -> bool:
        hints = _windows(joined.translate(_FOLD), _HINT)
        if not self._response_hints.isdisjoint(hints):
            return True
        return any(not parts.hints.isdisjoint(hints) for parts in self._secrets.values())

    def _spans(self, joined: bytes) -> Iterator[_Span]:
        """Where a secret stands, or a part of one."""
        folded = joined.translate(_FOLD)
        for parts in self._secrets.values():
            yield from parts.spans(folded)
        for response in self._responses:
            if response in folded:
                yield from (found.span() for found in re.finditer(re.escape(response), folded))
        for run in _BASE64_RUN.finditer(joined):
            if self._is_within(_decoded(run[0])):
                yield run.span()

    def _is_within(self, decoded: bytes) -> bool:
        if any(parts.are_within(decoded) for parts in self._secrets.values()):
            return True
        return any(response in decoded for response in self._responses)


class _Parts:
    """
    One secret's parts.

    :ivar hints: of which at least one is in whatever has a part, also within
        base64.
    :ivar alone: finds those of its forms that are hidden only where they stand
        alone.
    """

    def __init__(self, secret: Secret) -> None:
        self.hints: set[bytes] = set()
        self.alone: list[re.Pattern[bytes]] = []
        # By how many octets each has, and how many follow each other before
        # they count: four of five octets are eight in a row.
        self._found_by: dict[tuple[int, int], set[bytes]] = {}
        for form in _forms(secret):
            if len(form) < _MIN_WITHIN_WORDS:
                self.alone += _alone(form)
                continue
            run = max(_MIN_WITHIN_WORDS, min(_MIN_RUN, len(form) - 1))
            size = min(_PART, run)
            folded = form.translate(_FOLD)
            self._found_by.setdefault((size, run - size + 1), set()).update(_windows(folded, size))
            # In so many octets in a row there is a hint if one is taken every
            # so many.  In base64 five octets fill six characters at least, and
            # four fill four.
            self.hints.update(_windows(folded, _HINT)[:: run - _HINT + 1])
            for encoded in _in_base64(form):
                self.hints.update(_windows(encoded.translate(_FOLD), _HINT)[:: 3 if size == _PART else 1])

    def spans(self, folded: bytes) -> Iterator[_Span]:
        """Where parts of it stand."""
        for (size, count), parts in self._found_by.items():
            in_a_row = 0
            for begin, window in enumerate(_windows(folded, size)):
                in_a_row = in_a_row + 1 if window in parts else 0
                if in_a_row >= count:
                    yield begin - count + 1, begin + size

    def are_within(self, decoded: bytes) -> bool:
        """Whether one of them stands in what was base64."""
        return any(
            not parts.isdisjoint(_windows(decoded, size)) for (size, _), parts in self._found_by.items()
        )


#: The parts of a token of 8000 characters take 1.3 MiB and 6 ms; the sessions of
#: one account share them, and with the last session they are gone.
_parts: Final[WeakValueDictionary[Secret, _Parts]] = WeakValueDictionary()


def _parts_of(secret: Secret) -> _Parts:
    parts = _parts.get(secret)
    if parts is None:
        _parts[secret] = parts = _Parts(secret)
    return parts


def _forms(secret: Secret) -> set[bytes]:
    """As it is, in Latin-1, and as JSON and PHP's idea of it have it."""
    text = secret.text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    ascii_alone = "".join(char if char.isascii() else _utf_16(char) for char in quoted)
    spelt = {text, quoted, ascii_alone}
    spelt |= {spelling.replace("/", "\\/") for spelling in (quoted, ascii_alone)}
    forms = {spelling.encode("utf-8", "surrogateescape") for spelling in spelt}
    with suppress(UnicodeEncodeError):
        forms.add(text.encode("latin-1"))
    return forms


def _utf_16(char: str) -> str:
    """A character by RFC 8259's ``\\uXXXX``; two of them beyond U+FFFF."""
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))


def _windows(octets: bytes, size: int) -> list[bytes]:
    return [octets[n : n + size] for n in range(len(octets) - size + 1)]


def _in_base64(octets: bytes) -> Iterator[bytes]:
    """
    What is the same of them wherever in base64 they stand, by how many octets
    before them: the characters at their ends have bits of their neighbors.
    """
    for before in range(3):
        encoded = b64encode(bytes(before) + octets)
        yield encoded[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]


def _alone(octets: bytes) -> list[re.Pattern[bytes]]:
    """Find it where it is a word, also in base64."""
    encoded = re.escape(b64encode(octets).rstrip(b"=")) + rb"={0,2}"
    return [
        re.compile(rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])" % word, re.IGNORECASE)
        for word in (re.escape(octets), encoded)
    ]


def _decoded(run: bytes) -> bytes:
    """
    What base64 may stand for, by where in it it begins; folded.

    What is missing of four characters at either end is made up, so that each
    whole octet of the rest is there.
    """
    run = run.rstrip(b"=").translate(_STANDARD)
    padded = (b"A" * before + run for before in range(4))
    return b"".join(a2b_base64(chars + b"A" * (-len(chars) % 4)) for chars in padded).translate(_FOLD)


def _head(line: bytes) -> int:
    """How many octets its codes have, and the space behind them."""
    enhanced = _ENHANCED.match(line, 4)
    return enhanced.end() if enhanced is not None and enhanced[1] == line[:1] else 4


def _starred(texts: Sequence[bytes], joined: bytes, mask: bytearray) -> list[bytes]:
    """The texts with stars for each row of octets that the mask hides."""
    starred = []
    begin = 0
    for text in texts:
        end = begin + len(text)
        shown = []
        for hidden in _HIDDEN.finditer(mask, begin, end):
            shown += [joined[begin : hidden.start()], _STARS]
            begin = hidden.end()
        starred.append(b"".join([*shown, joined[begin:end]]))
        begin = end
    return starred
