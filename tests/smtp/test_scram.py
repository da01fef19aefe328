"""
Tests of SCRAM: the RFCs' examples, a server that errs or lies, and bindings.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramMechanism

from twisted_smtpclient import Credentials, ProtocolError
from twisted_smtpclient.smtp.scram import MAX_ITERATIONS, Binding, Scram

USER = Credentials("user", "pencil")
END_POINT = Binding("tls-server-end-point", b"digest of a certificate")
UNIQUE = Binding("tls-unique", b"a Finished")
EXPORTED = Binding("tls-exporter", b"exported octets, 32 of them.....")

#: RFC 5802 section 5 and RFC 7677 section 3: the nonce, and what is said in turn.
RFC_5802 = (
    "fyko+d2lbbFgONRv9qkxdawL",
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
RFC_7677 = (
    "rOprNGfwEbeRWgbNEkqO",
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)
VECTORS = {"SCRAM-SHA-1": RFC_5802, "SCRAM-SHA-256": RFC_7677}


def begun(name: str, binding: Binding | None = None) -> Scram:
    """An exchange of the RFC's, its first message said."""
    mechanism = Scram(name, USER, binding, VECTORS[name.removesuffix("-PLUS")][0])
    mechanism.start()
    return mechanism


# The examples.


@pytest.mark.parametrize("name", VECTORS)
def test_it_is_the_rfcs(name: str) -> None:
    nonce, client_first, server_first, client_final, server_final = VECTORS[name]
    mechanism = Scram(name, USER, None, nonce)
    assert mechanism.start() == client_first
    assert (mechanism.proved, mechanism.finished) == (False, False)
    assert mechanism.step(server_first) == client_final
    assert (mechanism.proved, mechanism.finished) == (True, False)
    assert mechanism.step(server_final) == b""
    assert mechanism.finished
    with pytest.raises(ProtocolError):
        mechanism.step(server_final)


def test_each_attempt_has_a_nonce_of_its_own() -> None:
    assert len({Scram("SCRAM-SHA-256", USER, None).start() for _ in range(100)}) == 100


def test_a_name_is_escaped_and_prepared() -> None:
    mechanism = Scram("SCRAM-SHA-1", Credentials("a=b,\u00aa", "x"), None, "nonce")
    assert mechanism.start() == b"n,,n=a=3Db=2Ca,r=nonce"


# A server that errs or lies.


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("signature", [b"AAAA", b"", b"rmF9pqV8S7suAoZWja4dJRkFsLQ=", b"!", b"6rri"])
def test_a_server_that_does_not_know_the_password_is_found_out(name: str, signature: bytes) -> None:
    mechanism = begun(name)
    mechanism.step(VECTORS[name][2])
    with pytest.raises(ProtocolError, match=f"^AUTH {name}: "):
        mechanism.step(b"v=" + signature)
    assert not mechanism.finished


@pytest.mark.parametrize(
    "server_first",
    [
        b"",
        b"r=other,s=QSXCR+Q6sek8bf92,i=4096",
        b"r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92",
        b"r=fyko+d2lbbFgONRv9qkxdawL3r,s=!,i=4096",
        b"r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92,i=0",
        b"r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92,i=-1",
        b"r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92,i=x",
        b"m=ext,r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92,i=4096",
        b"\xff",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ],
)
def test_a_malformed_challenge_gets_no_proof(server_first: bytes) -> None:
    mechanism = begun("SCRAM-SHA-1")
    with pytest.raises(ProtocolError, match=r"^AUTH SCRAM-SHA-1: "):
        mechanism.step(server_first)
    assert not mechanism.proved


@pytest.mark.parametrize("count", [str(MAX_ITERATIONS + 1), "9" * 7, "9" * 3000])
def test_a_server_may_not_ask_for_work_without_end(count: str) -> None:
    mechanism = begun("SCRAM-SHA-1")
    challenge = f"r=fyko+d2lbbFgONRv9qkxdawL3r,s=QSXCR+Q6sek8bf92,i={count}"
    with pytest.raises(ProtocolError, match=rf"more than {MAX_ITERATIONS} iterations"):
        mechanism.step(challenge.encode())
    assert not mechanism.proved


