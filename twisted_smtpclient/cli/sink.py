"""
Run a server that takes mail, prints it, and delivers it nowhere.

It offers PIPELINING, CHUNKING and SIZE, and refuses invalid@invalid.de.
Ctrl-C ends it.  With users it wants a login before each mail:

    sink --user anna:secret --mechanisms CRAM-MD5,PLAIN --tls STARTTLS
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import CannotListenError
from twisted.internet.ssl import PrivateCertificate

from ..testing import Mail, Sink, make_certificates
from ..testing.accounts import MECHANISMS
from . import exit as status
from .terminal import printable

#: Keywords of the EHLO reply, with the settings of Sink that offer them.
_OFFERS: dict[str, dict[str, Any]] = {
    "PIPELINING": {"pipelining": False},
    "CHUNKING": {"chunking": False},
    "SIZE": {"size": None},
    "8BITMIME": {"eightbitmime": False},
    "SMTPUTF8": {"smtputf8": False},
    "DSN": {"dsn": False},
    "ENHANCEDSTATUSCODES": {"enhanced_status_codes": False},
}

#: The settings of Sink, by the option's words.
_TLS = {"STARTTLS": "starttls", "IMPLICIT": "implicit_tls"}

_REPLY = re.compile(r"[45][0-5][0-9] [ -~]+", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--interface", default="127.0.0.1", metavar="ADDRESS", help="loopback without it")
    parser.add_argument("--port", type=_port, default=1025, help="1025 without it; 0 takes a free one")
    parser.add_argument("--unix", metavar="PATH", help="listen on this UNIX socket, not on a port")
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP, not SMTP")
    parser.add_argument(
        "--refuse",
        action="append",
        type=_refusal,
        metavar="ADDRESS=REPLY",
        help="the reply to a recipient, such as 'a@b.de=450 later'; may be given many times",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        type=str.upper,
        choices=list(_OFFERS),
        metavar="EXTENSION",
        help=f"do not offer one of {', '.join(_OFFERS)}; may be given many times",
    )
    parser.add_argument(
        "--offer",
        action="append",
        default=[],
        metavar="LINE",
        help="a further line of the EHLO reply, such as BINARYMIME or 'LIMITS RCPTMAX=10'; may be given many"
        " times (REQUIRETLS is offered under TLS)",
    )
    parser.add_argument(
        "--user",
        action="append",
        default=[],
        type=_account,
        metavar="NAME:PASSWORD",
        help="who may log in; may be given many times.  All users of this machine can read a command line, so"
        " give only passwords that are made up",
    )
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        type=_account,
        metavar="NAME:TOKEN",
        help="who may log in by OAUTHBEARER or XOAUTH2, likewise",
    )
    parser.add_argument(
        "--mechanisms",
        type=_mechanisms,
        metavar="NAME,NAME",
        help=f"the mechanisms to offer, of {', '.join(MECHANISMS)}; all that have an account without it",
    )
    parser.add_argument(
        "--login-over-tls", action="store_true", help="do not offer AUTH before STARTTLS; goes with --tls"
    )
    parser.add_argument(
        "--tls",
        type=str.upper,
        choices=list(_TLS),
        help="offer STARTTLS, or TLS from the first octet (IMPLICIT)",
    )
    parser.add_argument(
        "--certificate",
        type=_certificate,
        metavar="PEM",
        help="file with key and certificate; without it one is made that is good for an hour",
    )


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 65535, got {text!r}")
    return int(text)


def _refusal(text: str) -> tuple[str, str]:
    address, equals, reply = text.partition("=")
    if not address or not equals or not _REPLY.fullmatch(reply):
        raise argparse.ArgumentTypeError(f"expected ADDRESS=REPLY, such as 'a@b.de=450 later', got {text!r}")
    return address, reply


def _account(text: str) -> tuple[str, str]:
    name, colon, secret = text.partition(":")
    if not name or not secret:
        # What was given may be a password, so it is not repeated.
        raise argparse.ArgumentTypeError(
            "expected NAME:PASSWORD" if not colon else "neither part may be empty"
        )
    return name, secret


def _mechanisms(text: str) -> list[str]:
    names = text.upper().split(",")
    for name in names:
        if name not in MECHANISMS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(MECHANISMS)}")
    return names


def _certificate(file: str) -> PrivateCertificate:
    try:
        pair: PrivateCertificate = PrivateCertificate.loadPEM(Path(file).read_bytes())
    except Exception as error:
        # pyOpenSSL's errors are lists; which one it is does not matter here.
        raise argparse.ArgumentTypeError(f"expected a PEM file with key and certificate: {error}") from None
    return pair


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of :class:`~twisted_smtpclient.testing.Sink` that the options name."""
    lines = [line for line in arguments.offer if line.upper() != "REQUIRETLS"]
    settings: dict[str, Any] = {
        "lmtp": arguments.lmtp,
        "extensions": lines,
        "requiretls": len(lines) < len(arguments.offer),
        "users": dict(arguments.user),
        "tokens": dict(arguments.token),
        "mechanisms": arguments.mechanisms,
        "mechanisms_in_clear": [] if arguments.login_over_tls else None,
    }
    for extension in arguments.without:
        settings.update(_OFFERS[extension])
    if arguments.refuse is not None:
        settings["refuse"] = dict(arguments.refuse)
    if arguments.tls is not None:
        settings[_TLS[arguments.tls]] = arguments.certificate.options()
    return settings


