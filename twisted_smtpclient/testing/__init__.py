"""
For tests, demonstrations and documentation: a server that takes mail and misbehaves when told to.

.. code-block:: python

    from twisted_smtpclient.testing import Fault, Sink

    sink = Sink(reactor, refuse={"b@example.org": "550 5.1.1 No such user"})
    await sink.listen()
    ...  # send something to 127.0.0.1, sink.port
    mail = await sink.mail()
    assert mail.addresses == ["a@example.org"]
    assert mail.session.flights == 2
    assert sink.violations == []
    await sink.stop()

The sink shares no line of code with the client: what reads and judges the
client's octets here was written by itself.
"""

from __future__ import annotations

from . import lies
from .certificates import Certificates, make_certificates
from .faults import Action, Fault, Stage
from .records import Addressee, Attempt, Closed, Login, Mail, Session
from .sink import Sink

__all__ = [
    "Action",
    "Addressee",
    "Attempt",
    "Certificates",
    "Closed",
    "Fault",
    "Login",
    "Mail",
    "Session",
    "Sink",
    "Stage",
    "lies",
    "make_certificates",
]
