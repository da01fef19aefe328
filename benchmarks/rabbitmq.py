"""
One daemon on a queue of RabbitMQ, beside a bare consumer made of pika.

    python -m benchmarks.rabbitmq [--amqp URL] [--messages N] [--runs N] [--pure]

The broker is the one at URL, or one from the packages that
``tests/integration/servers.sh`` unpacks, started for this.  Both take the same
requests from the same queue, in turns; the rate is that at which outcomes come
into their queue, from the first that is seen there to the last.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pika

from benchmarks.children import _TWISTD, Programs, Sink
from benchmarks.package import ROOT, choose
from benchmarks.senders.job import HELO, HOST, SENDER, addresses, message
from twisted_smtpclient.gateway.amqp.consumer import PREFETCH

REQUESTS: Final = "benchmark"
OUTCOMES: Final = "benchmark.outcomes"

#: Seconds between two looks at how many outcomes there are.
LOOK: Final = 0.02

#: Seconds without a further outcome, of a run that is about to fail.
PATIENCE: Final = 60.0


@contextlib.contextmanager
def broker(url: str | None, folder: Path) -> Iterator[str]:
    """The URL of a broker."""
    if url is not None:
        yield url
        return
    from tests.integration.certificates import Certificates
    from tests.integration.rabbitmq import RabbitMQ
    from tests.integration.tree import Tree

    (folder / "certificates").mkdir()
    (folder / "broker").mkdir()
    node = RabbitMQ(Tree.from_environment(), folder / "broker", Certificates(folder / "certificates"))
    try:
        node.wait_until_it_answers()
        yield node.url
    finally:
        node.stop()


def prepare(url: str, port: int, count: int) -> Any:
    """Fresh queues with ``count`` requests; the channel that they were published by."""
    setup = [sys.executable, "-m", "twisted_smtpclient", "amqp-setup", "--amqp-queue", REQUESTS]
    channel: Any = pika.BlockingConnection(pika.URLParameters(url)).channel()
    for queue in (REQUESTS, OUTCOMES):
        channel.queue_delete(queue)
    subprocess.run(  # noqa: S603  # our own
        [*setup, "--amqp-replies", OUTCOMES, "--bind", OUTCOMES],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TWISTED_SMTPCLIENT_AMQP": url},
        cwd=ROOT,
    )
    request = {
        "host": HOST,
        "port": port,
        "helo": HELO,
        "sender": SENDER,
        "recipients": addresses(1),
        "message": base64.b64encode(message(1024)).decode("ascii"),
    }
    body = json.dumps(request, separators=(",", ":")).encode()
    for number in range(count):
        properties = pika.BasicProperties(delivery_mode=2, message_id=str(number))
        channel.basic_publish("", REQUESTS, body, properties)
    while channel.queue_declare(REQUESTS, passive=True).method.message_count < count:
        time.sleep(LOOK)
    return channel


def rate(
    channel: Any, command: Sequence[object], environment: dict[str, str], count: int, log: Path
) -> float:
    """Messages a second of a consumer, which is ended then; and its CPU."""
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603  # our own
            list(map(str, command)), cwd=log.parent, env=environment, stdout=output, stderr=output
        )
    try:
        first: tuple[float, int] | None = None
        last, seen = time.monotonic(), 0
        while seen < count:
            time.sleep(LOOK)
            now = channel.queue_declare(OUTCOMES, passive=True).method.message_count
            if now > seen:
                last, seen = time.monotonic(), now
                first = first or (last, seen)
            elif time.monotonic() - last > PATIENCE or child.poll() is not None:
                raise RuntimeError(f"{seen} of {count} outcomes:\n{log.read_text(errors='replace')[-2000:]}")
    finally:
        child.terminate()
        child.wait(PATIENCE)
        channel.connection.close()
    assert first is not None
    return (seen - first[1]) / (last - first[0])


def main() -> None:
    """Measure both, in turns, and print what came of it."""
    parser = argparse.ArgumentParser(description="One daemon on a queue, beside a bare consumer.")
    parser.add_argument("--amqp", metavar="URL", help="the broker; without it one is started")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--prefetch", type=int, default=PREFETCH)
    parser.add_argument("--pure", action="store_true", help="the daemon from the sources, not the wheel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rabbitmq-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        package = choose(folder, pure=arguments.pure, tell=_tell)
        _tell(f"package: {package.description}")
        url = stack.enter_context(broker(arguments.amqp, folder))
        bare: list[float] = []
        ours: list[float] = []
        for run in range(arguments.runs):
            for rates, daemon in ((bare, False), (ours, True)):
                programs = Programs(folder)
                with Sink(programs, pipelining=True, chunking=True, delay=0) as sink:
                    channel = prepare(url, sink.port, arguments.messages)
                    environment = {**package.environment, "TWISTED_SMTPCLIENT_AMQP": url}
                    command = _daemon(arguments.prefetch) if daemon else _bare(url, arguments.prefetch)
                    log = folder / f"{run}-{daemon}.log"
                    rates.append(rate(channel, command, environment, arguments.messages, log))
                if daemon and sink.counts["messages"] != arguments.messages:
                    raise RuntimeError(f"the sink has {sink.counts['messages']} messages")
            _tell(f"bare {bare[-1]:8.0f}/s   daemon {ours[-1]:8.0f}/s   {ours[-1] / bare[-1]:.0%}")
        ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
        _tell(f"the daemon does {ratio:.0%} of what the bare consumer does (at least 70 % is the target)")


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _bare(url: str, prefetch: int) -> list[object]:
    return [sys.executable, "-m", "benchmarks.senders.bare_pika", url, REQUESTS, OUTCOMES, prefetch]


def _daemon(prefetch: int) -> list[object]:
    options = ["--amqp-queue", REQUESTS, "--amqp-replies", OUTCOMES, "--amqp-prefetch", prefetch]
    return [*_TWISTD, "smtpclient", "--listen", f"tcp:0:interface={HOST}", *options]


if __name__ == "__main__":
    main()
