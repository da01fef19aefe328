"""
Tests that nothing of Twisted's ESMTPClient is reached, and that it is one for its users all the same.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail.smtp import CramMD5ClientAuthenticator, ESMTPClient, SMTPClient
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from zope.interface.verify import verifyObject

from tests.client.memory import Network
from tests.client.sessions import HOST, Session, terms
from twisted_smtpclient import ExtensionUnsupported, PipeliningESMTPClient, Server, TLSMode
from twisted_smtpclient.client.base import KEPT, UNREACHED

#: What every object has, and what is no behavior of a session.
CONSTRUCTION = frozenset({"__init__", "__getattr__", "__setattr__", "__repr__", "__init_subclass__"})


def behavior() -> list[tuple[str, str]]:
    """Each class behind ESMTPClient, and each of its methods and properties."""
    found = []
    for klass in inspect.getmro(ESMTPClient):
        for name, value in vars(klass).items():
            callable_or_computed = callable(value) or isinstance(value, property | staticmethod | classmethod)
            if klass is not object and callable_or_computed and not inspect.isclass(value):
                found.append((klass.__name__, name))
    return found


def test_the_walk_over_the_base_sees_its_mixins_too() -> None:
    classes = {klass for klass, _ in behavior()}
    assert {"ESMTPClient", "SMTPClient", "LineReceiver", "TimeoutMixin", "_PauseableMixin"} <= classes
    assert len(behavior()) > 60


@pytest.mark.parametrize(("klass", "name"), behavior())
def test_no_method_of_the_base_can_be_entered(klass: str, name: str) -> None:
    if name.startswith("__"):
        # zope's declarations and object's own; the base's two traps are asked for below.
        assert name in CONSTRUCTION or name.startswith(("__provide", "__implement"))
        return
    if name in KEPT:
        return
    method: Any = inspect.getattr_static(PipeliningESMTPClient, name)
    if name in UNREACHED:
        with pytest.raises(AssertionError, match=f"^{name} is Twisted's ESMTPClient's own"):
            getattr(PipeliningESMTPClient(reactor=Clock()), name)(1, 2, three=3)
    else:
        assert method.__module__.startswith("twisted_smtpclient."), f"{klass}.{name} is still the base's"


def test_what_is_kept_and_what_is_replaced_exists_in_the_base() -> None:
    names = {name for _, name in behavior()}
    assert names >= set(UNREACHED)
    assert not set(UNREACHED) & KEPT


def test_what_is_unreached_says_so_in_its_documentation() -> None:
    assert PipeliningESMTPClient.smtpState_data.__name__ == "smtpState_data"
    assert PipeliningESMTPClient.smtpState_data.__doc__ == "Not used; raises."


def test_a_session_is_an_esmtpclient_by_type() -> None:
    client = PipeliningESMTPClient(reactor=Clock())
    for base in (ESMTPClient, SMTPClient, LineReceiver, TimeoutMixin):
        assert isinstance(client, base)
    assert verifyObject(IHandshakeListener, client)


def test_the_constructor_takes_what_the_base_takes_in_its_order() -> None:
    context = object()
    client = PipeliningESMTPClient(b"secret", context, b"me.example", 5, reactor=Clock())
    base = ESMTPClient(b"secret", context, b"me.example", 5)
    for name in ("secret", "context", "identity", "authenticators", "heloFallback", "requireAuthentication"):
        assert getattr(client, name) == getattr(base, name), name


def test_an_identity_in_text_becomes_octets_as_in_the_base() -> None:
    assert PipeliningESMTPClient(identity="me.example", reactor=Clock()).identity == b"me.example"


def test_attributes_are_stored_as_pythons_own_are() -> None:
    client = PipeliningESMTPClient(reactor=Clock())
    assert type(client).__setattr__ is object.__setattr__
    client.requireTransportSecurity = True
    assert client.__dict__["requireTransportSecurity"] is True


def test_properties_work_although_the_base_stores_past_them() -> None:
    client = PipeliningESMTPClient(reactor=Clock())
    assert client.tlsMode is False
    with pytest.raises(AttributeError):
        client.tlsMode = True  # type: ignore[misc]  # it is read only, which is the point
    with pytest.raises(AttributeError):
        client.accepts = False  # type: ignore[misc]  # the same


def test_an_attribute_that_does_not_exist_is_told_by_its_name() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = PipeliningESMTPClient(reactor=Clock()).no_such_thing


def test_the_log_that_keeps_passwords_is_off() -> None:
    assert PipeliningESMTPClient(reactor=Clock()).debug is False


def test_authenticators_are_registered_as_with_the_base() -> None:
    client = PipeliningESMTPClient(b"secret", reactor=Clock())
    ours = CramMD5ClientAuthenticator(b"me")
    client.registerAuthenticator(ours)  # type: ignore[no-untyped-call]  # the base's
    assert client.authenticators == [ours]


@pytest.mark.parametrize(
    ("context", "required", "mode"),
    [
        (None, False, TLSMode.NO),
        (object(), False, TLSMode.TRY),
        (None, True, TLSMode.DEPEND),
        (object(), True, TLSMode.DEPEND),
    ],
)
def test_the_bases_switches_make_the_terms_where_none_are_given(
    context: object, required: bool, mode: TLSMode
) -> None:
    client = PipeliningESMTPClient(contextFactory=context, reactor=Clock())
    client.requireTransportSecurity = required
    assert client.server.tls is mode


def test_terms_that_are_given_are_the_terms() -> None:
    server = Server(host=HOST, tls=TLSMode.NO)
    assert PipeliningESMTPClient(server=server, reactor=Clock()).server is server


def test_required_transport_security_refuses_a_server_without_starttls() -> None:
    client = PipeliningESMTPClient(None, None, b"me.example", reactor=Network())
    client.requireTransportSecurity = True
    session = Session(client=client)
    # Its clock is that of the session's own network, which has no part in this.
    assert session.open(b"PIPELINING") == b"QUIT\r\n"
    assert isinstance(session.ready.error, ExtensionUnsupported)


def test_helo_follows_where_the_fallback_is_on() -> None:
    session = Session(terms(helo="me.example"))
    session.say(b"220 hi")
    assert session.say(b"502 what?") == b"HELO me.example\r\n"


def test_helo_does_not_follow_where_the_fallback_is_off() -> None:
    client = PipeliningESMTPClient(server=terms(helo="me.example"), reactor=Network())
    client.heloFallback = False
    session = Session(client=client)
    session.say(b"220 hi")
    assert session.say(b"502 what?") == b"QUIT\r\n"


def test_a_transport_without_tcps_options_will_do() -> None:
    transport = StringTransport()
    client = PipeliningESMTPClient(server=terms(helo="me.example"), reactor=Network())
    client.makeConnection(transport)  # type: ignore[no-untyped-call]  # the base's
    client.dataReceived(b"220 hi\r\n")
    assert transport.value() == b"EHLO me.example\r\n"
    client.dataReceived(b"what?\r\n")
    assert transport.disconnecting
