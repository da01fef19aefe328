"""
Where the broker is: a URL with a password in it, which nobody gets to see.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pika import URLParameters

__all__ = ["Address"]


class Address:
    """
    A broker's address.

    :param url: ``amqp://user:password@host:port/vhost``, or ``amqps:``, with
        the options in its query that pika's ``URLParameters`` has.
    :ivar host: its name or address.
    :ivar tls: whether TLS is spoken from the first octet.
    :ivar parameters: all of it, for pika.
    :raises ValueError: what is wrong, which does not tell the URL.
    """

    def __init__(self, url: str) -> None:
        expected = "expected amqp://user:password@host:port/vhost, or amqps:"
        try:
            split = urlsplit(url)
            valid = split.scheme in ("amqp", "amqps") and bool(split.hostname) and not split.fragment
            self.parameters: Any = URLParameters(url)
        except Exception:
            # What pika raises here may have the URL in it.
            valid = False
        if not valid:
            raise ValueError(expected)
        self.host: str = self.parameters.host
        self.port: int = self.parameters.port
        self.tls = split.scheme == "amqps"

    def __str__(self) -> str:
        vhost = self.parameters.virtual_host
        path = "/" if vhost == "/" else f"/{vhost}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self.tls else 'amqp'}://{host}:{self.port}{path}"

    def __repr__(self) -> str:
        return f"<Address {self}>"
