"""
What is a secret stays one: whatever goes wrong, it stands in nothing that the
process logs, raises, answers or shows.
"""

from __future__ import annotations

import json
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.client.memory import Network
from tests.client.sessions import HOST
from tests.client.submission import CERTIFICATES
from twisted_smtpclient import DeliveryAgent, TLSMode
from twisted_smtpclient.client.pending import Pending
from twisted_smtpclient.gateway.codec import ProbeRequest, Rejection, Request, RequestDecoder
from twisted_smtpclient.gateway.delivery import Deliveries
from twisted_smtpclient.gateway.reply import encode_error
from twisted_smtpclient.testing import Fault, Sink

PASSWORD = "corr\u00e9ct h\u00f6rse, b4ttery"
TOKEN = "ya29.s3cr3t-t0ken_Xyz"
WRONG = "wr\u00f6ng h\u00f6rse, b4ttery"

#: Each of them, also as the octets that base64 makes of it where it begins
#: with it, and where two or one stand before.
FORMS = [
    form
    for secret in (PASSWORD, TOKEN, WRONG)
    for form in (
        secret,
        repr(secret)[1:-1],
        repr(secret.encode())[2:-1],
        secret.encode("unicode_escape").decode(),
        *(b64encode(bytes(n) + secret.encode()).decode()[4:-4] for n in range(3)),
    )
]

MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]


@implementer(ILogObserver)
class Told:
    """Everything that was told to anybody, as text."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.text += [eventAsText(event), eventAsJSON(event), repr(dict(event))]
        failure = event.get("log_failure")
        if failure is not None:
            self.fail(failure)

    def reject(self, rejection: Rejection) -> None:
        """What a line is refused for; of its error nobody has more than the words."""
        self.text += [str(rejection.error), repr(rejection.error)]
        self.text.append(encode_error(rejection.id, rejection.error).decode())

    def fail(self, failure: Failure) -> None:
        """All that can be made of a failure, its frames' local variables included."""
        error = failure.value
        assert error is not None
        self.text += [str(error), repr(error), repr(vars(error)), repr(error.args)]
        self.text += [failure.getTraceback(), failure.getTraceback(detail="verbose"), str(failure)]
        self.text += traceback.format_exception(error)
        if error.__traceback__ is not None:
            self.text += traceback.TracebackException.from_exception(error, capture_locals=True).format()

    def check(self) -> None:
        assert self.text
        for text in self.text:
            for form in FORMS:
                assert form not in text, text[:2000]


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    globalLogPublisher.addObserver(told)
    # Failures then keep the local variables of their frames.
    debugging = defer.getDebugging()
    defer.setDebugging(True)
    try:
        yield told
    finally:
        defer.setDebugging(debugging)
        globalLogPublisher.removeObserver(told)
    told.check()


class Overheard:
    """What a request waits for, of whose failure somebody else is told first."""

    def __init__(self, pending: Pending, failed: Callable[[Failure], Failure]) -> None:
        self._pending = pending
        self._failed = failed
        self.cancel = pending.cancel

    def addCallbacks(self, callback: Callable[[Any], Any], errback: Callable[[Any], Any]) -> None:
        self._pending.addCallbacks(callback, lambda failure: errback(self._failed(failure)))


