"""
Tests that memory is bounded: by what a server reads, and by how often a content is shared.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.departing import leaving as leaving
from tests.client.mailing import PIPELINING_ONLY, WAYS, Mailing
from tests.client.memory import FULL
from tests.client.sessions import HOST
from twisted_smtpclient import Content, TLSMode
from twisted_smtpclient.smtp.content import SMALL
from twisted_smtpclient.smtp.sender import WRITE
from twisted_smtpclient.testing import Action, Fault, Stage, make_certificates

CERTIFICATES = make_certificates(HOST)
MEGABYTE = 1 << 20
#: What is written of large contents until the transport says that it is full:
#: a write that fills it, and what was in it before.
MOST = FULL + WRITE + SMALL
#: TLS adds 5 + 24 octets to a record of 16384 at most.
MOST_BY_TLS = MOST + MOST // 256 + 4096


def grown(call: Callable[[], Any]) -> int:
    """Octets that a call has added to what is allocated at its end."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def peak(call: Callable[[], Any]) -> int:
    """The same, of what was allocated at most meanwhile."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most - before


# Held once.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", [b"x" * SMALL, b"x\n" * (SMALL // 2), b"." * SMALL])
def test_a_small_content_is_held_once_in_each_form_however_many_share_it(message: bytes, way: str) -> None:
    here = Mailing(faults=[Fault(Stage.GREETING, Action.STALL, nth=None)], **WAYS[way])
    content = Content(message)
    content.for_bdat()
    content.for_data()
    many = 1000
    assert grown(lambda: here.posted(many, message=content)) < many * 8192
    assert content.for_bdat() is content.for_bdat()
    assert content.for_data() is content.for_data()
    here.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_large_content_that_is_shared_by_many_is_never_copied_whole(way: str) -> None:
    message = b"x" * 78 + b"\r\n"
    content = Content(message * (8 * MEGABYTE // len(message)))
    here = Mailing(connections=4, keep_content=False, size=None, **WAYS[way])

    def run() -> None:
        here.post(20, message=content)
        while here.step():
            # What the network remembers of it is the tests' own affair.
            for end in here.network.ends:
                end.sent.clear()
                end.writes.clear()

    assert peak(run) < 4 * MEGABYTE
    assert len(here.ok()) == 20
    assert {mail.size for mail in here.sink.mails} == {content.size}
    here.close()


def test_a_content_without_line_ends_to_mend_is_the_callers_own_octets() -> None:
    message = b"Subject: hi\r\n\r\nhello\r\n"
    content = Content(message)
    assert content.message is message
    assert content.for_bdat() is message


# A server that does not read.


def deaf(here: Mailing) -> None:
    """From now on the server takes nothing from the network."""
    for end in here.network.ends:
        end.other.reading = False


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [100, SMALL, SMALL + 1, 8 * MEGABYTE])
@pytest.mark.parametrize("count", [1, 10, 200])
def test_a_server_that_does_not_read_costs_one_messages_octets(way: str, size: int, count: int) -> None:
    if size == 8 * MEGABYTE and count == 200:
        count = 20
    here = Mailing(size=None, **WAYS[way])
    here.posted()
    (end,) = here.network.ends
    deaf(here)
    written = len(end.sent)
    here.posted(count, message=b"x" * size)
    assert len(end.sent) - written <= max(MOST, size if size <= SMALL else 0)
    assert end.peak <= MOST
    here.network.elapse(700, step=60.0)
    # It takes its time, and then it is over.
    assert [outcome.came for outcome in here.outcomes] == [1] * (count + 1)
    here.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [SMALL, 8 * MEGABYTE])
def test_a_server_that_goes_deaf_in_a_content_costs_one_messages_octets(way: str, size: int) -> None:
    fault = Fault(Stage.CONTENT, Action.DEAF, after_octets=1000, connection=1)
    here = Mailing(size=None, faults=[fault], **WAYS[way])
    here.posted(10, message=b"x" * size)
    end = here.network.ends[0]
    assert end.peak <= MOST
    assert len(end.outgoing) <= MOST
    here.network.elapse(2000, step=60.0)
    here.check()
    here.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [SMALL, 8 * MEGABYTE])
def test_over_tls_it_costs_no_more(way: str, size: int) -> None:
    here = Mailing(
        size=None,
        starttls=CERTIFICATES.server_context(),
        agent={"trust_root": CERTIFICATES.trust_root()},
        **WAYS[way],
    )
    here.posted(tls=TLSMode.DEPEND)
    assert here.ok() == {1}
    (end,) = here.network.ends
    deaf(here)
    here.posted(20, message=b"x" * size, tls=TLSMode.DEPEND)
    assert end.peak <= MOST_BY_TLS
    given = sum(len(octets) for octets in end.writes)
    assert given <= MOST_BY_TLS + 4096
    here.network.elapse(700, step=60.0)
    assert [outcome.came for outcome in here.outcomes] == [1] * 21
    here.close()


def test_small_mails_to_a_server_that_does_not_read_are_written_to_the_depth_and_no_further() -> None:
    here = Mailing(depth=10)
    # With a connection that has not been idle all of them go at once.
    outcomes = here.post(100, message=b"x" * 10_000)
    here.network.advance(0)
    while not here.sink.mails:
        here.step()
    deaf(here)
    here.network.settle()
    (end,) = here.network.ends
    assert len(end.outgoing) <= MOST
    assert sum(outcome.came for outcome in outcomes) <= 20
    here.close()


def test_many_connections_that_do_not_read_cost_one_messages_octets_each() -> None:
    here = Mailing(connections=10, depth=10, size=None, **PIPELINING_ONLY)
    here.posted(10)
    content = Content(b"x" * (8 * MEGABYTE))

    def fill() -> None:
        deaf(here)
        here.posted(100, message=content)

    assert grown(fill) < len(here.network.ends) * 2 * MOST
    here.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_reads_again_gets_everything(way: str) -> None:
    here = Mailing(size=None, **WAYS[way])
    here.posted()
    for _ in range(5):
        deaf(here)
        here.posted(5, message=b"x" * MEGABYTE)
        for end in here.network.ends:
            end.other.reading = True
        here.network.settle()
    assert len(here.ok()) == 26
    here.check()
    here.close()
