"""``python -m twisted_smtpclient``: see :mod:`twisted_smtpclient.cli`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from twisted_smtpclient.cli import main

    sys.exit(main())
