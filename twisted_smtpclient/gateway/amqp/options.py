"""
What the daemon and ``amqp-setup`` can be told of the broker.  Does without
pika, so that its lack can be told.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .address import Address

__all__ = ["ENVIRONMENT", "INSTALL", "Broker", "count_of", "delays_of", "name_of"]

#: The variable that has the URL where no option names one.
ENVIRONMENT: Final = "TWISTED_SMTPCLIENT_AMQP"

INSTALL: Final = "RabbitMQ needs pika: pip install 'twisted_smtpclient[amqp]'"

#: Octets of a name (AMQP 0-9-1 has 255), with what is put behind a queue's.
_MOST: Final = 200
#: Seconds; in milliseconds the broker takes them up to 32 bits.
_LONGEST: Final = 4_000_000
#: Each is a queue of its own.
_MOST_DELAYS: Final = 32


class Broker:
    """
    Where the broker is, by the one of three sources that has its URL.

    :param url: as an option has it; all users of the machine can read that.
    :param path: a file, whose first line it is.
    :param environment: the process's own.
    :ivar address: what was read last.
    :raises ValueError: there is none, or more than one, or it is no URL.
    """

    def __init__(self, url: str | None, path: str | None, environment: Mapping[str, str]) -> None:
        if url is not None and path is not None:
            raise ValueError("--amqp and --amqp-file are two places for one URL")
        # The working directory may be another one by then.
        self._path = None if path is None else os.path.abspath(path)
        given = url if url is not None else environment.get(ENVIRONMENT)
        if self._path is None and not given:
            raise ValueError(f"where is the broker? Give --amqp URL, --amqp-file PATH or {ENVIRONMENT}")
        self._given = given or ""
        self.address = self._read()

    def _read(self) -> Address:
        try:
            from .address import Address
        except ImportError:
            raise ValueError(INSTALL) from None
        if self._path is None:
            return Address(self._given)
        try:
            with open(self._path, encoding="utf-8") as file:
                url = file.readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"expected a file with a URL, got {self._path!r}: {error}") from None
        return Address(url)

    def reload(self) -> None:
        """
        Read the file again; the next connection goes there.

        :raises ValueError: it has none; what was read before stands.
        """
        self.address = self._read()


def name_of(text: str) -> str:
    """The name of a queue or an exchange."""
    if not text or len(text.encode()) > _MOST or not text.isprintable() or text.startswith("amq."):
        raise ValueError(
            f"expected a name of 1 to {_MOST} octets that does not begin with amq., got {text!r}"
        )
    return text


def delays_of(text: str) -> tuple[int, ...]:
    """Seconds before the second try, the third, and so on."""
    found = re.fullmatch(r"\d{1,7}(,\d{1,7})*", text, re.ASCII)
    delays = tuple(map(int, text.split(","))) if found else ()
    if not 1 <= len(delays) <= _MOST_DELAYS or list(delays) != sorted(set(delays)):
        raise ValueError(f"expected growing seconds such as 60,300,3600, got {text!r}")
    if not 1 <= delays[0] <= delays[-1] <= _LONGEST:
        raise ValueError(f"expected seconds from 1 to {_LONGEST}, got {text!r}")
    return delays


def count_of(text: str) -> int:
    """A prefetch: AMQP has 16 bits for it, and 0 has no bound."""
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise ValueError(f"expected an integer from 1 to 65535, got {text!r}")
    return int(text)
