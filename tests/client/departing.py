"""
For tests of what becomes of mails: on transports that are written to as ever,
and on some on which flights leave at the end of a turn, as on TCP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interpreted import interpreted
from twisted_smtpclient.client import exchange


def _write(transport: Any, octets: bytes) -> None:
    transport.write(octets)


@contextmanager
def departing(at_the_end: bool) -> Iterator[None]:
    """Whether flights leave at the end of a turn (where nothing is compiled)."""
    with pytest.MonkeyPatch.context() as patch:
        if at_the_end:
            patch.setattr(exchange, "writes_at_once", lambda transport: True)
            patch.setattr(exchange, "write_at_once", _write)
        yield


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["written as ever", pytest.param("leaving at the end of a turn", marks=interpreted)],
)
def leaving(request: pytest.FixtureRequest) -> Iterator[None]:
    """Import it, and each test of the module runs both ways."""
    with departing(request.param != "written as ever"):
        yield
