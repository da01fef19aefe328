"""
Tests of what mails ask of a server beyond plain SMTP, from the agent to the sink.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions

from tests.client.memory import Network, Outcome
from tests.client.sessions import HOST, MESSAGE, Post, Session, terms
from twisted_smtpclient import (
    DSN,
    Content,
    DeliveryResult,
    Envelope,
    ExtensionUnsupported,
    MessageTooLarge,
    Mode,
    Notify,
    PipeliningESMTPClient,
    Protocol,
    Recipient,
    Return,
    Status,
    TLSMode,
    deliver,
)
from twisted_smtpclient.testing import Action, Fault, Mail, Sink, Stage, make_certificates

CERTIFICATES = make_certificates(HOST)
UNTRUSTED = make_certificates(HOST)

OFFERS: list[dict[str, Any]] = [
    {},
    {"chunking": False},
    {"pipelining": False},
    {"pipelining": False, "chunking": False},
]
BINARY = b"A: b\n\r\nbare\rends\n.\n..\0\xff\r"
EIGHT_BIT = "Subject: x\r\n\r\nü\r\n".encode()


def sent(
    here: Post, envelope: Envelope, content: Content | bytes = MESSAGE, **changes: Any
) -> Outcome[DeliveryResult]:
    outcome = started(here, envelope, content, **changes)
    here.network.settle()
    return outcome


def started(
    here: Post, envelope: Envelope, content: Content | bytes = MESSAGE, **changes: Any
) -> Outcome[DeliveryResult]:
    if isinstance(content, bytes):
        content = Content(content)
    return Outcome(here.agent.deliver(terms(**changes), envelope, content))


def plain(number: int) -> Envelope:
    return Envelope(f"s{number}@example.org", [f"r{number}@example.net"])


def only_mail(here: Post) -> Mail:
    (mail,) = here.sink.mails
    assert here.sink.violations == []
    return mail


# DSN.


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize("lmtp", [False, True])
def test_dsn_goes_with_mail_and_with_each_recipient(offers: dict[str, Any], lmtp: bool) -> None:
    here = Post(lmtp=lmtp, **offers)
    envelope = Envelope(
        "me@example.org",
        [
            Recipient("a@example.net", notify=[Notify.SUCCESS, Notify.FAILURE], orcpt="list+x@example.net"),
            "b@example.net",
            Recipient("c@example.net", notify=[Notify.NEVER], orcpt="ü@example.net"),
        ],
        dsn=DSN(ret=Return.HDRS, envid="mail 1+1"),
    )
    protocol = Protocol.LMTP if lmtp else Protocol.SMTP
    assert sent(here, envelope, protocol=protocol).value.all_ok
    mail = only_mail(here)
    assert mail.envid == "mail 1+1"
    assert mail.sender_parameters["RET"] == "HDRS"
    first, second, third = mail.recipients
    assert (first.parameters["NOTIFY"], first.orcpt) == ("SUCCESS,FAILURE", "rfc822;list+x@example.net")
    assert second.parameters == {}
    assert (third.parameters["NOTIFY"], third.orcpt) == ("NEVER", "utf-8;ü@example.net")
    here.close()


def test_each_part_of_a_mail_that_is_split_has_its_parameters() -> None:
    here = Post(extensions=["LIMITS RCPTMAX=2", "MT-PRIORITY"])
    recipients = [
        Recipient(f"r{number}@example.net", notify=[Notify.DELAY], orcpt=f"o{number}@example.net")
        for number in range(5)
    ]
    envelope = Envelope("me@example.org", recipients, dsn=DSN(envid="1"), parameters={"MT-PRIORITY": "3"})
    assert sent(here, envelope).value.all_ok
    assert here.sink.violations == []
    assert sorted(len(mail.recipients) for mail in here.sink.mails) == [1, 2, 2]
    for mail in here.sink.mails:
        assert mail.envid == "1"
        assert mail.sender_parameters["MT-PRIORITY"] == "3"
        for address, parameters in mail.recipients:
            assert parameters == {"NOTIFY": "DELAY", "ORCPT": f"rfc822;o{address[1:]}"}
    here.close()


def test_and_so_has_the_rest_that_a_server_wants_in_a_further_transaction() -> None:
    here = Post(max_recipients=1)
    recipients = [Recipient(f"r{number}@example.net", notify=[Notify.NEVER]) for number in range(3)]
    assert sent(here, Envelope("me@example.org", recipients, dsn=DSN(ret=Return.FULL))).value.all_ok
    assert here.sink.violations == []
    assert [mail.sender_parameters["RET"] for mail in here.sink.mails] == ["FULL"] * 3
    assert [mail.recipients[0].parameters for mail in here.sink.mails] == [{"NOTIFY": "NEVER"}] * 3
    here.close()


def test_a_mail_that_is_split_asks_for_all_of_its_recipients_or_for_none() -> None:
    """Of five, the last alone asks for what there is not: none of them is sent to."""
    here = Post(extensions=["LIMITS RCPTMAX=2"], dsn=False)
    recipients: list[str | Recipient] = [
        "a@b.de",
        "b@b.de",
        "c@b.de",
        "d@b.de",
        Recipient("e@b.de", notify=[Notify.NEVER]),
    ]
    error = sent(here, Envelope("me@example.org", recipients)).error
    assert isinstance(error, ExtensionUnsupported)
    assert error.recipients == ()
    assert here.sink.mails == []
    assert not [command for command in here.sink.commands if command.startswith(b"MAIL")]
    here.close()


# What is not offered.

LACKING: list[tuple[dict[str, Any], Envelope, Content, str]] = [
    ({"dsn": False}, Envelope("a@b", ["c@d"], dsn=DSN(ret=Return.FULL)), Content(MESSAGE), "DSN"),
    ({"dsn": False}, Envelope("a@b", [Recipient("c@d", notify=[Notify.NEVER])]), Content(MESSAGE), "DSN"),
    ({"dsn": False}, Envelope("a@b", [Recipient("c@d", orcpt="e@f")]), Content(MESSAGE), "DSN"),
    ({"smtputf8": False}, Envelope("ü@b", ["c@d"]), Content(MESSAGE), "SMTPUTF8"),
    ({}, Envelope("a@b", ["c@d"], requiretls=True), Content(MESSAGE), "REQUIRETLS"),
    ({}, Envelope("a@b", ["c@d"], parameters={"BY": "1;N"}), Content(MESSAGE), "DELIVERBY"),
    ({}, Envelope("a@b", ["c@d"], parameters={"HOLDFOR": "1"}), Content(MESSAGE), "FUTURERELEASE"),
    ({}, Envelope("a@b", ["c@d"], parameters={"X-Y": None}), Content(MESSAGE), "X-Y"),
    ({}, Envelope("a@b", [Recipient("c@d", parameters={"RRVS": "1"})]), Content(MESSAGE), "RRVS"),
    ({}, Envelope("a@b", ["c@d"]), Content(BINARY, binary=True), "BINARYMIME"),
    (
        {"eightbitmime": False},
        Envelope("a@b", ["c@d"]),
        Content(EIGHT_BIT, eightbitmime=Mode.DEPEND),
        "8BITMIME",
    ),
]
IDS = [f"{keyword}-{number}" for number, (*_, keyword) in enumerate(LACKING)]


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(("lacks", "envelope", "content", "keyword"), LACKING, ids=IDS)
def test_a_mail_that_asks_for_what_there_is_not_fails_between_two_that_go(
    lacks: dict[str, Any], envelope: Envelope, content: Content, keyword: str, offers: dict[str, Any]
) -> None:
    here = Post(agent={"connections_per_host": 1}, **{**lacks, **offers})
    outcomes = [started(here, plain(1)), started(here, envelope, content), started(here, plain(2))]
    here.network.settle()
    first, wrong, second = outcomes
    assert first.value.all_ok
    assert second.value.all_ok
    assert isinstance(wrong.error, ExtensionUnsupported)
    assert keyword in str(wrong.error)
    assert not wrong.error.temporary
    assert wrong.error.recipients == ()
    assert [mail.sender for mail in here.sink.mails] == ["s1@example.org", "s2@example.org"]
    assert sum(command.startswith(b"MAIL") for command in here.sink.commands) == 2
    assert len(here.sink.sessions) == 1
    assert here.sink.violations == []
    here.close()


@pytest.mark.parametrize(
    ("envelope", "content"), [(envelope, content) for _, envelope, content, _ in LACKING], ids=IDS
)
def test_a_server_that_knows_only_helo_offers_nothing(envelope: Envelope, content: Content) -> None:
    here = Post(esmtp=False)
    assert isinstance(sent(here, envelope, content).error, ExtensionUnsupported)
    assert sent(here, plain(1), Content(EIGHT_BIT)).value.all_ok
    assert len(here.sink.mails) == 1
    here.close()


@pytest.mark.parametrize(
    "extension", ["DELIVERBY 240", "FUTURERELEASE 86400 2030-01-01T00:00:00Z", "MT-PRIORITY"]
)
def test_further_parameters_go_where_their_extension_is_offered(extension: str) -> None:
    here = Post(extensions=[extension])
    parameters = {
        "DELIVERBY": {"BY": "300;R"},
        "FUTURERELEASE": {"HOLDFOR": "3600"},
        "MT-PRIORITY": {"mt-priority": "-3"},
    }[extension.split()[0]]
    assert sent(here, Envelope("a@b.de", ["c@d.de"], parameters=parameters)).value.all_ok
    found = only_mail(here).sender_parameters
    for keyword, value in parameters.items():
        assert found[keyword.upper()] == value
    here.close()


def test_parameters_of_a_recipient_go_with_that_recipient() -> None:
    here = Post(extensions=["X-ROUTE"])
    recipients: list[str | Recipient] = [Recipient("a@b.de", parameters={"X-ROUTE": "7"}), "c@d.de"]
    assert sent(here, Envelope("a@b.de", recipients)).value.all_ok
    assert [entry.parameters for entry in only_mail(here).recipients] == [{"X-ROUTE": "7"}, {}]
    here.close()


# Bodies.


@pytest.mark.parametrize("offers", OFFERS)
def test_octets_over_127_are_told_of_where_that_is_known_and_sent_as_they_are_where_not(
    offers: dict[str, Any],
) -> None:
    for offered in (True, False):
        here = Post(eightbitmime=offered, **offers)
        assert sent(here, plain(1), EIGHT_BIT).value.all_ok
        mail = only_mail(here)
        assert mail.sender_parameters.get("BODY") == ("8BITMIME" if offered else None)
        assert mail.content == EIGHT_BIT
        here.close()


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("lmtp", [True, False])
@pytest.mark.parametrize("message", [BINARY, b"", b".\r\n\n" * 100_000], ids=["small", "empty", "large"])
def test_a_binary_message_arrives_octet_for_octet(message: bytes, lmtp: bool, pipelining: bool) -> None:
    here = Post(binarymime=True, pipelining=pipelining, lmtp=lmtp)
    changes = {"protocol": Protocol.LMTP if lmtp else Protocol.SMTP}
    assert sent(here, plain(1), Content(message, binary=True), **changes).value.all_ok
    mail = only_mail(here)
    assert mail.sender_parameters == {"SIZE": str(len(message)), "BODY": "BINARYMIME"}
    assert mail.via == "BDAT"
    assert mail.content == message
    here.close()


@pytest.mark.parametrize("changes", [{"chunking": Mode.NO}, {}])
def test_a_binary_message_goes_by_bdat_or_not_at_all(changes: dict[str, Any]) -> None:
    here = Post(binarymime=True, chunking=bool(changes))
    error = sent(here, plain(1), Content(BINARY, binary=True), **changes).error
    assert isinstance(error, ExtensionUnsupported)
    assert sent(here, plain(2), **changes).value.all_ok
    assert only_mail(here).via == "DATA"
    here.close()


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_binary_message_fails_where_chunking_turns_out_to_be_broken(pipelining: bool) -> None:
    fault = Fault(Stage.BDAT, Action.REPLY, b"502 5.5.1 no such command\r\n", nth=None)
    here = Post(binarymime=True, pipelining=pipelining, faults=[fault])
    error = sent(here, plain(1), Content(BINARY, binary=True)).error
    assert isinstance(error, ExtensionUnsupported)
    # MAIL was written to it, so each recipient is told of; nobody is in doubt.
    (entry,) = error.recipients
    assert (entry.recipient, entry.status, entry.in_doubt) == ("r1@example.net", Status.UNKNOWN, False)
    # From now on before MAIL.
    again = sent(here, plain(2), Content(BINARY, binary=True)).error
    assert isinstance(again, ExtensionUnsupported)
    assert again.recipients == ()
    assert sent(here, plain(3)).value.all_ok
    assert [mail.sender for mail in here.sink.mails] == ["s3@example.org"]
    here.close()


def test_a_message_over_the_limit_fails_between_two_that_go() -> None:
    here = Post(agent={"connections_per_host": 1}, size=100)
    large = Content(b"\n" * 51)
    outcomes = [started(here, plain(1)), started(here, plain(2), large), started(here, plain(3))]
    here.network.settle()
    assert outcomes[0].value.all_ok
    assert isinstance(outcomes[1].error, MessageTooLarge)
    assert outcomes[2].value.all_ok
    # What is counted is what crosses the wire, and binary that is less.
    assert sent(here, plain(4), b"\n" * 50).value.all_ok
    assert here.sink.mails[-1].sender_parameters["SIZE"] == "100"
    here.close()


# REQUIRETLS.


def secure_post(certificates: Any = CERTIFICATES, **sink: Any) -> Post:
    """An agent that trusts one authority, and a sink that offers STARTTLS and REQUIRETLS."""
    return Post(
        agent={"trust_root": CERTIFICATES.trust_root()},
        starttls=certificates.server_context(),
        requiretls=True,
        **sink,
    )


REQUIRED = Envelope("a@b.de", ["c@d.de"], requiretls=True)


@pytest.mark.parametrize("mode", [TLSMode.DEPEND, TLSMode.TRY])
def test_requiretls_goes_under_tls_that_verifies(mode: TLSMode) -> None:
    here = secure_post()
    assert sent(here, REQUIRED, tls=mode).value.all_ok
    mail = only_mail(here)
    assert "REQUIRETLS" in mail.sender_parameters
    assert mail.session.tls
    here.close()


@pytest.mark.parametrize(
    ("certificates", "mode"),
    [(UNTRUSTED, TLSMode.TRY), (CERTIFICATES, TLSMode.NO)],
    ids=["a certificate that does not verify", "no TLS"],
)
def test_requiretls_fails_before_mail_where_tls_does_not_verify(certificates: Any, mode: TLSMode) -> None:
    here = secure_post(certificates)
    # Offered in clear too, against RFC 8689 section 2: it is not believed.
    here.sink.faults.clear()
    error = sent(here, REQUIRED, tls=mode).error
    assert isinstance(error, ExtensionUnsupported)
    assert "under TLS with a certificate that verifies" in str(error)
    assert sent(here, plain(1), tls=mode).value.all_ok
    assert not [command for command in here.sink.commands if b"REQUIRETLS" in command]
    here.close()


def test_requiretls_that_is_offered_in_clear_is_not_believed() -> None:
    here = Post(extensions=["REQUIRETLS"])
    assert isinstance(sent(here, REQUIRED).error, ExtensionUnsupported)
    assert here.sink.mails == []
    here.close()


def test_a_fingerprint_verifies_what_requiretls_needs() -> None:
    here = Post(starttls=UNTRUSTED.server_context(), requiretls=True)
    outcome = sent(here, REQUIRED, tls=TLSMode.DEPEND, tls_fingerprint=UNTRUSTED.fingerprint)
    assert outcome.value.all_ok
    here.close()


def test_a_session_with_tls_of_the_users_own_making_does_not_vouch_for_it() -> None:
    network = Network()
    sink = Sink(network, starttls=CERTIFICATES.server_context(), requiretls=True)
    context = CertificateOptions(trustRoot=CERTIFICATES.trust_root())
    client = PipeliningESMTPClient(contextFactory=context, server=terms(tls=TLSMode.TRY), reactor=network)
    outcome: Outcome[DeliveryResult] = Outcome(client.deliver(REQUIRED, Content(MESSAGE)))
    network.join(client, sink.buildProtocol(None))
    network.settle()
    assert client.tlsMode
    assert isinstance(outcome.error, ExtensionUnsupported)


# The impatient's.


def test_deliver_takes_what_an_envelope_and_a_content_take() -> None:
    here = secure_post(binarymime=True, extensions=["MT-PRIORITY"])
    result: Deferred[DeliveryResult] = deliver(
        HOST,
        "me@example.org",
        [Recipient("a@b.de", notify=[Notify.NEVER])],
        Content(BINARY, binary=True),
        dsn=DSN(envid="1"),
        requiretls=True,
        parameters={"MT-PRIORITY": "1"},
        trust_root=CERTIFICATES.trust_root(),
        reactor=here.network,
    )
    assert here.network.until(result).value.all_ok
    mail = only_mail(here)
    assert mail.content == BINARY
    assert mail.sender_parameters == {
        "SIZE": str(len(BINARY)),
        "BODY": "BINARYMIME",
        "ENVID": "1",
        "REQUIRETLS": None,
        "MT-PRIORITY": "1",
    }
    assert mail.recipients[0].parameters == {"NOTIFY": "NEVER"}


@pytest.mark.parametrize("terms", [{}, {"tls": None}], ids=["nothing said", "None said"])
@pytest.mark.parametrize(("port", "asked"), [(25, "STARTTLS"), (465, "TLS")])
def test_deliver_verifies_by_itself_where_tls_is_required(
    port: int, asked: str, terms: dict[str, None]
) -> None:
    network = Network()
    settings: dict[str, Any] = {"requiretls": True}
    settings["starttls" if asked == "STARTTLS" else "implicit_tls"] = UNTRUSTED.server_context()
    sink = Sink(network, **settings)
    network.serve(sink.factory, HOST)
    result = deliver(
        HOST, "a@b.de", ["c@d.de"], MESSAGE, requiretls=True, port=port, reactor=network,
        trust_root=CERTIFICATES.trust_root(), **terms,
    )  # fmt: skip
    assert "does not verify" in str(network.until(result).error)
    assert sink.mails == []


def test_a_code_whose_class_contradicts_its_reply_is_dropped() -> None:
    """ENHANCEDSTATUSCODES (RFC 2034 section 4): the first digits agree, or it is worth nothing."""
    session = Session()
    _, outcome = session.deliver("a@b.de", "c@d.de", "e@f.de")
    session.open(b"PIPELINING", b"ENHANCEDSTATUSCODES")
    session.say(b"250 2.1.0 ok", b"550 4.1.1 no", b"450 5.2.0 later", b"250 2.1.5 ok", b"354 go on")
    session.say(b"250 5.0.0 ok")
    assert [(entry.code, entry.enhanced) for entry in outcome.value.recipients] == [
        (550, None),
        (450, None),
        (250, None),
    ]
