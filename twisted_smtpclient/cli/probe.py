"""
Look at a server without sending it a message.

Connects, starts TLS and logs in as the options say, and tells what the server
is and offers:

    probe mx.example
    probe mx.example:465 --user anna
    probe unix:/run/dovecot/lmtp --lmtp

exit status:
  0   the server would take a message from here on
  69  it would not: refused, unknown, or its TLS or login is not as asked for
  75  a temporary failure; the same command may succeed later
  70  a fault of this software
  2   the command line is wrong
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import UNSET

from .. import errors
from ..client.agent import DeliveryAgent
from ..errors import DeliveryError
from ..gateway.reply import encode_error, encode_probe, wire_name
from ..smtp.policy import Server, TLSMode
from ..smtp.probe import Probe, TLSSession
from . import exit as status
from . import session
from .terminal import printable

#: A name or an IPv4 address, or an IPv6 address in brackets, and a port.
_PLACE: Final = re.compile(r"(?P<host>[^:\[\]]*|\[[^\[\]]*\]):(?P<port>[0-9]+)", re.ASCII)

#: What to try next, for errors that the reader can do something about.
_ADVICE: Final[dict[type[DeliveryError], str]] = {
    errors.ConnectionRefused: "is the server up, and is it the right port? (25, 465, 587; LMTP: 24)",
    errors.ConnectionTimeout: "is something in between dropping packets? Many networks block port 25",
    errors.HostNotFound: "is the name right, and is it a host's? A domain's mail server is in its MX record",
    errors.ProtocolError: "is this a mail server? On a port with TLS from the first octet: --tls implicit",
    errors.ConnectionLost: "the server hung up; its log may say why",
}
_SILENT: Final = "a server with TLS from the first octet does not speak first: --tls implicit"
_NOT_VERIFIED: Final = (
    "--ca-file trusts its authority, --tls-fingerprint the certificate itself; --tls try shows it"
)
_NOT_VERIFIED_IMPLICIT: Final = (
    "--ca-file trusts its authority, --tls-fingerprint the certificate itself; "
    "openssl s_client -connect shows it"
)
_NO_TLS: Final = "does it speak TLS from the first octet? Where it has STARTTLS: --tls depend"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; they are those of ``send``."""
    parser.add_argument(
        "place", metavar="HOST[:PORT]", help="name or address ([::1]:25), or unix:/path; port 25 without it"
    )
    session.add_arguments(parser)
    parser.add_argument(
        "--lmtp", dest="protocol", action="store_const", const="LMTP", help="the same as --protocol LMTP"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as a line of JSON")


def place_of(text: str) -> tuple[str, int | None]:
    """Host and port; what is no ``HOST:PORT`` is a host as it stands, ``::1`` too."""
    match = None if text.startswith("unix:") else _PLACE.fullmatch(text)
    return (text, None) if match is None else (match["host"], int(match["port"]))


def run(arguments: argparse.Namespace) -> int:
    """Look, print what is seen, give the exit status."""
    arguments.host, arguments.port = place_of(arguments.place)
    try:
        trust_root = session.trust_root(arguments)
        server = session.server_of(arguments)
    except ValueError as error:
        arguments.error(str(error))

    async def look(reactor: Any) -> Probe | DeliveryError:
        agent = DeliveryAgent(reactor, trust_root=trust_root)
        try:
            seen: Probe = await agent.probe(server)
            return seen
        except DeliveryError as error:
            return error
        finally:
            await agent.close()

    outcome = status.run(look)
    if isinstance(outcome, DeliveryError):
        _print_error(outcome, server, as_json=arguments.json)
        return status.of_error(outcome)
    if arguments.json:
        print(encode_probe(UNSET, outcome).decode())
    else:
        print("\n".join(report(server, outcome)))
    return status.OK


def _print_error(error: DeliveryError, server: Server, *, as_json: bool) -> None:
    if as_json:
        print(encode_error(UNSET, error).decode())
        return
    print(f"{wire_name(error)}: {printable(str(error))}", file=sys.stderr)
    advice = _advice(error, server)
    if advice is not None:
        print(advice, file=sys.stderr)


def _advice(error: DeliveryError, server: Server) -> str | None:
    implicit = server.tls is TLSMode.IMPLICIT
    if isinstance(error, errors.TLSFailed) and "does not verify" in str(error):
        return _NOT_VERIFIED_IMPLICIT if implicit else _NOT_VERIFIED
    if isinstance(error, errors.TLSFailed) and implicit:
        return _NO_TLS
    if isinstance(error, errors.ResponseTimeout) and not implicit and "no greeting" in str(error):
        return _SILENT
    return _ADVICE.get(type(error))


def report(server: Server, probe: Probe) -> Iterator[str]:
    """What was seen, in lines for people."""
    yield printable(str(server))
    yield from _row("greeting", probe.greeting.split("\n"))
    yield from _row("TLS", _tls(server, probe))
    if probe.tls is not None:
        yield from _row("certificate", _certificate(probe.tls))
    yield from _row("login", _login(server, probe))
    yield from _row("limits", _limits(probe))
    yield from _row("extensions", [" ".join((word, *probe.extensions[word])) for word in probe.extensions])


def _row(name: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {name:<11}  {printable(line)}"
        name = ""


def _tls(server: Server, probe: Probe) -> Iterator[str]:
    if probe.tls is not None:
        yield f"{probe.tls.version}, {probe.tls.cipher}"
    elif server.tls is TLSMode.NO:
        yield "none, as asked for"
    elif "STARTTLS" in probe.extensions:
        yield "none, although STARTTLS is offered; --tls depend tells why"
    else:
        yield "none; it does not offer STARTTLS"


def _certificate(tls: TLSSession) -> Iterator[str]:
    yield "verified" if tls.verified else f"not verified: {tls.complaint}"
    if tls.names:
        yield f"for {', '.join(tls.names)}"
    if tls.expires:
        yield f"until {tls.expires}"
    if tls.fingerprint:
        yield tls.fingerprint


def _login(server: Server, probe: Probe) -> Iterator[str]:
    if probe.authenticated and server.auth is not None:
        yield f"as {server.auth.username}"
    if probe.mechanisms:
        yield f"offered: {', '.join(probe.mechanisms)}"
    else:
        yield "not offered" if probe.tls is not None else "not offered without TLS"


def _limits(probe: Probe) -> Iterator[str]:
    if probe.size_limit is not None:
        yield f"{probe.size_limit} octets a message"
    limits = probe.limits
    for count, what in (
        (limits.recipients, "recipients a transaction"),
        (limits.domains, "domains a transaction"),
        (limits.mails, "messages a connection"),
    ):
        if count is not None:
            yield f"{count} {what}"
