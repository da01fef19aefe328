"""
Postfix, run from where it was unpacked.

One master with many smtpd services, each on a port of its own and each with
its own peculiarity (:data:`SERVICES`).  What is accepted goes to the script of
a :class:`~.drop.Drop`, but for mail to ``discard.example``, which goes nowhere,
and to ``undeliverable.example``, which bounces.

By the address of a recipient:

- ``refused…@`` is refused with 550, ``invalid@invalid.de`` with qmail's 553;
- ``deferred…@`` is deferred with 450;
- any other is accepted.

By the address of the sender, with 550: ``refused…@`` is refused, and
``nodata…@`` has its DATA or BDAT refused.  A mail with the header field
``X-Verdict: refuse`` is refused behind its content, with 550.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .certificates import Certificates, Identity
from .child import LOOPBACK, PATIENCE, Child, free_ports
from .drop import Drop
from .reference import Session
from .tree import Tree

#: Nothing is installed, so there is no user postfix.  Postfix wants one that
#: shares its ids with nobody, and a group that is not that user's; these
#: stand in every Debian since ever and own no processes.
MAIL_OWNER: Final = "uucp"
SETGID_GROUP: Final = "news"
#: Who runs the script that keeps the mails.
KEEPER: Final = "nobody"

#: Octets; over the 20 MB that the tests send.
SIZE_LIMIT: Final = 104_857_600
SMALL_SIZE_LIMIT: Final = 65_536
RECIPIENT_LIMIT: Final = 5

_NO_CHUNKING: Final = {"smtpd_discard_ehlo_keywords": "chunking"}

#: The smtpd services, and how each differs from main.cf.
SERVICES: Final[Mapping[str, Mapping[str, str]]] = {
    "pipelining_chunking": {},
    "pipelining": _NO_CHUNKING,
    "chunking": {"smtpd_discard_ehlo_keywords": "pipelining"},
    "neither": {"smtpd_discard_ehlo_keywords": "pipelining,chunking"},
    # 452 4.5.3 to every further recipient.
    "few_recipients": {"smtpd_recipient_limit": f"{RECIPIENT_LIMIT}"},
    "small": {"message_size_limit": f"{SMALL_SIZE_LIMIT}"},
    "bare": {"smtpd_discard_ehlo_keywords": "8bitmime,dsn,smtputf8,size"},
    # Says 502 to EHLO, as servers before RFC 1425 do.
    "helo_only": {"smtpd_command_filter": "regexp:{config}/no_ehlo"},
    # Offers CHUNKING, and takes BDAT for an unknown command.
    "broken_chunking": {"smtpd_command_filter": "regexp:{config}/no_bdat"},
    # MAIL is where the sender is judged, not the first RCPT.
    "sender_first": {"smtpd_delay_reject": "no"},
    # 554 in place of the greeting.
    "closed": {"smtpd_delay_reject": "no", "smtpd_client_restrictions": "reject"},
    "starttls": {"smtpd_tls_security_level": "may"},
    "starttls_pipelining": {"smtpd_tls_security_level": "may", **_NO_CHUNKING},
    "starttls_required": {"smtpd_tls_security_level": "encrypt"},
    "starttls_other_name": {"smtpd_tls_security_level": "may", "identity": "other_name"},
    "starttls_untrusted": {"smtpd_tls_security_level": "may", "identity": "untrusted"},
    # No cipher in common with anybody: the handshake fails.
    "starttls_broken": {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_mandatory_ciphers": "export",
        "tls_export_cipherlist": "NULL-MD5",
        "smtpd_tls_protocols": "TLSv1.2",
        "smtpd_tls_ciphers": "export",
    },
    # Asks the Dovecot beside it who may log in, and works only while that runs.
    "auth": {"smtpd_sasl_auth_enable": "yes"},
    "auth_starttls": {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_auth_only": "yes",
    },
    "implicit": {"smtpd_tls_wrappermode": "yes"},
    "implicit_untrusted": {"smtpd_tls_wrappermode": "yes", "identity": "untrusted"},
}

_MAIN: Final = """\
compatibility_level = 3.6
myhostname = mx.tests.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
config_directory = {config}
queue_directory = {queue}
data_directory = {data}
command_directory = {tree}/usr/sbin
daemon_directory = {tree}/usr/lib/postfix/sbin
shlib_directory = {tree}/usr/lib/postfix
meta_directory = {config}
sendmail_path = {tree}/usr/sbin/sendmail
mail_owner = {mail_owner}
setgid_group = {setgid_group}
default_privs = {keeper}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
export_environment = PATH
maillog_file = {log}
maillog_file_prefixes = {folder}
alias_maps =
alias_database =

