from __future__ import annotations

import gc

from twisted_smtpclient.operations.collector import SELDOM, Collector


def test_the_collector_comes_seldom_while_the_daemon_runs_and_is_left_as_it_was() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    collector = Collector()
    collector.startService()
    try:
        assert gc.get_threshold()[0] == SELDOM
        assert gc.get_threshold()[1:] == before[1:]
        assert gc.get_freeze_count() > frozen
    finally:
        collector.stopService()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
