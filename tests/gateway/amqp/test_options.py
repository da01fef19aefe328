"""Where the broker is, and what else the daemon is told of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from twisted_smtpclient.gateway.amqp.options import ENVIRONMENT, Broker, count_of, delays_of, name_of
from twisted_smtpclient.tap import Options

URL = "amqp://anna:secret@rabbit.example:5673/mail"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "url"
    path.write_text(f"{URL}\nsomething else\n")
    return path


def test_the_url_comes_by_option_file_or_environment(file: Path) -> None:
    by_option = Broker(URL, None, {})
    by_file = Broker(None, str(file), {ENVIRONMENT: "amqp://elsewhere"})
    by_environment = Broker(None, None, {ENVIRONMENT: URL})
    assert {str(each.address) for each in (by_option, by_file, by_environment)} == {
        "amqp://rabbit.example:5673/mail"
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://localhost", "amqp://localhost:5672/"),
        ("amqps://a:b@[::1]/", "amqps://[::1]:5671/"),
        ("amqp://a:b@rabbit/%2Fone", "amqp://rabbit:5672//one"),
    ],
)
def test_the_address_is_told_without_who_logs_in(url: str, told: str) -> None:
    address = Broker(url, None, {}).address
    assert str(address) == told
    assert repr(address) == f"<Address {told}>"


@pytest.mark.parametrize(
    "url",
    [
        "http://anna:secret@rabbit",
        "amqp://",
        "anna:secret@rabbit",
        "amqp://anna:secret@rabbit:port",
        "amqp://anna:secret@rabbit/?heartbeat=secret",
        "amqp://rabbit/#secret",
        "",
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(url)
    with pytest.raises(ValueError, match="expected amqp://user:password@host") as caught:
        Broker(None, str(path), {})
    assert "secret" not in str(caught.value)


def test_a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing(file: Path) -> None:
    broker = Broker(None, str(file), {})
    file.write_text("amqp://other\n")
    broker.reload()
    assert broker.address.host == "other"
    file.write_text("nonsense")
    with pytest.raises(ValueError, match="expected amqp"):
        broker.reload()
    assert broker.address.host == "other"


def test_there_is_one_place_for_the_url() -> None:
    with pytest.raises(ValueError, match="two places"):
        Broker(URL, "file", {})
    with pytest.raises(ValueError, match="TWISTED_SMTPCLIENT_AMQP"):
        Broker(None, None, {})
    with pytest.raises(ValueError, match="expected a file with a URL"):
        Broker(None, "/nowhere/at/all", {})


@pytest.mark.parametrize(
    "text", ["", "0", "60,30", "60,60", "a", "60,", "5000000", ",".join(map(str, range(1, 40)))]
)
def test_delays_that_do_not_grow_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        delays_of(text)


def test_delays_are_seconds() -> None:
    assert delays_of("1,60,4000000") == (1, 60, 4000000)


@pytest.mark.parametrize("text", ["", "amq.direct", "x" * 201, "a\nb"])
def test_a_name_that_no_queue_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        name_of(text)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "x"])
def test_a_prefetch_that_amqp_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        count_of(text)


# The daemon's options.


def options(*arguments: str) -> Options:
    parsed: Any = Options()
    parsed.parseOptions(["--helo", "mx.example", *arguments])
    assert isinstance(parsed, Options)
    return parsed


def test_the_daemon_does_without_a_broker_unless_it_is_told_of_a_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENVIRONMENT, URL)
    assert options().broker is None
    assert options("--amqp-queue", "mail").broker is not None


def test_options_have_the_defaults_that_the_pages_tell() -> None:
    given = options("--amqp", URL, "--amqp-queue", "mail", "--amqp-queue", "more")
    assert given.queues == ["mail", "more"]
    assert given["amqp-prefetch"] == 500
    assert given["amqp-replies"] is None
    assert given["amqp-attempts"] == 50
    assert given["amqp-age"] == 432000.0
    assert given["amqp-delays"] == (60, 300, 900, 3600, 10800)
    assert not given["amqp-retry-indoubt"]
    assert given["amqp-redelivered"] == "deliver"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--amqp", URL], "--amqp: at least one --amqp-queue is needed"),
        (["--amqp-queue", "mail"], "--amqp: where is the broker"),
        (["--amqp", "http://x", "--amqp-queue", "mail"], "--amqp: expected amqp://"),
        (["--amqp-queue", "amq.x"], "--amqp-queue: expected a name"),
        (["--amqp-redelivered", "drop"], "--amqp-redelivered: expected deliver or indoubt"),
        (["--amqp-delays", "5,1"], "--amqp-delays: expected growing seconds"),
        (["--amqp-prefetch", "0"], "--amqp-prefetch: expected an integer"),
        (["--amqp-attempts", "0"], "--amqp-attempts: expected an integer over 0"),
    ],
)
def test_an_error_names_the_option(arguments: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        options(*arguments)
    assert str(caught.value).startswith(told)


def test_without_the_extra_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    monkeypatch.delitem(sys.modules, "twisted_smtpclient.gateway.amqp.address", raising=False)
    with pytest.raises(UsageError) as caught:
        options("--amqp", URL, "--amqp-queue", "mail")
    assert str(caught.value) == "--amqp: RabbitMQ needs pika: pip install 'twisted_smtpclient[amqp]'"
    # All else goes on without it.
    assert options().broker is None


def test_the_page_has_each_option_and_the_protocol_s_page_the_same_defaults() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    row = re.compile(r"^    \* - ``--(amqp[a-z-]*)[^\n]*\n      - (.+)\n", re.MULTILINE)
    there = dict(row.findall((docs / "rabbitmq.rst").read_text(encoding="utf-8")))
    assert set(there) == {option.rstrip("=") for option in Options().longOpt if option.startswith("amqp")}
    assert there == dict(row.findall((docs / "protocol.rst").read_text(encoding="utf-8")))
