"""
Twisted's ESMTPClient with all that it does taken out.

Its states, quoting, log, content and timer are what goes wrong in it: leading
dots are not doubled at the start of a block, octets read before STARTTLS are
believed after it, addresses are rewritten.  None of that can be mended from
outside, and none of it may be reached by a slip, so each of these methods
raises.  A test walks the base classes and fails if one is missing here.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from twisted.mail.smtp import ESMTPClient

#: What stays: the constructor, the switches, and the list of authenticators.
KEPT: Final = frozenset({"registerAuthenticator", "logPrefix", "makeConnection"})

#: What the base would do with a session of its own.
UNREACHED: Final = (
    # states of the session
    "authenticate",
    "esmtpState_challenge",
    "esmtpState_ehlo",
    "esmtpState_serverConfig",
    "esmtpState_starttls",
    "smtpState_data",
    "smtpState_disconnect",
    "smtpState_from",
    "smtpState_helo",
    "smtpState_maybeAuthenticated",
    "smtpState_msgSent",
    "smtpState_to",
    "smtpState_toOrData",
    "tryTLS",
    "_authResponse",
    "_esmtpState_plainAuth",
    # its ends
    "esmtpAUTHDeclined",
    "esmtpAUTHMalformedChallenge",
    "esmtpAUTHRequired",
    "esmtpAUTHServerError",
    "esmtpEHLORequired",
    "esmtpTLSFailed",
    "esmtpTLSRequired",
    "sendError",
    "smtpConnectionFailed",
    "smtpTransferFailed",
    "_disconnectFromServer",
    # the mail, asked for by overriding
    "finishedFileTransfer",
    "getMailData",
    "getMailFrom",
    "getMailTo",
    "sentMail",
    "transformChunk",
    # lines
    "clearLineBuffer",
    "lineLengthExceeded",
    "lineReceived",
    "rawDataReceived",
    "sendLine",
    "setLineMode",
    "setRawMode",
    # time
    "callLater",
    "resetTimeout",
    "setTimeout",
    "timeoutConnection",
    "_TimeoutMixin__timedOut",
)


def _unreached(name: str) -> Any:
    def method(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(
            f"{name} is Twisted's ESMTPClient's own and not used here; "
            "give mails to PipeliningESMTPClient.deliver()"
        )

    method.__name__ = name
    method.__doc__ = "Not used; raises."
    return method


class UnreachedESMTPClient(ESMTPClient):
    """An ESMTPClient by type, which says and does nothing."""

    # The base stores through a __setattr__ that bypasses properties and costs
    # ten times as much.
    __setattr__ = object.__setattr__

    #: typed ITransport by the base, which has hardly what is asked of it
    transport: Any

    # Its log keeps passwords, and puts them into the text of errors.
    debug = False


for _name in UNREACHED:
    setattr(UnreachedESMTPClient, _name, _unreached(_name))
