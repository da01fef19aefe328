"""Mails of those who log in: an agent, and a sink that knows its users, in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.memory import Outcome
from tests.client.sessions import HOST, Post
from twisted_smtpclient import Credentials, DeliveryResult, TLSMode
from twisted_smtpclient.errors import DeliveryError
from twisted_smtpclient.testing import Attempt, make_certificates

CERTIFICATES = make_certificates(HOST, client="anna")
UNTRUSTED = make_certificates(HOST)
USER, PASSWORD, TOKEN = "anna", "pa ss=w,örd", "ya29.a0AfH-token_~+/=="

OF_PASSWORDS = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
OF_TOKENS = ["OAUTHBEARER", "XOAUTH2"]
BOUND = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]
IN_CLEAR = OF_PASSWORDS + OF_TOKENS
UNDER_TLS = [*BOUND, *IN_CLEAR, "EXTERNAL"]

each_in_clear = pytest.mark.parametrize("name", IN_CLEAR)
#: Whose last message is not the first.
each_with_challenges = pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "LOGIN"])
each_way = pytest.mark.parametrize(
    ("name", "tls"),
    [(name, TLSMode.NO) for name in IN_CLEAR] + [(name, TLSMode.DEPEND) for name in UNDER_TLS],
    ids=lambda value: getattr(value, "value", value),
)


def credentials(name: str, *, wrong: bool = False, only: bool = True) -> Credentials:
    """Credentials for one mechanism; or for all that go with the same secret."""
    mechanisms = [name] if only else None
    if name == "EXTERNAL":
        return Credentials.external("olga" if wrong else USER)
    if name in OF_TOKENS:
        return Credentials(USER, token="wrong" if wrong else TOKEN, mechanisms=mechanisms)
    return Credentials(USER, "wrong" if wrong else PASSWORD, mechanisms=mechanisms)


class Submission(Post):
    """An agent, and a sink that takes mail of those who log in."""

    def __init__(self, tls: TLSMode = TLSMode.NO, **sink: Any) -> None:
        self.tls = tls
        agent: dict[str, Any] = {"trust_root": CERTIFICATES.trust_root()}
        if sink.pop("certificate", False):
            agent["client_certificate"] = CERTIFICATES.client_certificate()
            sink["starttls"] = CERTIFICATES.server_context(client_certificates=True)
        elif tls is not TLSMode.NO:
            sink.setdefault("starttls", CERTIFICATES.server_context())
        known = {"users": {USER: PASSWORD}, "tokens": {USER: TOKEN}}
        super().__init__(agent=agent, **{**known, **sink})

    def submit(self, auth: Credentials, **changes: Any) -> Outcome[DeliveryResult]:
        return self.delivered(auth=auth, tls=self.tls, **changes)

    def error(self, auth: Credentials, kind: type[DeliveryError], bound: float = 0.0, **changes: Any) -> Any:
        """Why it came to nothing: no mail, no doubt, and nothing that is left open."""
        error = self.submit(auth, bound=bound, **changes).error
        assert type(error) is kind, repr(error)
        assert not error.in_doubt
        assert error.recipients == ()
        assert PASSWORD not in repr(error) + str(error)
        assert TOKEN not in repr(error) + str(error)
        assert self.sink.mails == []
        self.end()
        return error

    def end(self) -> None:
        self.close()
        assert self.sink.open_sessions == []
        assert self.sink.violations == []

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for session in self.sink.sessions for attempt in session.attempts]

    @property
    def attempt(self) -> Attempt:
        (attempt,) = self.attempts
        return attempt


def submission(name: str, tls: TLSMode, **sink: Any) -> Submission:
    return Submission(tls, certificate=name == "EXTERNAL", **sink)
