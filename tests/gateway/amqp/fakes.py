"""What stands in for pika's connection and channels, and the broker behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.task import Clock

from tests.gateway.fakes import FakeAgent, line
from twisted_smtpclient.gateway.amqp.gateway import AMQPGateway
from twisted_smtpclient.gateway.amqp.retries import Retries
from twisted_smtpclient.gateway.delivery import Deliveries
from twisted_smtpclient.gateway.memory import Memory

#: Seconds since 1970, of all tests.
NOW = 1_700_000_000.0


class Published:
    """One call of basic_publish()."""

    def __init__(
        self, exchange: str, key: str, body: bytes, properties: BasicProperties, mandatory: bool
    ) -> None:
        self.mandatory = mandatory
        self.exchange = exchange
        self.key = key
        self.body = body
        self.properties = properties

    @property
    def reply(self) -> Any:
        return json.loads(self.body)


class FakeChannel:
    """pika's Channel; what a broker would do is what the test calls."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection
        self.is_open = True
        self.consuming: list[str] = []
        self.cancelled: list[str] = []
        self.prefetch = 0
        self.confirms = False
        self.published: list[Published] = []
        self.acknowledged: list[tuple[int, bool]] = []
        self._on_close: list[Callable[..., Any]] = []
        self._on_cancel: list[Callable[..., Any]] = []
        self._on_return: list[Callable[..., Any]] = []
        self._on_confirm: Callable[..., Any] | None = None
        self._deliver: Callable[..., Any] | None = None
        self._tag = 0

    # pika's side.

    def add_on_close_callback(self, callback: Callable[..., Any]) -> None:
        self._on_close.append(callback)

    def add_on_cancel_callback(self, callback: Callable[..., Any]) -> None:
        self._on_cancel.append(callback)

    def add_on_return_callback(self, callback: Callable[..., Any]) -> None:
        self._on_return.append(callback)

    def confirm_delivery(self, ack_nack_callback: Any, callback: Any) -> None:
        self.confirms = True
        self._on_confirm = ack_nack_callback
        callback(None)

    def basic_qos(self, prefetch_count: int, callback: Any) -> None:
        self.prefetch = prefetch_count
        callback(None)

    def basic_consume(self, queue: str, on_message_callback: Any, callback: Any) -> str:
        self._deliver = on_message_callback
        self.consuming.append(queue)
        if queue in self.connection.queues:
            callback(None)
        else:
            self.close_by_broker(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")
        return f"tag-{len(self.consuming)}"

    def basic_cancel(self, consumer_tag: str) -> None:
        self.cancelled.append(consumer_tag)

    def basic_publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, mandatory: bool
    ) -> None:
        assert self.is_open
        self.published.append(Published(exchange, routing_key, body, properties, mandatory))

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        assert self.is_open
        self.acknowledged.append((delivery_tag, multiple))

    # The broker's side.

    def deliver(self, body: bytes, *, redelivered: bool = False, **properties: Any) -> int:
        """Give out a message; its tag."""
        assert self._deliver is not None
        self._tag += 1
        method = SimpleNamespace(delivery_tag=self._tag, redelivered=redelivered)
        self._deliver(self, method, BasicProperties(**properties), body)
        return self._tag

    def confirm(self, number: int | None = None, *, multiple: bool = False, refused: bool = False) -> None:
        """Confirm a publication by its number: the last, unless told."""
        assert self._on_confirm is not None
        name = "Basic.Nack" if refused else "Basic.Ack"
        tag = len(self.published) if number is None else number
        self._on_confirm(
            SimpleNamespace(method=SimpleNamespace(delivery_tag=tag, multiple=multiple, NAME=name))
        )

    def return_(self, published: Published) -> None:
        """No queue took it."""
        method = SimpleNamespace(exchange=published.exchange, routing_key=published.key)
        for callback in self._on_return:
            callback(self, method, published.properties, published.body)

    def close_by_broker(self, code: int = 406, text: str = "PRECONDITION_FAILED") -> None:
        self.close(ChannelClosedByBroker(code, text))

    def cancel_by_broker(self) -> None:
        for callback in self._on_cancel:
            callback(None)

    def close(self, reason: Exception) -> None:
        self.is_open = False
        for callback in self._on_close:
            callback(self, reason)

    def settled(self) -> set[int]:
        """All tags that are acknowledged; fails where one is so twice."""
        settled: set[int] = set()
        for tag, multiple in self.acknowledged:
            assert tag not in settled, f"{tag} is acknowledged twice"
            settled |= set(range(1, tag + 1)) if multiple else {tag}
        return settled


