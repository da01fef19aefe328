"""
The daemon with a queue of RabbitMQ, and what a client of that does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pika

from twisted_smtpclient.gateway.amqp.topology import Declaration, Exchange, Queue

from .child import LOOPBACK, Child
from .rabbitmq import RabbitMQ

#: Seconds for an outcome or a line of the log, of a test that is about to fail.
PATIENCE: Final = 30.0

_ROOT: Final = Path(__file__).resolve().parents[2]
_ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": str(_ROOT)}


class AMQPDaemon:
    """``twistd -n smtpclient`` that takes requests from a queue; the URL comes by the environment."""

    def __init__(self, folder: Path, broker: RabbitMQ, *options: str, url: str | None = None) -> None:
        self._child = Child(
            [
                str(Path(sys.executable).with_name("twistd")),
                "--nodaemon",
                "--pidfile=",
                "smtpclient",
                "--listen",
                f"tcp:0:interface={LOOPBACK}",
                *options,
            ],
            folder / "daemon.log",
            environment={**_ENVIRONMENT, "TWISTED_SMTPCLIENT_AMQP": url or broker.url},
            directory=folder,
        )

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        return self._child.stop(by=by)

    @property
    def log(self) -> str:
        return self._child.log.read_text(errors="replace")

    def wait_for_log(self, *texts: str) -> str:
        """The log, once each of these stands in it."""
        deadline = time.monotonic() + PATIENCE
        while not all(text in self.log for text in texts):
            if time.monotonic() > deadline or not self._child.running:
                raise AssertionError(f"{texts} not in the log:\n{self.log}")
            # Nothing tells when another process logs.
            time.sleep(0.02)
        return self.log


class Timestamp(datetime):
    """A time as any client may write it: so many seconds since 1970, of 64 bits."""

    _seconds: int

    def __new__(cls, seconds: int) -> Timestamp:
        made = super().__new__(cls, 1970, 1, 1)
        made._seconds = seconds
        return made

    def utctimetuple(self) -> Any:
        # calendar.timegm() is what pika makes of it.
        return (1970, 1, 1, 0, 0, self._seconds)


def setup(broker: RabbitMQ, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``amqp-setup``."""
    return subprocess.run(
        [sys.executable, "-m", "twisted_smtpclient", "amqp-setup", *arguments],
        check=check,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=_ROOT,
        env={"TWISTED_SMTPCLIENT_AMQP": broker.url, **_ENVIRONMENT},
    )


class Queues:
    """A client of the broker: publishes requests, gets outcomes."""

    def __init__(self, broker: RabbitMQ) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.channel: Any = self.connection.channel()
        self.channel.confirm_delivery()

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()

    def declare(self, declarations: Iterable[Declaration]) -> None:
        """As ``amqp-setup`` does, in less time than that takes to start."""
        for each in declarations:
            if isinstance(each, Exchange):
                self.channel.exchange_declare(each.name, "direct", durable=True)
            elif isinstance(each, Queue):
                self.channel.queue_declare(each.name, durable=True, arguments=each.arguments)
            else:
                self.channel.queue_bind(each.queue, each.exchange, each.key)

    def request(self, queue: str, body: Mapping[str, object] | bytes, **properties: Any) -> None:
        """Publish a request."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.channel.basic_publish(
            "", queue, octets, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True
        )

    def outcome(self, queue: str) -> tuple[str, Any, dict[str, Any]]:
        """The next outcome: its routing key, its properties, the reply."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is not None:
                return method.routing_key, properties, json.loads(body)
            self.connection.process_data_events(0.02)
        raise AssertionError(f"no outcome in {queue} within {PATIENCE} s")

    def count(self, queue: str) -> int:
        """How many messages are ready."""
        count: int = self.channel.queue_declare(queue, passive=True).method.message_count
        return count
