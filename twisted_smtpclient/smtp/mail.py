"""
MAIL: the reverse-path, and the parameters that a mail needs.
"""

from __future__ import annotations

from ..errors import ExtensionUnsupported, MessageTooLarge
from .content import Content
from .envelope import Envelope
from .extensions import Extensions


def mail_command(envelope: Envelope, content: Content, extensions: Extensions) -> bytes:
    """
    The MAIL command, with the parameters that the mail needs and the server
    offers.

    :raises MessageTooLarge: the server announced a smaller limit (RFC 1870).
    :raises ExtensionUnsupported: an address needs SMTPUTF8 (RFC 6531).
    """
    command = b"MAIL FROM:<%b>" % envelope.reverse_path
    if extensions.size:
        limit = extensions.size_limit
        if limit is not None and content.size > limit:
            raise MessageTooLarge(f"the message has {content.size} octets, the server takes {limit}")
        command += b" SIZE=%d" % content.size
    if extensions.eightbitmime and content.eight_bit:
        command += b" BODY=8BITMIME"
    if envelope.needs_smtputf8:
        if not extensions.smtputf8:
            raise ExtensionUnsupported("an address has no ASCII form, and the server does not offer SMTPUTF8")
        command += b" SMTPUTF8"
    return command + envelope.parameters + b"\r\n"
