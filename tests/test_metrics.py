from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from twisted.internet.task import Clock

from tests.client.memory import Outcome
from tests.client.sessions import MESSAGE, Post, envelope, terms
from tests.gateway.fakes import Daemon as Gateway
from tests.gateway.fakes import line, unknown
from twisted_smtpclient import Content, DeliveryAgent, Server, errors
from twisted_smtpclient.client.delivery import DeliveryCancelled
from twisted_smtpclient.gateway.amqp.gateway import AMQPGateway
from twisted_smtpclient.gateway.journal import GATHER
from twisted_smtpclient.metrics import BUCKETS, PHASES, READINGS, Metrics, Told
from twisted_smtpclient.service import Daemon, metrics_of
from twisted_smtpclient.smtp.policy import TLSMode
from twisted_smtpclient.smtp.trace import Trace
from twisted_smtpclient.testing import Action, Fault, Stage

DOCS = Path(__file__).resolve().parents[1] / "docs"
SERVER = Server(host="mx.example")


def delivery(
    counts: dict[str, int] | None = None,
    error: errors.DeliveryError | None = None,
    seconds: float = 0.5,
    trace: Trace | None = None,
    server: Server = SERVER,
) -> Told:
    return server, "foo@bar.de", {"Ok": 1} if counts is None else counts, error, seconds, trace


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and its labels' values."""
    text, _ = metrics.exposition()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in plain(text.decode())
        for sample in family.samples
    }


def told(*deliveries: Told) -> dict[tuple[str, tuple[str, ...]], float]:
    metrics = Metrics()
    metrics.told(deliveries)
    return samples(metrics)


# What is told.


def test_a_delivery_with_a_verdict_is_ok_whatever_the_verdict() -> None:
    seen = told(delivery({"Ok": 2, "PermanentError": 1}), delivery({"TemporaryError": 1}))
    assert seen["smtpclient_deliveries_total", ("", "ok")] == 2
    assert seen["smtpclient_recipients_total", ("Ok",)] == 2
    assert seen["smtpclient_recipients_total", ("PermanentError",)] == 1
    assert seen["smtpclient_recipients_total", ("TemporaryError",)] == 1
    assert seen["smtpclient_recipients_total", ("Unknown",)] == 0


def test_one_without_a_verdict_is_counted_by_its_error() -> None:
    seen = told(
        delivery({}, errors.HostNotFound("no such name")), delivery({}, errors.HostNotFound("nor this"))
    )
    assert seen["smtpclient_deliveries_total", ("HostNotFound", "error")] == 2
    assert seen["smtpclient_deliveries_total", ("", "ok")] == 0


def test_an_error_of_a_class_of_its_own_goes_by_what_it_is_one_of() -> None:
    class Odd(errors.DeliveryError):
        """None of the contract's."""

    seen = told(delivery({}, DeliveryCancelled("cancelled")), delivery({}, Odd("odd")))
    assert seen["smtpclient_deliveries_total", ("Cancelled", "error")] == 1
    assert seen["smtpclient_deliveries_total", ("InternalError", "error")] == 1


def test_what_is_in_doubt_is_counted_apart() -> None:
    lost = errors.ConnectionLost("lost").concerning([unknown("a@b.de", in_doubt=True)])
    before = errors.ConnectionLost("lost").concerning([unknown("a@b.de", in_doubt=False)])
    seen = told(delivery({"Unknown": 1}, lost), delivery({"Unknown": 1}, before))
    assert seen["smtpclient_deliveries_in_doubt_total", ()] == 1
    assert seen["smtpclient_recipients_total", ("Unknown",)] == 2


def test_each_error_of_the_contract_is_there_before_it_happens() -> None:
    """A counter that appears with its first event has no rate of that event."""
    seen = told()
    for name in set(errors.__all__) - {"DeliveryError"}:
        assert seen["smtpclient_deliveries_total", (name, "error")] == 0
        assert seen["smtpclient_requests_rejected_total", (name,)] == 0


@pytest.mark.parametrize("seconds", [0.0, *BUCKETS, 601.0])
def test_seconds_are_in_each_bucket_that_they_are_not_over(seconds: float) -> None:
    seen = told(delivery(seconds=seconds), delivery(seconds=seconds))
    for bound in BUCKETS:
        count = seen["smtpclient_phase_seconds_bucket", (str(float(bound)), "total")]
        assert count == (2 if seconds <= bound else 0)
    assert seen["smtpclient_phase_seconds_bucket", ("+Inf", "total")] == 2
    assert seen["smtpclient_phase_seconds_count", ("total",)] == 2
    assert seen["smtpclient_phase_seconds_sum", ("total",)] == 2 * seconds


