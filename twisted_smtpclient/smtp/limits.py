"""
What a server takes in one transaction and on one connection: LIMITS (RFC 9422).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .envelope import Envelope
from .extensions import Extensions

#: limit-value = %x31-39 0*5DIGIT                              RFC 9422 3.1
_LIMIT: Final = re.compile(r"(MAILMAX|RCPTMAX|RCPTDOMAINMAX)=([1-9]\d{0,5})", re.ASCII | re.IGNORECASE)


class Limits(NamedTuple):
    """
    A server's limits; None where it tells none.

    :ivar mails: transactions on one connection (MAILMAX).
    :ivar recipients: recipients of one transaction (RCPTMAX).
    :ivar domains: different domains among them (RCPTDOMAINMAX).
    """

    mails: int | None = None
    recipients: int | None = None
    domains: int | None = None

    @classmethod
    def of(cls, extensions: Extensions) -> Limits:
        """Read LIMITS; what is not of its grammar is passed over (section 3)."""
        told = {}
        for parameter in extensions.get("LIMITS", ()):
            if match := _LIMIT.fullmatch(parameter):
                told[match[1].upper()] = int(match[2])
        if not told:
            return UNLIMITED
        return cls(told.get("MAILMAX"), told.get("RCPTMAX"), told.get("RCPTDOMAINMAX"))

    def recipients_of(self, envelope: Envelope) -> int | None:
        """
        How many of the recipients may go in one transaction, from the first.

        :returns: None where all of them may.
        """
        count = allowed = len(envelope.recipients)
        if self.recipients is not None:
            allowed = min(count, self.recipients)
        if self.domains is not None:
            domains: set[str] = set()
            for position in range(allowed):
                domains.add(envelope.recipients[position].address.rpartition("@")[2].lower())
                if len(domains) > self.domains:
                    allowed = position
                    break
        return None if allowed == count else allowed


#: Most servers': one value, so that a mail asks only whether it is this one.
UNLIMITED: Final = Limits()
