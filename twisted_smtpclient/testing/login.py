"""
The server's side of the SASL mechanisms: each a generator.

An exchange yields the challenges, is sent the responses, and returns the name
of who has logged in, or raises :class:`Denied`.  What a client may not say it
complains of.  The client's side of the mechanisms is another code; only
SCRAM's arithmetic is, on both sides, that of ``scramp``.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from scramp import ScramException, ScramMechanism
from scramp.core import saslprep

from . import replies
from .accounts import MECHANISMS, PLUS, Accounts, Channel

#: Yields challenges, is sent responses, returns who is logged in.
Exchange = Generator[bytes, bytes, str]


class Denied(Exception):
    """
    The exchange has failed.

    :ivar reply: what the client is told.
    """

    def __init__(self, reply: str = replies.NOT_LOGGED_IN) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass
class Parties:
    """
    The two ends of one exchange.

    :ivar offered: the mechanisms that the sink offers.
    :ivar seen: those that the client has seen; a fault may have said others.
    :ivar claimed: who the client says it is, as soon as it has said so.
    """

    accounts: Accounts
    channel: Channel
    offered: tuple[str, ...]
    seen: tuple[str, ...]
    complain: Callable[[str], None]
    claimed: str = ""

    def malformed(self, mechanism: str, why: str) -> Denied:
        self.complain(f"{mechanism}: {why}")
        return Denied()

    def check_password(self, user: str, password: str) -> str:
        """RFC 4616 2 and RFC 4013: both sides are prepared, then compared."""
        self.claimed = user
        known = self.accounts.users.get(user)
        if known is None or _prepared(known) != _prepared(password):
            raise Denied
        return user


def _prepared(text: str) -> str:
    """By RFC 4013; what has no such form, as it is."""
    try:
        prepared: str = saslprep(text)
    except ScramException:
        return text
    return prepared


def _text(parties: Parties, mechanism: str, octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise parties.malformed(mechanism, "a response that is not UTF-8") from None


def _plain(parties: Parties, name: str, first: bytes) -> Exchange:
    yield from ()  # no challenge
    # message = [authzid] UTF8NUL authcid UTF8NUL passwd (RFC 4616 2)
    authzid, *rest = _text(parties, name, first).split("\0")
    if len(rest) != 2 or not all(rest):
        raise parties.malformed(name, "not authzid, NUL, authcid, NUL, passwd")
    if authzid not in ("", rest[0]):
        raise Denied
    return parties.check_password(*rest)


def _login(parties: Parties, name: str, first: bytes) -> Exchange:
    parties.claimed = _text(parties, name, (yield b"Username:"))
    return parties.check_password(parties.claimed, _text(parties, name, (yield b"Password:")))


def _cram_md5(parties: Parties, name: str, first: bytes) -> Exchange:
    challenge = b"<%b@sink.invalid>" % secrets.token_hex(8).encode("ascii")
    response = yield challenge
    user, space, digest = _text(parties, name, response).rpartition(" ")
    if not space or not user or re.fullmatch(r"[0-9a-f]{32}", digest, re.ASCII) is None:
        raise parties.malformed(name, "not a name, a space, and 32 lower-case hex digits")
    parties.claimed = user
    password = parties.accounts.users.get(user)
    if password is None:
        raise Denied
    expected = hmac.new(_prepared(password).encode("utf-8"), challenge, "md5").hexdigest()
    if not hmac.compare_digest(expected, digest):
        raise Denied
    return user


#: scramp refuses ``tls-exporter`` by its name, and does the same with the data of each kind.
_STAND_IN: Final = "tls-server-end-point"


def _bound(parties: Parties, name: str, client_first: str) -> tuple[str, str | None, bytes | None]:
    """
    The client's first message with a name that scramp knows, the real name, and its data.

    RFC 5802 6: where -PLUS is offered, a "y" that the client has no reason
    for tells of somebody who has hidden that from it; scramp finds it if it
    has data.
    """
    with_plus = f"{name.removesuffix(PLUS)}{PLUS}"
    flag, _, rest = client_first.partition(",")
    if flag.startswith("p=") != name.endswith(PLUS):
        raise parties.malformed(name, f"the channel binding flag {flag[:40]!r}")
    if flag == "y" and with_plus in parties.seen:
        raise parties.malformed(name, f"the flag says that {with_plus} was not offered")
    channel, kinds = parties.channel, parties.accounts.bindings
    if not flag.startswith("p="):
        data = next(filter(None, map(channel.binding, kinds)), None) if with_plus in parties.offered else None
        return client_first, None, data
    kind = flag.removeprefix("p=")
    data = channel.binding(kind) if kind in kinds else None
    if data is None:
        raise Denied
    return f"p={_STAND_IN},{rest}", kind, data


def _scram(parties: Parties, name: str, first: bytes) -> Exchange:
    def look_up(user: str) -> tuple[bytes, bytes, bytes, int] | None:
        parties.claimed = user
        return parties.accounts.stored(name.removesuffix(PLUS), user)

    client_first, kind, data = _bound(parties, name, _text(parties, name, first))
    try:
        server = ScramMechanism(name).make_server(look_up, (_STAND_IN, data) if data is not None else None)
        server.set_client_first(client_first)
        if kind is not None:
            server.gs2_header.cb_name = kind
        client_final = yield server.get_server_first().encode("ascii")
        server.set_client_final(_text(parties, name, client_final))
        # SMTP's 235 bears no data, so this is a challenge, answered with nothing (RFC 4422 4).
        last = yield server.get_server_final().encode("ascii")
    except ScramException:
        raise Denied from None
    if last:
        raise parties.malformed(name, "something in answer to the server's signature")
    return parties.claimed


#: client-resp (RFC 7628 3.1): who, further pairs, the token (RFC 6750 2.1).
_OAUTHBEARER: Final = re.compile(
    r"n,(?:a=((?:[^\0,=]|=2C|=3D)+))?,\x01"
    r"(?:(?!auth=)[A-Za-z]+=[^\0\x01]*\x01)*"
    r"auth=Bearer ([-A-Za-z0-9._~+/]+=*)\x01"
    r"(?:(?!auth=)[A-Za-z]+=[^\0\x01]*\x01)*\x01"
)
#: The form before it, which Google and Microsoft have made known.
_XOAUTH2: Final = re.compile(r"user=([^\0\x01]+)\x01auth=Bearer ([-A-Za-z0-9._~+/]+=*)\x01\x01")

#: What is wrong, as RFC 7628 3.2.2 and as Google have it.
_BEARER_ERRORS: Final = {
    "OAUTHBEARER": b'{"status":"invalid_token","scope":"mail"}',
    "XOAUTH2": b'{"status":"401","schemes":"bearer","scope":"mail"}',
}


def _bearer(parties: Parties, name: str, first: bytes) -> Exchange:
    grammar, dummy = (_OAUTHBEARER, b"\x01") if name == "OAUTHBEARER" else (_XOAUTH2, b"")
    match = grammar.fullmatch(_text(parties, name, first))
    if match is None:
        raise parties.malformed(name, "a response that its grammar does not have")
    tokens = parties.accounts.tokens
    user = match[1]
    if user is None:
        # OAUTHBEARER may leave the name to the token.
        user = next((owner for owner, token in tokens.items() if token == match[2]), "")
    elif name == "OAUTHBEARER":
        user = user.replace("=2C", ",").replace("=3D", "=")
    parties.claimed = user
    if tokens.get(user) == match[2]:
        return user
    if (yield _BEARER_ERRORS[name]) != dummy:
        raise parties.malformed(name, f"the error is answered with {dummy!r} and nothing else")
    raise Denied


def _external(parties: Parties, name: str, first: bytes) -> Exchange:
    yield from ()  # no challenge
    # RFC 4422 A: what is said is the authorization identity; empty, it is the certificate's.
    client = parties.channel.client()
    asked = _text(parties, name, first)
    parties.claimed = asked or client or ""
    if client is None or asked not in ("", client):
        raise Denied
    return client


_RUN: Final[dict[str, Callable[[Parties, str, bytes], Exchange]]] = {
    "SCRAM-SHA-256-PLUS": _scram,
    "SCRAM-SHA-1-PLUS": _scram,
    "SCRAM-SHA-256": _scram,
    "SCRAM-SHA-1": _scram,
    "CRAM-MD5": _cram_md5,
    "PLAIN": _plain,
    "LOGIN": _login,
    "OAUTHBEARER": _bearer,
    "XOAUTH2": _bearer,
    "EXTERNAL": _external,
}


def exchange(name: str, parties: Parties, initial: bytes | None) -> Exchange:
    """
    One exchange by the mechanism of that name.

    :param initial: what AUTH bore; None: nothing.
    """
    if initial is None and MECHANISMS[name].client_begins:
        initial = yield b""
    return (yield from _RUN[name](parties, name, initial or b""))
