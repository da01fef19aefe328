from __future__ import annotations

from twisted_smtpclient import Cancelled, Content, Envelope, Reply
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.pipeline import End, Pipeline
from twisted_smtpclient.smtp.trace import Transcript
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


def test_a_witness_sees_a_lone_dot() -> None:
    pipeline = Pipeline(Extensions({"PIPELINING": ()}), grouped=True, chunked=False)
    mail = Transaction(Envelope(None, ["a@b.de"]), Content(b"hi\r\n"))
    seen = mail.witness = Transcript()
    pipeline.submit(mail)
    pipeline.output()
    pipeline.take([OK, NO, GO_AHEAD])
    assert pipeline.output() == b".\r\n"
    assert seen.lines[-1] == ("C", ".")


def test_a_witness_sees_a_reset_on_its_own() -> None:
    pipeline = Pipeline(Extensions({}), grouped=False, chunked=False)
    refused, mail = (Transaction(Envelope(None, ["a@b.de"]), Content(b"hi\r\n")) for _ in range(2))
    seen = mail.witness = Transcript()
    pipeline.submit(refused)
    pipeline.submit(mail)
    pipeline.output()
    pipeline.take([NO])
    assert pipeline.output() == b"RSET\r\n"
    assert seen.lines == [("C", "RSET")]
