"""
The command line: ``demo``, ``send``, ``probe``, ``sink`` and ``amqp-setup``.

Each command is a module with ``add_arguments(parser)`` and ``run(arguments)``,
which gives the exit status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from . import amqp_setup, demo, probe, send, sink
from .exit import INTERRUPTED, Interrupted

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m twisted_smtpclient",
        description="Delivers mail over SMTP and LMTP, with a verdict for every recipient.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in (demo, send, probe, sink, amqp_setup):
        summary, _, rest = (module.__doc__ or "").strip().partition("\n\n")
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        command = commands.add_parser(
            name,
            help=summary[:1].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=rest,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, error=command.error)
    return parser


def _version() -> str:
    try:
        return version("twisted_smtpclient")
    except PackageNotFoundError:
        return "not installed, run from its sources"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command line.

    :param arguments: without the program's name; None for ``sys.argv``'s.
    :returns: the exit status; :exc:`SystemExit` where the command line itself
        is wrong (2).
    """
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Interrupted as error:
        return error.status
    except BrokenPipeError:
        # Whoever read our output has gone; so does what is left of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    return status
