"""
What is wrong with a line, told to the one who wrote it.

Only lines that were refused come here, so this takes its time: it reads the
line once more, as plain JSON, and goes through it field by field until it can
name one and say what was expected.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from ..errors import DeliveryError, InvalidRequest
from .base64 import decode_base64
from .schema import (
    EXPECTED,
    LEGACY,
    NESTED,
    OF_A_CANCEL,
    OF_A_MAIL,
    REQUIRED,
    REQUIRED_OF_A_PROBE,
    RequestFields,
    RequestId,
    types_of,
)

__all__ = [
    "Rejection",
    "as_value",
    "check_spelling",
    "check_uncommon",
    "find_fault",
    "given_in",
    "id_at_the_start",
]


class Rejection(NamedTuple):
    """
    A line that is no request.

    :ivar id: the line's ``id``, where it has one that is valid; else UNSET.
    """

    id: RequestId
    error: DeliveryError

    @classmethod
    def of(cls, request_id: RequestId, error: DeliveryError) -> Rejection:
        """With the error as a value, which keeps nothing of the line alive."""
        return cls(request_id, as_value(error))


def as_value(error: DeliveryError) -> DeliveryError:
    """
    An error without the frames that it was raised in.

    These hold what they worked on, a line of 64 MiB maybe, and who holds the
    error is often one of them: a cycle, which stays until the collector comes.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


#: A field's name is told back up to here: the names that we know have at most
#: 18 characters, and finding the nearest takes the product of two lengths.
_MAX_NAME: Final = 40

_TYPES: Final = types_of(RequestFields)
_NESTED_TYPES: Final = {field: types_of(struct) for field, struct in NESTED.items()}


def find_fault(line: bytes | bytearray) -> Rejection | None:
    """
    The first thing that is wrong with the form of ``line``.

    :returns: None where each field is known, built, given once and of the
        right type; its value may still be refused.
    """
    repeated: list[str] = []
    try:
        given = _read(line, repeated)
    except InvalidRequest as error:
        return Rejection.of(UNSET, error)
    try:
        _check_names(given)
        if repeated:
            raise InvalidRequest("is given twice", _shown(repeated[0]))
        check_uncommon(given)
        _check_types(given)
        _check_required(given)
    except InvalidRequest as error:
        return Rejection.of(UNSET if "id" in repeated else _valid_id(given), error)
    return None


def check_uncommon(given: Mapping[str, object]) -> None:
    """
    Refuse a legacy spelling beside the field itself, and in a probe or a
    cancel what only a mail can have.

    :param given: the fields that were given, of a line or of its struct.
    """
    check_spelling(given)
    if "cancel" in given:
        for field in given:
            if field not in OF_A_CANCEL:
                raise InvalidRequest("has no meaning in a cancel", field)
    if given.get("probe") is True:
        _check_asked(given, OF_A_MAIL, "has no meaning in a probe")


def check_spelling(given: Mapping[str, object]) -> None:
    """Refuse a legacy spelling beside the field itself."""
    for spelling, field in LEGACY.items():
        if spelling in given and field in given:
            raise InvalidRequest(f"is another spelling of {field}, which is given too", spelling)


def _check_asked(
    given: Mapping[str, object], fields: Mapping[str, tuple[object, ...]], complaint: str
) -> None:
    """Refuse what ``fields`` ask for, other than by the values that ask for nothing."""
    for field, nothing in fields.items():
        if field in given:
            value = given[field]
            # 0 and 1 equal false and true.
            if not any(value == each and type(value) is type(each) for each in nothing):
                raise InvalidRequest(complaint, field)


#: Digits of an integer, its sign among them: as many as Python reads.
_MAX_DIGITS: Final = 4300


