"""
Clients and servers that misbehave from a seed, and a daemon between them:

    python -m tests.soak --minutes 10 --seed 7
    python -m tests.soak --minutes 10 --in-process

It tells what came of it, and ends with 1 and the first rule that was broken:
one reply a request; Ok only for what a server recorded; nothing recorded twice;
no error in the log; memory under its bound; descriptors, and in one process
delayed calls too, back to where they began.  The same seed does the same, as far
as sockets permit.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.soak.run import Soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=1.0, help="1 without it")
    parser.add_argument("--seed", type=int, help="a new one without it, which is told")
    parser.add_argument("--clients", type=int, default=30, help="clients at a time; 30 without it")
    parser.add_argument(
        "--in-process", action="store_true", help="the daemon in this process, to look into it"
    )
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed

    async def soak(reactor: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Soak(
                reactor, seed, Path(folder), clients=arguments.clients, in_process=arguments.in_process
            )
            await run.through(arguments.minutes * 60.0)
            sys.stdout.write(run.summary())
        if run.ledger.broken:
            raise SystemExit(1)

    random.seed(seed)
    react(lambda reactor: Deferred.fromCoroutine(soak(reactor)))


if __name__ == "__main__":
    main()
