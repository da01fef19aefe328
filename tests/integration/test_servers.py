"""
The servers do what the other tests rely on, asked by clients not ours.
"""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from typing import Final

import pytest

from . import reference
from .certificates import Certificates
from .dovecot import MECHANISMS, PASSWORD, Dovecot
from .exim import Exim
from .postfix import Postfix
from .tree import Tree

COMBINATIONS: Final = {
    "pipelining_chunking": {"pipelining", "chunking"},
    "pipelining": {"pipelining"},
    "chunking": {"chunking"},
    "neither": set[str](),
}

SENDER: Final = "foo@bar.de"
CONTENT: Final = b"Subject: test\r\n\r\n.\r\n..two\r\n.one\r\nlast\r\n"


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> Postfix | Exim:
    found: Postfix | Exim = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("service", COMBINATIONS)
def test_each_port_offers_what_its_name_says(server: Postfix | Exim, service: str) -> None:
    with smtplib.SMTP(server.host, server.ports[service]) as client:
        client.ehlo()
        offered = {name for name in ("pipelining", "chunking") if client.has_extn(name)}
    assert offered == COMBINATIONS[service]


@pytest.mark.parametrize("service", COMBINATIONS)
def test_recipients_are_accepted_refused_and_deferred(server: Postfix | Exim, service: str) -> None:
    recipients = ["valid@valid.de", "invalid@invalid.de", "refused@bar2.de", "deferred@bar2.de"]
    with smtplib.SMTP(server.host, server.ports[service]) as client:
        failed = client.sendmail(SENDER, recipients, CONTENT)
    assert {recipient: code for recipient, (code, _) in failed.items()} == {
        "invalid@invalid.de": 553,
        "refused@bar2.de": 550,
        "deferred@bar2.de": 450,
    }


@pytest.mark.parametrize("chunking", [True, False])
def test_what_is_accepted_is_kept_octet_for_octet(server: Postfix | Exim, chunking: bool) -> None:
    recipients = ["rcpt1@bar2.de", "rcpt2@bar3.de"]
    final = reference.deliver(
        server.host, server.ports["pipelining_chunking"], SENDER, recipients, CONTENT, chunking=chunking
    )
    kept = server.drop.wait_for(server.queue_id(final))
    assert (kept.sender, kept.recipients, kept.content) == (SENDER, recipients, CONTENT)


def test_mail_to_the_discarded_domain_is_not_kept(server: Postfix | Exim) -> None:
    port = server.ports["pipelining_chunking"]
    discarded = reference.deliver(server.host, port, SENDER, ["a@discard.example"], CONTENT, chunking=False)
    kept = reference.deliver(server.host, port, SENDER, ["a@bar2.de"], CONTENT, chunking=False)
    arrived = server.drop.wait_for_all({server.queue_id(kept)})
    assert server.queue_id(discarded) not in arrived


@pytest.mark.parametrize("chunking", [True, False])
def test_content_can_be_refused_at_its_end(server: Postfix | Exim, chunking: bool) -> None:
    final = reference.deliver(
        server.host,
        server.ports["pipelining_chunking"],
        SENDER,
        ["a@bar2.de"],
        b"X-Verdict: refuse\r\n\r\n",
        chunking=chunking,
    )
    assert final.startswith("550")


@pytest.mark.parametrize("chunking", [True, False])
def test_data_can_be_refused(server: Postfix | Exim, chunking: bool) -> None:
    with reference.Session(server.host, server.ports["pipelining_chunking"]) as session:
        for command in (
            b"EHLO a",
            b"MAIL FROM:<nodata@bar.de>",
            b"RCPT TO:<a@bar.de>",
            b"RCPT TO:<b@bar.de>",
        ):
            assert session.say(command + b"\r\n").startswith("250")
        assert session.say(b"BDAT 3 LAST\r\na\r\n" if chunking else b"DATA\r\n").startswith("550")


def test_each_certificate_is_what_its_port_says(postfix: Postfix, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.trusted))
    verdicts = {}
    for service in ("starttls", "starttls_other_name", "starttls_untrusted", "starttls_broken"):
        client = smtplib.SMTP("localhost", postfix.ports[service])
        try:
            client.starttls(context=context)
            verdicts[service] = "verified"
        except ssl.SSLCertVerificationError as error:
            verdicts[service] = "name" if "mismatch" in error.verify_message else "chain"
        except (ssl.SSLError, OSError):
            verdicts[service] = "handshake"
        finally:
            client.close()
    assert verdicts == {
        "starttls": "verified",
        "starttls_other_name": "name",
        "starttls_untrusted": "chain",
        "starttls_broken": "handshake",
    }


def test_the_port_with_implicit_tls_greets_behind_the_handshake(
    postfix: Postfix, certificates: Certificates
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.trusted))
    with smtplib.SMTP_SSL("localhost", postfix.ports["implicit"], context=context) as client:
        assert client.noop()[0] == 250