# Every address is somebody's, and one mail is one delivery.
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_sender_restrictions = check_sender_access regexp:{config}/senders
smtpd_recipient_restrictions = reject_unauth_pipelining,
  check_recipient_access regexp:{config}/recipients, permit_mynetworks, reject
smtpd_data_restrictions = reject_unauth_pipelining, check_sender_access regexp:{config}/data
header_checks = regexp:{config}/headers
transport_maps = inline:{{ {{ discard.example = discard:all }},
  {{ undeliverable.example = fail:all }} }}
default_transport = keep:all
keep_destination_recipient_limit = 100000
message_size_limit = {size_limit}
smtpd_recipient_limit = 100000

smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_sasl_security_options = noanonymous

# The content is kept as it comes, under an id that is not used again.
enable_long_queue_ids = yes
local_header_rewrite_clients =
disable_mime_input_processing = yes
smtputf8_enable = yes

# A delivery that a restart cut off is tried again at once, not in five minutes.
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
transport_retry_time = 1s

# Nothing asks the network, nothing is slow on purpose.
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
smtpd_junk_command_limit = 100000
smtpd_client_connection_count_limit = 0
smtpd_tls_session_cache_database =
smtpd_tls_received_header = yes
smtp_tls_security_level = none
bounce_notice_recipient = discarded@discard.example
2bounce_notice_recipient = discarded@discard.example
"""

_MASTER: Final = """\
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 1 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
fail      unix  - n n - - pipe
  user={keeper} null_sender= argv=/bin/false
keep      unix  - n n - 8 pipe
  user={keeper} null_sender= eol=\\r\\n
  argv=/bin/sh {script} {drop} ${{queue_id}} ${{sender}} ${{recipient}}
