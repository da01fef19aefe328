from __future__ import annotations

import gc

import pytest

from twisted_smtpclient import Envelope, Reply, Status
from twisted_smtpclient.smtp.many import MANY, many_values
from twisted_smtpclient.smtp.result import one_verdict


@pytest.mark.parametrize("count", [1, MANY])
def test_the_collector_is_as_it_was_behind_any_number_of_recipients(count: int) -> None:
    assert gc.isenabled()
    mail = Envelope(None, [f"r{number}@x.example" for number in range(count)])
    told = one_verdict(mail.recipients, Status.OK, Reply(250, (b"250 ok",)), "BDAT")
    assert [entry.recipient for entry in told] == [entry.address for entry in mail.recipients]
    assert gc.isenabled()


def test_it_is_as_it_was_behind_a_fault_too() -> None:
    with pytest.raises(ValueError, match="no number"), many_values():
        int("no number")
    assert gc.isenabled()


def test_who_has_none_gets_none() -> None:
    gc.disable()
    try:
        with many_values():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