def run(arguments: argparse.Namespace) -> int:
    """Take mail until interrupted."""
    if arguments.certificate is not None and arguments.tls is None:
        arguments.error("--certificate goes with --tls")
    if arguments.login_over_tls and arguments.tls is None:
        arguments.error("--login-over-tls goes with --tls")
    if arguments.mechanisms and not arguments.user and not arguments.token:
        arguments.error("--mechanisms goes with --user or --token")
    if arguments.tls is not None and arguments.certificate is None:
        made = make_certificates()
        arguments.certificate = PrivateCertificate.loadPEM(made.key_pem + made.certificate_pem)

    async def take(reactor: Any) -> int:
        sink = Sink(reactor, on_mail=show, keep_records=False, **settings_of(arguments))
        place = f"tcp:{arguments.port}:interface={arguments.interface}"
        if arguments.unix is not None:
            place = f"unix:{quoteStringArgument(arguments.unix)}"
        try:
            await sink.listen(place)
        except CannotListenError as error:
            print(f"cannot listen: {error}", file=sys.stderr)
            return status.SYSTEM
        where = arguments.unix or f"{sink.address.host}:{sink.port}"
        print(f"{'LMTP' if arguments.lmtp else 'SMTP'} on {where}", flush=True)
        if arguments.tls is not None:
            print(f"certificate sha256:{_digest(arguments.certificate)}", flush=True)
        forever: Deferred[int] = Deferred()
        return await forever

    return status.run(take)


def _digest(certificate: PrivateCertificate) -> str:
    digest: bytes = certificate.digest("sha256")
    return digest.decode("ascii").replace(":", "").lower()


def show(mail: Mail) -> None:
    """Print a mail: its envelope, how it came, and what it says."""
    refused = (
        f", refused {_addresses(recipient.address for recipient in mail.refused)}" if mail.refused else ""
    )
    login = f", {printable(mail.login.user)} by {mail.login.mechanism}" if mail.login is not None else ""
    print(f"from <{printable(mail.sender)}> to {_addresses(mail.addresses)}{refused}{login}")
    print(f"{mail.size} octets by {mail.via}, {printable(mail.reply)}")
    print(indent(printable(mail.content.decode("utf-8", "backslashreplace")), "    "), flush=True)


def _addresses(addresses: Any) -> str:
    return ", ".join(f"<{printable(address)}>" for address in addresses)