@pytest.mark.parametrize(
    ("service", "commands", "codes"),
    [
        ("helo_only", [b"EHLO a", b"HELO a"], ["500", "250"]),
        ("broken_chunking", [b"EHLO a", b"BDAT 0 LAST"], ["250", "500"]),
        ("sender_first", [b"EHLO a", b"MAIL FROM:<refused@a.de>"], ["250", "550"]),
        ("starttls_required", [b"EHLO a", b"MAIL FROM:<a@a.de>"], ["250", "530"]),
        (
            "few_recipients",
            [b"HELO a", b"MAIL FROM:<a@a.de>", *[b"RCPT TO:<a@a.de>"] * 6],
            [*["250"] * 7, "452"],
        ),
        ("pipelining_chunking", [b"HELO a", b"MAIL FROM:<nodata@a.de>", b"RCPT TO:<a@a.de>", b"DATA"],
         ["250", "250", "250", "550"]),
    ],
)  # fmt: skip
def test_a_port_has_its_peculiarity(
    postfix: Postfix, service: str, commands: list[bytes], codes: list[str]
) -> None:
    with reference.Session(postfix.host, postfix.ports[service]) as session:
        assert [session.say(command + b"\r\n")[:3] for command in commands] == codes


def test_the_closed_port_refuses_in_its_greeting(postfix: Postfix) -> None:
    with reference.Session(postfix.host, postfix.ports["closed"]) as session:
        assert session.greeting.startswith("554 ")


def test_swaks_is_of_one_mind_with_us(postfix: Postfix, servers_tree: Tree) -> None:
    done = subprocess.run(
        [
            str(servers_tree.root / "bin" / "swaks"),
            f"--server={postfix.host}:{postfix.ports['pipelining_chunking']}",
            "--pipeline",
            "--helo=localhost",
            f"--from={SENDER}",
            "--to=rcpt1@bar2.de,refused@bar2.de",
            "--data=Subject: test\n\n.swaks\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "<** 550 5.1.1 <refused@bar2.de>" in done.stdout, done.stdout + done.stderr
    kept = postfix.drop.wait_for(postfix.queue_id(done.stdout))
    assert (kept.recipients, kept.content) == (["rcpt1@bar2.de"], b"Subject: test\r\n\r\n.swaks\r\n\r\n")


def test_dovecot_has_a_final_reply_for_each_mailbox(dovecot: Dovecot) -> None:
    with reference.Session(dovecot.host, dovecot.port) as session:
        assert session.greeting.startswith("220 ")
        extensions = session.say(b"LHLO localhost\r\n")
        assert all(f"250-{name}" in extensions.replace(" ", "-") for name in ("PIPELINING", "CHUNKING"))
        session.say(b"MAIL FROM:<foo@bar.de>\r\n")
        recipients = [b"anna@bar.de", b"missing@bar.de", b"full@bar.de", b"bert@bar.de"]
        replies = [session.say(b"RCPT TO:<%b>\r\n" % recipient) for recipient in recipients]
        assert [reply[:3] for reply in replies] == ["250", "550", "250", "250"]
        session.say(b"DATA\r\n")
        finals = [session.say(reference.stuffed(CONTENT)), session.reply(), session.reply()]
        assert [reply[:9] for reply in finals] == ["250 2.0.0", "552 5.2.2", "250 2.0.0"]
    assert CONTENT in dovecot.mailbox("anna")
    assert CONTENT in dovecot.mailbox("bert")
    assert dovecot.mailbox("full") == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_postfix_lets_in_who_dovecot_knows(postfix: Postfix, dovecot: Dovecot, mechanism: str) -> None:
    for password, code in ((PASSWORD, 235), ("wrong", 535)):
        with smtplib.SMTP(postfix.host, postfix.ports["auth"]) as client:
            client.ehlo()
            assert set(client.esmtp_features["auth"].split()) == set(MECHANISMS)
            client.esmtp_features["auth"] = mechanism
            try:
                answer = client.login("anna", password, initial_response_ok=False)[0]
            except smtplib.SMTPAuthenticationError as error:
                answer = error.smtp_code
        assert answer == code


def test_postfix_offers_login_behind_starttls_only_where_told(
    postfix: Postfix, dovecot: Dovecot, certificates: Certificates
) -> None:
    with smtplib.SMTP("localhost", postfix.ports["auth_starttls"]) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        client.starttls(context=ssl.create_default_context(cafile=str(certificates.trusted)))
        client.ehlo()
        assert client.login("anna", PASSWORD)[0] == 235


def test_smtp_source_finds_a_port_to_measure_against(postfix: Postfix, servers_tree: Tree) -> None:
    port = postfix.ports["pipelining_chunking"]
    done = subprocess.run(
        [
            str(servers_tree.root / "bin" / "smtp-source"),
            *("-d", "-s", "2", "-m", "20", "-f", SENDER, "-t", "a@discard.example"),
            f"{postfix.host}:{port}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