class FakeConnection:
    """pika's Connection."""

    def __init__(self, *queues: str) -> None:
        self.queues = set(queues)
        self.is_open = True
        self.channels: list[FakeChannel] = []
        self._blocked: list[Callable[..., Any]] = []
        self._unblocked: list[Callable[..., Any]] = []

    def add_on_connection_blocked_callback(self, callback: Callable[..., Any]) -> None:
        self._blocked.append(callback)

    def add_on_connection_unblocked_callback(self, callback: Callable[..., Any]) -> None:
        self._unblocked.append(callback)

    def channel(self, on_open_callback: Callable[[FakeChannel], Any]) -> None:
        channel = FakeChannel(self)
        self.channels.append(channel)
        on_open_callback(channel)

    def block(self) -> None:
        for callback in self._blocked:
            callback(self, SimpleNamespace(method=SimpleNamespace(reason="low on memory")))

    def unblock(self) -> None:
        for callback in self._unblocked:
            callback(self, None)

    def lose(self) -> None:
        self.is_open = False
        for channel in self.channels:
            if channel.is_open:
                channel.close(ConnectionResetError("gone"))


class Broker:
    """A gateway on a fake broker, with a fake agent behind it."""

    def __init__(
        self,
        *queues: str,
        retries: Retries = Retries(3, 1000.0, (10, 60)),  # noqa: B008  # it does not change
        memory: Memory | None = None,
        replies: str | None = "outcomes",
        **options: Any,
    ) -> None:
        self.queues = queues or ("mail",)
        self.clock = Clock()
        self.agent = FakeAgent()
        self.deliveries = Deliveries(self.agent, self.clock, memory=memory)
        self.now = NOW
        self.gateway = AMQPGateway(
            self.deliveries,
            self.clock,
            self.queues,
            max_request=options.pop("max_request", 65536),
            replies=replies,
            retries=retries,
            now=lambda: self.now,
            **options,
        )
        self.connect()

    def connect(self) -> None:
        """A new connection."""
        self.connection = FakeConnection(*self.queues)
        self.gateway.attach(self.connection)

    def lose(self) -> None:
        """The connection goes, as pika tells it: its channels first."""
        self.connection.lose()
        self.gateway.detach()

    @property
    def publishing(self) -> FakeChannel:
        return [channel for channel in self.connection.channels if channel.confirms][-1]

    def consuming(self, queue: str = "mail") -> FakeChannel:
        return [channel for channel in self.connection.channels if queue in channel.consuming][-1]

    def deliver(self, body: bytes | None = None, **properties: Any) -> int:
        """Give out a request; its tag."""
        given = line() if body is None else body
        return self.consuming().deliver(given, **{"message_id": "m", **properties})

    @property
    def outcome(self) -> Published:
        """The last that was published."""
        return self.publishing.published[-1]

    def confirm(self, **how: Any) -> None:
        """Confirm the last publication, and let the turn end."""
        self.publishing.confirm(**how)
        self.clock.advance(0)

    def state(self, name: str) -> float:
        return self.gateway.state()[f"amqp_{name}"]

    def settled(self, queue: str = "mail") -> set[int]:
        self.clock.advance(0)
        return self.consuming(queue).settled()
