from __future__ import annotations

import pytest

from twisted_smtpclient.smtp.envelope import Envelope
from twisted_smtpclient.smtp.extensions import Extensions
from twisted_smtpclient.smtp.limits import UNLIMITED, Limits


def told(*parameters: str) -> Limits:
    return Limits.of(Extensions({"LIMITS": parameters}))


def allowed(limits: Limits, *recipients: str) -> int | None:
    return limits.recipients_of(Envelope(None, recipients))


def test_a_server_without_the_extension_tells_no_limits() -> None:
    limits = Limits.of(Extensions({"PIPELINING": ()}))
    assert limits is UNLIMITED
    assert limits == Limits(None, None, None)


def test_each_limit_is_read_whatever_the_case_of_its_name() -> None:
    limits = told("MAILMAX=100", "rcptmax=10", "RcptDomainMax=1")
    assert limits == Limits(mails=100, recipients=10, domains=1)


def test_limits_that_are_all_of_no_grammar_are_none() -> None:
    assert told() is UNLIMITED
    assert told("RCPTMAX=0") is UNLIMITED


@pytest.mark.parametrize(
    "parameter",
    [
        "RCPTMAX", "RCPTMAX=", "RCPTMAX=0", "RCPTMAX=01", "RCPTMAX=-1", "RCPTMAX=1000000", "RCPTMAX=1.5",
        "RCPTMAX=1x", "RCPTMAX=\u0661", "RCPTMAX==1", "XRCPTMAX=1", "RCPTMAX=1\n", "FUTUREMAX=1", "",
    ],
)  # fmt: skip
def test_what_is_not_of_the_grammar_is_passed_over(parameter: str) -> None:
    assert told(parameter, "MAILMAX=5") == Limits(mails=5)


def test_the_largest_value_of_the_grammar_is_one() -> None:
    assert told("RCPTMAX=999999").recipients == 999_999


def test_without_limits_all_recipients_may_go() -> None:
    assert allowed(Limits(), "a@x.de", "b@y.de") is None


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (3, None), (4, None)])
def test_no_more_recipients_may_go_than_the_limit(limit: int, count: int | None) -> None:
    assert allowed(Limits(recipients=limit), "a@x.de", "b@x.de", "c@x.de") == count


@pytest.mark.parametrize(("limit", "count"), [(1, 2), (2, 4), (3, None)])
def test_recipients_may_go_until_their_domains_are_too_many(limit: int, count: int | None) -> None:
    recipients = ["a@x.de", "b@X.DE", "c@y.de", "d@x.de", "e@z.de"]
    assert allowed(Limits(domains=limit), *recipients) == count


def test_of_both_limits_the_tighter_one_holds() -> None:
    recipients = ["a@x.de", "b@x.de", "c@y.de"]
    assert allowed(Limits(recipients=1, domains=1), *recipients) == 1
    assert allowed(Limits(recipients=3, domains=1), *recipients) == 2
    assert allowed(Limits(recipients=2, domains=5), *recipients) == 2


def test_what_stands_behind_the_first_at_sign_in_quotes_is_no_domain() -> None:
    assert allowed(Limits(domains=1), '"a@y.de"@x.de', "b@x.de") is None


def test_a_recipient_without_a_domain_counts_as_one_of_its_own() -> None:
    assert allowed(Limits(domains=1), "a@x.de", "Postmaster") == 1


@pytest.mark.parametrize("limits", [Limits(recipients=1), Limits(domains=1)])
def test_one_recipient_may_go_at_any_rate(limits: Limits) -> None:
    assert allowed(limits, "a@x.de") is None
