"""Many clients at once; ``python -m tests.soak.crowd`` has ten times as many, with more to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.crowd import MIB, run

pytestmark = pytest.mark.slow


def test_a_thousand_clients_are_all_answered_though_some_are_hostile(tmp_path: Path) -> None:
    outcome = run(tmp_path, clients=1000, requests=20, hostile=10, max_memory=64 * MIB)
    assert outcome.wrong == [], str(outcome)
