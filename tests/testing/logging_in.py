"""Clients that log in to the sink, each as its RFC has it, in as few lines as that takes."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator
from typing import Any

from scramp import ScramClient

from tests.testing.driving import Driven

USERS = {"anna": "pa ss=wörd", "olga": "other"}
TOKENS = {"anna": "ya29.token-_~+/=="}

#: Yields the initial response (None: there is none) and what challenges are answered with.
Client = Generator["bytes | None", bytes, None]


def plain(user: str, secret: str) -> Client:
    yield f"\0{user}\0{secret}".encode()


def login(user: str, secret: str) -> Client:
    yield None
    yield user.encode()
    yield secret.encode()


def cram_md5(user: str, secret: str) -> Client:
    challenge = yield None
    yield f"{user} {hmac.new(secret.encode(), challenge, 'md5').hexdigest()}".encode()


def scram(name: str, binding: tuple[str, bytes] | None = None) -> Callable[[str, str], Client]:
    def run(user: str, secret: str) -> Client:
        client: Any = ScramClient([name], user, secret, channel_binding=binding)
        client.set_server_first((yield client.get_client_first().encode()).decode())
        client.set_server_final((yield client.get_client_final().encode()).decode())
        yield b""

    return run


def oauthbearer(user: str, secret: str) -> Client:
    yield f"n,a={user},\1host=mx.example\1port=25\1auth=Bearer {secret}\1\1".encode()
    yield b"\1"


def xoauth2(user: str, secret: str) -> Client:
    yield f"user={user}\1auth=Bearer {secret}\1\1".encode()
    yield b""


CLIENTS: dict[str, Callable[[str, str], Client]] = {
    "SCRAM-SHA-256": scram("SCRAM-SHA-256"),
    "SCRAM-SHA-1": scram("SCRAM-SHA-1"),
    "CRAM-MD5": cram_md5,
    "PLAIN": plain,
    "LOGIN": login,
    "OAUTHBEARER": oauthbearer,
    "XOAUTH2": xoauth2,
}


def secret_of(mechanism: str, user: str = "anna") -> str:
    return (TOKENS if mechanism in ("OAUTHBEARER", "XOAUTH2") else USERS)[user]


def encoded(octets: bytes) -> bytes:
    return b64encode(octets)


def challenge_in(reply: bytes) -> bytes:
    assert reply.startswith(b"334 "), reply
    return b64decode(reply[4:].rstrip(), validate=True)


def log_in(send: Callable[[bytes], bytes], name: str, client: Client, *, initial: bool = True) -> bytes:
    """
    The whole of one exchange; the reply that ends it.

    :param initial: say the first message with AUTH, where the client begins.
    """
    first = next(client)
    if first is None:
        reply = send(b"AUTH %b\r\n" % name.encode())
    elif initial:
        reply = send(b"AUTH %b %b\r\n" % (name.encode(), encoded(first) or b"="))
    else:
        reply = send(b"AUTH %b\r\n" % name.encode())
        assert challenge_in(reply) == b""
        reply = send(encoded(first) + b"\r\n")
    while reply.startswith(b"334 "):
        response = client.send(challenge_in(reply))
        assert response is not None
        reply = send(encoded(response) + b"\r\n")
    return reply


def greeted(**settings: Any) -> Driven:
    """A session with a sink that knows :data:`USERS` and :data:`TOKENS`, past EHLO."""
    return Driven(**{"users": USERS, "tokens": TOKENS, **settings}).begin()
