"""
The servers, each started once and stopped at the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from .agent import PATIENCE, ImpatientAgent
from .certificates import Certificates
from .dovecot import Dovecot, sasl_socket
from .exim import Exim
from .postfix import Postfix
from .rabbitmq import RabbitMQ
from .smtp_sink import SmtpSink
from .tree import Tree

#: Characters of a server's log that are shown with a test that failed.
_LOG_SHOWN = 6000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests below this folder are integration tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers had to say with a test that failed."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, (Postfix, Exim, Dovecot, RabbitMQ)):
                report.sections.append((f"log of {type(value).__name__}", value.log[-_LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def servers_tree() -> Tree:
    """The unpacked servers; without them, a skip or (in CI) a failure."""
    tree = Tree.from_environment()
    lacking = tree.lacking()
    if lacking is not None:
        if os.environ.get("REQUIRE_INTEGRATION"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    return tree


@pytest.fixture(scope="session")
def server_folder(servers_tree: Tree) -> Iterator[Path]:
    """A folder into which servers that gave up root can look (pytest's own are closed)."""
    with tempfile.TemporaryDirectory(prefix="smtp-servers-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def certificates(server_folder: Path) -> Certificates:
    folder = server_folder / "certificates"
    folder.mkdir()
    return Certificates(folder)


@pytest.fixture(scope="session")
def postfix(servers_tree: Tree, certificates: Certificates, server_folder: Path) -> Iterator[Postfix]:
    folder = server_folder / "postfix"
    folder.mkdir()
    server = Postfix(servers_tree, certificates, folder, sasl_socket(server_folder / "dovecot"))
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def exim(servers_tree: Tree, certificates: Certificates, server_folder: Path) -> Iterator[Exim]:
    folder = server_folder / "exim"
    folder.mkdir()
    server = Exim(servers_tree, certificates, folder)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def dovecot(servers_tree: Tree, server_folder: Path) -> Iterator[Dovecot]:
    folder = server_folder / "dovecot"
    folder.mkdir()
    server = Dovecot(servers_tree, folder)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq(servers_tree: Tree, certificates: Certificates, server_folder: Path) -> Iterator[RabbitMQ]:
    folder = server_folder / "rabbitmq"
    folder.mkdir()
    server = RabbitMQ(servers_tree, folder, certificates)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@pytest.fixture
def smtp_sink(servers_tree: Tree, tmp_path: Path) -> Iterator[SmtpSink]:
    server = SmtpSink(servers_tree, tmp_path)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.stop()


@pytest.fixture
def agent(certificates: Certificates) -> Iterator[ImpatientAgent]:
    """An agent that trusts the authority of the servers' good certificates."""
    agent = ImpatientAgent(certificates)
    yield agent
    pytest_twisted.blockon(agent.close().addTimeout(PATIENCE, reactor))
