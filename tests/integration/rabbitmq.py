"""
A RabbitMQ node from the operating system's packages, with nothing shared but
the loopback interface.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pika

from .certificates import Certificates
from .child import LOOPBACK, Child, free_ports
from .tree import Tree

#: Seconds for the node to start; some eight on two cores.
PATIENCE: Final = 90.0

_SETTINGS: Final = """\
listeners.tcp.1 = {loopback}:{port}
listeners.ssl.1 = {loopback}:{tls_port}
ssl_options.certfile = {certificates}
ssl_options.keyfile = {key}
log.console = true
log.console.level = info
disk_free_limit.absolute = 50MB
"""


class RabbitMQ:
    """
    One node, its port mapper beside it; both end when they are stopped.

    :ivar port: where AMQP is spoken.
    :ivar tls_port: where it is over TLS.
    """

    def __init__(self, tree: Tree, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.port, self.tls_port, mapper, distribution = free_ports(4)
        (folder / "rabbitmq.conf").write_text(
            _SETTINGS.format(
                loopback=LOOPBACK,
                port=self.port,
                tls_port=self.tls_port,
                certificates=certificates.good.certificates,
                key=certificates.good.key,
            )
        )
        erlang = tree.root / "usr/lib/erlang"
        self._tree = tree
        self._environment = tree.environment(
            PATH=f"{erlang}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            HOME=str(folder),
            LANG="C.UTF-8",
            # So that the script becomes the node, whose id is then the child's.
            RUNNING_UNDER_SYSTEMD="true",
            RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
            RABBITMQ_CONF_ENV_FILE=str(folder / "no-such-file"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"),
            RABBITMQ_MNESIA_BASE=str(folder / "data"),
            RABBITMQ_LOG_BASE=str(folder),
            RABBITMQ_LOGS="-",
            RABBITMQ_NODENAME=f"node{self.port}@localhost",
            RABBITMQ_DIST_PORT=str(distribution),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            ERL_EPMD_PORT=str(mapper),
            ERL_EPMD_ADDRESS=LOOPBACK,
        )
        # Ours, so that the node starts none that outlives it.
        self._mapper = Child(
            [str(erlang / "bin/epmd"), "-address", LOOPBACK, "-port", str(mapper)],
            folder / "epmd.log",
            environment=self._environment,
        )
        self._mapper.wait_until_it_answers([mapper], greeting=False)
        self._starts = 0
        self._users = itertools.count()
        self.start()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("node-*.log")))

    def start(self) -> None:
        """Start the node, with the queues that it had."""
        self._starts += 1
        self._node = Child(
            ["/bin/sh", self._tree.program("lib/rabbitmq/bin/rabbitmq-server")],
            self.folder / f"node-{self._starts}.log",
            environment=self._environment,
            directory=self.folder,
        )

    def wait_until_it_answers(self) -> None:
        """Return once it takes connections."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(Exception):
                # pika has much to say of a port that nobody listens on.
                socket.create_connection((LOOPBACK, self.port)).close()
                pika.BlockingConnection(pika.URLParameters(self.url)).close()
                return
            if not self._node.running or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ does not answer:\n{self.log}")
            # Nothing tells when another process begins to listen.
            time.sleep(0.1)

    def crash(self) -> None:
        """End the node as a power failure would."""
        self._node.stop(by=signal.SIGKILL)

    def stop(self) -> None:
        """End the node and its port mapper."""
        self._node.stop()
        self._mapper.stop()

    def control(self, expression: str) -> None:
        """Have the node do something, in Erlang."""
        done = subprocess.run(
            [
                str(self._tree.root / "usr/lib/erlang/bin/erl_call"),
                "-name",
                f"node{self.port}@localhost",
                "-c",
                (self.folder / ".erlang.cookie").read_text().strip(),
                "-e",
            ],
            input=f"{expression}.\n",
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            text=True,
        )
        # A refusal is an answer as well.
        assert done.stdout == "{ok, ok}", done.stdout

    def user(self, configure: str, write: str, read: str) -> str:
        """A new user, by its name, which is its password too; may do what matches these patterns."""
        name = f"user{next(self._users)}"
        patterns = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
        module = "rabbit_auth_backend_internal"
        self.control(f'{module}:add_user(<<"{name}">>, <<"{name}">>, <<"test">>)')
        self.control(f'{module}:set_permissions(<<"{name}">>, <<"/">>, {patterns}, <<"test">>)')
        return name

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel of a client of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def forget(self) -> None:
        """Remove all that it has on disk; for a node that has stopped."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
