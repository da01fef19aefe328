from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_smtpclient.gateway.framing import LineBuffer


def fed(chunks: list[bytes], max_line: int = 10) -> list[bytes | None]:
    buffer = LineBuffer(max_line)
    lines = [line for chunk in chunks for line in buffer.feed(chunk)]
    last = buffer.end()
    if last != b"":
        lines.append(last)
    return [None if line is None else bytes(line) for line in lines]


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"", []),
        (b"a\nb\r\n\n", [b"a", b"b\r", b""]),
        (b"a", [b"a"]),
        (b"0123456789\n", [b"0123456789"]),
        (b"0123456789\r\n", [b"0123456789\r"]),
        (b"0123456789", [b"0123456789"]),
        (b"0123456789x\nb\n", [None, b"b"]),
        (b"0123456789\rx\nb\n", [None, b"b"]),
        (b"a\n" + b"x" * 100 + b"\n\nb", [b"a", None, b"", b"b"]),
        (b"x" * 100, [None]),
        (b"x" * 100 + b"\n" + b"y" * 100 + b"\n" + b"z" * 100, [None, None, None]),
    ],
)
def test_lines_are_the_same_however_the_octets_are_split(octets: bytes, lines: list[bytes | None]) -> None:
    assert fed([octets]) == lines
    assert fed([octets[i : i + 1] for i in range(len(octets))]) == lines
    for cut in range(len(octets)):
        assert fed([octets[:cut], octets[cut:]]) == lines


@given(st.lists(st.text("a\r\n", max_size=14).map(str.encode)))
def test_any_split_gives_the_same_lines(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    long = [len(line) - line.endswith(b"\r") > 10 for line in expected]
    assert fed(chunks) == [None if too_long else line for line, too_long in zip(expected, long, strict=True)]


def test_a_line_is_told_to_be_too_long_before_its_end_comes_and_only_once() -> None:
    buffer = LineBuffer(10)
    assert list(buffer.feed(b"x" * 11)) == [None]
    assert list(buffer.feed(b"x" * 1000)) == []
    assert buffer.pending == 0
    assert list(buffer.feed(b"x\nnext\n")) == [b"next"]


def test_a_long_line_is_copied_once_for_all_its_chunks() -> None:
    class Counting(bytearray):
        """Counts the octets that are added to it; adding to it is all that is done."""

        added = 0

        def __iadd__(self, other: Any) -> Counting:  # type: ignore[misc]
            Counting.added += len(other)
            super().__iadd__(other)
            return self

    buffer = LineBuffer(1 << 20)
    buffer._tail = Counting()
    for _ in range(1024):
        assert list(buffer.feed(b"x" * 1024)) == []
        assert isinstance(buffer._tail, Counting)
    (line,) = buffer.feed(b"\n")
    assert line is not None
    assert len(line) == 1 << 20
    assert Counting.added == 1 << 20
