"""
MAIL: the reverse-path, and the parameters that a mail needs.
"""

from __future__ import annotations

from typing import Final

from ..errors import ExtensionUnsupported, MessageTooLarge
from .content import Content
from .envelope import Envelope
from .extensions import Extensions
from .policy import Mode

#: What is said where these are not offered, instead of naming the field.
_LACKING: Final = {
    "SMTPUTF8": "an address has no ASCII form, and the server does not offer SMTPUTF8",
    "REQUIRETLS": (
        "requiretls is asked for, and the server does not offer REQUIRETLS"
        " under TLS with a certificate that verifies"
    ),
}


def mail_command(envelope: Envelope, content: Content, extensions: Extensions) -> bytes:
    """
    The MAIL command, with the parameters that the mail needs and the server
    offers.

    :param extensions: what may be used.  REQUIRETLS is not to be among them
        where TLS is not verified, nor BINARYMIME where contents do not go by
        BDAT.
    :raises MessageTooLarge: the server announced a smaller limit (RFC 1870).
    :raises ExtensionUnsupported: the mail asks for what is not offered.
    """
    command = b"MAIL FROM:<%b>" % envelope.reverse_path
    if extensions.size:
        limit = extensions.size_limit
        if limit is not None and content.size > limit:
            raise MessageTooLarge(f"the message has {content.size} octets, the server takes {limit}")
        command += b" SIZE=%d" % content.size
    if content.plain and envelope.asks is None:
        # What most mails are.
        return command + b"\r\n"
    if envelope.asks is not None:
        for extension, field in envelope.asks.items():
            if extension not in extensions:
                raise ExtensionUnsupported(
                    _LACKING.get(extension, f"the server does not offer {extension}, which {field} asks for")
                )
    command += _body(content, extensions)
    if envelope.needs_smtputf8 or (extensions.smtputf8 and content.has_utf8_header):
        command += b" SMTPUTF8"
    return command + envelope.parameters + b"\r\n"


def _body(content: Content, extensions: Extensions) -> bytes:
    """The BODY parameter (RFC 6152, RFC 3030), where one is needed."""
    if content.binary:
        if "BINARYMIME" not in extensions:
            raise ExtensionUnsupported(
                "binary is asked for, and the server does not offer BINARYMIME, or CHUNKING is not used there"
            )
        return b" BODY=BINARYMIME"
    if not content.eight_bit:
        return b""
    if extensions.eightbitmime:
        return b" BODY=8BITMIME"
    if content.eightbitmime is Mode.DEPEND:
        raise ExtensionUnsupported(
            "the message has octets over 127, the server does not offer 8BITMIME, and eightbitmime is DEPEND"
        )
    return b""
