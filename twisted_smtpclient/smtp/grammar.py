"""
The ABNF that our own words must fit, as patterns.

Each pattern stands under the rule that it implements.  They validate and
never repair; nothing with CR, LF or NUL passes any of them, so what they let
through cannot end a command or begin another, and a ``<`` or ``>`` passes
only inside quotes.  Each takes time linear in the length of what it is given;
still, callers look at the length first.
"""

from __future__ import annotations

import re
from typing import Final

# UTF8-non-ascii (RFC 6531 3.3), without what the RFC lets in and no mailbox
# has: the C1 controls and the two separators, at which a log or a terminal
# would begin a new line, and surrogates, which have no UTF-8 form.
_NON_ASCII = r"\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"

# atext (RFC 5322 3.2.3), widened by UTF8-non-ascii.
_ASCII_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_ATEXT = rf"[{_ASCII_ATEXT}{_NON_ASCII}]"

# Dot-string = Atom *("." Atom)                              RFC 5321 4.1.2
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"

# Quoted-string = DQUOTE *QcontentSMTP DQUOTE                RFC 5321 4.1.2
# QcontentSMTP  = %d32-33 / %d35-91 / %d93-126 / "\" %d32-126
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*"'

# sub-domain = Let-dig [Ldh-str]                             RFC 5321 4.1.2
# We also take "_", which the RFC does not: names of containers and of Windows
# hosts have it, and servers accept it.  A label has at most 63 octets
# (RFC 1035 2.3.4), which the look-ahead-free form below counts as 1 + 61 + 1.
_ALNUM = rf"[A-Za-z0-9_{_NON_ASCII}]"
_LDH = rf"[A-Za-z0-9_\-{_NON_ASCII}]"
_LABEL = rf"{_ALNUM}(?:{_LDH}{{0,61}}{_ALNUM})?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"

# address-literal = "[" ( IPv4 / "IPv6:" … / Standardized-tag ":" 1*dcontent ) "]"
#                                                            RFC 5321 4.1.3
_IPV4 = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}"
# dcontent has "<" and ">"; we leave them out, since a path ends at the latter.
_IPV6 = rf"(?i:IPv6):(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:[0-9A-Fa-f]{{0,4}}|{_IPV4})"
_TAGGED = r"(?!(?i:IPv6):)[A-Za-z0-9\-]*[A-Za-z0-9]:[!-;=?-Z^-~]+"
_LITERAL = rf"\[(?:{_IPV4}|{_IPV6}|{_TAGGED})\]"

#: Mailbox = Local-part "@" ( Domain / address-literal )     RFC 5321 4.1.2
#: Group 1 is the local part, group 2 the domain or the literal.
MAILBOX: Final = re.compile(rf"({_DOT_STRING}|{_QUOTED_STRING})@({_DOMAIN}|{_LITERAL})", re.ASCII)

#: Most mailboxes there are.  What fits it, in at most :data:`MAX_PLAIN`
#: octets, fits :data:`MAILBOX`; it is matched three times as fast.
PLAIN_MAILBOX: Final = re.compile(
    rf"[{_ASCII_ATEXT}]+(?:\.[{_ASCII_ATEXT}]+)*@[A-Za-z0-9]+(?:[.\-][A-Za-z0-9]+)*", re.ASCII
)

#: One of them for the local part at the least and one for the "@": no label
#: can be longer than its 63.
MAX_PLAIN: Final = 65

#: ehlo = "EHLO" SP ( Domain / address-literal )             RFC 5321 4.1.1.1
HELO_NAME: Final = re.compile(rf"(?!.*[^\x00-\x7f])(?:{_DOMAIN}|{_LITERAL})", re.ASCII)

#: A host name to look up; one final dot makes it absolute (RFC 1034 3.1).
HOST_NAME: Final = re.compile(rf"{_DOMAIN}\.?", re.ASCII)

#: esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")    RFC 5321 4.1.2
ESMTP_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*", re.ASCII)

#: esmtp-value = 1*(%d33-60 / %d62-126)                      RFC 5321 4.1.2
#: RFC 6531 3.3 lets UTF-8 in where SMTPUTF8 is asked for; we do not need it.
ESMTP_VALUE: Final = re.compile(r"[!-<>-~]+", re.ASCII)

#: A path has no practical use beyond one command line of RFC 5321 4.5.3.1.4:
#: 512 octets less ``MAIL FROM:<>`` and CRLF (14).  The RFC's own 256 octets
#: (4.5.3.1.3), and 64 for a local part, are what a server must take at the
#: least; addresses for VERP and SRS exceed them and are delivered.
MAX_ADDRESS: Final = 498

#: RFC 1035 2.3.4.
MAX_DOMAIN: Final = 255
