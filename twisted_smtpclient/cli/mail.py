"""
Options that say what is sent, and what is asked for with it.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from ..smtp.content import Content
from ..smtp.dsn import DSN, Notify, Return
from ..smtp.envelope import Envelope, Recipient
from ..smtp.policy import SUBMISSIONS_PORT, Mode

_NOTIFY: Final = ", ".join(member.value for member in Notify)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; they bear the names of the JSON protocol."""
    parser.add_argument("--sender", metavar="ADDRESS", help="the null reverse-path <> without it")
    parser.add_argument(
        "--recipient",
        dest="recipients",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="may be given many times",
    )
    parser.add_argument(
        "--notify", type=_notify, metavar="WHEN,WHEN", help=f"notices about each recipient: {_NOTIFY}"
    )
    parser.add_argument(
        "--ret", choices=[member.value for member in Return], type=str.upper, help="in notices"
    )
    parser.add_argument("--envid", metavar="NAME", help="what notices are to call the mail")
    parser.add_argument("--requiretls", action="store_true", help="REQUIRETLS; --tls is DEPEND then")
    parser.add_argument("--binary", action="store_true", help="octet for octet (BINARYMIME), or not at all")
    parser.add_argument(
        "--eightbitmime", choices=[Mode.TRY.value, Mode.DEPEND.value], type=str.upper, help="TRY without it"
    )
    parser.add_argument(
        "--mail-parameter",
        dest="mail_parameters",
        type=_parameter,
        action="append",
        metavar="KEYWORD[=VALUE]",
        help="a further parameter of MAIL; may be given many times",
    )


def envelope_of(arguments: argparse.Namespace) -> Envelope:
    """
    The envelope that the options make; from here on ``tls`` is what it takes.

    :raises InvalidRequest: for the first value that is wrong.
    """
    recipients: list[str | Recipient] = arguments.recipients
    # Wrong addresses are told of first, each by its place.
    plain = Envelope(arguments.sender, recipients)
    if arguments.requiretls and arguments.tls is None:
        arguments.tls = "IMPLICIT" if arguments.port == SUBMISSIONS_PORT else "DEPEND"
    if arguments.notify is not None:
        recipients = [Recipient(entry.address, notify=arguments.notify) for entry in plain.recipients]
    return Envelope(
        arguments.sender,
        recipients,
        dsn=DSN(ret=None if arguments.ret is None else Return(arguments.ret), envid=arguments.envid),
        requiretls=arguments.requiretls,
        parameters=_parameters(arguments.mail_parameters or ()),
    )


def content_of(arguments: argparse.Namespace, message: bytes) -> Content:
    """The content that ``message`` is by the options."""
    return Content(message, binary=arguments.binary, eightbitmime=Mode(arguments.eightbitmime or "TRY"))


def _notify(text: str) -> list[Notify]:
    try:
        return [Notify(word) for word in text.upper().split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {_NOTIFY}, with commas between, not {text!r}") from None


def _parameter(text: str) -> tuple[str, str | None]:
    keyword, equals, value = text.partition("=")
    return keyword, value if equals else None


def _parameters(pairs: Any) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for keyword, value in pairs:
        if keyword in found:
            raise ValueError(f"--mail-parameter {keyword} is given twice")
        found[keyword] = value
    return found
