"""
Delivery status notifications (RFC 3461): what a sender may ask for.

What is given is what is meant, not its encoding: xtext (RFC 3461 section 4),
and the form that an address which is not ASCII has (RFC 6533 section 3), are
made here.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from typing import Final

import attrs

from ..errors import InvalidRequest
from .grammar import MAILBOX, MAX_ADDRESS


class Notify(enum.Enum):
    """When a recipient's sender is told (RFC 3461 section 4.1)."""

    #: not at all; stands alone
    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Return(enum.Enum):
    """What of the message comes back with a failure (RFC 3461 section 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


#: Characters on the wire, of ENVID (RFC 3461 4.4) and of ORCPT (4.2).
MAX_ENVID: Final = 100
MAX_ORCPT: Final = 500

#: xtext = *( xchar / hexchar )                               RFC 3461 section 4
#: xchar = any ASCII CHAR between "!" and "~" but "+" and "="
_NO_XCHAR: Final = re.compile(r"[^!-*,-<>-~]")

#: utf-8-addr-xtext = 1*(QCHAR / EmbeddedUnicodeChar)         RFC 6533 section 3
#: QCHAR = the same but "\", which begins an EmbeddedUnicodeChar
_NO_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")

#: Printable US-ASCII, the space included.
_PRINTABLE: Final = re.compile(r"[ -~]+", re.ASCII)

#: original-recipient-address = atom ";" xtext.  Types that are registered
#: have the characters of a keyword.
_TYPED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*);(.*)", re.ASCII | re.DOTALL)


def xtext(text: str) -> str:
    """Printable ASCII as xtext: what is no xchar becomes ``+`` and two hex digits."""
    return _NO_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text)


def _embedded(address: str) -> str:
    """An address in the form of RFC 6533 that is safe with and without SMTPUTF8."""
    return _NO_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


def _instance_or_none(_: object, attribute: attrs.Attribute[Return | None], value: object) -> None:
    if value is not None and not isinstance(value, Return):
        raise InvalidRequest("expected a Return", attribute.name)


def _envid(value: str | None) -> str | None:
    # The length first: what is over it is neither looked at nor told.
    if value is not None:
        if not isinstance(value, str):
            raise InvalidRequest("expected a string", "envid")
        if len(value) > MAX_ENVID or not _PRINTABLE.fullmatch(value) or len(xtext(value)) > MAX_ENVID:
            raise InvalidRequest(
                f"expected 1 to {MAX_ENVID} printable ASCII characters, of which those other than"
                ' "!" to "~", "+" and "=" count thrice',
                "envid",
            )
    return value


@attrs.frozen(kw_only=True)
class DSN:
    """
    What is asked for with MAIL; what is asked for each recipient stands in
    :class:`~.envelope.Recipient`.

    :ivar ret: what comes back with a failure; None leaves it to the server.
    :ivar envid: what the notice is to call this mail: at most 100 printable
        ASCII characters, as they are meant.
    :raises InvalidRequest: naming ``ret`` or ``envid``.
    """

    ret: Return | None = attrs.field(default=None, validator=_instance_or_none)
    envid: str | None = attrs.field(default=None, converter=_envid)

    @property
    def parameters(self) -> bytes:
        """The octets for MAIL, a space before each parameter."""
        ret = "" if self.ret is None else f" RET={self.ret.value}"
        envid = "" if self.envid is None else f" ENVID={xtext(self.envid)}"
        return (ret + envid).encode("ascii")


def notify_parameter(notify: Collection[Notify]) -> bytes:
    """
    NOTIFY for RCPT.

    :raises InvalidRequest: naming ``notify``.
    """
    if not _are_notify(notify):
        raise InvalidRequest("expected a list of Notify", "notify")
    words = [entry.value for entry in notify]
    if not words or len(set(words)) < len(words) or (Notify.NEVER.value in words and len(words) > 1):
        raise InvalidRequest("expected NEVER alone, or one or more of SUCCESS, FAILURE and DELAY", "notify")
    return f" NOTIFY={','.join(words)}".encode("ascii")


def _are_notify(given: object) -> bool:
    # A string is a collection too, of none of them.
    return isinstance(given, Collection) and all(isinstance(entry, Notify) for entry in given)


def orcpt_parameter(orcpt: str) -> bytes:
    """
    ORCPT for RCPT: an address that is given its type where it has none.

    :param orcpt: an address, or its type, a semicolon and an address; as it
        is meant, not encoded.
    :raises InvalidRequest: naming ``orcpt``.
    """
    if not isinstance(orcpt, str):
        raise InvalidRequest("expected a string", "orcpt")
    if len(orcpt) > MAX_ORCPT:
        raise _too_long()
    typed = _TYPED.fullmatch(orcpt)
    if typed is not None:
        kind, address = typed.groups()
    else:
        kind, address = ("rfc822" if orcpt.isascii() else "utf-8"), orcpt
    utf8 = kind.lower() == "utf-8"
    if (typed is None or utf8) and not _is_address(address):
        raise InvalidRequest("expected an address, with or without a type and a semicolon before it", "orcpt")
    if not address:
        raise InvalidRequest(f"expected an address behind {kind};", "orcpt")
    if not utf8 and not _PRINTABLE.fullmatch(address):
        raise InvalidRequest(f"expected printable ASCII behind {kind}; only utf-8 has more", "orcpt")
    encoded = _embedded(address) if utf8 else xtext(address)
    if len(kind) + 1 + len(encoded) > MAX_ORCPT:
        raise _too_long()
    return f" ORCPT={kind};{encoded}".encode("ascii")


def _is_address(text: str) -> bool:
    # The one recipient that needs no domain (RFC 5321 4.1.1.3) is one here too.
    return text.lower() == "postmaster" or (len(text) <= MAX_ADDRESS and bool(MAILBOX.fullmatch(text)))


def _too_long() -> InvalidRequest:
    return InvalidRequest(f"expected at most {MAX_ORCPT} characters once encoded, its type included", "orcpt")
