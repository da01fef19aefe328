"""
Exim, run from where it was unpacked.

One daemon on one port for each of :data:`SERVICES`; what differs between them
hangs on the port in its configuration.  What is accepted goes to the script of
a :class:`~.drop.Drop`, but for mail to ``discard.example``, which goes nowhere.
Recipients and senders are refused and deferred as by :mod:`.postfix`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .certificates import Certificates
from .child import LOOPBACK, Child, free_ports
from .drop import Drop
from .tree import Tree

#: The user of Debian's package.  It is not on this machine: a preloaded
#: library tells Exim of it (and Exim alone), under an id that is nobody's.
EXIM_USER: Final = "Debian-exim"
EXIM_ID: Final = 61_421

#: The ports, and what is not offered there.
SERVICES: Final[Mapping[str, frozenset[str]]] = {
    "pipelining_chunking": frozenset(),
    "pipelining": frozenset({"chunking"}),
    "chunking": frozenset({"pipelining"}),
    "neither": frozenset({"pipelining", "chunking"}),
}

_CONFIGURATION: Final = """\
primary_hostname = exim.tests.example
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
process_log_path = {folder}/process
daemon_smtp_ports = {ports}
local_interfaces = 127.0.0.1
exim_path = {exim}
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
add_environment = PATH=/usr/bin:/bin
# It has no root to give up after the ports are bound, and asks for none.
deliver_drop_privilege = true

tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}

chunking_advertise_hosts = ${{if inlist {{$received_port}} {{{no_chunking}}} {{}} {{*}}}}
pipelining_advertise_hosts = ${{if inlist {{$received_port}} {{{no_pipelining}}} {{}} {{*}}}}
pipelining_connect_advertise_hosts =
dsn_advertise_hosts = *

# Nothing asks the network, nothing is slow on purpose.
host_lookup =
rfc1413_hosts =
dns_ipv4_lookup = *
smtp_enforce_sync = true
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_accept_max_nonmail = 100000
smtp_max_synprot_errors = 100000
smtp_max_unknown_commands = 100
message_size_limit = 100M
recipients_max = 100000
smtp_return_error_details = true

acl_smtp_mail = judge_sender
acl_smtp_rcpt = judge_recipient
acl_smtp_predata = judge_data
acl_smtp_data = judge_content

begin acl

judge_sender:
  deny senders = ^refused
       message = 5.7.1 sender refused
  accept

judge_recipient:
  deny local_parts = invalid
       domains = invalid.de
       message = 553 5.7.1 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)
  deny local_parts = ^refused
       message = 5.1.1 no such user here
  defer local_parts = ^deferred
       message = 450 4.2.0 come again later
  accept

judge_data:
  deny senders = ^nodata
       message = 5.7.1 no data from you
  accept

# Of BDAT, Exim asks only here.
judge_content:
  deny senders = ^nodata
       message = 5.7.1 no data from you
  deny condition = ${{if eq {{$h_X-Verdict:}} {{refuse}}}}
       message = 5.7.1 content refused
  accept

begin routers

discard:
  driver = redirect
  domains = discard.example
  data = :blackhole:

keep:
  driver = accept
  transport = keep

begin transports

keep:
  driver = pipe
  command = /bin/sh {script} $message_exim_id $pipe_addresses
  batch_max = 100000
  batch_id = all
  use_crlf = true
  message_prefix =
  message_suffix =
  max_output = 1M
  return_fail_output = true
"""

#: The sender comes as an environment variable: in the command Exim calls it
#: tainted, and bounces the mail.
_SCRIPT: Final = """\
#!/bin/sh
id="$1"
shift
exec /bin/sh {script} {drop} "$id" "$SENDER" "$@"
"""

_QUEUED: Final = re.compile(r"OK id=([0-9A-Za-z-]+)")


class Exim:
    """
    A running Exim.

    :ivar host: where it listens.
    :ivar ports: a port for each of :data:`SERVICES`, by name.
    :ivar drop: where it delivers to.
    """

    host: Final = LOOPBACK

    def __init__(self, tree: Tree, certificates: Certificates, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        os.chown(folder, EXIM_ID, EXIM_ID)
        self.drop = Drop(folder / "drop", EXIM_ID, EXIM_ID)
        script = folder / "keep.sh"
        script.write_text(_SCRIPT.format(script=self.drop.script, drop=self.drop.folder))
        configuration = folder / "exim.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                certificate=self._readable(certificates.good.certificates),
                exim=tree.program("sbin/exim4"),
                folder=folder,
                key=self._readable(certificates.good.key),
                no_chunking=self._ports_without("chunking"),
                no_pipelining=self._ports_without("pipelining"),
                ports=" : ".join(str(port) for port in self.ports.values()),
                script=script,
            )
        )
        self._daemon = Child(
            [tree.program("sbin/exim4"), "-C", str(configuration), "-bdf", "-q1m"],
            folder / "daemon.log",
            environment=self._environment(tree),
        )

    def _readable(self, secret: Path) -> Path:
        """A copy for Exim, which reads it when it has given up root."""
        copy = self.folder / secret.name
        copy.write_bytes(secret.read_bytes())
        copy.chmod(0o600)
        os.chown(copy, EXIM_ID, EXIM_ID)
        return copy

    def _ports_without(self, extension: str) -> str:
        return " : ".join(str(self.ports[name]) for name, lacking in SERVICES.items() if extension in lacking)

    def _environment(self, tree: Tree) -> dict[str, str]:
        users, groups = self.folder / "passwd", self.folder / "group"
        users.write_text(
            Path("/etc/passwd").read_text()
            + f"{EXIM_USER}:x:{EXIM_ID}:{EXIM_ID}::/nonexistent:/usr/sbin/nologin\n"
        )
        groups.write_text(Path("/etc/group").read_text() + f"{EXIM_USER}:x:{EXIM_ID}:\n")
        return tree.environment(
            LD_PRELOAD="libnss_wrapper.so", NSS_WRAPPER_PASSWD=str(users), NSS_WRAPPER_GROUP=str(groups)
        )

    def wait_until_it_answers(self) -> None:
        """Return once it greets."""
        self._daemon.wait_until_it_answers([next(iter(self.ports.values()))])

    def stop(self) -> None:
        """Stop the daemon; deliveries that it has begun run to their end."""
        self._daemon.stop()

    @property
    def log(self) -> str:
        """The main log so far."""
        path = self.folder / "mainlog"
        return path.read_text(errors="replace") if path.exists() else ""

    @staticmethod
    def queue_id(response: str) -> str:
        """The id that the server's final reply tells."""
        match = _QUEUED.search(response)
        assert match is not None, response
        return match[1]