def _number(digits: str) -> int | float:
    """An integer; one that is too long is a number that fits no field."""
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _read(line: bytes | bytearray, repeated: list[str]) -> dict[str, object]:
    """The line as an object; names that stand twice in one object go to ``repeated``."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                repeated.append(name)
            found[name] = value
        return found

    try:
        # Given octets, json would take UTF-16 and a byte order mark too.
        given = json.loads(str(line, "utf-8"), object_pairs_hook=unique, parse_int=_number)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"expected UTF-8, which the octet at {error.start} is not") from None
    except RecursionError:
        raise InvalidRequest("expected a JSON object, not one nested so deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"expected a JSON object; this is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidRequest("expected a JSON object")
    return given


#: Where most clients put an id: first in the object, and whole.
_FIRST_ID: Final = re.compile(
    rb'[ \t\r]*(\{[ \t\r]*"id"[ \t\r]*:[ \t\r]*(?:"(?:[^"\\]|\\.)*"|-?\d+)[ \t\r]*),'
)


def id_at_the_start(head: bytes) -> RequestId:
    """
    The ``id`` of a line of which only the start was kept.

    :returns: UNSET unless it stands first, and whole: what comes behind is
        not known.
    """
    match = _FIRST_ID.match(head)
    try:
        return UNSET if match is None else _valid_id(_read(match[1] + b"}", []))
    except (InvalidRequest, ValueError, RecursionError):
        return UNSET


def _valid_id(given: Mapping[str, object]) -> RequestId:
    value = given.get("id", UNSET)
    if isinstance(value, str):
        return value if _is_text(value) else UNSET
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return UNSET


def _is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: a lone surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _strings_within(value: object) -> Iterator[str]:
    """The strings in a value, the names of its objects included; however deep, without recursion."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, list):
            left += inner
        elif isinstance(inner, dict):
            left += [*inner, *inner.values()]


def _objects(given: Mapping[str, object], *fields: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The objects in these fields, each with the name of its place."""
    for field in fields:
        value = given.get(field)
        if isinstance(value, list):
            for position, entry in enumerate(value):
                inner = given_in(entry) if isinstance(entry, Struct) else entry
                if isinstance(inner, dict):
                    yield f"{field}[{position}]", inner
        elif isinstance(value, dict):
            yield field, value


def given_in(struct: Struct) -> dict[str, object]:
    """The fields of a struct that were given."""
    fields = msgspec.structs.asdict(struct)
    return {name: value for name, value in fields.items() if value is not UNSET}


def _check_names(given: Mapping[str, object]) -> None:
    _check_known(given, _TYPES.keys(), "")
    for field, inner in _objects(given, *NESTED, "recpients"):
        _check_known(inner, _NESTED_TYPES[_outer(field)].keys(), f"{field}.")


def _outer(place: str) -> str:
    """The field itself, of a place such as ``recpients[3]``."""
    field = place.partition("[")[0]
    return LEGACY.get(field, field)


def _check_known(given: Mapping[str, object], known: Collection[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            right = [field for field in known if field not in LEGACY]
            nearest = get_close_matches(name[:_MAX_NAME].lower(), right, n=1, cutoff=0.0)[0]
            raise InvalidRequest(f"unknown field; the nearest known name is {nearest}", prefix + _shown(name))


def _shown(name: str) -> str:
    """A name from the line, fit for an error's text."""
    shown = name[:_MAX_NAME].encode("unicode_escape").decode("ascii")
    return f"{shown}..." if len(name) > _MAX_NAME else shown


def _check_types(given: Mapping[str, object]) -> None:
    for field, value in given.items():
        if LEGACY.get(field, field) == "recipients":
            _check_recipients(value, field)
        elif field == "message":
            _check_type(value, str, EXPECTED[field], field)
            decode_base64(str(value))
        else:
            if field in NESTED and isinstance(value, dict):
                _check_inside(value, field, field)
            _check_type(value, _TYPES[field], EXPECTED[field], field)


def _check_recipients(value: object, field: str) -> None:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(EXPECTED["recipients"], field)
    for position, entry in enumerate(value):
        place = f"{field}[{position}]"
        if not isinstance(entry, dict):
            _check_type(entry, str, "expected an address, as a string or in an object", place)
            continue
        if "address" not in entry:
            raise InvalidRequest("is required", f"{place}.address")
        _check_inside(entry, "recipients", place)


def _check_inside(value: Mapping[str, object], outer: str, place: str) -> None:
    """The fields of an object, of which some have words of their own."""
    for name, inner in value.items():
        expected = EXPECTED.get(f"{outer}.{name}", EXPECTED[outer])
        _check_type(inner, _NESTED_TYPES[outer][name], expected, f"{place}.{name}")


def _check_type(value: object, type_: object, expected: str, field: str) -> None:
    if not all(map(_is_text, _strings_within(value))):
        # Not only is it no text: msgspec would raise what is no complaint.
        raise InvalidRequest("expected Unicode; this has half of a surrogate pair", field)
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        raise InvalidRequest(expected, field) from None


def _check_required(given: Mapping[str, object]) -> None:
    if "cancel" in given:
        return
    present = {LEGACY.get(field, field) for field in given}
    for field in REQUIRED_OF_A_PROBE if given.get("probe") is True else REQUIRED:
        if field not in present:
            raise InvalidRequest(f"is required; {EXPECTED[field]}", field)