class Daemon:
    """Lines in, lines out, and a sink behind it that knows both secrets."""

    def __init__(self, told: Told, **sink: Any) -> None:
        self.network = Network()
        self.told = told
        known = {"users": {"anna": PASSWORD}, "tokens": {"anna": TOKEN}}
        self.sink = Sink(self.network, **{**known, "starttls": CERTIFICATES.server_context(), **sink})
        self.network.serve(self.sink, HOST)
        self.agent = DeliveryAgent(self.network, trust_root=CERTIFICATES.trust_root())
        deliver, look = self.agent.deliver, self.agent.probe
        self.agent.probe = lambda *a, **k: look(*a, **k).addErrback(self._failed)  # type: ignore[method-assign]
        self.agent.deliver = lambda *a, **k: deliver(*a, **k).addErrback(self._failed)  # type: ignore[method-assign]
        self.deliveries = Deliveries(self.agent, self.network)
        begin = self.agent.begin
        self.deliveries.begin = lambda *a, **k: Overheard(begin(*a, **k), self._failed)
        self.decoder = RequestDecoder()

    def _failed(self, failure: Failure) -> Failure:
        self.told.fail(failure)
        return failure

    def answer(self, auth: Any, **fields: Any) -> dict[str, Any]:
        """What a line is answered with; all that it made is looked at."""
        line = {"host": HOST, "sender": "a@x", "recipients": ["b@x"], "message": "", "auth": auth}
        return self._ask({**line, **fields})

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        line = {**line, "transcript": True, "trace": True}
        request = self.decoder.decode(json.dumps(line).encode())
        answers: list[bytes] = []
        if isinstance(request, Rejection):
            self.told.reject(request)
            answers.append(encode_error(request.id, request.error))
        else:
            assert isinstance(request, Request | ProbeRequest)
            self.told.text += [repr(request), repr(request.server), repr(vars_of(request.server.auth))]
            self.deliveries.start(request, answers.append)
            self.network.settle()
            self.network.elapse(20)
            assert answers, "no answer"
        self.deliveries.journal.flush()
        self.told.text += [repr(self.agent), repr(self.deliveries)]
        self.told.text += map(repr, self.agent._dispatch.pool.states())
        (answer,) = answers
        self.told.text.append(answer.decode())
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def look(self, auth: Any, **fields: Any) -> dict[str, Any]:
        """What a probe is answered with."""
        return self._ask({"probe": True, "host": HOST, "auth": auth, **fields})

    def close(self) -> None:
        self.network.until(self.agent.close(), 10)


def vars_of(auth: Any) -> dict[str, object]:
    return {name: getattr(auth, name) for name in type(auth).__slots__}


def auth_by(mechanism: str, *, wrong: bool) -> dict[str, Any]:
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        secret = {"token": TOKEN[::-1] if wrong else TOKEN}
    else:
        secret = {"password": WRONG if wrong else PASSWORD}
    return {"username": "anna", "mechanisms": [mechanism], **secret}


@pytest.mark.parametrize("tls", [TLSMode.NO, TLSMode.DEPEND])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_right_one_and_a_wrong_one_are_told_to_nobody(told: Told, mechanism: str, tls: TLSMode) -> None:
    daemon = Daemon(told)
    answer = daemon.answer(auth_by(mechanism, wrong=False), tls=tls.value)
    assert answer["status"] == "ok"
    assert [line for _, line in answer["transcript"] if line.startswith(f"AUTH {mechanism}")]
    answer = daemon.answer(auth_by(mechanism, wrong=True), tls=tls.value)
    assert (answer["error"], answer["command"], answer["code"]) == ("Refused", "AUTH", 535)
    daemon.close()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("AUTH", "REPLY", b"334 !\r\n"),
        Fault("AUTH", "REPLY", b"334 PDFAeD4=\r\n"),
        Fault("RESPONSE", "REPLY", b"334 PDFAeD4=\r\n"),
        Fault("AUTH", "REPLY", b"454 4.7.0 later\r\n"),
        Fault("AUTH", "REPLY", b"250 what?\r\n"),
        Fault("AUTH", "CLOSE"),
        Fault("AUTH", "STALL"),
    ],
    ids=lambda fault: f"{fault.at.value} {fault.do.value} {fault.reply!r}"[:40],
)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_nor_are_they_where_the_server_errs(told: Told, mechanism: str, fault: Fault) -> None:
    daemon = Daemon(told, faults=[fault])
    daemon.answer(auth_by(mechanism, wrong=False), tls="NO", response_timeout=5)
    daemon.close()


@pytest.mark.parametrize("at", ["AUTH", "MAIL", "RCPT", "END_OF_DATA"])
@pytest.mark.parametrize("code", [250, 421, 454, 535, 550])
@pytest.mark.parametrize("form", ["plain", "base64"])
def test_nor_where_it_repeats_them(told: Told, at: str, code: int, form: str) -> None:
    secret = PASSWORD.encode()
    said = secret if form == "plain" else b64encode(b"\0anna\0" + secret)
    fault = Fault(at, "REPLY", b"%d 2.0.0 you said %b\r\n" % (code, said))
    daemon = Daemon(told, faults=[fault], chunking=False)
    answer = daemon.answer(auth_by("PLAIN", wrong=False), tls="NO")
    if (at, code) not in (("MAIL", 250), ("RCPT", 250), ("MAIL", 421)):
        assert "you said ***" in json.dumps(answer)
    daemon.close()


