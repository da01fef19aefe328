"""
What pika does alone: takes each message of a queue, publishes an answer with
confirms, and acknowledges the message once that is confirmed.

No mail is sent and nothing is looked at; what a daemon on the queue takes
longer is its own.
"""

from __future__ import annotations

import sys
from typing import Any

import pika

#: As long as the reply of the daemon to one recipient.
ANSWER = (
    b'{"id":100000,"status":"ok","sender":"sender@example.org","deliveryStatus":[{"recipient":'
    b'"recipient@example.org","status":"Ok","response":"250 2.0.0 Ok: queued","code":250,'
    b'"enhanced":"2.0.0","command":"BDAT"}]}'
)


class Consumer:
    """One channel that consumes and publishes, until it is interrupted."""

    def __init__(self, requests: str, exchange: str, prefetch: int) -> None:
        self.requests = requests
        self.exchange = exchange
        self.prefetch = prefetch
        self.published = 0
        self.tags: dict[int, int] = {}

    def opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self.channel_opened)

    def channel_opened(self, channel: Any) -> None:
        self.channel = channel
        channel.confirm_delivery(self.confirmed)
        channel.basic_qos(prefetch_count=self.prefetch)
        channel.basic_consume(self.requests, self.take)

    def take(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.published += 1
        self.tags[self.published] = method.delivery_tag
        answered = pika.BasicProperties(delivery_mode=2, correlation_id=properties.message_id)
        channel.basic_publish(self.exchange, "ok", ANSWER, answered, mandatory=True)

    def confirmed(self, frame: Any) -> None:
        last = frame.method.delivery_tag
        numbers = [number for number in self.tags if number <= last] if frame.method.multiple else [last]
        for number in numbers:
            self.channel.basic_ack(self.tags.pop(number))


def main() -> None:
    """Consume, until interrupted."""
    url, requests, exchange, prefetch = sys.argv[1:]
    consumer = Consumer(requests, exchange, int(prefetch))
    connection = pika.SelectConnection(pika.URLParameters(url), on_open_callback=consumer.opened)
    connection.ioloop.start()


if __name__ == "__main__":
    main()
