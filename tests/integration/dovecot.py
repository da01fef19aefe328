"""
Dovecot, run from where it was unpacked: LMTP, and SASL for Postfix.

By LMTP it delivers to the mailboxes of :data:`USERS`, whatever the domain.  A
recipient without a mailbox is refused with 550; one whose mailbox is full
(``full``) is accepted, and has a 552 among the final replies.  Each user's
password is :data:`PASSWORD`.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Final

from .child import LOOPBACK, Child, free_ports
from .tree import Tree

#: Instead of the users that installing would make: they own no processes, and
#: are not those that Postfix takes.
INTERNAL_USER: Final = "news"
LOGIN_USER: Final = "proxy"
#: Who owns the mailboxes.
MAIL_USER: Final = "mail"

#: Mailboxes, with what their mails may come to in octets (0: any).
USERS: Final = {"anna": 0, "bert": 0, "full": 10}
PASSWORD: Final = "correct horse battery staple"
MECHANISMS: Final = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")

_CONFIGURATION: Final = """\
base_dir = {folder}/run
state_dir = {folder}/state
libexec_dir = {tree}/usr/lib/dovecot
mail_plugin_dir = {tree}/usr/lib/dovecot/modules
import_environment = LD_LIBRARY_PATH
default_internal_user = {internal_user}
default_internal_group = {internal_user}
default_login_user = {login_user}
first_valid_uid = 1
log_path = {folder}/dovecot.log
protocols = lmtp
listen = {host}
ssl = no
hostname = dovecot.tests.example

service lmtp {{
  inet_listener lmtp {{
    address = {host}
    port = {port}
  }}
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}

# A wrong password makes the next answers late, unless this is closed.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}

disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_username_format = %Ln
auth_failure_delay = 0
service auth {{
  unix_listener {sasl} {{
    mode = 0666
  }}
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}

mail_location = maildir:~/Maildir
mail_fsync = never
mail_plugins = quota
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
"""

_OWN_FIELDS: Final = re.compile(
    rb"(?:Return-Path|Delivered-To): [^\n]*\n(?:(?:Return-Path|Delivered-To): [^\n]*\n)*"
    rb"Received: [^\n]*\n(?:[ \t][^\n]*\n)*"
    rb"(?:Received: from [^\n]*\n(?:[ \t][^\n]*\n)*)?"
)


class Dovecot:
    """
    A running Dovecot.

    :ivar host: where it listens.
    :ivar port: for LMTP over TCP.
    :ivar socket: for LMTP over a UNIX socket.
    :ivar sasl: the socket that Postfix asks who may log in.
    """

    host: Final = LOOPBACK

    def __init__(self, tree: Tree, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.socket = folder / "lmtp"
        self.sasl = sasl_socket(folder)
        self._log = folder / "dovecot.log"
        self._write_users()
        (folder / "run").mkdir()
        # See servers.sh.
        (folder / "run" / "modules").symlink_to(tree.program("lib/dovecot/modules"))
        configuration = folder / "dovecot.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                host=self.host,
                internal_user=INTERNAL_USER,
                login_user=LOGIN_USER,
                mechanisms=" ".join(MECHANISMS).lower(),
                port=self.port,
                sasl=self.sasl,
                tree=tree.root,
            )
        )
        self._master = Child(
            # As the master itself does it, but that looks for doveconf in /usr/bin.
            [
                tree.program("bin/doveconf"),
                *("-f", "service=master", "-c", str(configuration), "-m", "master"),
                *("-e", tree.program("sbin/dovecot"), "-F", "-c", str(configuration)),
            ],
            folder / "master.log",
            environment=tree.environment(),
        )

    def _write_users(self) -> None:
        owner = pwd.getpwnam(MAIL_USER)
        lines = []
        for user, limit in USERS.items():
            home = self.folder / "home" / user
            home.mkdir(parents=True)
            os.chown(home, owner.pw_uid, owner.pw_gid)
            quota = f"userdb_quota_rule=*:bytes={limit}" if limit else ""
            lines.append(f"{user}:{{PLAIN}}{PASSWORD}:{owner.pw_uid}:{owner.pw_gid}::{home}::{quota}\n")
        (self.folder / "users").write_text("".join(lines))

    def wait_until_it_answers(self) -> None:
        """Return once it greets."""
        self._master.wait_until_it_answers([self.port])

    def stop(self) -> None:
        """Stop the master, and with it the daemons that it has started."""
        self._master.stop()

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def mailbox(self, user: str) -> list[bytes]:
        """
        The contents in a mailbox, without the fields that Dovecot put before
        them, each line end as CRLF again.

        Dovecot writes a mail before it answers, so what was accepted is here.
        """
        contents = []
        for path in sorted((self.folder / "home" / user / "Maildir" / "new").glob("*")):
            stored = path.read_bytes()
            fields = _OWN_FIELDS.match(stored)
            assert fields is not None, stored[:400]
            contents.append(stored[fields.end() :].replace(b"\n", b"\r\n"))
        return contents


def sasl_socket(folder: Path) -> Path:
    """Where a Dovecot in ``folder`` answers Postfix, once it runs."""
    return folder / "sasl"
