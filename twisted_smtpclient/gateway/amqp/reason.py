"""
Why something of AMQP came to nothing, in words for a log.
"""

from __future__ import annotations

__all__ = ["reason_of"]


def reason_of(error: object) -> str:
    """What an error of pika's, of Twisted's or of TLS's says to a person."""
    code, text = getattr(error, "reply_code", None), getattr(error, "reply_text", None)
    if code is not None:
        hint = "; python -m twisted_smtpclient amqp-setup declares what is needed" if code == 404 else ""
        return f"{code} {text}{hint}"
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