def test_a_trace_tells_the_phases_of_its_delivery() -> None:
    trace = Trace()
    trace.total, trace.queued, trace.envelope, trace.content = 8.0, 1.0, 2.0, 4.0
    # As long as the mail waited for it; the connection tells it for itself.
    trace.connect = 1.0
    seen = told(delivery(trace=trace), delivery(trace=None), delivery(trace=Trace()))
    sums = {phase: seen["smtpclient_phase_seconds_sum", (phase,)] for phase in PHASES}
    counts = {phase: seen["smtpclient_phase_seconds_count", (phase,)] for phase in PHASES}
    none = dict.fromkeys(PHASES, 0)
    assert sums == none | {"total": 1.5, "queued": 1.0, "envelope": 2.0, "content": 4.0}
    assert counts == none | {"total": 3, "queued": 1, "envelope": 1, "content": 1}


def test_a_connection_tells_its_own_phases() -> None:
    metrics = Metrics()
    metrics.connected({"connect": 1.0, "session": 2.0})
    seen = samples(metrics)
    assert seen["smtpclient_phase_seconds_sum", ("connect",)] == 1
    assert seen["smtpclient_phase_seconds_sum", ("session",)] == 2
    assert seen["smtpclient_phase_seconds_count", ("tls",)] == 0


def test_a_million_hosts_make_no_further_series() -> None:
    metrics = Metrics()
    before = set(samples(metrics))
    for number in range(1000):
        server = Server(host=f"mx{number}.example", port=1 + number)
        metrics.told([delivery({}, errors.ConnectionRefused(f"refused by {number}"), number, server=server)])
    assert set(samples(metrics)) == before
    assert "mx1" not in metrics.exposition()[0].decode()


# What is asked for.


def test_sources_are_asked_at_each_scrape_and_added_up() -> None:
    metrics, clients = Metrics(), {"clients": 1.0}
    metrics.ask(lambda: clients)
    metrics.ask(lambda: {"clients": 10.0, "clients_accepted": 5.0})
    metrics.ask_for_rejected(lambda: {"InvalidRequest": 3})
    assert samples(metrics)["smtpclient_clients", ()] == 11
    clients["clients"] = 2.0
    seen = samples(metrics)
    assert seen["smtpclient_clients", ()] == 12
    assert seen["smtpclient_clients_accepted_total", ()] == 5
    assert seen["smtpclient_requests_rejected_total", ("InvalidRequest",)] == 3


def test_two_of_them_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.told([delivery()])
    assert samples(second)["smtpclient_deliveries_total", ("", "ok")] == 0


def test_the_process_tells_of_itself() -> None:
    seen = samples(Metrics())
    assert seen["process_open_fds", ()] > 0
    assert seen["process_resident_memory_bytes", ()] > 0


def test_the_text_is_as_the_client_wants_it() -> None:
    metrics = Metrics()
    metrics.told([delivery()])
    text, content_type = metrics.exposition("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    parse: Any = openmetrics
    families = {family.name for family in parse(text.decode())}
    assert {"smtpclient_deliveries", "smtpclient_phase_seconds", "smtpclient_build"} <= families
    text, content_type = metrics.exposition()
    assert content_type.startswith("text/plain; version=0.0.4")
    assert text.endswith(b"\n")


@given(
    st.text()
    | st.from_regex(r"(application/openmetrics-text|text/plain)(;[a-z]*=[^,;]*){0,3}", fullmatch=True)
)
def test_nothing_that_a_client_wants_is_an_exception(accept: str) -> None:
    text, content_type = Metrics().exposition(accept)
    assert b"smtpclient_deliveries_total" in text
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))


# What the gateway tells.


def metrics_of_gateway(gateway: Gateway) -> Metrics:
    metrics = Metrics()
    metrics.ask(gateway.factory.state)
    metrics.ask(gateway.deliveries.state)
    metrics.ask_for_rejected(lambda: gateway.deliveries.rejected)
    gateway.deliveries.journal.listeners.append(metrics.told)
    return metrics