@pytest.mark.parametrize("at", ["GREETING", "EHLO"])
@pytest.mark.parametrize(
    "said",
    [
        b"554 5.7.1 go away, %b\r\n",
        b"421 go away, %b\r\n",
        b"550 no %b\r\n",
        b"500 what is %b?\r\n",
        b"220-hello\r\n220 %b\r\n",
        b"250-mx\r\n250-X-SEEN %b\r\n250 AUTH PLAIN XOAUTH2\r\n",
        b"not a reply, %b\r\n",
        b"not a reply, %b" + b"." * 50 + b"\r\n",
        b"220 hello\r\n250 %b\r\n",
        b"250-%b\r\n220 %b\r\n",
        b"250 %b\n",
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2"])
@pytest.mark.parametrize("form", ["plain", "base64"])
def test_nor_where_it_knew_them_before(told: Told, at: str, said: bytes, mechanism: str, form: str) -> None:
    secret = (PASSWORD if mechanism == "PLAIN" else TOKEN).encode()
    shown = secret if form == "plain" else b64encode(b"\0anna\0" + secret)
    reply = said.replace(b"%b", shown)
    daemon = Daemon(told, faults=[Fault(at, "REPLY", reply, nth=None)])
    auth = auth_by(mechanism, wrong=False)
    daemon.answer(auth, tls="NO", response_timeout=5)
    looked = daemon.look(auth, tls="NO", response_timeout=5)
    if at == "EHLO" and said.startswith(b"250-mx"):
        assert looked["extensions"]["X-SEEN"][-1].endswith("***")
    daemon.close()


@pytest.mark.parametrize("cut", [1, 4, 20])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
def test_nor_where_it_repeats_a_part_of_what_it_does_not_understand(
    told: Told, mechanism: str, cut: int
) -> None:
    def quoted(own: bytes) -> bytes:
        session = daemon.sink.sessions[-1]
        heard = session.commands[-1] if at == "AUTH" else b64encode(PASSWORD.encode())
        return b"500-5.5.1 Command unrecognized:\r\n500 5.5.1 " + heard[:-cut] + b"\r\n"

    at, nth = ("RESPONSE", 2) if mechanism == "LOGIN" else ("AUTH", 1)
    daemon = Daemon(told, faults=[Fault(at, "REPLY", quoted, nth=nth)])
    answer = daemon.answer(auth_by(mechanism, wrong=False), tls="NO")
    assert (answer["error"], answer["code"]) == ("Refused", 500)
    shown = "***" if mechanism == "LOGIN" else f"AUTH {mechanism} ***"
    assert answer["response"] == f"500-5.5.1 Command unrecognized:\n500 5.5.1 {shown}"
    daemon.close()


@pytest.mark.parametrize(
    "auth",
    [
        {"username": "anna", "password": PASSWORD, "token": TOKEN},
        {"username": "anna", "password": PASSWORD + "\0"},
        {"username": "anna", "token": TOKEN + " "},
        {"username": "anna", "password": PASSWORD, "mechanisms": ["NTLM"]},
        {"username": "anna", "password": [PASSWORD]},
        {"username": "anna", "password": PASSWORD, "mechanisms": [TOKEN]},
        {"username": "anna", "pasword": PASSWORD},
        {"username": 7, "password": PASSWORD},
        {"password": PASSWORD},
        PASSWORD,
        [PASSWORD],
    ],
)
def test_nor_where_the_request_is_wrong(told: Told, auth: Any) -> None:
    daemon = Daemon(told)
    answer = daemon.answer(auth)
    assert answer["error"] == "InvalidRequest"
    daemon.close()


def test_nor_where_the_line_is_no_json(told: Told) -> None:
    line = json.dumps({"host": HOST, "auth": {"username": "anna", "password": PASSWORD}}).encode()
    decoder = RequestDecoder()
    for octets in (line[:-1], line + b"}", line.replace(b":", b"=", 3), line[1:], line.replace(b'"}', b"}")):
        rejection = decoder.decode(octets)
        assert isinstance(rejection, Rejection)
        told.reject(rejection)


def test_the_test_would_notice(told: Told) -> None:
    for text in (PASSWORD, repr(PASSWORD), b64encode(b"\0anna\0" + PASSWORD.encode()).decode()):
        guilty = Told()
        guilty.text.append(f"it is {text}.")
        with pytest.raises(AssertionError):
            guilty.check()
    told.text.append("nothing else happened")
