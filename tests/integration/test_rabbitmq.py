"""
The daemon on queues of a real RabbitMQ.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from twisted_smtpclient.gateway.amqp.outcome import Outcome
from twisted_smtpclient.gateway.amqp.topology import topology

from .amqp import AMQPDaemon, Queues, Timestamp, setup
from .certificates import Certificates
from .child import LOOPBACK, Child, free_ports
from .losing import lose
from .rabbitmq import RabbitMQ

MESSAGE = base64.b64encode(b"Subject: test\r\n\r\nTest\r\n").decode()

Start = Callable[..., AMQPDaemon]


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue's name for this test alone."""
    return re.sub(r"\W", "-", request.node.name)[:60]


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    client = Queues(rabbitmq)
    yield client
    client.close()


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that refuses two recipients."""
    (port,) = free_ports(1)
    refusals = ("--refuse", "later@x.de=450 4.2.0 later", "--refuse", "never@x.de=550 5.1.1 no")
    command = [sys.executable, "-m", "twisted_smtpclient", "sink", "--port", str(port), *refusals]
    child = Child(command, tmp_path_factory.mktemp("sink") / "sink.log")
    try:
        child.wait_until_it_answers([port])
        yield port
    finally:
        child.stop()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that never greets."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def start(rabbitmq: RabbitMQ, queues: Queues, tmp_path: Path, queue: str) -> Iterator[Start]:
    """Declares what there has to be, and starts a daemon on it."""
    daemons: list[AMQPDaemon] = []

    def start(*options: str, declared: bool = True, url: str | None = None) -> AMQPDaemon:
        outcomes = f"{queue}.outcomes"
        names = ["--amqp-queue", queue, "--amqp-replies", outcomes]
        if declared:
            queues.declare(
                topology([queue], [1, 2], replies=outcomes, outcome_queues=[(outcomes, list(Outcome))])
            )
        folder = tmp_path / f"daemon-{len(daemons)}"
        folder.mkdir()
        daemons.append(AMQPDaemon(folder, rabbitmq, *names, "--amqp-delays", "1,2", *options, url=url))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.stop()


def request(port: int, *recipients: str, **more: Any) -> dict[str, Any]:
    return {
        "host": LOOPBACK,
        "port": port,
        "sender": "foo@bar.de",
        "recipients": recipients,
        "message": MESSAGE,
        "tls": "NO",
        **more,
    }


def test_an_outcome_comes_with_its_word_as_its_routing_key(
    start: Start, queues: Queues, queue: str, sink: int
) -> None:
    start()
    given = {"ok": ["a@x.de"], "partial": ["a@x.de", "never@x.de"], "permanent": ["never@x.de"]}
    for word, recipients in given.items():
        queues.request(queue, request(sink, *recipients, id=word), message_id=f"m-{word}")
    came: dict[str, list[str]] = {}
    for _ in given:
        key, properties, reply = queues.outcome(f"{queue}.outcomes")
        assert (reply["id"], properties.type, properties.correlation_id) == (key, key, f"m-{key}")
        came[key] = [entry["status"] for entry in reply["deliveryStatus"]]
    assert came == {"ok": ["Ok"], "partial": ["Ok", "PermanentError"], "permanent": ["PermanentError"]}


def test_temporary_failures_come_back_by_growing_delays_and_end(
    start: Start, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start("--amqp-attempts", "4")
    queues.request(queue, request(sink, "a@x.de", "later@x.de"), message_id="m")
    key, properties, reply = queues.outcome(f"{queue}.outcomes")
    assert key == "temporary"
    assert [entry["status"] for entry in reply["deliveryStatus"]] == ["Ok", "TemporaryError"]
    # Twice by the last delay: the broker drops what it takes for a circle.
    assert properties.headers["x-smtpclient-attempt"] == 4
    log = daemon.log
    assert log.count("1 Ok") == 1
    assert log.count("1 TemporaryError") == 4


def test_a_reply_goes_to_the_client_s_own_queue(start: Start, queues: Queues, queue: str, sink: int) -> None:
    start()
    own = queues.channel.queue_declare("", exclusive=True).method.queue
    queues.request(queue, request(sink, "a@x.de"), reply_to=own, correlation_id="c")
    key, properties, reply = queues.outcome(own)
    assert (key, properties.correlation_id, reply["status"]) == (own, "c", "ok")


def test_an_invalid_request_is_answered_at_once(start: Start, queues: Queues, queue: str) -> None:
    start()
    queues.request(queue, b"nonsense")
    key, _, reply = queues.outcome(f"{queue}.outcomes")
    assert (key, reply["error"]) == ("invalid", "InvalidRequest")


def test_headers_that_cannot_be_read_are_that_request_s_fault_alone(
    start: Start, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start()
    # Milliseconds where AMQP has seconds: Python's years end at 9999.
    headers = {"sent": Timestamp(1_700_000_000_000)}
    queues.request(queue, request(sink, "a@x.de"), headers=headers, message_id="m")
    key, properties, reply = queues.outcome(f"{queue}.outcomes")
    assert (key, properties.correlation_id) == ("invalid", "m")
    assert "headers: expected values that can be read" in reply["message"]
    assert daemon.log.count("amqp: connected to") == 1


def test_a_reply_goes_to_a_client_that_has_no_queue(
    start: Start, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start()
    # RabbitMQ's direct reply-to: it tells each message to it for one that no queue took.
    replies: list[Any] = []
    queues.channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda _, __, ___, body: replies.append(json.loads(body)), auto_ack=True
    )
    queues.request(queue, request(sink, "a@x.de"), reply_to="amq.rabbitmq.reply-to")
    daemon.wait_for_log("1 Ok")
    queues.connection.process_data_events(1.0)
    assert [reply["status"] for reply in replies] == ["ok"]
    queues.request(queue, b"nonsense")
    queues.outcome(f"{queue}.outcomes")
    assert "no queue takes" not in daemon.log
    assert queues.count(f"{queue}.dead") == 0


def test_the_broker_is_talked_to_over_tls_and_its_certificate_is_looked_at(
    start: Start, rabbitmq: RabbitMQ, certificates: Certificates, queues: Queues, queue: str, sink: int
) -> None:
    url = f"amqps://guest:guest@localhost:{rabbitmq.tls_port}/"
    stranger = start(url=url)
    stranger.wait_for_log("amqp: not connected to amqps://localhost", "certificate verify failed")
    start("--ca-file", str(certificates.trusted), url=url)
    queues.request(queue, request(sink, "a@x.de"))
    assert queues.outcome(f"{queue}.outcomes")[0] == "ok"


# What goes wrong.


def test_a_wrong_password_is_told_and_tried_again_while_clients_are_served(
    start: Start, rabbitmq: RabbitMQ
) -> None:
    daemon = start(url=f"amqp://guest:wr0ng@{LOOPBACK}:{rabbitmq.port}/")
    log = daemon.wait_for_log(f"amqp: not connected to amqp://{LOOPBACK}:{rabbitmq.port}/, tried again in")
    assert "403 ACCESS_REFUSED - Login was refused" in log
    assert "wr0ng" not in log
    assert "JSONLinesFactory starting on" in log


def test_an_exchange_that_is_not_there_is_told_before_anything_is_taken(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    queues.channel.queue_declare(queue, durable=True)
    queues.request(queue, request(sink, "a@x.de"))
    daemon = start(declared=False)
    log = daemon.wait_for_log("amqp: not connected to")
    assert f"404 NOT_FOUND - no exchange '{queue}.outcomes' in vhost '/'; python -m" in log
    assert queues.count(queue) == 1
    queues.channel.queue_delete(queue)


def test_a_missing_queue_is_told_and_taken_from_once_it_is_there(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start("--amqp-queue", f"{queue}.more")
    daemon.wait_for_log(
        f"amqp: no requests from {queue}.more, tried again in",
        f"404 NOT_FOUND - no queue '{queue}.more' in vhost '/'; python -m twisted_smtpclient amqp-setup",
        f"amqp: takes requests from {queue}\n",
    )
    setup(rabbitmq, "--amqp-queue", f"{queue}.more")
    queues.request(f"{queue}.more", request(sink, "a@x.de"))
    assert queues.outcome(f"{queue}.outcomes")[0] == "ok"


def test_a_channel_that_the_broker_closes_is_opened_again_and_outcomes_are_kept(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start()
    daemon.wait_for_log("amqp: takes requests from")
    queues.channel.exchange_delete(f"{queue}.outcomes")
    queues.request(queue, request(sink, "a@x.de"), message_id="m")
    daemon.wait_for_log("amqp: the broker has closed the channel for outcomes", "404 NOT_FOUND - no exchange")
    outcomes = ["--amqp-replies", f"{queue}.outcomes", "--bind", f"{queue}.outcomes"]
    setup(rabbitmq, "--amqp-queue", queue, *outcomes, "--amqp-delays", "1,2")
    key, _, reply = queues.outcome(f"{queue}.outcomes")
    # The request was ours all the while.
    assert (key, "redelivered" in reply) == ("ok", False)
    assert daemon.log.count("1 Ok") == 1


def test_a_queue_that_is_deleted_is_told_and_taken_from_once_it_is_there_again(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start()
    daemon.wait_for_log("amqp: takes requests from")
    queues.channel.queue_delete(queue)
    daemon.wait_for_log("the broker has cancelled it: the queue was deleted, or has moved")
    setup(rabbitmq, "--amqp-queue", queue, "--amqp-delays", "1,2")
    queues.request(queue, request(sink, "a@x.de"))
    assert queues.outcome(f"{queue}.outcomes")[0] == "ok"


def test_an_outcome_that_no_queue_takes_is_told_and_put_aside(
    start: Start, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start()
    queues.request(queue, request(sink, "a@x.de", id=5), reply_to="nobody", message_id="m")
    _, properties, reply = queues.outcome(f"{queue}.dead")
    assert reply["id"] == 5
    assert properties.headers["x-smtpclient-outcome"] == "ok for 'nobody' by ''"
    daemon.wait_for_log(f"amqp: no queue takes the outcome ok of 'm' from {queue}, sent to 'nobody'")
    assert queues.count(queue) == 0


def test_a_client_that_names_a_queue_where_nobody_may_has_others_wait_for_nothing(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    # The permissions that the page gives, without those for whatever queue.
    user = rabbitmq.user("", rf"^({queue}\\.outcomes|smtpclient\\.retry)$", f"^{queue}$")
    daemon = start(url=f"amqp://{user}:{user}@{LOOPBACK}:{rabbitmq.port}/")
    queues.request(queue, request(sink, "a@x.de", id=1), reply_to=queue, message_id="m")
    queues.request(queue, request(sink, "b@x.de", id=2), message_id="n")
    assert queues.outcome(f"{queue}.outcomes")[2]["id"] == 2
    log = daemon.wait_for_log(
        "access to exchange 'amq.default' in vhost '/' refused",
        f"amqp: no queue takes the outcome ok of 'm' from {queue}, sent to '{queue}'",
        f"amqp: nor does {queue}.dead; the outcome is ",
    )
    assert log.count("1 Ok") == 2
    assert queues.count(queue) == 0


def test_nothing_is_published_while_the_broker_is_short_of_memory(
    start: Start, rabbitmq: RabbitMQ, queues: Queues, queue: str, sink: int
) -> None:
    daemon = start("--amqp-attempts", "3")
    queues.request(queue, request(sink, "later@x.de"), message_id="m")
    daemon.wait_for_log("1 TemporaryError")
    # A connection is told once it publishes: what comes back from its delay.
    rabbitmq.control("vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
    try:
        daemon.wait_for_log("amqp: the broker wants nothing published: low on memory")
    finally:
        rabbitmq.control("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
    daemon.wait_for_log("amqp: the broker goes on")
    assert queues.outcome(f"{queue}.outcomes")[0] == "temporary"
    assert daemon.log.count("1 TemporaryError") == 3


# The end.


def test_what_draining_cuts_off_is_another_daemon_s_and_not_called_redelivered(
    start: Start, queues: Queues, queue: str, silent: int, sink: int
) -> None:
    first = start("--drain-timeout", "0.5")
    first.wait_for_log("amqp: takes requests from")
    queues.request(queue, request(silent, "a@x.de", id=1), message_id="m")
    queues.request(queue, request(sink, "a@x.de", id=2), message_id="n")
    assert queues.outcome(f"{queue}.outcomes")[2]["id"] == 2
    first.stop()
    method, properties, _ = queues.channel.basic_get(queue, auto_ack=True)
    assert (method.redelivered, properties.message_id) == (False, "m")
    assert properties.headers["x-smtpclient-attempt"] == 1


def test_a_daemon_that_is_killed_leaves_its_requests_to_the_next_whose_outcomes_say_so(
    start: Start, queues: Queues, queue: str, silent: int
) -> None:
    first = start()
    first.wait_for_log("amqp: takes requests from")
    queues.request(queue, request(silent, "a@x.de", id=1), message_id="m")
    # It has come when it is no longer ready.
    while queues.count(queue):
        pass
    first.stop(by=signal.SIGKILL)
    start("--amqp-redelivered", "indoubt")
    key, _, reply = queues.outcome(f"{queue}.outcomes")
    assert (key, reply["redelivered"], reply["indoubt"]) == ("indoubt", True, True)


# amqp-setup.


def test_what_is_declared_may_be_declared_again_and_a_queue_of_another_kind_is_told(
    rabbitmq: RabbitMQ, queues: Queues, queue: str
) -> None:
    told = [setup(rabbitmq, "--amqp-queue", queue, "--amqp-delays", "7").stdout for _ in range(2)]
    assert told[0] == told[1]
    assert f"queue {queue}.retry.7" in told[0]
    queues.channel.queue_delete(f"{queue}.dead")
    queues.channel.queue_declare(f"{queue}.dead", durable=True)
    refused = setup(rabbitmq, "--amqp-queue", queue, check=False)
    assert refused.returncode == 69
    assert "406 PRECONDITION_FAILED" in refused.stderr
    assert f"'{queue}.dead'" in refused.stderr


def test_setup_tells_a_wrong_password(rabbitmq: RabbitMQ) -> None:
    url = f"amqp://guest:wr0ng@{LOOPBACK}:{rabbitmq.port}/"
    refused = setup(rabbitmq, "--amqp", url, "--amqp-queue", "mail", check=False)
    assert refused.returncode == 69
    assert "403 ACCESS_REFUSED" in refused.stderr
    assert "wr0ng" not in refused.stderr


# All of it.


@pytest.mark.slow
def test_nothing_is_lost_when_a_daemon_is_killed_and_the_broker_restarted(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    result = lose(rabbitmq, tmp_path, 20_000)
    assert list(result.complaints(20_000)) == []