def test_clients_and_what_is_under_way() -> None:
    gateway = Gateway(max_in_flight=2)
    metrics = metrics_of_gateway(gateway)
    client, other = gateway.client(), gateway.client()
    client.send(line(id=1), line(id=2), line(id=3))
    seen = samples(metrics)
    assert seen["smtpclient_clients", ()] == 2
    assert seen["smtpclient_clients_paused", ()] == 1
    assert seen["smtpclient_requests_waiting", ()] == 1
    assert seen["smtpclient_in_flight", ()] == 2
    held = seen["smtpclient_memory_bytes", ()]
    other.go_away()
    for each in list(gateway.agent.deliveries):
        each.succeed()
    client.replies()
    gateway.agent.deliveries[2].succeed()
    client.replies()
    gateway.clock.advance(GATHER)
    seen = samples(metrics)
    assert seen["smtpclient_clients", ()] == 1
    assert seen["smtpclient_clients_accepted_total", ()] == 2
    assert seen["smtpclient_clients_paused", ()] == 0
    assert seen["smtpclient_in_flight", ()] == 0
    assert seen["smtpclient_memory_bytes", ()] < held
    assert seen["smtpclient_deliveries_total", ("", "ok")] == 3


def test_what_never_became_a_delivery_is_counted_by_its_error() -> None:
    gateway = Gateway(max_request=300)
    metrics = metrics_of_gateway(gateway)
    client = gateway.client()
    client.send(b"nonsense", line(mesage="x"), b"x" * 1000)
    gateway.deliveries.drain(1)
    client.send(line(id=1))
    gateway.clock.advance(1)
    seen = samples(metrics)
    assert seen["smtpclient_requests_rejected_total", ("InvalidRequest",)] == 2
    assert seen["smtpclient_requests_rejected_total", ("RequestTooLarge",)] == 1
    assert seen["smtpclient_requests_rejected_total", ("ShuttingDown",)] == 1
    assert seen["smtpclient_draining", ()] == 1
    assert seen["smtpclient_deliveries_total", ("", "ok")] == 0


def test_one_delivery_of_those_that_are_logged_together_has_a_trace() -> None:
    gateway = Gateway()
    gateway.deliveries.sample()
    client = gateway.client()
    for _ in range(2):
        client.send(*(line(id=number) for number in range(5)))
        for each in gateway.agent.deliveries:
            each.succeed()
        gateway.clock.advance(GATHER)
        assert [each.trace is not None for each in gateway.agent.deliveries] == [True] + [False] * 4
        gateway.agent.deliveries.clear()
    assert "trace" not in client.replies()[0]


def test_nothing_is_traced_where_nobody_asks() -> None:
    gateway = Gateway()
    client = gateway.client()
    client.send(line(id=1))
    assert [each.trace for each in gateway.agent.deliveries] == [None]


def test_a_listener_that_fails_costs_no_line_of_the_log(logged_failures: Any) -> None:
    def fails(entries: object) -> None:
        raise ZeroDivisionError

    gateway = Gateway()
    metrics = Metrics()
    gateway.deliveries.journal.listeners[:] = [fails, metrics.told]
    gateway.client().send(line(id=1))
    gateway.agent.deliveries[0].succeed()
    gateway.clock.advance(GATHER)
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    assert samples(metrics)["smtpclient_deliveries_total", ("", "ok")] == 1


# What the agent tells.


def metrics_of_agent(post: Post) -> Metrics:
    return metrics_of(Daemon(Clock(), post.agent, []), post.agent)


def test_connections_flights_and_octets_of_the_agent() -> None:
    here = Post(agent={"connections_per_host": 1})
    metrics = metrics_of_agent(here)
    for _ in range(3):
        assert here.delivered(tls=TLSMode.NO).value.all_ok
    seen = samples(metrics)
    assert seen["smtpclient_connections_open", ()] == 1
    assert seen["smtpclient_connections_busy", ()] == 0
    assert seen["smtpclient_connections_opening", ()] == 0
    assert seen["smtpclient_connections_opened_total", ()] == 1
    assert seen["smtpclient_connections_reused_total", ()] == 2
    assert seen["smtpclient_servers", ()] == 1
    # The content goes with the envelope where the connection was not idle.
    assert seen["smtpclient_flights_total", ()] == 1 + 2 + 2
    assert seen["smtpclient_bytes_sent_total", ()] > 3 * len(MESSAGE)
    assert seen["smtpclient_bytes_received_total", ()] > 100
    here.close()
    after = samples(metrics)
    assert after["smtpclient_connections_open", ()] == 0
    # What those that are gone have done stays counted.
    for name in ("connections_reused", "flights", "bytes_sent", "bytes_received"):
        assert after[f"smtpclient_{name}_total", ()] >= seen[f"smtpclient_{name}_total", ()] > 0


