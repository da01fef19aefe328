"""
Many requests, three daemons, one of which is killed, and a broker that is
restarted meanwhile: what has come of it.

    python -m tests.integration.losing --messages 20000
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pika

from .amqp import AMQPDaemon, setup
from .certificates import Certificates
from .child import LOOPBACK, Child, free_ports
from .rabbitmq import RabbitMQ
from .tree import Tree

QUEUE: Final = "mail"
OUTCOMES: Final = "outcomes"
DAEMONS: Final = 3
PREFETCH: Final = 100

#: Seconds without a further outcome, of a run that is about to fail.
PATIENCE: Final = 90.0

#: Outcomes that are acknowledged together.
_AT_A_TIME: Final = 20

_ROOT: Final = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """One that was published; a message of it that comes twice counts once."""

    request: str
    word: str
    redelivered: bool


class Result(NamedTuple):
    """
    What came of it.

    :ivar outcomes: all that were published, as often as they were.
    :ivar mails: how often each request's mail was taken by the sink.
    :ivar seconds: for all of it.
    """

    outcomes: list[Outcome]
    mails: Counter[str]
    seconds: float

    @property
    def twice(self) -> set[str]:
        """The requests whose mail is in the sink more than once."""
        return {request for request, count in self.mails.items() if count > 1}

    def complaints(self, messages: int) -> Iterator[str]:
        """What must not be, and is."""
        requests = {str(number) for number in range(messages)}
        if lacking := requests - {outcome.request for outcome in self.outcomes}:
            yield f"{len(lacking)} requests have no outcome: {sorted(lacking)[:10]}"
        if lost := requests - self.mails.keys():
            yield f"{len(lost)} mails are not in the sink: {sorted(lost)[:10]}"
        if bad := [outcome for outcome in self.outcomes if outcome.word != "ok"]:
            yield f"{len(bad)} outcomes are not ok: {bad[:10]}"
        told = {outcome.request for outcome in self.outcomes if outcome.redelivered}
        if silent := self.twice - told:
            yield f"{len(silent)} mails are in the sink twice, and nobody says so: {sorted(silent)[:10]}"
        # What the killed process had, and what each had when the broker went.
        bound = PREFETCH * (1 + DAEMONS)
        if len(self.twice) > bound:
            yield f"{len(self.twice)} mails are in the sink twice; at most {bound} were unacknowledged"
        if len(told) > bound:
            yield f"{len(told)} outcomes say that they were redelivered; at most {bound} can have been"


def lose(
    broker: RabbitMQ, folder: Path, messages: int, tell: Callable[[str], None] = lambda text: None
) -> Result:
    """
    Have ``messages`` requests delivered, with a daemon killed when a third of
    them have an outcome, and the broker restarted when two thirds have.
    """
    began = time.monotonic()
    arrivals = folder / "arrivals"
    (port,) = free_ports(1)
    with ExitStack() as stack:
        sink = Child(
            [sys.executable, "-m", "tests.integration.counting_sink", str(port), str(arrivals)],
            folder / "sink.log",
            environment={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        stack.callback(sink.stop)
        sink.wait_until_it_answers([port])
        setup(broker, "--amqp-queue", QUEUE, "--amqp-replies", OUTCOMES, "--bind", OUTCOMES)
        publish(broker, messages, port)
        tell(f"{messages} requests are in the queue")
        daemons = []
        for number in range(DAEMONS):
            own = folder / f"daemon-{number}"
            own.mkdir()
            options = ["--amqp-queue", QUEUE, "--amqp-replies", OUTCOMES, "--amqp-prefetch", str(PREFETCH)]
            daemons.append(AMQPDaemon(own, broker, *options))
            stack.callback(daemons[-1].stop)
        outcomes: dict[str, Outcome] = {}
        seen: set[str] = set()

        def collected(fraction: float) -> bool:
            return len(seen) >= messages * fraction

        _collect(broker, outcomes, seen, lambda: collected(1 / 3))
        daemons[0].stop(by=signal.SIGKILL)
        tell(f"a daemon was killed at {len(seen)} outcomes")
        _collect(broker, outcomes, seen, lambda: collected(2 / 3))
        broker.crash()
        broker.start()
        broker.wait_until_it_answers()
        tell(f"the broker was killed and started again at {len(seen)} outcomes")
        _collect(broker, outcomes, seen, lambda: collected(1))
        for daemon in daemons[1:]:
            daemon.stop()
        # What a daemon had kept may come late, and twice.
        _collect(broker, outcomes, seen, lambda: _is_empty(broker, OUTCOMES))
        assert _is_empty(broker, QUEUE)
        sink.stop()
    return Result(list(outcomes.values()), Counter(arrivals.read_text().split()), time.monotonic() - began)


def publish(broker: RabbitMQ, messages: int, port: int) -> None:
    """Requests numbered from 0, each with its number in the recipient's address."""
    message = base64.b64encode(b"Subject: test\r\n\r\nTest\r\n").decode()
    with broker.channel() as channel:
        for number in range(messages):
            request = {
                "id": str(number),
                "host": LOOPBACK,
                "port": port,
                "sender": "foo@bar.de",
                "recipients": [f"{number}@valid.de"],
                "message": message,
                "tls": "NO",
            }
            properties = pika.BasicProperties(delivery_mode=2, message_id=str(number))
            channel.basic_publish("", QUEUE, json.dumps(request).encode(), properties)
        # A confirmation for each would be a round trip for each: they are counted.
        while channel.queue_declare(QUEUE, passive=True).method.message_count < messages:
            channel.connection.process_data_events(0.05)


def _collect(
    broker: RabbitMQ, outcomes: dict[str, Outcome], seen: set[str], enough: Callable[[], bool]
) -> None:
    last = time.monotonic()
    with broker.channel() as channel:
        channel.basic_qos(prefetch_count=_AT_A_TIME * 10)
        for method, properties, body in channel.consume(OUTCOMES, inactivity_timeout=0.1):
            if method is not None:
                last = time.monotonic()
                reply = json.loads(body)
                outcomes[properties.message_id] = Outcome(
                    reply["id"], method.routing_key, reply.get("redelivered", False)
                )
                seen.add(reply["id"])
                if method.delivery_tag % _AT_A_TIME == 0:
                    channel.basic_ack(method.delivery_tag, multiple=True)
            elif time.monotonic() - last > PATIENCE:
                raise AssertionError(f"no further outcome after {len(seen)}")
            if (method is None or method.delivery_tag % _AT_A_TIME == 0) and enough():
                break
        # What has no acknowledgement comes again, and counts once.
        channel.cancel()


def _is_empty(broker: RabbitMQ, queue: str) -> bool:
    with broker.channel() as channel:
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        return count == 0


def main() -> None:
    """Run it, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=20_000)
    messages = parser.parse_args().messages

    def tell(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="losing-") as name:
        folder = Path(name)
        for part in ("certificates", "broker", "run"):
            (folder / part).mkdir()
        broker = RabbitMQ(Tree.from_environment(), folder / "broker", Certificates(folder / "certificates"))
        try:
            broker.wait_until_it_answers()
            result = lose(broker, folder / "run", messages, tell)
        finally:
            broker.stop()
    again = sum(outcome.redelivered for outcome in result.outcomes)
    tell(
        f"{len(result.outcomes)} outcomes of {messages} requests in {result.seconds:.0f} s, {again} of them "
        f"redelivered; {len(result.twice)} mails are in the sink more than once"
    )
    complaints = list(result.complaints(messages))
    tell("\n".join(complaints) or "all is as it must be")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
