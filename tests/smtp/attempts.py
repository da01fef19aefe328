"""
Values that are made, or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted_smtpclient.errors import InvalidRequest

T = TypeVar("T")


def attempt(make: Callable[..., T], *arguments: object, **more: object) -> T | InvalidRequest:
    """What is made, or why it is not; any other error is a test's failure."""
    try:
        return make(*arguments, **more)
    except InvalidRequest as error:
        return error
