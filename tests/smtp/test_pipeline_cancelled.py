"""What becomes of a connection when a mail on it is cancelled."""

from __future__ import annotations

from twisted_smtpclient import Cancelled, Content, Envelope, Reply
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.pipeline import End, Pipeline
from twisted_smtpclient.smtp.transaction import Transaction

OK = Reply(250, (b"250 ok",))
NO = Reply(550, (b"550 no",))
GO_AHEAD = Reply(354, (b"354 go ahead",))


def test_a_mail_cancelled_behind_one_that_ends_well_ends_the_connection_then_and_not_before() -> None:
    pipeline = Pipeline(Extensions({"PIPELINING": ()}), grouped=True, chunked=False)
    first, second = (Transaction(Envelope(None, ["a@b.de"]), Content(b"hi\r\n")) for _ in range(2))
    pipeline.submit(first)
    pipeline.submit(second)
    pipeline.output()
    pipeline.take([OK, OK, GO_AHEAD])
    # The first's content, and the second's envelope behind it.
    assert pipeline.output().endswith(b"DATA\r\n")
    pipeline.cancel(second, Cancelled("enough"))
    assert pipeline.end is End.OPEN
    pipeline.take([OK])
    assert pipeline.end is End.ABORT
    assert pipeline.finished == [second, first]


def test_a_refused_rset_ends_the_connection_though_its_mail_was_cancelled_since() -> None:
    pipeline = Pipeline(Extensions({"CHUNKING": ()}), grouped=False, chunked=True)
    refused, cancelled, next_one = (
        Transaction(Envelope(None, ["a@b.de"]), Content(b"hi\r\n")) for _ in range(3)
    )
    for mail in (refused, cancelled, next_one):
        pipeline.submit(mail)
    pipeline.output()
    pipeline.take([NO])
    assert pipeline.output() == b"RSET\r\n"
    pipeline.cancel(cancelled, Cancelled("enough"))
    pipeline.take([NO])
    assert pipeline.end is End.ABORT
    assert pipeline.output() == b""
    assert next_one.untouched
