"""
SCRAM (RFC 5802, RFC 7677), with and without channel binding.

The arithmetic is scramp's.  Here stand the bounds on what a server may ask
for, and the bindings that scramp does not name.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from scramp import ScramClient, ScramException

from ..errors import ProtocolError
from .credentials import Credentials
from .sasl import out_of_turn

#: Rounds of PBKDF2 that a server may ask for.  So many are what is recommended
#: for storing passwords, and take 0.2 s, in which nothing else is done; most
#: servers ask for 4096.
MAX_ITERATIONS: Final = 600_000

_ITERATIONS: Final = re.compile(r"(?:^|,)i=(\d+)", re.ASCII)

#: RFC 9266: what TLS 1.3 has in place of tls-unique.
EXPORTER: Final = "tls-exporter"

#: Stands for a binding whose name scramp does not know.
_STAND_IN: Final = "tls-server-end-point"


class Binding(NamedTuple):
    """
    What ties a login to one TLS connection.

    :ivar kind: the type's name (RFC 5929, RFC 9266).
    :ivar data: what both ends know, and nobody between them.
    """

    kind: str
    data: bytes


class Scram:
    """
    SCRAM by one hash function.

    :param name: ``SCRAM-SHA-256`` or ``SCRAM-SHA-1``, or one of them with
        ``-PLUS``.
    :param binding: for ``-PLUS``, what to bind to.  Without ``-PLUS``, not None
        tells the server that we would have bound the channel had it offered
        to, which shows it that somebody took the offer away (section 6).
    :param nonce: ours; None for one by chance.
    :ivar proved: whether the server was shown that we know the password.
    """

    shows_secret = False

    def __init__(
        self, name: str, credentials: Credentials, binding: Binding | None, nonce: str | None = None
    ) -> None:
        assert credentials.passwd is not None, "chosen by what the credentials have"
        self.name = name
        self.finished = False
        self.detail = b""
        self.proved = False
        given = None if binding is None else (_known_kind(binding), binding.data)
        self._client: Any = ScramClient(
            [name], credentials.username, credentials.passwd.text, channel_binding=given, c_nonce=nonce
        )
        if binding is not None and name.endswith("-PLUS"):
            # scramp refuses the name, for Python's own TLS cannot export the
            # data; what it does with them is the same for each type.
            self._client.gs2_header.cb_name = binding.kind

    def start(self) -> bytes | None:
        return bytes(self._client.get_client_first(), "utf-8")

    def step(self, challenge: bytes) -> bytes:
        if challenge.startswith(b"e="):
            # server-error (section 7): answered with nothing, so that the
            # server can say its 535.
            return self._failed(challenge)
        if self.detail or self.finished:
            raise out_of_turn(self.name)
        try:
            said = challenge.decode("utf-8")
            if not self.proved:
                return self._prove(said)
            self._client.set_server_final(said)
        except (ScramException, ValueError, LookupError) as error:
            raise ProtocolError(f"AUTH {self.name}: {_reason(error)}") from None
        self.finished = True
        return b""

    def _prove(self, server_first: str) -> bytes:
        for count in _ITERATIONS.findall(server_first):
            # Before Python is given digits without end.
            if len(count) > len(str(MAX_ITERATIONS)) or int(count) > MAX_ITERATIONS:
                raise ProtocolError(
                    f"AUTH {self.name}: the server asks for more than {MAX_ITERATIONS} iterations"
                )
        self._client.set_server_first(server_first)
        self.proved = True
        return bytes(self._client.get_client_final(), "ascii")

    def _failed(self, challenge: bytes) -> bytes:
        if self.detail or self.finished:
            raise out_of_turn(self.name)
        self.detail = challenge[2:] or b"no reason given"
        return b""


def _known_kind(binding: Binding) -> str:
    return _STAND_IN if binding.kind == EXPORTER else binding.kind


def _reason(error: Exception) -> str:
    """What scramp says is wrong; of other errors no more than that there was one."""
    return str(error) if isinstance(error, ScramException) else "a malformed challenge"
