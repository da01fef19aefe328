"""The soak, shortly; ``python -m tests.soak`` is the long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.daemons import ROOT

pytestmark = pytest.mark.slow

#: Seconds; of one that hangs.
PATIENCE = 300.0


@pytest.mark.parametrize("where", [[], ["--in-process"]], ids=["child", "in process"])
def test_no_rule_is_broken_whatever_clients_and_servers_do(where: list[str]) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.08", "--seed", "1", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no rule was broken" in done.stdout
    # Something came of it.
    assert "Ok" in done.stdout
    assert "in doubt" in done.stdout