def test_a_content_that_the_transport_takes_in_many_parts_is_one_flight() -> None:
    here = Post(size=None)
    metrics = metrics_of_agent(here)
    megabytes = b"x" * 4_000_000 + b"\r\n"
    assert here.delivered(message=megabytes, tls=TLSMode.NO).value.all_ok
    seen = samples(metrics)
    # The envelope, and the content behind its replies.
    assert seen["smtpclient_flights_total", ()] <= 2
    assert seen["smtpclient_bytes_sent_total", ()] > len(megabytes)
    here.close()


def test_a_connection_tells_its_phases_once_it_is_ready() -> None:
    greeting = Fault(Stage.GREETING, Action.REPLY, b"220 at last\r\n", after=2.0)
    here = Post(faults=[greeting])
    metrics = metrics_of_agent(here)
    for _ in range(2):
        assert here.delivered(tls=TLSMode.NO, bound=3.0).value.all_ok
    seen = samples(metrics)
    assert seen["smtpclient_phase_seconds_count", ("session",)] == 1
    assert seen["smtpclient_phase_seconds_sum", ("session",)] == 2
    here.close()


def test_a_connection_that_is_being_opened_and_who_waits_for_it() -> None:
    here = Post(agent={"connections_per_host": 1})
    metrics = metrics_of_agent(here)
    outcomes = [Outcome(here.deliver(tls=TLSMode.NO)) for _ in range(3)]
    seen = samples(metrics)
    assert seen["smtpclient_connections_opening", ()] == 1
    assert seen["smtpclient_queue_length", ()] == 3
    here.network.settle()
    assert all(outcome.value.all_ok for outcome in outcomes)
    assert samples(metrics)["smtpclient_queue_length", ()] == 0
    here.close()


def test_a_connection_with_a_mail_under_way_is_busy_also_where_it_is_not_shared() -> None:
    here = Post(faults=[Fault(Stage.MAIL, Action.STALL)])
    metrics = metrics_of_agent(here)
    outcome = Outcome(here.agent.deliver(terms(), envelope("a@b.de"), Content(MESSAGE), reuse=False))
    here.network.settle()
    assert not outcome.came
    seen = samples(metrics)
    assert seen["smtpclient_connections_open", ()] == seen["smtpclient_connections_busy", ()] == 1
    here.close()


def test_a_connection_that_comes_to_nothing_is_counted() -> None:
    here = Post(faults=[Fault(Stage.GREETING, Action.REPLY, b"554 no\r\n")])
    metrics = metrics_of_agent(here)
    outcome = here.delivered()
    assert isinstance(outcome.error, errors.Refused)
    seen = samples(metrics)
    assert seen["smtpclient_connections_failed_total", ()] == 1
    assert seen["smtpclient_connections_opened_total", ()] == 0
    here.close()


def test_each_key_that_a_part_tells_is_a_metric() -> None:
    gateway = Gateway()
    agent = DeliveryAgent(Clock())
    queues = AMQPGateway(gateway.deliveries, Clock(), ["mail"], max_request=1)
    keys = {
        *gateway.factory.state(), *gateway.deliveries.state(), *agent.state(), *queues.state(),
    }  # fmt: skip
    assert keys == set(READINGS)


# What the pages say.


def names() -> set[str]:
    """Each name that a query may use."""
    clock = Clock()
    agent = DeliveryAgent(clock)
    return {name for name, _ in samples(metrics_of(Daemon(clock, agent, []), agent))}


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DOCS / "grafana" / "twisted_smtpclient.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = {name for each in expressions for name in re.findall(r"\b(?:smtpclient|process)_\w+", each)}
    assert len(asked) > 10
    assert asked <= names()


def test_each_panel_has_a_place_of_its_own() -> None:
    dashboard = json.loads((DOCS / "grafana" / "twisted_smtpclient.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_the_page_of_operations_has_each_metric() -> None:
    text = (DOCS / "operations.rst").read_text(encoding="utf-8")
    shown = set(re.findall(r"^    \* - ``(smtpclient_\w+)", text, re.MULTILINE))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names() if name.startswith("smtpclient_")}
    assert shown == ours
