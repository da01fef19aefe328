"""
Options that say how to talk to a server, for each command that does.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Any, Final

from ..client.tls import TrustRoot, trust_root_of
from ..smtp.credentials import Credentials
from ..smtp.policy import Mode, Protocol, Server, Timeouts, TLSMode

#: Where a secret is taken from: every user of the machine can read a command
#: line, and only its own user the environment of a process.
PASSWORD: Final = "SMTP_PASSWORD"  # noqa: S105 - the name of the variable
TOKEN: Final = "SMTP_TOKEN"  # noqa: S105 - likewise

#: Options that are fields of Server, with the enum of those that have one.
_SERVER: Final[dict[str, Any]] = {
    "host": None,
    "port": None,
    "helo": None,
    "protocol": Protocol,
    "pipelining": Mode,
    "chunking": Mode,
    "tls": TLSMode,
    "tls_name": None,
    "tls_fingerprint": None,
    "source_address": None,
    "connection_timeout": None,
}

_HELP: Final = {
    "protocol": "SMTP without it",
    "pipelining": "TRY without it",
    "chunking": "TRY without it",
    "tls": "TRY without it; IMPLICIT on port 465; DEPEND with --user, but on loopback",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, but for host and port; they bear the names of the JSON protocol."""
    parser.add_argument("--helo", metavar="NAME", help="name for EHLO; found out without it")
    for name in ("protocol", "pipelining", "chunking", "tls"):
        words = [member.name for member in _SERVER[name]]
        parser.add_argument(f"--{name}", choices=words, type=str.upper, help=_HELP[name])
    parser.add_argument("--tls-name", metavar="NAME", help="the name that the certificate must bear")
    parser.add_argument("--tls-fingerprint", metavar="DIGEST", help="sha256: and the certificate's digest")
    parser.add_argument("--ca-file", metavar="PEM", help="trust roots; the platform's without it")
    parser.add_argument(
        "--user",
        metavar="NAME",
        help=f"log in: with the password in the environment's {PASSWORD}, the OAuth 2 token in {TOKEN},"
        " or the password that is asked for on the terminal",
    )
    parser.add_argument(
        "--mechanisms",
        type=_words,
        metavar="NAME,NAME",
        help="the only ones to log in by, in this order; strongest first without it",
    )
    parser.add_argument("--source-address", metavar="ADDRESS", help="local address to connect from")
    parser.add_argument("--connection-timeout", type=float, metavar="SECONDS", help="for connecting (10)")
    parser.add_argument("--response-timeout", type=float, metavar="SECONDS", help="for a reply (RFC 5321's)")


def _words(text: str) -> list[str]:
    return text.split(",")


def server_of(arguments: argparse.Namespace) -> Server:
    """
    The server that the options name; asks for a password where that is wanted.

    :raises ValueError: for the first value that is wrong.
    """
    given: dict[str, Any] = {}
    for name, kind in _SERVER.items():
        value = getattr(arguments, name)
        if value is not None:
            given[name] = kind[value] if kind else value
    if arguments.response_timeout is not None:
        given["timeouts"] = Timeouts.uniform(arguments.response_timeout)
    # What is wrong is told before anybody types a password.
    server = Server(**given)
    credentials = _credentials(arguments, server)
    return server if credentials is None else Server(auth=credentials, **given)


def trust_root(arguments: argparse.Namespace) -> TrustRoot | None:
    """
    The trust roots that the options name; None for the platform's.

    :raises ValueError: telling the path and what is wrong with it.
    """
    return None if arguments.ca_file is None else trust_root_of(arguments.ca_file)


def _credentials(arguments: argparse.Namespace, server: Server) -> Credentials | None:
    if arguments.user is None:
        if arguments.mechanisms is not None:
            raise ValueError("--mechanisms goes with --user")
        return None
    token, password = os.environ.get(TOKEN), os.environ.get(PASSWORD)
    if token is not None and password is not None:
        raise ValueError(f"{PASSWORD} and {TOKEN} are both set, and --user takes one of them")
    if token is not None:
        return Credentials(arguments.user, token=token, mechanisms=arguments.mechanisms)
    if password is None:
        password = _ask(f"Password of {arguments.user} at {server}: ")
    return Credentials(arguments.user, password, mechanisms=arguments.mechanisms)


def _ask(prompt: str) -> str:
    # getpass falls back to standard input, where the message may be.
    if not _has_terminal():
        raise ValueError(f"--user needs the password in {PASSWORD}, for there is no terminal to ask on")
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise ValueError("--user needs a password, and none was given") from None


def _has_terminal() -> bool:
    try:
        with Path("/dev/tty").open("rb"):
            return True
    except OSError:
        # Where there are no such files, the console is what standard input is.
        return sys.platform == "win32" and sys.stdin.isatty()
