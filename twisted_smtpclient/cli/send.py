"""
Send one message to a server.

The message is read from a file, or from standard input, and sent byte for
byte but for its line ends, which become CRLF.

exit status:
  0   the server took the message for every recipient
  66  the message cannot be read
  69  a recipient, or the whole message, was refused for good
  75  nothing but temporary failures; the same command may succeed later
  76  in doubt: the message may have been accepted; sent again, it may
      arrive twice
  70  a fault of this software
  2   the command line is wrong
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET

from ..client.agent import DeliveryAgent
from ..client.tls import trust_root_of
from ..errors import DeliveryError
from ..gateway.reply import encode_error, encode_result, wire_name
from ..smtp.content import Content
from ..smtp.envelope import Envelope
from ..smtp.policy import Mode, Protocol, Server, Timeouts, TLSMode
from ..smtp.result import DeliveryResult, RecipientStatus
from . import exit as status
from .terminal import printable

#: Options that are fields of Server, with the enum of those that have one.
_SERVER = {
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of the JSON protocol bear its names."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the message; standard input without it")
    parser.add_argument("--host", default="localhost", help="name or address, or unix:/path (localhost)")
    parser.add_argument("--port", type=int, help="25, unless --tls or --protocol say otherwise")
    parser.add_argument("--sender", metavar="ADDRESS", help="the null reverse-path <> without it")
    parser.add_argument(
        "--recipient",
        dest="recipients",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="may be given many times",
    )
    parser.add_argument("--helo", metavar="NAME", help="name for EHLO; found out without it")
    for name in ("protocol", "pipelining", "chunking", "tls"):
        parser.add_argument(f"--{name}", choices=_names(name), type=str.upper, help=_HELP[name])
    parser.add_argument("--tls-name", metavar="NAME", help="the name that the certificate must bear")
    parser.add_argument("--tls-fingerprint", metavar="DIGEST", help="sha256: and the certificate's digest")
    parser.add_argument("--ca-file", metavar="PEM", help="trust roots; the platform's without it")
    parser.add_argument("--source-address", metavar="ADDRESS", help="local address to connect from")
    parser.add_argument("--connection-timeout", type=float, metavar="SECONDS", help="for connecting (10)")
    parser.add_argument("--response-timeout", type=float, metavar="SECONDS", help="for a reply (RFC 5321's)")
    parser.add_argument("--json", action="store_true", help="print the outcome as a line of JSON")


_HELP = {
    "protocol": "SMTP without it",
    "pipelining": "TRY without it",
    "chunking": "TRY without it",
    "tls": "TRY without it; IMPLICIT on port 465",
}


def _names(name: str) -> list[str]:
    return [member.name for member in _SERVER[name] or ()]


def server_of(arguments: argparse.Namespace) -> Server:
    """
    The server that the options name.

    :raises InvalidRequest: for the first value that is wrong.
    """
    given: dict[str, Any] = {}
    for name, kind in _SERVER.items():
        value = getattr(arguments, name)
        if value is not None:
            given[name] = kind[value] if kind else value
    if arguments.response_timeout is not None:
        given["timeouts"] = Timeouts.uniform(arguments.response_timeout)
    return Server(**given)


def _message(file: str | None) -> bytes:
    if file is None or file == "-":
        return sys.stdin.buffer.read()
    return Path(file).read_bytes()


def run(arguments: argparse.Namespace) -> int:
    """Send it, print the verdicts, give the exit status."""
    try:
        server = server_of(arguments)
        envelope = Envelope(arguments.sender, arguments.recipients)
        trust_root = None if arguments.ca_file is None else trust_root_of(arguments.ca_file)
    except ValueError as error:
        arguments.error(str(error))
    try:
        message = _message(arguments.file)
    except OSError as error:
        print(f"cannot read the message: {error}", file=sys.stderr)
        return status.NO_INPUT

    async def send(reactor: Any) -> DeliveryResult | DeliveryError:
        agent = DeliveryAgent(reactor, trust_root=trust_root)
        try:
            return await agent.deliver(server, envelope, Content(message), reuse=False)
        except DeliveryError as error:
            return error
        finally:
            await agent.close()

    outcome = status.run(send)
    if isinstance(outcome, DeliveryError):
        _print_error(outcome, as_json=arguments.json)
        return status.of_error(outcome)
    _print_result(outcome, as_json=arguments.json)
    return status.of_recipients(outcome.recipients)


def _print_result(result: DeliveryResult, *, as_json: bool) -> None:
    if as_json:
        print(encode_result(UNSET, result).decode())
    else:
        _print_table(result.recipients)


def _print_error(error: DeliveryError, *, as_json: bool) -> None:
    if as_json:
        print(encode_error(UNSET, error).decode())
        return
    _print_table(error.recipients)
    hint = "in doubt: it may have been accepted; " if error.in_doubt else ""
    print(f"{wire_name(error)}: {hint}{printable(str(error))}", file=sys.stderr)


def _print_table(recipients: Sequence[RecipientStatus]) -> None:
    """One row a recipient; further lines of a reply stand below its first."""
    width = max((len(entry.recipient) for entry in recipients), default=0)
    for entry in recipients:
        told = entry.response or ("it may have been delivered" if entry.in_doubt else "not delivered")
        told = printable(told)
        first, *further = told.split("\n")
        print(f"{entry.status.value:<14}  {entry.recipient:<{width}}  {first}")
        for line in further:
            print(f"{'':<14}  {'':<{width}}  {line}")
