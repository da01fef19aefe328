"""What headers carry from one try to the next."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from tests.gateway.fakes import unknown, verdict
from twisted_smtpclient.errors import InvalidRequest
from twisted_smtpclient.gateway.amqp.progress import Progress, carried, read
from twisted_smtpclient.gateway.amqp.retries import Retries

VERDICTS = [
    verdict("a@x.de"),
    verdict("b@x.de", "450-4.2.0 one\n450 4.2.0 two", "RCPT"),
    unknown("c@x.de", in_doubt=True),
    unknown("d@x.de", in_doubt=False),
]


def test_a_message_without_headers_is_for_the_first_try() -> None:
    assert read(None, 12.5) == read({}, 12.5) == Progress(1, 12.5)


def test_what_is_written_is_read() -> None:
    progress = Progress(3, 1_700_000_000, VERDICTS, redelivered=True)
    headers = progress.headers()
    assert headers is not None
    assert read(headers, 0.0) == progress


def test_many_verdicts_are_packed() -> None:
    progress = Progress(2, 5, [verdict(f"{number}@x.de") for number in range(5000)])
    headers = progress.headers()
    assert headers is not None
    assert isinstance(headers["x-smtpclient-verdicts"], bytes)
    assert len(headers["x-smtpclient-verdicts"]) < 65536
    assert read(headers, 0.0) == progress


def test_verdicts_that_fit_no_frame_have_no_headers() -> None:
    # Each with other words, of which nothing can be packed.
    texts = [f"250 {zlib.crc32(b'%d' % number):x}{number * 7919:x}" for number in range(20000)]
    assert Progress(2, 5, [verdict("a@x.de", text) for text in texts]).headers() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempt", 0),
        ("attempt", "2"),
        ("attempt", True),
        ("attempt", 10**9),
        ("first-seen", -1),
        ("first-seen", "now"),
        ("first-seen", 10**12),
        ("verdicts", "nonsense"),
        ("verdicts", 7),
        ("verdicts", b"not packed"),
        ("verdicts", '[{"recipient": "a@x.de", "status": "Ok"}]'),
        ("verdicts", '[{"recipient": "a@x.de", "status": "Ok", "code": 550, "response": "550 no"}]'),
        ("verdicts", '[{"recipient": "a@x.de", "status": "Fine"}]'),
        ("verdicts", zlib.compress(b" " * (64 * 1024 * 1024 + 1))),
    ],
)
def test_a_header_that_is_none_of_ours_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read({f"x-smtpclient-{name}": value}, 0.0)
    assert caught.value.field == f"x-smtpclient-{name}"


def test_neither_ours_nor_the_broker_s_headers_go_on_but_the_user_s_do() -> None:
    # With x-death the broker would take the third try for a circle, and drop it.
    headers = {
        "x-death": [{"queue": "mail.retry.60"}],
        "x-first-death-queue": "mail.retry.60",
        "x-last-death-reason": "expired",
        "x-delivery-count": 2,
        "x-smtpclient-attempt": 2,
        "x-tenant": "anna",
    }
    assert carried(headers) == {"x-tenant": "anna"}
    assert carried(None) == {}


def test_where_else_a_request_has_gone_it_does_not_go_again_with_each_try() -> None:
    assert carried({"CC": ["audit"], "BCC": ["more"], "x-cc": "kept"}) == {"x-cc": "kept"}


@pytest.mark.parametrize(("attempt", "delay"), [(1, 10), (2, 60), (3, 60), (4, None)])
def test_delays_grow_and_the_last_one_stays_until_the_tries_are_used_up(
    attempt: int, delay: int | None
) -> None:
    assert Retries(4, 1e6, (10, 60)).delay(Progress(attempt, 0.0), 0.0) == delay


@pytest.mark.parametrize(("now", "delay"), [(90.0, 10), (91.0, None)])
def test_no_try_is_begun_beyond_the_age(now: float, delay: int | None) -> None:
    assert Retries(4, 100.0, (10, 60)).delay(Progress(1, 0.0), now) == delay
