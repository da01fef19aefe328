"""Who may log in to the sink, by which mechanisms, and what of them a connection has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from typing import Protocol as Interface

from scramp import ScramMechanism

from .channel import BINDINGS

PLUS: Final = "-PLUS"


class Mechanism(NamedTuple):
    """
    :ivar by: what there must be to log in with.
    :ivar client_begins: whether its first message is the client's, so that
        AUTH may bear an initial response (RFC 4954 4).
    :ivar needs_tls: whether it makes use of TLS.
    """

    by: str
    client_begins: bool = True
    needs_tls: bool = False


#: Strongest first.
MECHANISMS: Final = {
    "SCRAM-SHA-256-PLUS": Mechanism("users", needs_tls=True),
    "SCRAM-SHA-1-PLUS": Mechanism("users", needs_tls=True),
    "SCRAM-SHA-256": Mechanism("users"),
    "SCRAM-SHA-1": Mechanism("users"),
    "CRAM-MD5": Mechanism("users", client_begins=False),
    "PLAIN": Mechanism("users"),
    "LOGIN": Mechanism("users", client_begins=False),
    "OAUTHBEARER": Mechanism("tokens"),
    "XOAUTH2": Mechanism("tokens"),
    "EXTERNAL": Mechanism("certificates", needs_tls=True),
}


class Channel(Interface):
    """What the connection gives to a login."""

    def binding(self, kind: str) -> bytes | None:
        """The data of a channel binding of this kind; None where the connection has none."""

    def client(self) -> str | None:
        """The common name of the certificate that the client has shown; None without one."""


@dataclass(frozen=True)
class Accounts:
    """Who may log in, and how; the fields are told in :class:`~twisted_smtpclient.testing.Sink`."""

    users: Mapping[str, str] = field(repr=False)
    tokens: Mapping[str, str] = field(repr=False)
    mechanisms: tuple[str, ...]
    in_clear: tuple[str, ...]
    refused: Mapping[str, str]
    bindings: tuple[str, ...]
    required: bool
    # Of SCRAM, by mechanism and name.
    _stored: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        users: Mapping[str, str],
        tokens: Mapping[str, str],
        mechanisms: Sequence[str] | None,
        in_clear: Sequence[str] | None,
        *,
        refused: Mapping[str, str],
        bindings: Sequence[str],
        required: bool,
    ) -> Accounts:
        """Of the settings as they are given; None is for what follows from the rest."""
        if mechanisms is None:
            had = {"users": bool(users), "tokens": bool(tokens), "certificates": bool(users or tokens)}
            mechanisms = [name for name, mechanism in MECHANISMS.items() if had[mechanism.by]]
        offered = tuple(mechanisms)
        clear = offered if in_clear is None else tuple(in_clear)
        return cls(users, tokens, offered, clear, refused, tuple(bindings), required and bool(offered))

    def __post_init__(self) -> None:
        for name in (*self.mechanisms, *self.in_clear, *self.refused):
            if name not in MECHANISMS:
                raise ValueError(f"{name!r} is no mechanism; there are {', '.join(MECHANISMS)}")
        for kind in self.bindings:
            if kind not in BINDINGS:
                raise ValueError(f"{kind!r} is no channel binding; there are {', '.join(BINDINGS)}")

    def offered(self, tls: bool, channel: Channel) -> tuple[str, ...]:
        """The mechanisms of the EHLO reply."""
        if not tls:
            return tuple(name for name in self.in_clear if not MECHANISMS[name].needs_tls)
        client = channel.client() is not None
        bound = any(channel.binding(kind) is not None for kind in self.bindings)
        return tuple(
            name
            for name in self.mechanisms
            if (bound or not name.endswith(PLUS)) and (client or MECHANISMS[name].by != "certificates")
        )

    def stored(self, mechanism: str, user: str) -> tuple[bytes, bytes, bytes, int] | None:
        """Salt, keys and iteration count of one user, for SCRAM; made once, in some milliseconds."""
        password = self.users.get(user)
        if password is None:
            return None
        key = mechanism, user
        if key not in self._stored:
            self._stored[key] = ScramMechanism(mechanism).make_auth_info(password)
        found: tuple[bytes, bytes, bytes, int] = self._stored[key]
        return found
