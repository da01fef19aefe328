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
from ..errors import DeliveryError
from ..gateway.reply import encode_error, encode_result, wire_name
from ..smtp.result import DeliveryResult, RecipientStatus
from . import exit as status
from . import mail, session
from .terminal import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of the JSON protocol bear its names."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the message; standard input without it")
    parser.add_argument("--host", default="localhost", help="name or address, or unix:/path (localhost)")
    parser.add_argument("--port", type=int, help="25, unless --tls or --protocol say otherwise")
    mail.add_arguments(parser)
    session.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the outcome as a line of JSON")


def _message(file: str | None) -> bytes:
    if file is None or file == "-":
        return sys.stdin.buffer.read()
    return Path(file).read_bytes()


def run(arguments: argparse.Namespace) -> int:
    """Send it, print the verdicts, give the exit status."""
    try:
        envelope = mail.envelope_of(arguments)
        trust_root = session.trust_root(arguments)
        server = session.server_of(arguments)
    except ValueError as error:
        arguments.error(str(error))
    try:
        message = _message(arguments.file)
    except OSError as error:
        print(f"cannot read the message: {error}", file=sys.stderr)
        return status.NO_INPUT
    content = mail.content_of(arguments, message)

    async def send(reactor: Any) -> DeliveryResult | DeliveryError:
        agent = DeliveryAgent(reactor, trust_root=trust_root)
        try:
            return await agent.deliver(server, envelope, content, reuse=False)
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
