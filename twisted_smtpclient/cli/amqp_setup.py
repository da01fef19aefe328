"""
Declare the queues and exchanges that the daemon's --amqp needs.

What is there already stays as it is; what is there with other arguments is an
error, and nothing behind it is declared.  The URL may come by --amqp-file or
the variable TWISTED_SMTPCLIENT_AMQP, where no process list has it:

    amqp-setup --amqp-file broker.url --amqp-queue mail --amqp-replies outcomes \\
        --bind outcomes --bind failed=permanent,temporary,indoubt
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from ..client.tls import TrustFile
from ..gateway.amqp.options import Broker, delays_of, name_of
from ..gateway.amqp.outcome import Outcome
from ..gateway.amqp.reason import reason_of
from ..gateway.amqp.retries import DELAYS
from ..gateway.amqp.topology import Binding, Declaration, Exchange, declare, topology
from . import exit as status

T = TypeVar("T")

#: Seconds for all of it.
PATIENCE = 30.0


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _binding(text: str) -> tuple[str, Sequence[Outcome]]:
    name, equals, outcomes = text.partition("=")
    words = outcomes.split(",") if equals else [outcome.value for outcome in Outcome]
    return name_of(name), [Outcome(word) for word in words]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--amqp", metavar="URL", help="the broker, amqp://user:password@host:port/vhost or amqps:"
    )
    parser.add_argument("--amqp-file", metavar="PATH", help="a file whose first line is that URL")
    parser.add_argument(
        "--amqp-queue",
        action="append",
        required=True,
        type=_checked(name_of),
        metavar="NAME",
        help="a queue of requests; may be given many times",
    )
    parser.add_argument(
        "--amqp-delays",
        type=_checked(delays_of),
        default=DELAYS,
        metavar="SECONDS,SECONDS",
        help=f"before the second try, the third, and so on; {','.join(map(str, DELAYS))} without it",
    )
    parser.add_argument(
        "--amqp-replies", type=_checked(name_of), metavar="EXCHANGE", help="that for outcomes"
    )
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        type=_checked(_binding),
        metavar="QUEUE[=OUTCOME,OUTCOME]",
        help="a queue that gets these outcomes, or all, from that exchange; may be given many times",
    )
    parser.add_argument(
        "--ca-file", type=_checked(TrustFile), metavar="PATH", help="PEM file of trust roots for amqps:"
    )


def run(arguments: argparse.Namespace) -> int:
    """Declare, and print what is there."""
    if arguments.bind and arguments.amqp_replies is None:
        arguments.error("--bind goes with --amqp-replies")
    try:
        broker = Broker(arguments.amqp, arguments.amqp_file, os.environ)
    except ValueError as error:
        arguments.error(str(error))
    declarations = topology(
        arguments.amqp_queue,
        arguments.amqp_delays,
        replies=arguments.amqp_replies,
        outcome_queues=arguments.bind,
    )
    return status.run(lambda reactor: _declare(reactor, broker, arguments.ca_file, declarations))


async def _declare(
    reactor: Any, broker: Broker, trusted: TrustFile | None, declarations: Sequence[Declaration]
) -> int:
    from ..gateway.amqp.connection import open_channel

    root = None if trusted is None else trusted.root
    try:
        channel, close = await open_channel(reactor, broker.address, root).addTimeout(PATIENCE, reactor)
        declaring: Deferred[None] = declare(channel, declarations, _show)
        await declaring.addTimeout(PATIENCE, reactor)
        await close()
    except Exception as error:
        # Of pika, Twisted, TLS: none of them is a fault of ours.
        print(f"{broker.address}: {reason_of(error)}", file=sys.stderr)
        return status.PERMANENT
    return status.OK


def _show(declared: Declaration) -> None:
    if isinstance(declared, Binding):
        print(f"  {declared.exchange} -> {declared.key} -> {declared.queue}")
    else:
        print(f"{'exchange' if isinstance(declared, Exchange) else 'queue'} {declared.name}", flush=True)
