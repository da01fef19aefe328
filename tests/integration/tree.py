"""
The folder into which ``servers.sh`` has unpacked the mail servers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Where servers.sh puts them, unless SMTP_SERVERS says otherwise.
DEFAULT: Final = "/var/cache/twisted_smtpclient/servers"


class Tree:
    """
    Mail servers side by side, none of them installed.

    :ivar root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def from_environment(cls) -> Tree:
        """The tree that ``SMTP_SERVERS`` names, or the default one."""
        return cls(Path(os.environ.get("SMTP_SERVERS") or DEFAULT))

    def lacking(self) -> str | None:
        """Why no server can be run here, or None where all is well."""
        if os.geteuid() != 0:
            return "Postfix's master, Exim and Dovecot start as root only"
        if not (self.root / "COMPLETE").is_file():
            return f"no mail servers in {self.root}: run tests/integration/servers.sh"
        for folder in (self.root, *self.root.parents):
            if not folder.stat().st_mode & 0o001:
                return f"the servers give up root, and {folder} is closed to them"
        return None

    def program(self, path: str) -> str:
        """The absolute path of a program, given as below ``/usr``."""
        return str(self.root / "usr" / path)

    @property
    def library_path(self) -> str:
        """``LD_LIBRARY_PATH`` of everything in the tree."""
        return (self.root / "COMPLETE").read_text().splitlines()[1]

    def environment(self, **more: str) -> dict[str, str]:
        """A small environment in which the programs find their libraries."""
        return {
            "PATH": f"{self.root}/usr/sbin:{self.root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": self.library_path,
            **more,
        }