@pytest.mark.parametrize("proved", [False, True])
def test_an_error_of_the_servers_is_kept_and_answered_with_nothing(proved: bool) -> None:
    mechanism = begun("SCRAM-SHA-1")
    if proved:
        mechanism.step(RFC_5802[2])
    assert mechanism.step(b"e=invalid-proof") == b""
    assert mechanism.detail == b"invalid-proof"
    assert (mechanism.proved, mechanism.finished) == (proved, False)
    for challenge in (b"e=invalid-proof", RFC_5802[2], RFC_5802[4]):
        with pytest.raises(ProtocolError):
            mechanism.step(challenge)
    assert not mechanism.finished


def test_an_error_without_a_reason_is_one_too() -> None:
    mechanism = begun("SCRAM-SHA-1")
    mechanism.step(b"e=")
    assert mechanism.detail == b"no reason given"


def test_an_error_behind_the_signature_is_out_of_turn() -> None:
    mechanism = begun("SCRAM-SHA-1")
    for challenge in (RFC_5802[2], RFC_5802[4]):
        mechanism.step(challenge)
    with pytest.raises(ProtocolError):
        mechanism.step(b"e=other-error")


@given(st.binary(max_size=80))
def test_no_challenge_in_place_of_the_signature_is_believed(challenge: bytes) -> None:
    mechanism = begun("SCRAM-SHA-1")
    mechanism.step(RFC_5802[2])
    if challenge.startswith(b"e="):
        assert mechanism.step(challenge) == b""
    else:
        with pytest.raises(ProtocolError, match=r"^AUTH SCRAM-SHA-1: "):
            mechanism.step(challenge)
    assert not mechanism.finished


# Bindings.


def test_without_a_binding_the_server_is_told_that_we_have_none() -> None:
    start = Scram("SCRAM-SHA-256", USER, None).start()
    assert start is not None
    assert start.startswith(b"n,,")


@pytest.mark.parametrize("binding", [END_POINT, UNIQUE, EXPORTED])
def test_with_one_that_is_not_used_it_is_told_that_it_did_not_offer(binding: Binding) -> None:
    mechanism = begun("SCRAM-SHA-1", binding)
    response = mechanism.step(RFC_5802[2])
    assert response.startswith(b"c=" + base64.b64encode(b"y,,"))


@pytest.mark.parametrize("name", ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("binding", [END_POINT, UNIQUE])
def test_a_bound_login_is_one_to_a_server_with_the_same_binding(name: str, binding: Binding) -> None:
    stored = ScramMechanism(name).make_auth_info("pencil")
    mechanism = Scram(name, USER, binding)
    server: Any = ScramMechanism(name).make_server(lambda user: stored, tuple(binding))
    first = mechanism.start()
    assert first is not None
    assert first.startswith(f"p={binding.kind},,".encode())
    server.set_client_first(first.decode())
    server.set_client_final(mechanism.step(server.get_server_first().encode()).decode())
    assert mechanism.step(server.get_server_final().encode()) == b""
    assert mechanism.finished


@pytest.mark.parametrize(
    ("name", "hash_name"), [("SCRAM-SHA-1-PLUS", "sha1"), ("SCRAM-SHA-256-PLUS", "sha256")]
)
@pytest.mark.parametrize("binding", [END_POINT, UNIQUE, EXPORTED])
def test_a_bound_login_is_what_rfc_5802_makes_of_it(name: str, hash_name: str, binding: Binding) -> None:
    """By section 3 and no library, for the name that scramp does not know."""
    header = f"p={binding.kind},,".encode()
    mechanism = Scram(name, USER, binding, "ours")
    assert mechanism.start() == header + b"n=user,r=ours"
    server_first = b"r=ourstheirs,s=QSXCR+Q6sek8bf92,i=4096"
    said = mechanism.step(server_first)

    def mac(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, hash_name).digest()

    salted = hashlib.pbkdf2_hmac(hash_name, b"pencil", base64.b64decode("QSXCR+Q6sek8bf92"), 4096)
    bare = b"c=" + base64.b64encode(header + binding.data) + b",r=ourstheirs"
    message = b"n=user,r=ours," + server_first + b"," + bare
    client_key = mac(salted, b"Client Key")
    signature = mac(hashlib.new(hash_name, client_key).digest(), message)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    assert said == bare + b",p=" + base64.b64encode(proof)
    assert mechanism.step(b"v=" + base64.b64encode(mac(mac(salted, b"Server Key"), message))) == b""
    assert mechanism.finished
