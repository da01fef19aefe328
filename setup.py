"""
All metadata stands in setup.cfg; here stands what is compiled.

A wheel is built with the way of a mail compiled by mypyc, from the same
sources: it takes half of the time that Python takes.  Where there is no
compiler it is built without, and does the same.  ``TWISTED_SMTPCLIENT_PURE=1``
leaves it out, and so does an editable install, whose sources change.
"""

import os
import sys

from setuptools import Extension, setup

#: What each mail goes through.  What users subclass, what they are given an
#: interface of, and what is not run for each mail, is not among it.  A logger
#: there is told its name, for it cannot find out who makes it.
COMPILED = [
    "smtp/content.py",
    "smtp/envelope.py",
    "smtp/extensions.py",
    "smtp/mail.py",
    "smtp/outcomes.py",
    "smtp/pipeline.py",
    "smtp/reply.py",
    "smtp/result.py",
    "smtp/sender.py",
    "smtp/steps.py",
    "smtp/transaction.py",
    "client/arrival.py",
    "client/delivery.py",
    "client/departure.py",
    "client/dispatch.py",
    "client/exchange.py",
    "client/pending.py",
    "client/pool.py",
    "client/watch.py",
    "gateway/amqp/consumer.py",
    "gateway/amqp/frames.py",
    "gateway/amqp/identity.py",
    "gateway/amqp/job.py",
    "gateway/amqp/publisher.py",
    "gateway/base64.py",
    "gateway/codec.py",
    "gateway/conversation.py",
    "gateway/delivery.py",
    "gateway/framing.py",
    "gateway/holding.py",
    "gateway/journal.py",
    "gateway/memory.py",
    "gateway/reply.py",
    "gateway/requests.py",
    "gateway/under_way.py",
]

#: What is written in C, for each octet is looked at: of a module in Python, which
#: tells the same where this is not there.
IN_C = {
    "twisted_smtpclient.smtp._forward_path": "twisted_smtpclient/smtp/_forward_path.c",
    "twisted_smtpclient.smtp._line_ends": "twisted_smtpclient/smtp/_line_ends.c",
    "twisted_smtpclient.gateway._strings": "twisted_smtpclient/gateway/_strings.c",
}

#: Of the compiler, not of the checks in CI: what is not installed where a
#: wheel is built (Twisted) has any type, and constructors take any argument
#: (see smtp/given.py).
OPTIONS = ["--config-file=mypyc.ini"]


def is_wanted() -> bool:
    """Whether a wheel is built, and nobody wants it pure."""
    if os.environ.get("TWISTED_SMTPCLIENT_PURE", "0") not in ("", "0"):
        return False
    # What the build wants to know before it begins is asked by the same
    # command, as far as PEP 517 lets one tell.
    return not {"editable_wheel", "develop", "sdist"}.intersection(sys.argv)


def extensions() -> list[Extension]:
    """What to compile."""
    if not is_wanted() or "bdist_wheel" not in sys.argv:
        return []
    found = [*from_python(), *(Extension(name, [source]) for name, source in IN_C.items())]
    for extension in found:
        # Where no compiler of C is there, what is left is Python.
        extension.optional = True
    return found


def from_python() -> list[Extension]:
    """Nothing where the compiler of Python is not there."""
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    paths = [f"twisted_smtpclient/{name}" for name in COMPILED]
    try:
        # The compiler's own variable: for who compiles often, and not for speed.
        level = os.environ.get("MYPYC_OPT_LEVEL", "3")
        return mypycify([*OPTIONS, *paths], opt_level=level, debug_level="0")
    except SystemExit as reason:
        # A later mypy may object to what this one did not.
        sys.stderr.write(f"not compiled, so it is slower: {reason}\n")
        return []


setup(ext_modules=extensions(), setup_requires=["mypy>=2.4,<3"] if is_wanted() else [])