"""

_MAPS: Final = {
    "senders": "/^refused/ 550 5.7.1 sender refused\n",
    "recipients": (
        "/^invalid@invalid\\.de$/ "
        "553 5.7.1 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\n"
        "/^refused/ 550 5.1.1 no such user here\n"
        "/^deferred/ 450 4.2.0 come again later\n"
    ),
    "data": "/^nodata/ 550 5.7.1 no data from you\n",
    "headers": "/^X-Verdict: *refuse/ REJECT content refused\n",
    "no_ehlo": "/^EHLO/ UNKNOWN\n",
    "no_bdat": "/^BDAT/ UNKNOWN\n",
}

_QUEUED: Final = re.compile(r"queued as ([0-9A-Za-z]+)")

#: Folders of the queue that are the mail owner's, and their modes; the group is
#: SETGID_GROUP where it has any access.
_QUEUE: Final = {
    "active": 0o700,
    "bounce": 0o700,
    "corrupt": 0o700,
    "defer": 0o700,
    "deferred": 0o700,
    "flush": 0o700,
    "hold": 0o700,
    "incoming": 0o700,
    "maildrop": 0o730,
    "private": 0o700,
    "public": 0o710,
    "saved": 0o700,
    "trace": 0o700,
}


class Postfix:
    """
    A running Postfix.

    :param sasl: the socket at which a Dovecot answers who may log in.
    :ivar host: where it listens.
    :ivar ports: a port for each of :data:`SERVICES`, by name.
    :ivar drop: where it delivers to.
    """

    host: Final = LOOPBACK

    def __init__(self, tree: Tree, certificates: Certificates, folder: Path, sasl: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self._log = folder / "mail.log"
        self._marks = 0
        keeper = pwd.getpwnam(KEEPER)
        self.drop = Drop(folder / "drop", keeper.pw_uid, keeper.pw_gid)
        config = self._make_folders()
        values = {
            "config": config,
            "data": folder / "data",
            "drop": self.drop.folder,
            "folder": folder,
            "keeper": KEEPER,
            "log": self._log,
            "mail_owner": MAIL_OWNER,
            "queue": folder / "queue",
            "sasl": sasl,
            "script": self.drop.script,
            "setgid_group": SETGID_GROUP,
            "size_limit": SIZE_LIMIT,
            "tree": tree.root,
        }
        for name, table in _MAPS.items():
            (config / name).write_text(table)
        (config / "main.cf").write_text(_MAIN.format_map(values))
        services = "".join(self._service(name, certificates, config) for name in SERVICES)
        (config / "master.cf").write_text(services + _MASTER.format_map(values))
        self._command = [tree.program("lib/postfix/sbin/master"), "-c", str(config), "-d"]
        self._environment = tree.environment(MAIL_CONFIG=str(config))
        self._master = self._start()

    def _start(self) -> Child:
        return Child(self._command, self.folder / "master.log", environment=self._environment)

    def _make_folders(self) -> Path:
        owner = pwd.getpwnam(MAIL_OWNER).pw_uid
        group = grp.getgrnam(SETGID_GROUP).gr_gid
        (self.folder / "queue").mkdir(mode=0o755)
        (self.folder / "queue" / "pid").mkdir(mode=0o755)
        for name, mode in _QUEUE.items():
            path = self.folder / "queue" / name
            path.mkdir()
            os.chown(path, owner, group if mode & 0o070 else -1)
            path.chmod(mode)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, owner, -1)
        config = self.folder / "config"
        config.mkdir(mode=0o755)
        return config

    def _service(self, name: str, certificates: Certificates, config: Path) -> str:
        options = dict(SERVICES[name])
        identity: Identity = getattr(certificates, options.pop("identity", "good"))
        if any(option.startswith("smtpd_tls") for option in options):
            options["smtpd_tls_cert_file"] = str(identity.certificates)
            options["smtpd_tls_key_file"] = str(identity.key)
        lines = [f"{self.host}:{self.ports[name]} inet n - n - - smtpd", f"  -o syslog_name=postfix/{name}"]
        lines += [f"  -o {option}={value.format(config=config)}" for option, value in options.items()]
        return "\n".join(lines) + "\n"

    def wait_until_it_answers(self) -> None:
        """Return once it greets; master listens on all ports before it serves one."""
        self._master.wait_until_it_answers([next(iter(self.ports.values()))])

    def stop(self) -> None:
        """Stop the master, and with it the daemons that it has started."""
        self._master.stop()

    def restart(self) -> None:
        """Stop it, and start it again on the same ports and with the same queue."""
        self.stop()
        self._master = self._start()
        self.wait_until_it_answers()

    def smtpd_processes(self) -> list[int]:
        """The processes that serve clients, or wait for one."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            # Any of them may be gone by now.
            with contextlib.suppress(OSError):
                name, _, rest = path.read_text().partition("(")[2].rpartition(") ")
                if name == "smtpd" and int(rest.split()[1]) == self._master.pid:
                    found.append(int(path.parent.name))
        return found

    @property
    def log(self) -> str:
        """The mail log as far as it is written; it lags behind."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def log_until_now(self) -> str:
        """
        The mail log with all that has happened before this call.

        The log is a queue: what we do here comes out behind the rest.
        """
        self._marks += 1
        mark = f"refused-mark-{self._marks}@bar.de"
        with Session(self.host, self.ports["pipelining_chunking"]) as session:
            for command in ("HELO mark", "MAIL FROM:<>", f"RCPT TO:<{mark}>"):
                session.say(f"{command}\r\n".encode())
        deadline = time.monotonic() + PATIENCE
        while mark not in (log := self.log):
            assert time.monotonic() < deadline, log
            time.sleep(0.005)
        return log

    @staticmethod
    def queue_id(response: str) -> str:
        """The id that the server's final reply tells."""
        match = _QUEUED.search(response)
        assert match is not None, response
        return match[1]
