"""The server's side of one session: what each command says, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from . import grammar, replies
from .accounts import Channel
from .authentication import Authentication
from .content import ChunkReader, Content, DotReader
from .faults import Fault, FaultPlan, Stage, said
from .outbox import Step, close
from .records import Addressee, Mail, Session
from .replies import Settings, octets_of, text_of
from .transaction import Transaction, judge_mail, judge_rcpt, limit_of
from .wire import INTERMEDIATE, POSITIVE, Reading


class Dialogue(Authentication):
    """
    :param busy: see :class:`~twisted_smtpclient.testing.wire.Wire`.
    :param channel: what TLS tells of the client.
    :param start_tls: the step that begins the server's handshake.
    :param next_number: gives the next mail's number.
    :param arrived: called with each mail when its final reply is decided.
    """

    def __init__(
        self,
        settings: Settings,
        plan: FaultPlan,
        session: Session,
        *,
        busy: Callable[[], bool],
        channel: Channel,
        start_tls: Step,
        next_number: Callable[[], int],
        arrived: Callable[[Mail], None],
    ) -> None:
        super().__init__(settings, plan, session, busy, channel)
        self._start_tls = start_tls
        self._next_number = next_number
        self._arrived = arrived
        self._mails_begun = 0
        self._forget()

    def _forget(self) -> None:
        """RFC 3207 4.2: nothing from before the handshake counts after it."""
        self._offered = {}
        self._session.helo = None
        self._session.login = None
        self._end_transaction()

    def _end_transaction(self) -> None:
        self._transaction: Transaction | None = None
        self._content = None
        self._content_fault = None
        self._chunks_taken = 0
        self._early_reply = None
        self._chunk_is_last = False
        self._chunk_fault: Fault | None = None

    def _in_transaction(self) -> bool:
        return self._transaction is not None

    def _by_smtputf8(self) -> bool:
        return self._transaction is not None and "SMTPUTF8" in self._transaction.parameters

    # Commands.

    def _command(self, line: bytes) -> None:
        self.idle = False
        session = self._session
        if self._settings.keep_records:
            session.commands.append(line)
        if self._settings.keep_transcript:
            session.transcript.append(("C", line))
        word, _, argument = line.partition(b" ")
        verb = self._verbs.get(word) or self._verbs.get(word.upper())
        name = verb if verb is not None else "an unknown command"
        if self.batch or self._busy():
            self._check_group(name)
        self._previous = name
        if not line.isascii() or grammar.CONTROL.search(line):
            self._check_octets(name, line)
        if verb is None:
            self._utter(self._phrases[replies.UNKNOWN], None)
        elif self._turned_away and verb != "QUIT":
            self._utter(self._phrases[replies.NO_SERVICE], None)
        else:
            self._commands[verb](self, argument)

    def _hello(self, stage: Stage, known: bool, argument: bytes) -> None:
        if not known:
            self._utter(self._phrases[replies.UNKNOWN], None)
            return
        if not argument.strip():
            self._violation(f"{stage.value} without a name")
            own = self._phrases[replies.HELO_SYNTAX]
        elif stage is Stage.HELO:
            own = octets_of(f"250 {self._settings.name}")
        else:
            own = self._settings.hello(self._session.tls, self._mechanisms())
        if self._say(stage, own) == POSITIVE:
            self._session.helo = grammar.text(argument)
            self._offered = {} if stage is Stage.HELO else replies.offered_in(self._believed)
            self._end_transaction()

    def _ehlo(self, argument: bytes) -> None:
        self._hello(Stage.EHLO, self._settings.esmtp and not self._settings.lmtp, argument)

    def _helo(self, argument: bytes) -> None:
        self._hello(Stage.HELO, not self._settings.lmtp, argument)

    def _lhlo(self, argument: bytes) -> None:
        self._hello(Stage.LHLO, self._settings.lmtp, argument)

    def _starttls(self, argument: bytes) -> None:
        if "STARTTLS" not in self._offered:
            self._violation("STARTTLS, which was not offered")
        if self._settings.starttls is None:
            self._utter(self._phrases[replies.UNKNOWN], None)
            return
        if argument:
            self._violation("STARTTLS with an argument")
            text = replies.NO_ARGUMENT
        else:
            text = replies.TLS_ALREADY if self._session.tls else replies.READY_FOR_TLS
        if self._say_text(Stage.STARTTLS, text) == POSITIVE:
            fault = self._plan.take(Stage.HANDSHAKE, self._session.number)
            if fault is not None:
                self.fail_handshake(fault)
            else:
                self._reading = Reading.BEFORE_TLS
                self.batch.append(self._start_tls)

    def _mail(self, argument: bytes) -> None:
        if self._session.helo is None:
            text, begun = replies.HELO_FIRST, None
        elif self._needs_login():
            text, begun = replies.LOGIN_FIRST, None
        elif self._transaction is not None:
            text, begun = replies.NESTED_MAIL, None
        else:
            text, begun = judge_mail(argument, self._settings, self._session, self._offered, self._violation)
            self._mails_begun += 1
            limit = limit_of("MAILMAX", self._offered.get("LIMITS", ()))
            if limit is not None and self._mails_begun > limit:
                self._violation(f"more than LIMITS MAILMAX={limit} in one session")
        if self._say_text(Stage.MAIL, text) == POSITIVE and self._transaction is None:
            self._transaction = begun

    def _rcpt(self, argument: bytes) -> None:
        transaction = self._transaction
        addressee: Addressee | None = None
        if transaction is None:
            text = replies.NEED_MAIL
        elif transaction.content_begun:
            text = replies.RCPT_TOO_LATE
        else:
            text, addressee = judge_rcpt(
                argument, transaction, self._settings, self._offered, self._violation
            )
        positive = self._say_text(Stage.RCPT, text) == POSITIVE
        if transaction is not None and addressee is not None:
            (transaction.recipients if positive else transaction.refused).append(addressee)

    def _rset(self, argument: bytes) -> None:
        if self._say_text(Stage.RSET, replies.NO_ARGUMENT if argument else replies.OK) == POSITIVE:
            self._end_transaction()

    def _noop(self, argument: bytes) -> None:
        self._say_text(Stage.NOOP, replies.OK)

    def _vrfy(self, argument: bytes) -> None:
        self._say_text(Stage.VRFY, replies.LOGIN_FIRST if self._needs_login() else replies.VRFY)

    def _quit(self, argument: bytes) -> None:
        answered = self._answered
        self._reading = Reading.AFTER_QUIT
        self.quit = True
        self._say_text(Stage.QUIT, replies.BYE)
        self.batch.append(close)
        self._answered = answered

    # Content.

    def _data(self, argument: bytes) -> None:
        transaction = self._transaction
        if argument:
            text = replies.NO_ARGUMENT
        elif transaction is None:
            text = replies.NEED_MAIL
        else:
            text = transaction.judge_data(self._settings.lmtp, self._violation)
        if self._say_text(Stage.DATA, text) == INTERMEDIATE:
            if transaction is None:
                # Only a fault says 354 without MAIL.
                transaction = self._transaction = Transaction(
                    "", {}, Content(self._settings.size, True), None
                )
            self._begin_content(transaction, DotReader(transaction.content))

    def _bdat(self, argument: bytes) -> None:
        if "CHUNKING" not in self._offered:
            self._violation("BDAT, which was not offered")
            self._utter(self._phrases[replies.UNKNOWN], None)
            return
        match = grammar.BDAT.match(argument)
        if match is None:
            self._violation(f"BDAT with a bad argument: {argument[:80]!r}")
            self._say_text(Stage.BDAT, replies.BDAT_SYNTAX)
            return
        fault = self._plan.take(Stage.BDAT, self._session.number) if self._plan.faults else None
        if fault is not None and said(fault.in_answer_to(b"250 2.0.0 Ok\r\n"), b"")[:3] in (b"500", b"502"):
            # A server that does not know the command takes the chunk for commands.
            self._utter(b"", fault)
            return
        size = int(match[1])
        transaction = self._transaction
        if transaction is not None:
            transaction.begin_chunk(size, self._settings.lmtp, self._phrases.__getitem__)
        fits = transaction is not None and transaction.failure is None
        reader = ChunkReader(transaction.content if transaction is not None and fits else None, size)
        self._chunk_fault = fault
        self._chunk_is_last = match[2] is not None
        self._begin_content(transaction, reader)
        if not size and self._reading is Reading.CONTENT:
            self._content_ended()

    def _begin_content(self, transaction: Transaction | None, reader: DotReader | ChunkReader) -> None:
        self._content = reader
        self._reading = Reading.CONTENT
        if transaction is None or transaction.content_begun:
            return
        transaction.content_begun = True
        if self._plan.faults:
            self._content_fault = self._plan.take(Stage.CONTENT, self._session.number)
            if self._content_fault is not None and not self._content_fault.after_octets:
                self._fail_content()

    def _content_ended(self) -> None:
        reader, self._content = self._content, None
        self._reading = Reading.COMMAND
        self._previous = "content"
        if isinstance(reader, DotReader):
            if reader.unstuffed:
                self._violation("a line of the content begins with a dot that was not doubled")
            self._finish(Stage.END_OF_DATA, None)
        elif reader is not None:
            self._previous = "BDAT"
            self._chunk_ended(reader.taken)

    def _chunk_ended(self, size: int) -> None:
        transaction, fault, last = self._transaction, self._chunk_fault, self._chunk_is_last
        self._chunk_fault = None
        if transaction is None:
            self._utter(self._phrases[replies.NEED_MAIL], fault)
            return
        self._chunks_taken += size
        if transaction.content.too_big and transaction.failure is None:
            transaction.failure = self._phrases[replies.TOO_BIG]
        if transaction.failure is not None:
            # RFC 2033 4.3: LMTP's BDAT LAST has one reply for each accepted recipient, be there none.
            times = len(transaction.recipients) if last and self._settings.lmtp else 1
            if times or fault is not None:
                self._utter(transaction.failure * times, fault)
        elif last:
            self._finish(Stage.BDAT, fault)
        elif self._utter(self._phrases[replies.CHUNK_OK], fault) != POSITIVE:
            transaction.failure = self._heard or self._phrases[replies.CHUNK_FAILED]

    def _finish(self, stage: Stage, fault: Fault | None) -> None:
        """All of the content is in: the mail, and its final replies."""
        transaction = self._transaction
        assert transaction is not None  # no content begins without one
        transaction.check_content(self._offered, self._violation)
        if self._plan.faults and stage is Stage.END_OF_DATA:
            fault = self._plan.take(stage, self._session.number)
        mail = transaction.mail(self._session, self._next_number())
        texts = self._final_replies(mail, transaction.content.too_big)
        own = b"".join([octets_of(text) for text in texts])
        heard_octets = self._early_reply
        if heard_octets is None:
            self._heard = b""
            if own or fault is not None:
                self._utter(own, fault)
            heard_octets = self._heard
        mail.replies = texts if heard_octets == own else [text_of(heard_octets)] if heard_octets else []
        self._end_transaction()
        if mail.recipients:
            self.idle = True
            self._arrived(mail)
        else:
            self._session.unaddressed.append(mail.content)

    def _final_replies(self, mail: Mail, too_big: bool) -> list[str]:
        settings = self._settings
        reply = settings.final_reply
        if not mail.recipients:
            text = text_of(self._phrases[replies.NO_RECIPIENTS])
        elif too_big:
            text = text_of(self._phrases[replies.TOO_BIG])
        else:
            text = (reply(mail) if callable(reply) else reply) or settings.queued(mail.number)
        if not settings.lmtp:
            return [text]
        by_address = {} if too_big else settings.final_replies
        return [by_address.get(address, text) for address, _ in mail.recipients]

    _commands: ClassVar[dict[str, Callable[[Dialogue, bytes], None]]] = {
        "EHLO": _ehlo,
        "HELO": _helo,
        "LHLO": _lhlo,
        "STARTTLS": _starttls,
        "AUTH": Authentication._auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "BDAT": _bdat,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "QUIT": _quit,
    }
    _verbs: ClassVar = {name.encode("ascii"): name for name in _commands}
