"""
What the RFCs say, and nothing else.

Everything in this folder decides and nothing in it moves an octet: there is
no Twisted, no clock, no log and no JSON.  A test enforces it.

RFC 5321 (SMTP), 1870 (SIZE), 2033 (LMTP), 2034 and 3463 (enhanced status
codes), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 6152
(8BITMIME), 6531 (SMTPUTF8).
"""
