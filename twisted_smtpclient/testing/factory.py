"""What makes the protocols of a sink's connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from .faults import Fault
from .protocol import SinkProtocol


class SinkFactory(Factory):
    """
    :param build: makes a protocol; a fault takes the place of its handshake.
    """

    noisy = False

    def __init__(self, build: Callable[[Fault | None], SinkProtocol]) -> None:
        self.build = build

    def buildProtocol(self, addr: IAddress | None) -> SinkProtocol:
        return self.build(None)


class ImplicitTLSFactory(Factory):
    """
    TLS from the first octet, unless a fault takes the handshake's place.

    :param take_fault: gives the fault of the next handshake.
    """

    noisy = False

    def __init__(
        self, plain: SinkFactory, tls: TLSMemoryBIOFactory, take_fault: Callable[[], Fault | None]
    ) -> None:
        self._plain = plain
        self._tls = tls
        self._take_fault = take_fault

    def buildProtocol(self, addr: IAddress | None) -> Any:
        fault = self._take_fault()
        return self._tls.buildProtocol(addr) if fault is None else self._plain.build(fault)
